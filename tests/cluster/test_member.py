"""Records of members merge to the same everywhere, whatever the order in which they are heard."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actorkit.cluster.events import (
    ClusterEvent,
    MemberDown,
    MemberJoined,
    MemberLeaving,
    MemberLeft,
    MemberReachable,
    MemberUnreachable,
    MemberUp,
    events_of,
)
from actorkit.cluster.member import TRANSITIONS, Change, Member, Reachability, Status, after, merge
from actorkit.cluster.messages import MESSAGES
from actorkit.cluster.settings import GossipSettings
from actorkit.cluster.view import View
from actorkit.ids import NodeId
from actorkit.wire.codec import Codec
from tests.cluster.strategies import reports

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
ME = Member(NodeId("me", "1"), "me:9080", status=Status.UP)


@UNHURRIED
@given(one=reports(), other=reports())
def test_merging_is_commutative(one: Member, other: Member) -> None:
    assert merge(one, other) == merge(other, one)


@UNHURRIED
@given(one=reports(), two=reports(), three=reports())
def test_merging_is_associative(one: Member, two: Member, three: Member) -> None:
    assert merge(merge(one, two), three) == merge(one, merge(two, three))


@UNHURRIED
@given(one=reports(), other=reports())
def test_merging_is_idempotent_and_says_so(one: Member, other: Member) -> None:
    merged = merge(one, other)
    assert merge(one, one) is one
    assert merge(merged, other) is merged
    assert merge(merged, one) is merged


@UNHURRIED
@given(one=reports(), other=reports())
def test_a_record_never_goes_back(one: Member, other: Member) -> None:
    merged = merge(one, other)
    assert merged.status >= one.status
    assert (merged.version, merged.reachability) >= (one.version, one.reachability)


def heard(heard: Sequence[Member]) -> View:
    view = View(ME, GossipSettings())
    for report in heard:
        view.put(10.0, report)
    return view


@UNHURRIED
@given(said=st.lists(reports(nodes=4), max_size=12), data=st.data())
def test_views_that_have_heard_the_same_are_the_same(said: list[Member], data: st.DataObject) -> None:
    again = data.draw(st.permutations(said + data.draw(st.lists(st.sampled_from(said)) if said else st.just([]))))
    one, other = heard(said), heard(again)
    assert one.digest == other.digest
    assert {each.node: each for each in one} == {each.node: each for each in other}
    assert all(one.is_gone(each.node) == other.is_gone(each.node) for each in said)


@UNHURRIED
@given(said=st.lists(reports(nodes=3), max_size=12))
def test_who_is_gone_is_never_a_member_again(said: list[Member]) -> None:
    view = View(ME, GossipSettings())
    gone: set[NodeId] = set()
    for report in said:
        view.put(10.0, report)
        gone |= {report.node} if report.gone else set()
        assert not gone & {each.node for each in view}


@UNHURRIED
@given(said=st.lists(reports(nodes=2), max_size=12))
def test_events_of_a_member_tell_its_life_in_order(said: list[Member]) -> None:
    view = View(ME, GossipSettings())
    told: dict[NodeId, list[type[ClusterEvent]]] = {}
    for report in said:
        if (change := view.put(10.0, report)) is not None:
            told.setdefault(report.node, []).extend(type(event) for event in events_of(*change))
    for kinds in told.values():
        life = [kind for kind in kinds if kind not in (MemberReachable, MemberUnreachable)]
        order = [MemberJoined, MemberUp, MemberLeaving, MemberLeft, MemberDown]
        assert [order.index(kind) for kind in life] == sorted({order.index(kind) for kind in life})
        assert sum(kind in (MemberLeft, MemberDown) for kind in life) <= 1
        ways = [kind for kind in kinds if kind in (MemberReachable, MemberUnreachable)]
        assert all(kind is (MemberReachable if place % 2 else MemberUnreachable) for place, kind in enumerate(ways))


def test_every_step_leads_on_and_nothing_leads_out_of_being_gone() -> None:
    for (status, _), following in TRANSITIONS.items():
        assert following > status
        assert not status.gone
    assert {status for status, _ in TRANSITIONS} == {Status.JOINING, Status.UP, Status.LEAVING}
    assert all((status, Change.DECLARED_DOWN) in TRANSITIONS for status in Status if not status.gone)


@pytest.mark.parametrize(("status", "change"), [pair for pair in product(Status, Change) if pair not in TRANSITIONS])
def test_a_step_that_does_not_exist_is_an_error(status: Status, change: Change) -> None:
    with pytest.raises(KeyError):
        after(status, change)


def test_the_gone_are_forgotten_after_a_time_by_all_at_once() -> None:
    forgetful = GossipSettings(tombstone_s=100.0)
    first, second = View(ME, forgetful), View(ME, forgetful)
    gone = Member(NodeId("n", "1"), "n:9080", status=Status.DOWN)
    first.put(0.0, gone)
    told = first.record(60.0, gone.node)
    assert told is not None
    assert told.gone_s == 60.0
    second.put(60.0, told)
    for view in (first, second):
        view.forget(99.9)
        assert view.is_gone(gone.node)
        view.forget(100.1)
        assert not view.is_gone(gone.node)
    assert first.digest == second.digest == View(ME, forgetful).digest
    assert second.put(101.0, msgspec.structs.replace(gone, gone_s=100.5)) is None


def test_only_so_many_of_the_gone_are_remembered() -> None:
    view = View(ME, GossipSettings(tombstones_max=3))
    for number in range(5):
        view.put(float(number), Member(NodeId(f"n{number}", "1"), "n:9080", status=Status.LEFT))
    assert [number for number in range(5) if view.is_gone(NodeId(f"n{number}", "1"))] == [2, 3, 4]


@UNHURRIED
@given(said=st.lists(reports(nodes=3), max_size=8))
def test_messages_pass_the_codec(said: list[Member]) -> None:
    codec = Codec()
    for message_type in MESSAGES:
        codec.declare(message_type)
        values = {
            "sequence": 1,
            "target": ME.node,
            "node": ME.node,
            "address": "a:1",
            "updates": tuple(said),
            "digest": (1 << 64) - 1,
            "members": tuple(said),
            "answer": True,
            "member": ME,
            "seed": "a:1",
            "founder": True,
            "founders": ("a:1",),
            "why": "because",
        }
        fields = {name: values[name] for name in message_type.__struct_fields__}
        if message_type.__name__ in ("Join", "Welcome"):
            fields["members"] = 1 if message_type.__name__ == "Welcome" else True
        message = message_type(**fields)
        assert codec.decode(codec.encode(message)) == message


def test_a_suspect_counts_as_reachable() -> None:
    assert msgspec.structs.replace(ME, reachability=Reachability.SUSPECT).reachable
    assert not msgspec.structs.replace(ME, reachability=Reachability.UNREACHABLE).reachable

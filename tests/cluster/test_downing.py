"""Who goes on when a cluster is cut in two."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actorkit.cluster.downing import (
    Decision,
    Downing,
    Facts,
    KeepMajority,
    LeaseMajority,
    StaticQuorum,
    Verdict,
    downing_of,
    is_majority,
)
from actorkit.cluster.member import Member, Reachability, Status
from actorkit.cluster.partition import PartitionWatch
from actorkit.cluster.settings import DowningSettings
from actorkit.errors import ConfigurationError
from actorkit.ids import NodeId


def up(number: int) -> Member:
    return Member(NodeId(f"n{number}", "1"), f"n{number}:9080", status=Status.UP)


def seen(member: Member, reachable: bool) -> Member:
    return member if reachable else msgspec.structs.replace(member, reachability=Reachability.UNREACHABLE)


def facts(members: int, reached: Iterable[int]) -> Facts:
    """As one of those reached sees it."""
    reached = sorted(reached)
    return Facts(up(reached[0]).node, tuple(seen(up(number), number in reached) for number in range(members)))


SIDES = st.integers(1, 12).flatmap(lambda count: st.lists(st.integers(0, 2), min_size=count, max_size=count))


@settings(deadline=None)
@given(sides=SIDES)
def test_of_any_sides_at_most_one_keeps_the_majority(sides: list[int]) -> None:
    views = [facts(len(sides), (n for n, s in enumerate(sides) if s == side)) for side in set(sides)]
    assert sum(KeepMajority().has_majority(view) for view in views) <= 1
    goes_on = [view for view in views if KeepMajority().decide(view).verdict is Verdict.DOWN_UNREACHABLE]
    assert len(goes_on) <= 1
    if len(views) == 2:
        assert len(goes_on) == 1


@settings(deadline=None)
@given(sides=SIDES)
def test_of_any_sides_at_most_one_has_the_quorum(sides: list[int]) -> None:
    strategy = StaticQuorum(len(sides) // 2 + 1)
    views = [facts(len(sides), (n for n, s in enumerate(sides) if s == side)) for side in set(sides)]
    assert sum(strategy.has_majority(view) for view in views) <= 1


@settings(deadline=None)
@given(sides=SIDES)
def test_one_node_of_each_side_asks_for_the_lease_and_the_larger_side_first(sides: list[int]) -> None:
    strategy = LeaseMajority(2.0)
    for side in set(sides):
        members = [number for number, each in enumerate(sides) if each == side]
        view = facts(len(sides), members)
        decisions = [strategy.decide(Facts(up(number).node, view.members)) for number in members]
        asks = [each for each in decisions if each.verdict is Verdict.ASK_LEASE]
        assert len(asks) == 1
        assert (asks[0].delay_s == 0.0) is strategy.has_majority(view)
        assert all(each.verdict is Verdict.WAIT for each in decisions if each is not asks[0])


@settings(deadline=None)
@given(
    voters=st.sets(st.integers(0, 20), min_size=1), one=st.sets(st.integers(0, 20)), other=st.sets(st.integers(0, 20))
)
def test_two_disjoint_sets_are_never_both_a_majority(voters: set[int], one: set[int], other: set[int]) -> None:
    as_nodes = [frozenset(NodeId(f"n{n}", "1") for n in each) for each in (voters, one, other - one)]
    assert not (is_majority(as_nodes[1], as_nodes[0]) and is_majority(as_nodes[2], as_nodes[0]))


def test_of_two_halves_the_one_with_the_lowest_name_goes_on() -> None:
    assert KeepMajority().decide(facts(4, [0, 3])).verdict is Verdict.DOWN_UNREACHABLE
    assert KeepMajority().decide(facts(4, [1, 2])).verdict is Verdict.DOWN_MYSELF


def test_joining_members_do_not_help_a_side_and_count_for_the_other() -> None:
    joining = [msgspec.structs.replace(up(number), status=Status.JOINING) for number in (5, 6, 7)]
    near = Facts(up(0).node, (up(0), up(1), seen(up(2), False), *joining))
    assert (len(near.visible), len(near.voters)) == (2, 3)
    far = Facts(up(0).node, (up(0), up(1), seen(up(2), False), *(seen(each, False) for each in joining)))
    assert (len(far.visible), len(far.voters)) == (2, 6)
    assert not KeepMajority().has_majority(far)


def test_settings_name_the_strategy_and_a_quorum_has_to_be_given() -> None:
    assert isinstance(downing_of(DowningSettings()), KeepMajority)
    assert isinstance(downing_of(DowningSettings(strategy="lease-majority")), LeaseMajority)
    assert isinstance(downing_of(DowningSettings(strategy="static-quorum", quorum=2)), StaticQuorum)
    with pytest.raises(ConfigurationError, match="quorum of at least 1"):
        downing_of(DowningSettings(strategy="static-quorum"))


def watch(strategy: Downing | None = None) -> PartitionWatch:
    return PartitionWatch(strategy or KeepMajority(), stable_after_s=5.0)


def verdict(decision: Decision | None) -> Verdict | None:
    return None if decision is None else decision.verdict


def test_nothing_is_decided_before_the_view_is_stable() -> None:
    partition = watch()
    partition.observe(0.0, facts(5, range(5)))
    assert partition.due_s == float("inf")
    partition.observe(10.0, facts(5, [0, 1, 2, 3]))
    assert partition.due_s == 15.0
    partition.observe(12.0, facts(5, [0, 1, 2]))
    assert partition.decide(16.9) is None
    assert verdict(partition.decide(17.0)) is Verdict.DOWN_UNREACHABLE
    assert partition.due_s == float("inf")


def test_facts_that_are_the_same_again_do_not_begin_anew() -> None:
    partition = watch()
    for now_s in range(5):
        partition.observe(float(now_s), facts(5, [0, 1, 2]))
    assert partition.due_s == 5.0


def test_a_view_that_never_rests_is_decided_on_after_a_time() -> None:
    partition = watch()
    for tenth in range(1000):
        now_s = tenth / 10
        partition.observe(now_s, facts(5, [0, 1, 2] if tenth // 10 % 2 else [0, 1, 2, 3]))
        if verdict(partition.decide(now_s)) is Verdict.DOWN_UNREACHABLE:
            assert now_s == pytest.approx(20.0)
            return
    pytest.fail("nothing was decided")


def test_a_partition_that_heals_in_time_costs_nothing() -> None:
    partition = watch()
    partition.observe(0.0, facts(5, [0, 1]))
    partition.observe(4.0, facts(5, range(5)))
    assert partition.decide(100.0) is None


def test_the_lease_decides_and_an_answer_to_an_old_question_does_not() -> None:
    partition = watch(LeaseMajority(2.0))
    partition.observe(0.0, facts(4, [1, 2]))
    assert partition.decide(5.0) is None
    assert partition.lease_wanted is None
    assert partition.due_s == 7.0
    assert partition.decide(7.0) is None
    first = partition.lease_wanted
    assert first is not None
    partition.observe(8.0, facts(4, [1]))
    assert partition.lease_answered(first, granted=True) is None
    partition.decide(13.0)
    partition.decide(15.0)
    second = partition.lease_wanted
    assert second is not None
    assert verdict(partition.lease_answered(second, granted=True)) is Verdict.DOWN_UNREACHABLE


def test_the_larger_side_asks_at_once_and_a_refusal_ends_the_whole_side() -> None:
    partition = watch(LeaseMajority(2.0))
    partition.observe(0.0, facts(3, [1, 2]))
    partition.decide(5.0)
    assert partition.lease_wanted is not None
    assert verdict(partition.lease_answered(partition.lease_wanted, granted=False)) is Verdict.DOWN_MY_SIDE

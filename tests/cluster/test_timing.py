"""How long is waited for answers and objections, and how often news is passed on."""

from __future__ import annotations

from math import log
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actorkit.cluster.failure_detector import FailureDetector
from actorkit.cluster.gossip import Dissemination, transmissions
from actorkit.cluster.member import Member, Reachability, Status
from actorkit.cluster.settings import GossipSettings, SuspicionSettings
from actorkit.cluster.suspicion import Suspicions, timeout_s
from actorkit.cluster.view import View
from actorkit.errors import ConfigurationError
from actorkit.ids import NodeId

SUSPICION = SuspicionSettings()
TIMES = st.lists(st.floats(0.0, 2.0), min_size=1, max_size=300)


def detector(times: list[float]) -> FailureDetector:
    detector = FailureDetector(window=200, deviation_min_s=0.025)
    for each in times:
        detector.heard(each)
    return detector


@settings(deadline=None)
@given(times=TIMES, silences=st.lists(st.floats(0.0, 5.0), min_size=2, max_size=10))
def test_the_longer_the_silence_the_greater_is_phi(times: list[float], silences: list[float]) -> None:
    learned = detector(times)
    phis = [learned.phi(silence) for silence in sorted(silences)]
    assert phis == sorted(phis)


@settings(deadline=None)
@given(times=TIMES, threshold=st.floats(0.5, 12.0))
def test_the_timeout_is_where_phi_reaches_the_threshold(times: list[float], threshold: float) -> None:
    learned = detector(times)
    assert learned.phi(learned.timeout_s(threshold)) == pytest.approx(threshold, rel=1e-3)


@settings(deadline=None)
@given(times=TIMES)
def test_only_the_window_counts(times: list[float]) -> None:
    old, fresh = detector([9.0] * 50 + times + [0.1] * 200), detector([0.1] * 200)
    assert old.mean_s == pytest.approx(fresh.mean_s, abs=1e-9)
    assert old.timeout_s(5.0) == pytest.approx(fresh.timeout_s(5.0), abs=1e-6)


def test_a_slow_network_is_given_more_time() -> None:
    random = Random(1)
    quick = detector([random.uniform(0.001, 0.005) for _ in range(200)])
    slow = detector([random.uniform(0.0, 0.2) + random.uniform(0.0, 0.2) for _ in range(200)])
    assert quick.timeout_s(5.0) < 0.15
    assert 0.45 < slow.timeout_s(5.0) < 0.7


@settings(deadline=None)
@given(members=st.integers(1, 5000), confirmations=st.integers(0, 6))
def test_each_confirmation_shortens_a_suspicion(members: int, confirmations: int) -> None:
    now_s = timeout_s(confirmations, members=members, settings=SUSPICION)
    assert timeout_s(confirmations + 1, members=members, settings=SUSPICION) <= now_s
    assert SUSPICION.timeout_s <= now_s <= timeout_s(0, members=10_000, settings=SUSPICION)


def test_where_nobody_can_confirm_nobody_is_waited_for() -> None:
    assert timeout_s(0, members=2, settings=SUSPICION) == SUSPICION.timeout_s
    assert timeout_s(0, members=3, settings=SUSPICION) == SUSPICION.timeout_s * SUSPICION.timeout_max_factor
    assert timeout_s(1, members=3, settings=SUSPICION) == SUSPICION.timeout_s


def test_no_more_confirmations_can_be_asked_for_than_are_kept() -> None:
    with pytest.raises(ConfigurationError, match="0 to 3 confirmations"):
        Suspicions(SuspicionSettings(confirmations=4))


def member(number: int, **more: object) -> Member:
    return Member(NodeId(f"n{number:03}", "1"), f"n{number}:9080", status=Status.UP, **more)  # type: ignore[arg-type]


def test_a_suspicion_that_was_confirmed_late_is_over_at_once_and_an_objection_ends_it() -> None:
    suspicions = Suspicions(SUSPICION)
    suspect = member(1, reachability=Reachability.SUSPECT, accusers=("a",))
    suspicions.observe(0.0, suspect)
    assert not list(suspicions.over(2.0, 20))
    suspicions.observe(2.0, member(1, reachability=Reachability.SUSPECT, accusers=("a", "b", "c", "d")))
    assert [each.node for each in suspicions.over(2.0, 20)] == [suspect.node]
    suspicions.observe(2.0, member(1, version=1))
    assert len(suspicions) == 0
    assert suspicions.due_s(20) == float("inf")


def test_time_in_which_this_node_stood_still_counts_against_nobody() -> None:
    suspicions = Suspicions(SUSPICION)
    suspicions.observe(0.0, member(1, reachability=Reachability.SUSPECT, accusers=("a",)))
    due_s = suspicions.due_s(20)
    suspicions.postpone(7.0)
    assert suspicions.due_s(20) == due_s + 7.0


def dissemination(members: int) -> Dissemination:
    view = View(member(0), GossipSettings())
    news = Dissemination(view, GossipSettings())
    for number in range(1, members):
        view.put(0.0, member(number))
        news.add(NodeId(f"n{number:03}", "1"))
    return news


@settings(deadline=None)
@given(members=st.integers(2, 60))
def test_each_piece_of_news_is_passed_on_so_often_and_no_more(members: int) -> None:
    news = dissemination(members)
    told: dict[NodeId, int] = {}
    while len(news):
        updates = news.take(0.0)
        assert len(updates) <= GossipSettings().updates_max
        for each in updates:
            told[each.node] = told.get(each.node, 0) + 1
        # What was sent least goes first, so all keep step.
        assert max(told.values()) - min(told.values()) <= 1 or len(told) < members - 1
    limit = transmissions(members, GossipSettings())
    assert set(told.values()) == {limit}
    assert limit >= 3 * log(members + 1)


def test_who_is_accused_hears_of_it_first_and_every_time() -> None:
    view = View(member(0), GossipSettings())
    news = Dissemination(view, GossipSettings())
    view.put(0.0, member(1, reachability=Reachability.SUSPECT, accusers=("a",)))
    for _ in range(50):
        assert [each.node.name for each in news.take(0.0, NodeId("n001", "1"))] == ["n001"]
    assert news.take(0.0, NodeId("n002", "1")) == ()

"""Partitions, pauses and broken links: what is decided, and that nobody who is gone comes back."""

from __future__ import annotations

import pytest

from actorkit.cluster.events import Downed, MajorityLost, MemberDown, MemberReachable, MemberUnreachable
from actorkit.cluster.settings import ClusterSettings, DowningSettings
from tests.cluster.village import Life, Village

SEEDS = [f"n{number}:9080" for number in range(3)]


def cluster(village: Village, count: int) -> list[Life]:
    lives = [village.start(f"n{number}", SEEDS) for number in range(count)]
    village.converges(10.0)
    village.run(2.0)
    return lives


@pytest.mark.parametrize(("count", "small"), [(3, [0]), (5, [0, 1]), (4, [2, 3]), (7, [1, 3, 5])])
def test_the_smaller_side_loses_its_majority_and_then_stops(count: int, small: list[int]) -> None:
    village = Village(count)
    lives = cluster(village, count)
    lost = [lives[number] for number in small]
    kept = [life for life in lives if life not in lost]
    village.partition(lost, kept)
    village.run(4.0)
    assert not any(life.core.majority or life.downed for life in lost)
    assert all(life.core.majority for life in kept)
    for life in kept:
        assert {member.node for member in life.core.up} == {each.node for each in kept}
    village.run(8.0)
    assert all(life.downed for life in lost)
    assert village.living == kept
    assert village.one_cluster()


@pytest.mark.parametrize("seed", range(60))
def test_at_most_one_side_goes_on_whoever_joins_or_crashes_meanwhile(seed: int) -> None:
    village = Village(seed)
    random = village.random
    lives = cluster(village, random.randint(2, 8))
    extra = [f"x{number}" for number in range(random.randint(0, 8))]
    addresses = [life.address for life in lives] + [f"{name}:9080" for name in extra]
    one = {address for address in addresses if random.random() < 0.5}
    seeds = [life.address for life in lives]
    village.blocked = {(a, b) for a in addresses for b in addresses if (a in one) is not (b in one)}
    for name in extra:
        village.later(random.uniform(0.0, 6.0), lambda name=name: village.start(name, seeds))  # type: ignore[misc]
    if random.random() < 0.3:
        village.later(random.uniform(0.0, 4.0), lambda: village.crash(random.choice(lives)))
    village.loss = random.choice([0.0, 0.05])
    village.run(25.0)
    up = [life for life in village.living if life.up]
    assert len({life.address in one for life in up}) <= 1, up


def test_a_short_partition_heals_without_anybody_stopping() -> None:
    village = Village(1)
    lives = cluster(village, 5)
    village.partition(lives[:2], lives[2:])
    village.run(4.0)
    assert lives[0].seen(MajorityLost)
    village.heal()
    assert village.converges(10.0) < 3.0
    assert lives[0].seen(MemberReachable, lives[4].node)
    assert not any(life.seen(MemberDown) for life in lives)


def test_two_that_cannot_reach_each_other_stay_members_by_way_of_a_third() -> None:
    village = Village(1)
    lives = cluster(village, 3)
    village.partition([lives[0]], [lives[1]])
    village.run(120.0)
    assert village.one_cluster()
    assert not any(life.seen(MemberUnreachable) for life in lives)


@pytest.mark.parametrize("deaf", [True, False])
def test_a_node_that_only_hears_or_only_speaks_is_lost_to_both_sides(deaf: bool) -> None:
    village = Village(1)
    lives = cluster(village, 4)
    others = [life.address for life in lives[1:]]
    village.blocked = {(each, lives[0].address) if deaf else (lives[0].address, each) for each in others}
    village.run(15.0)
    assert lives[0].downed
    assert not lives[0].core.majority
    assert village.living == lives[1:]
    assert village.one_cluster()


@pytest.mark.parametrize("seed", range(5))
def test_a_link_that_flaps_downs_nobody(seed: int) -> None:
    village = Village(seed)
    lives = cluster(village, 5)
    for number in range(60):
        village.later(number * 1.0, lambda: village.partition([lives[0]], lives[1:]))
        village.later(number * 1.0 + 0.4, village.heal)
    village.run(62.0)
    assert village.converges(5.0) < 3.0
    assert not any(life.downed for life in lives)


def test_a_paused_node_is_downed_and_stops_when_it_hears_of_it() -> None:
    village = Village(1)
    lives = cluster(village, 3)
    village.pause(lives[2], 20.0)
    village.run(19.9)
    assert all(life.seen(MemberDown, lives[2].node) for life in lives[:2])
    village.run(1.5)
    assert lives[2].seen(Downed)
    assert not lives[2].seen(MemberUnreachable)
    village.crash(lives[2])
    village.start("n2", SEEDS)
    village.converges(5.0)


def test_a_node_that_paused_blames_nobody_for_its_own_silence() -> None:
    village = Village(1)
    lives = cluster(village, 5)
    village.pause(lives[1], 4.0)
    village.run(15.0)
    assert village.one_cluster()
    assert not lives[1].seen(MemberUnreachable)
    assert lives[0].seen(MemberReachable, lives[1].node)


@pytest.mark.parametrize("seed", range(10))
def test_a_node_that_stood_still_and_heard_nothing_accuses_nobody(seed: int) -> None:
    village = Village(seed)
    lives = cluster(village, 5)
    # Any moment, so that it may just be waiting for an answer.
    village.run(village.random.random() + 0.001)
    while not lives[1].core._prober._out:
        village.run(0.001)
    village.pause(lives[1], 0.8, deaf=True)
    village.run(6.0)
    assert village.one_cluster()
    assert [life.core.myself.version for life in lives if life is not lives[1]] == [0] * 4


def test_a_node_that_has_not_run_for_too_long_stops_by_itself() -> None:
    village = Village(1)
    alone = village.start("n0")
    village.run(1.0)
    village.pause(alone, 1700.0)
    village.run(1701.0)
    assert alone.up
    village.pause(alone, 1900.0)
    village.run(1900.001)
    assert alone.downed


def test_without_a_majority_by_quorum_all_stop() -> None:
    settings = ClusterSettings(downing=DowningSettings(strategy="static-quorum", quorum=3))
    village = Village(1, settings=settings)
    lives = cluster(village, 5)
    village.partition(lives[:3], lives[3:])
    village.run(12.0)
    assert village.living == lives[:3]
    village.crash(lives[0])
    village.run(12.0)
    assert village.living == []


@pytest.mark.parametrize(("small", "winner"), [([0], "small"), ([0], "large")])
def test_the_side_that_has_the_lease_goes_on(small: list[int], winner: str) -> None:
    village = Village(1, settings=ClusterSettings(downing=DowningSettings(strategy="lease-majority")))
    lives = cluster(village, 5)
    lost = [lives[number] for number in small]
    kept = [life for life in lives if life not in lost]
    village.partition(lost, kept)
    asked: dict[tuple[str, int], float] = {}
    while village.now_s < 40.0:
        village.run(0.05)
        for life in village.living:
            number = life.core.lease_wanted
            if number is not None and (life.node.name, number) not in asked:
                asked[life.node.name, number] = village.now_s
                granted = (life in lost) is (winner == "small")
                village.act(
                    life,
                    lambda core, number=number, granted=granted: core.lease_answered(  # type: ignore[misc]
                        village.now_s, number, granted=granted
                    ),
                )
    assert [name for name, _ in asked] == ["n1", "n0"]
    assert village.living == (lost if winner == "small" else kept)
    assert village.one_cluster()

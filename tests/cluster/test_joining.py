"""How nodes find their cluster: together, one after the other, again, and under a name that is taken."""

from __future__ import annotations

import pytest

from actorkit.cluster.events import (
    ClusterFormed,
    Downed,
    JoinRefused,
    MemberDown,
    MemberLeaving,
    MemberLeft,
    MemberUnreachable,
    MemberUp,
)
from actorkit.cluster.member import Status
from actorkit.cluster.settings import ClusterSettings, JoiningSettings
from tests.cluster.village import Life, Village

SEEDS = [f"n{number}:9080" for number in range(3)]


def formed(village: Village) -> list[str]:
    return [life.node.name for life in village.lives if life.seen(ClusterFormed)]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 30])
def test_nodes_that_start_together_form_one_cluster_at_once(count: int) -> None:
    village = Village(count)
    seeds = [f"n{number}:9080" for number in range(count)]
    for number in range(count):
        village.start(f"n{number}", seeds)
    assert village.converges(5.0) < 2.5
    village.run(20.0)
    assert village.one_cluster()
    assert formed(village) == ["n0"]


@pytest.mark.parametrize("seed", range(40))
def test_nodes_that_start_together_form_one_cluster_on_a_bad_network(seed: int) -> None:
    village = Village(seed)
    village.loss, village.duplicates, village.delay_s = 0.2, 0.2, (0.0, 0.4)
    count = village.random.randint(2, 9)
    seeds = [f"n{number}:9080" for number in range(village.random.randint(2, count))]
    for number in range(count):
        village.later(village.random.uniform(0.0, 2.0), lambda name=f"n{number}": village.start(name, seeds))  # type: ignore[misc]
    village.run(6.0)
    village.heal()
    village.converges(20.0)
    village.run(20.0)
    assert village.one_cluster()


@pytest.mark.parametrize("seed", range(20))
def test_clusters_that_began_on_two_sides_of_a_partition_become_one(seed: int) -> None:
    village = Village(seed)
    seeds = [f"n{number}:9080" for number in range(5)]
    village.blocked = {(a, b) for a in seeds for b in seeds if (a < "n2") is not (b < "n2")}
    for number in range(5):
        village.start(f"n{number}", seeds)
    village.run(15.0)
    assert sorted(formed(village)) == ["n0", "n2"]
    village.heal()
    village.converges(20.0)
    assert not any(life.downed for life in village.lives)


def test_a_node_without_others_for_seeds_begins_a_cluster_at_once() -> None:
    village = Village(1)
    alone, itself = village.start("a"), village.start("b", ["b:9080"])
    assert alone.up
    assert itself.up
    assert alone.core.majority


def test_a_seed_waits_for_most_of_the_seeds_and_begins_without_them_after_a_time() -> None:
    village = Village(1)
    life = village.start("n1", SEEDS)
    village.run(9.5)
    assert life.core.myself.status is Status.JOINING
    assert "no cluster found yet: of the seeds n0:9080, n2:9080" in life.core.joining_state
    village.run(1.0)
    assert life.up


def test_a_majority_of_the_seeds_is_enough_after_a_shorter_time() -> None:
    village = Village(1)
    for name in ("n2", "n1"):
        village.start(name, SEEDS)
    assert 1.5 < village.converges(5.0) < 3.5
    assert formed(village) == ["n1"]


def test_a_node_that_is_no_seed_never_begins_a_cluster() -> None:
    village = Village(1)
    life = village.start("x", SEEDS)
    village.run(60.0)
    assert life.core.myself.status is Status.JOINING
    village.start("n0", ["n0:9080"])
    village.converges(3.0)


def test_waiting_for_ever_can_be_asked_for() -> None:
    village = Village(1, settings=ClusterSettings(joining=JoiningSettings(form_alone_after_s=float("inf"))))
    life = village.start("n0", SEEDS)
    village.run(600.0)
    assert life.core.myself.status is Status.JOINING
    assert life.sent < 600 / 0.18 * 2


def test_a_seed_may_go_by_a_name_that_it_does_not_call_itself_by() -> None:
    village = Village(1)
    village.start("n0", ["alias:1"])
    village.at["alias:1"] = village.at["n0:9080"]
    # What it sends to its own alias comes back to it.
    village.run(0.5)
    assert village.at["n0:9080"].up
    life = village.start("n1", ["alias:1", "n1:9080"])
    village.converges(15.0)
    sent = life.sent
    village.run(10.0)
    assert (life.sent - sent) / 10 < 12


def cluster(village: Village, count: int = 3) -> list[Life]:
    lives = [village.start(f"n{number}", SEEDS) for number in range(count)]
    village.converges(5.0)
    village.run(2.0)
    return lives


@pytest.mark.parametrize("address", [None, "elsewhere:9080"])
def test_a_restart_under_the_same_name_replaces_the_old_life_at_once(address: str | None) -> None:
    village = Village(1)
    old = cluster(village)[1]
    village.crash(old)
    village.run(0.05)
    village.start("n1", SEEDS, address=address)
    # At another address nobody can prove that the old life is gone, so that it has the time of one probe to answer.
    assert village.converges(5.0) < (0.7 if address is None else 1.2)
    for life in village.living:
        if life.node.name != "n1":
            assert len(life.seen(MemberDown, old.node)) == 1


def test_a_seed_that_restarts_alone_finds_its_cluster_again() -> None:
    village = Village(1)
    first = village.start("n0", ["n0:9080"])
    for name in ("n1", "n2"):
        village.start(name, ["n0:9080"])
    village.converges(5.0)
    village.crash(first)
    village.start("n0", ["n0:9080"])
    village.converges(10.0)


def test_a_seed_that_restarts_alone_with_another_journal_stays_alone() -> None:
    village = Village(1)
    first = village.start("n0", ["n0:9080"], store="one")
    others = [village.start(name, ["n0:9080"], store="one") for name in ("n1", "n2")]
    village.converges(5.0)
    village.crash(first)
    village.run(10.0)
    stranger = village.start("n0", ["n0:9080"], store="another")
    village.run(60.0)
    assert [str(member.node) for member in stranger.core.members] == [str(stranger.node)]
    for life in others:
        assert {member.node for member in life.core.up} == {life.node for life in others}
    assert any(len(life.seen(JoinRefused)) == 1 for life in (stranger, *others))
    assert all(len(life.seen(JoinRefused)) <= 1 for life in (stranger, *others))


def test_a_name_that_a_living_node_has_is_refused_and_the_living_node_stays() -> None:
    village = Village(1)
    lives = cluster(village)
    village.start("n1", SEEDS, address="other:9080")
    twin = village.at["other:9080"]
    village.run(20.0)
    assert twin.core.myself.status is Status.JOINING
    assert twin.seen(JoinRefused)
    assert all(life.up for life in lives)
    village.crash(lives[1])
    village.run(5.0)
    assert twin.up


def test_a_late_request_of_an_old_life_harms_nobody() -> None:
    village = Village(1)
    lives = cluster(village)
    stray = village.new("n1")
    stray.alive = False
    join = stray.core._joining._join("n0:9080")
    village.act(lives[0], lambda core: core.handle(village.now_s, stray.node, stray.address, join))
    village.run(10.0)
    assert village.one_cluster()
    assert not any(life.seen(MemberDown) for life in lives)


def test_a_downed_incarnation_that_asks_to_join_is_told_so() -> None:
    village = Village(1)
    lives = cluster(village)
    old = lives[2]
    village.crash(old)
    village.run(15.0)
    assert all(life.seen(MemberDown, old.node) for life in lives[:2])
    old.alive = True
    old.core._joining.search_again(village.now_s)
    village._tick(old)
    village.run(2.0)
    assert old.seen(Downed)


def test_who_was_welcomed_by_a_cluster_that_is_no_more_looks_again() -> None:
    village = Village(3)
    first = village.start("a", ["a:9080"])
    second = village.start("b", ["a:9080", "b:9080"])
    village.run(5.0, until=lambda: second.core._joining.found)
    village.crash(first)
    village.converges(15.0)


def test_a_node_that_leaves_is_leaving_and_then_gone_everywhere_without_any_alarm() -> None:
    village = Village(1)
    lives = cluster(village)
    leaver = lives[0]
    village.act(leaver, lambda core: core.leave(village.now_s))
    village.act(leaver, lambda core: core.leave(village.now_s))
    village.run(1.0)
    for life in lives[1:]:
        assert life.seen(MemberLeaving, leaver.node)
        assert leaver.node not in {member.node for member in life.core.up}
        assert leaver.node in {member.node for member in life.core.members}
    village.act(leaver, lambda core: core.stop(village.now_s))
    village.run(0.5)
    leaver.alive = False
    village.run(10.0)
    assert village.one_cluster()
    for life in lives[1:]:
        assert life.seen(MemberLeft, leaver.node)
        assert not life.seen(MemberDown)


def test_a_node_that_stops_while_it_looks_for_a_cluster_ends_quietly() -> None:
    village = Village(1)
    life = village.start("n1", SEEDS)
    village.run(1.0)
    village.act(life, lambda core: core.leave(village.now_s))
    village.act(life, lambda core: core.stop(village.now_s))
    sent = life.sent
    village.run(30.0)
    assert life.sent == sent


@pytest.mark.parametrize("seed", range(20))
def test_a_node_that_leaves_before_it_is_up_never_was_for_anybody(seed: int) -> None:
    """Whenever it is told to leave: it is up and leaving for all, or neither for anybody."""
    village = Village(seed)
    lives = cluster(village)
    late = village.start("x", SEEDS)
    village.run(village.random.choice([0.001, 0.004, 0.01, 0.1]))
    was_up = late.up
    village.act(late, lambda core: core.leave(village.now_s))
    village.run(1.0)
    assert not late.up
    assert late.core.myself.status is (Status.LEAVING if was_up else Status.JOINING)
    village.act(late, lambda core: core.stop(village.now_s))
    village.run(0.5)
    late.alive = False
    village.run(5.0)
    for life in [late, *lives]:
        assert bool(life.seen(MemberUp, late.node)) is was_up
        assert bool(life.seen(MemberLeaving, late.node)) is was_up
    assert village.one_cluster()
    assert not any(life.seen(MemberDown) or life.seen(MemberUnreachable) for life in lives)


def test_a_seed_that_leaves_before_there_is_a_cluster_begins_none_and_keeps_nobody_from_it() -> None:
    village = Village(1)
    lowest = village.start("n0", SEEDS)
    village.run(0.5)
    village.act(lowest, lambda core: core.leave(village.now_s))
    others = [village.start(name, SEEDS) for name in ("n1", "n2")]
    village.run(5.0)
    assert all(life.up for life in others)
    assert lowest.core.myself.status is Status.JOINING
    assert not lowest.seen(MemberUp, lowest.node)

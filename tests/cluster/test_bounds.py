"""What the default settings reach: how soon a crash is known everywhere, how rare false alarms are, what it costs."""

from __future__ import annotations

import os

import pytest

from actorkit.cluster.events import MemberUnreachable
from tests.cluster.village import Village

RUNS = int(os.environ.get("CLUSTER_RUNS", "12"))


@pytest.mark.timeout(600)
def test_of_100_members_a_crash_is_known_everywhere_within_3_s() -> None:
    took_s: list[float] = []
    for seed in range(RUNS):
        village = Village(seed)
        lives = village.grown(100)
        victim, *others = village.random.sample(lives, len(lives))
        crashed_s = village.now_s
        village.crash(victim)
        village.run(3.0)
        seen = [life.seen(MemberUnreachable, victim.node) for life in others]
        assert all(seen), f"seed {seed}: {sum(not each for each in seen)} have not heard"
        took_s.append(max(each[0] for each in seen) - crashed_s)
        assert all(member.node == victim.node or member.reachable for life in others for member in life.core.members)
    print(f"known everywhere after {sorted(round(each, 2) for each in took_s)}")


@pytest.mark.parametrize("count", [2, 3, 5])
def test_of_few_members_a_crash_is_known_within_2_s(count: int) -> None:
    for seed in range(50):
        village = Village(seed)
        lives = village.grown(count)
        village.crash(lives[-1])
        village.run(2.0)
        assert all(life.seen(MemberUnreachable, lives[-1].node) for life in lives[:-1]), f"seed {seed}"


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("count", "for_s"), [(3, 3600.0), (100, 60.0)])
def test_loss_of_5_percent_and_jitter_of_200_ms_are_no_crash(count: int, for_s: float) -> None:
    village = Village(5)
    lives = village.grown(count)
    village.loss, village.delay_s = 0.05, (0.0, 0.2)
    village.run(for_s)
    assert [each for life in lives for each in life.seen(MemberUnreachable)] == []
    print(f"{sum(life.core.myself.version for life in lives)} suspicions, all objected to")


@pytest.mark.timeout(600)
def test_messages_per_node_and_second_do_not_grow_with_the_members() -> None:
    rates: dict[int, float] = {}
    for count, for_s in ((10, 30.0), (100, 20.0), (1000, 2.0)):
        village = Village(count)
        lives = village.grown(count)
        sent = [life.sent for life in lives]
        village.run(for_s)
        rates[count] = sum(life.sent - before for life, before in zip(lives, sent, strict=True)) / for_s / count
    print(rates)
    # 5 probes, 5 answers and 1 comparison a second.
    assert all(rate == pytest.approx(11.0, rel=0.1) for rate in rates.values())


def test_messages_stay_bounded_while_a_third_of_all_members_crash() -> None:
    village = Village(1)
    lives = village.grown(60)
    for life in lives[:20]:
        village.crash(life)
    worst = 0
    for _ in range(30):
        before = [life.sent for life in lives[20:]]
        village.run(1.0)
        worst = max(worst, *(life.sent - sent for life, sent in zip(lives[20:], before, strict=True)))
    # Probes and their answers, for oneself and for others, and news twice in a tenth of a second.
    assert worst < 100
    assert village.one_cluster()

"""Hand-off: a shard goes from owner to owner in the right steps, few at a time, and back if need be."""

from __future__ import annotations

from itertools import product
from random import Random
from typing import Any

import msgspec
import pytest

from actorkit.sharding.handoff import (
    AskNow,
    CutOff,
    Effect,
    Handoffs,
    Input,
    Phase,
    Release,
    Say,
    Serve,
    Stop,
    Unwant,
    Want,
)
from actorkit.sharding.messages import ShardAnswer, ShardReleased, Standing
from actorkit.sharding.settings import ShardingSettings

SETTINGS = ShardingSettings(handoffs_max=2)
DRAIN_S = SETTINGS.handoff_drain_s
T5, T6 = 5 << 20, 6 << 20
"""The first tenures of the epochs 5 and 6."""


class Bench:
    """The hand-offs of node "me" with four shards."""

    def __init__(self, **changes: Any) -> None:
        self.now = 0.0
        self.loads = {0: 4, 1: 1, 2: 3, 3: 2}
        self.handoffs = Handoffs(
            "me",
            4,
            settings=msgspec.structs.replace(SETTINGS, **changes),
            load=self.loads.__getitem__,
            believed=lambda shard: ("z", 3),
        )

    def place(self, *owners: str) -> list[Effect]:
        self.handoffs.placed(self.now, owners)
        return self.handoffs.poll()

    def own_all(self) -> None:
        self.place("me", "me", "me", "me")
        for shard in range(4):
            self.handoffs.acquired(self.now, shard, 5)
        self.handoffs.poll()

    def later(self, by_s: float) -> list[Effect]:
        self.now += by_s
        self.handoffs.tick(self.now)
        return self.handoffs.poll()

    def phase(self, shard: int) -> Phase:
        return self.handoffs.phase(shard)


def test_a_shard_goes_to_its_next_owner_step_by_step() -> None:
    bench = Bench()
    handoffs = bench.handoffs
    assert bench.place("me", "x", "x", "x") == [Want(0)]
    handoffs.acquired(0, 0, 5)
    assert handoffs.poll() == [Serve(0, T5)]
    assert handoffs.accepts(0, T5)
    assert not handoffs.accepts(0, T5 - 1), "a call that was meant for an earlier owner"
    assert bench.place("x", "x", "x", "x") == [Stop(0, "x")]
    assert not handoffs.accepts(0, T5)
    assert handoffs.accepts(0, T5, within=True), "what is in progress waits for it"
    assert handoffs.answer(0) == ShardAnswer(0, Standing.ELSEWHERE, T5, "x")
    handoffs.drained(bench.now, 0)
    assert handoffs.poll() == [Release(0)]
    assert handoffs.owned == 1
    handoffs.released(bench.now, 0)
    assert handoffs.poll() == [Say("x", ShardReleased(0, T5))]
    assert handoffs.owned == 0
    assert bench.phase(0) is Phase.RELEASED
    handoffs.told(bench.now, "x", ShardAnswer(0, Standing.OWNED, T5))
    assert bench.phase(0) is Phase.RELEASED, "that is our own tenure"
    handoffs.told(bench.now, "x", ShardAnswer(0, Standing.OWNED, T6))
    assert bench.phase(0) is Phase.ELSEWHERE
    assert handoffs.answer(0) == ShardAnswer(0, Standing.ELSEWHERE, T5, "z"), "what routing has learned"


def test_few_shards_move_at_a_time_and_those_with_the_fewest_busy_entities_go_first() -> None:
    bench = Bench()
    bench.own_all()
    assert bench.place("x", "x", "x", "x") == [Stop(1, "x"), Stop(3, "x")]
    bench.handoffs.drained(bench.now, 1)
    bench.handoffs.released(bench.now, 1)
    assert bench.handoffs.poll() == [Release(1), Say("x", ShardReleased(1, T5))], "its next owner has not got it yet"
    bench.handoffs.told(bench.now, "x", ShardAnswer(1, Standing.OWNED, T6))
    assert bench.handoffs.poll() == [Stop(2, "x")]


def test_a_next_owner_that_is_silent_does_not_stop_the_others() -> None:
    bench = Bench(handoffs_max=1)
    bench.own_all()
    bench.place("x", "x", "x", "x")
    bench.handoffs.drained(bench.now, 1)
    bench.handoffs.released(bench.now, 1)
    bench.handoffs.poll()
    assert bench.handoffs.wake_s == SETTINGS.handoff_confirm_s
    assert bench.later(SETTINGS.handoff_confirm_s) == [Stop(3, "x")]


def test_what_does_not_end_in_time_is_undone_and_the_shard_goes_all_the_same() -> None:
    bench = Bench()
    bench.own_all()
    assert bench.place("me", "x", "me", "me") == [Stop(1, "x")]
    assert bench.later(DRAIN_S / 2) == []
    assert bench.later(DRAIN_S / 2) == [CutOff(1)]
    assert not bench.handoffs.accepts(1, T5, within=True)
    assert bench.later(DRAIN_S) == [Release(1)]
    assert bench.handoffs.wake_s is None


def test_a_shard_that_is_to_stay_after_all_goes_on_under_a_new_tenure() -> None:
    """Of two calls of one sender the first may have been returned, and the second be on its way."""
    bench = Bench()
    bench.own_all()
    bench.place("x", "me", "me", "me")
    bench.handoffs.asked("y", [0])
    assert bench.handoffs.poll() == [Say("y", ShardAnswer(0, Standing.ELSEWHERE, T5, "x"))]
    assert bench.place("me", "me", "me", "me") == [Serve(0, T5 + 1)]
    assert not bench.handoffs.accepts(0, T5)
    assert bench.handoffs.accepts(0, T5 + 1)
    assert bench.handoffs.wake_s is None


def test_a_shard_that_comes_back_while_it_is_given_up_is_acquired_again() -> None:
    bench = Bench()
    bench.own_all()
    bench.place("x", "me", "me", "me")
    bench.handoffs.drained(bench.now, 0)
    bench.handoffs.poll()
    assert bench.place("me", "me", "me", "me") == []
    bench.handoffs.released(bench.now, 0)
    assert bench.handoffs.poll() == [Want(0)]


def test_a_lease_that_is_lost_ends_a_hand_off_and_is_wanted_back_only_where_it_belongs() -> None:
    bench = Bench()
    bench.own_all()
    bench.place("x", "me", "me", "me")
    bench.handoffs.lost(bench.now, 0)
    assert bench.handoffs.poll() == []
    assert bench.phase(0) is Phase.ELSEWHERE
    bench.handoffs.lost(bench.now, 1)
    assert bench.handoffs.poll() == [Stop(1, "me"), Want(1)]


def test_a_tenure_lasts_while_only_the_own_epoch_is_raised_and_nobody_else_can_have_had_the_shard() -> None:
    bench = Bench()
    bench.own_all()
    bench.handoffs.acquired(bench.now, 0, 5)
    assert bench.handoffs.poll() == [Serve(0, T5)]
    bench.handoffs.acquired(bench.now, 0, 7)
    assert bench.handoffs.poll() == [Serve(0, 7 << 20)]


def test_a_lease_that_was_lost_and_had_back_begins_a_new_tenure() -> None:
    bench = Bench()
    bench.own_all()
    bench.handoffs.lost(bench.now, 0)
    bench.handoffs.acquired(bench.now, 0, 5)
    assert bench.handoffs.poll() == [Stop(0, "me"), Want(0), Serve(0, T5 + 1)]


def test_a_wanted_shard_that_belongs_elsewhere_is_not_wanted_any_more() -> None:
    bench = Bench()
    bench.place("me", "x", "x", "x")
    bench.handoffs.asked("y", [0])
    assert bench.handoffs.poll() == [Say("y", ShardAnswer(0, Standing.AWAITED))]
    after = [Unwant(0), Say("y", ShardAnswer(0, Standing.ELSEWHERE, 3, "z"))]
    assert bench.place("x", "x", "x", "x") == after, "whoever waits for it is told"


def test_whoever_waits_for_a_shard_hears_when_it_is_owned() -> None:
    bench = Bench()
    bench.place("me", "x", "x", "x")
    bench.handoffs.held(0, "x")
    bench.handoffs.asked("y", [0, 1])
    elsewhere = [ShardAnswer(0, Standing.ELSEWHERE, 0, "x"), ShardAnswer(1, Standing.ELSEWHERE, 3, "z")]
    assert bench.handoffs.poll() == [Say("y", answer) for answer in elsewhere]
    bench.handoffs.offered("x", 0)
    assert bench.handoffs.poll() == [AskNow(0)]
    bench.handoffs.acquired(bench.now, 0, 6)
    owned = ShardAnswer(0, Standing.OWNED, T6)
    assert bench.handoffs.poll() == [Serve(0, T6), Say("y", owned), Say("x", owned)]
    bench.handoffs.asked("y", [0])
    bench.handoffs.offered("x", 0)
    assert bench.handoffs.poll() == [Say("y", owned), Say("x", owned)]


def test_a_node_that_has_gone_is_not_told_anything_and_holds_nothing() -> None:
    bench = Bench()
    bench.place("me", "x", "x", "x")
    bench.handoffs.held(0, "x")
    bench.handoffs.asked("y", [0])
    bench.handoffs.poll()
    bench.handoffs.forget("y")
    bench.handoffs.forget("x")
    bench.handoffs.acquired(bench.now, 0, 6)
    assert bench.handoffs.poll() == [Serve(0, T6)]


def test_a_shard_that_nobody_else_can_own_stays() -> None:
    bench = Bench()
    bench.own_all()
    bench.handoffs.placed(bench.now, [None] * 4)
    assert bench.handoffs.poll() == []
    assert bench.handoffs.owned == 4


IMPOSSIBLE = [
    pair for pair in product(Phase, Input) if pair not in Handoffs.transitions and pair[1] is not Input.PLACED_HERE
]


@pytest.mark.parametrize(("phase", "input"), IMPOSSIBLE)
def test_what_cannot_happen_raises(phase: Phase, input: Input) -> None:
    handoffs = Bench().handoffs
    each = handoffs._shards[0]
    each.phase = phase
    with pytest.raises(AssertionError, match="shard 0"):
        handoffs._handle(0.0, each, input)


@pytest.mark.parametrize("seed", range(200))
def test_whatever_happens_no_more_shards_move_than_may_and_the_phases_stay_true(seed: int) -> None:
    """Inputs at random, as a shell gives them: what is owned is what it was told to own, and nothing is forgotten."""
    rng = Random(seed)
    bench = Bench()
    handoffs = bench.handoffs
    held: dict[int, int] = {}
    wanted: set[int] = set()
    releasing: set[int] = set()
    tenure = 0
    for _ in range(300):
        kind = rng.randrange(6)
        shard = rng.randrange(4)
        if kind == 0:
            handoffs.placed(bench.now, [rng.choice(["me", "x", "y"]) for _ in range(4)])
        elif kind == 1 and shard in wanted:
            tenure += 1
            wanted.discard(shard)
            held[shard] = tenure
            handoffs.acquired(bench.now, shard, tenure)
        elif kind == 2 and shard in held and shard not in releasing:
            del held[shard]
            handoffs.lost(bench.now, shard)
        elif kind == 3:
            handoffs.drained(bench.now, shard)
        elif kind == 4 and shard in releasing:
            releasing.discard(shard)
            handoffs.released(bench.now, shard)
        elif kind == 5:
            bench.now += rng.random()
            handoffs.tick(bench.now)
        for effect in handoffs.poll():
            match effect:
                case Want():
                    wanted.add(effect.shard)
                case Unwant():
                    wanted.discard(effect.shard)
                case Release():
                    del held[effect.shard]
                    releasing.add(effect.shard)
                case Serve():
                    assert held[effect.shard] == effect.tenure >> 20
                case _:
                    pass
        phases = [handoffs.phase(each) for each in range(4)]
        assert {each for each in range(4) if phases[each] is Phase.WANTED} == wanted
        assert {each for each in range(4) if phases[each] is Phase.RELEASING} == releasing
        owning = (Phase.OWNED, Phase.DRAINING, Phase.UNDOING)
        assert {each for each in range(4) if phases[each] in owning} == held.keys()
        moving = (Phase.DRAINING, Phase.UNDOING, Phase.RELEASING, Phase.RELEASED)
        assert sum(phase in moving for phase in phases) <= SETTINGS.handoffs_max

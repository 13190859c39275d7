"""Shards that move between nodes, over many seeds: nothing is lost, done twice, out of order, or waits without end.

``cluster_model`` is checked, too: with a rule of the protocol switched off, the same runs find it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

import pytest

from actorkit.sharding.locating import Location
from actorkit.sharding.routing import Routing
from actorkit.sharding.settings import ShardingSettings
from tests.sharding.cluster_model import Call, Model

ENTITIES = 16
LEASE_AND_MORE_S = 12.0
"""Enough for leases to run out, for broken connections to be noticed, and for everybody to find everybody."""
FAULTS = ("leave", "join", "crash", "break", "break", "pause", "suspect", "doubt", "doubt", "flip", "flip", "flip")


def planned_run(seed: int, **more: Any) -> Model:
    """Nodes join and leave one after another, under load; nothing goes wrong."""
    model = Model(seed, **more)
    model.load(6.0, ENTITIES, 0.06, 5.0)
    rng = model.rng
    model.run_until(1.0)
    for step in range(4):
        staying = [node for node in model.nodes.values() if not node.leaving]
        if rng.random() < 0.5 and len(staying) > 2:
            model.leave(rng.choice(staying).name)
        else:
            model.join(f"m{step}")
        model.run_until(model.now + rng.uniform(0.02, 1.5))
    model.run_until(11.1)
    return model


def rough_run(seed: int, **more: Any) -> tuple[Model, list[str]]:
    """Whatever may happen, happens; then all is well again. Gives the problems, too."""
    model = Model(seed, roughness=1.0, **more)
    rng = model.rng
    model.load(8.0, ENTITIES, rng.choice([0.05, 0.1, 0.3]), rng.choice([1.0, 5.0]))
    model.run_until(0.5)
    for step in range(rng.randrange(2, 14)):
        one_fault(model, rng.choice(FAULTS), step)
        model.run_until(model.now + rng.choice([0.01, 0.1, 0.5, 1.0]))
    model.run_until(max(model.now, 8.0))
    model.roughness = 0.0
    model.run_until(model.now + LEASE_AND_MORE_S)
    model.announce(0.0)
    model.run_until(model.now + 6.0)
    late: list[Call] = []
    for node in model.nodes.values():
        if not node.leaving:
            for entity in range(ENTITIES):
                node.soon(lambda node=node, entity=entity: late.append(model.ask(node, f"late {node}", entity, 5.0)))
    model.run_until(model.now + 6.0)
    assert late
    stuck = [f"no progress: {call}" for call in late if call.outcome != "done"]
    return model, model.problems() + stuck


def one_fault(model: Model, fault: str, step: int) -> None:
    rng = model.rng
    staying = [node for node in model.nodes.values() if not node.leaving]
    one = rng.choice(staying)
    model.happened[fault] += 1
    if fault == "leave" and len(staying) > 2:
        model.leave(one.name)
    elif fault == "crash" and len(staying) > 1:
        model.crash(one.name)
        if rng.random() < 0.7:
            model.after(rng.uniform(0.1, 2.0), model.join_again, one.name)
    elif fault == "break" and model.links:
        rng.choice(list(model.links.values())).break_now()
    elif fault == "pause":
        rng.choice(list(model.nodes.values())).pause(rng.choice([0.2, 1.0, 4.0]))
    elif fault == "suspect":
        model.suspect(one.name)
    elif fault == "flip":
        model.flip(one.name)
    elif fault == "doubt":
        for node in model.nodes.values():
            for shard in range(8):
                if rng.random() < 0.3:
                    node.soon(node.doubt, shard)
    else:
        model.join(f"m{step}")


# ------------------------------------------------------------------------------------------------------------- planned


def test_planned_changes_fail_no_call_and_delay_few() -> None:
    """Of all calls while nodes join and leave, 99.9 % end within half a second."""
    took_s: list[float] = []
    moved = 0
    for seed in range(15):
        model = planned_run(seed)
        assert not model.problems(), f"seed {seed}: {model.problems()[:5]}"
        failed = [call for call in model.calls if call.outcome != "done"]
        assert not failed, f"seed {seed}: {failed[:5]}"
        took_s += [call.ended_s - call.began_s for call in model.calls if call.ended_s is not None]
        moved += sum(epoch - 1 for _, epoch, _ in model.store.leases.values())
    took_s.sort()
    p999_s = took_s[int(0.999 * len(took_s))]
    print(f"{len(took_s)} calls, {moved} moves: p99.9 {p999_s:.3f} s, longest {took_s[-1]:.3f} s")
    assert moved > 15 * 8
    assert p999_s < 0.5
    assert took_s[-1] < 2.0


# --------------------------------------------------------------------------------------------------------------- rough


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_whatever_happens_calls_act_once_in_order_and_end_in_time_and_all_is_well_afterwards(first: int) -> None:
    outcomes: Counter[str] = Counter()
    for seed in range(first, first + 10):
        model, problems = rough_run(seed)
        assert not problems, f"seed {seed}: {problems[:5]}"
        outcomes.update(call.outcome for call in model.calls)
    print(outcomes)
    assert outcomes["done"] > sum(outcomes.values()) / 2


def test_small_buffers_stay_within_their_bounds() -> None:
    settings = ShardingSettings(buffer_max_calls=5, calls_max=30)
    overloaded = 0
    for seed in range(10):
        model, problems = rough_run(seed, settings=settings)
        assert not [problem for problem in problems if "no progress" not in problem], f"seed {seed}: {problems[:5]}"
        overloaded += sum(call.outcome == "overloaded" for call in model.calls)
    assert overloaded


def test_questions_stay_few_while_a_shard_has_no_owner() -> None:
    """Two of three nodes are gone, and the leases have to run out."""
    model = Model(1)
    model.load(4.0, ENTITIES, 0.01, 5.0)
    model.run_until(1.0)
    model.crash("n1")
    model.crash("n2")
    model.messages.clear()
    model.run_until(4.0)
    print(model.messages)
    assert model.messages["question"] < 3.0 / 0.1 * 2 * 8


# ------------------------------------------------------------------------------------------------------ switched off


class Unordered(Routing[Any]):
    """Calls go out as soon as the owner is known, whatever is still out elsewhere."""

    def _may_follow(self, lane: Any, owner: str, tenure: int) -> bool:
        return True

    def _go_on(self, location: Location, lane: Any) -> None:
        out, lane.out = lane.out, 0
        busy, lane.busy = lane.busy, False
        super()._go_on(location, lane)
        lane.out += out
        lane.busy = busy
        if lane.out or lane.busy:
            self.lanes[lane.entity] = lane


class Forgetful(Routing[Any]):
    """What goes out again claims to go out for the first time."""

    def _take_back(self, now: float, routed: Any, *, again: bool) -> None:
        super()._take_back(now, routed, again=False)


def found(seeds: Collection[int], **more: Any) -> str:
    for seed in seeds:
        _, problems = rough_run(seed, **more)
        if problems:
            print(f"seed {seed}: {problems[0]}")
            return problems[0]
    return ""


def test_the_model_finds_that_calls_overtake_each_other_where_they_are_not_held_back() -> None:
    assert "out of order" in found(range(60), routing_type=Unordered)


def test_the_model_finds_that_calls_are_run_twice_where_attempts_are_not_counted() -> None:
    assert "twice" in found(range(60), routing_type=Forgetful)


def test_the_model_finds_that_calls_overtake_each_other_where_tenures_are_not_looked_at() -> None:
    assert "out of order" in found((50, *range(100)), tenures=False)

"""Worlds: one seed is one run, faults do what they say, nodes come back, and what reaches outside is caught."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from actorkit import Event, PersistentActor, State, applies, command, query
from actorkit.errors import CallError, SimulationEscape
from actorkit.testing.checkers import check_linearizable
from actorkit.testing.simulation import CATALOGUE, Fault, FaultPlan, NodeSettings, StoreSettings, World, swarm
from examples.capacity_service.model import PoolModel
from tests.simulation.capacity import Capacity, CapacitySettings

PROJECT = Path(__file__).parent.parent.parent


class Counted(Event, name="counted"):
    pass


class Count(State):
    count: int = 0

    @applies(Counted)
    def counted(self, event: Counted) -> None:
        self.count += 1


class Counter(PersistentActor[Count, Counted], name="counter"):
    @command
    def add(self) -> int:
        self.emit(Counted())
        return self.state.count

    @command
    async def add_later(self, seconds: float) -> int:
        await asyncio.sleep(seconds)
        self.emit(Counted())
        return self.state.count

    @command
    def look_at_the_clock(self) -> float:
        try:
            return time.time()
        except Exception:  # noqa: BLE001 - as a user's program may do
            return 0.0

    @query
    def read(self) -> int:
        return self.state.count


def world(seed: int = 1, nodes: int = 1, plan: FaultPlan = FaultPlan()) -> World:  # noqa: B008 - frozen
    return World(seed, NodeSettings(entities=[Counter], shards=4), nodes=nodes, plan=plan)


async def answered(call: Callable[[], Awaitable[int]]) -> int:
    """Asks again and again until there is an answer."""
    for _ in range(100):
        try:
            return await call()
        except CallError:
            await asyncio.sleep(0.1)
    raise AssertionError("no answer has come")


# ----------------------------------------------------------------------------------------------------------- one seed


def in_another_process(seed: int, hash_seed: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation.capacity", "--seed", str(seed), "--nodes", "2"],
        cwd=PROJECT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.rpartition("trace ")[2].strip()


def test_one_seed_is_one_trace_in_every_process() -> None:
    seeds = (3, 11, 29)
    here = [capacity_of(seed).world.digest for seed in seeds]
    assert [in_another_process(seed, hash_seed) for seed, hash_seed in zip(seeds, "019", strict=True)] == here
    assert len(set(here)) == len(seeds)


def capacity_of(seed: int) -> Capacity:
    capacity = Capacity(seed, swarm(seed, ["node-1", "node-2"]), CapacitySettings(nodes=2))
    capacity.run()
    return capacity


def test_a_plan_outlives_the_process_as_json() -> None:
    plan = swarm(5, ["node-1", "node-2"])
    assert plan.faults
    assert FaultPlan.decode(plan.encode()) == plan
    with pytest.raises(msgspec.ValidationError, match="no faults of the kind nonsense"):
        FaultPlan.decode(b'{"faults": [{"kind": "nonsense", "start_s": 0, "duration_s": 1}], "heal_at_s": 2}')


def test_leaving_a_kind_out_of_the_swarm_changes_no_other() -> None:
    whole = swarm(5, ["node-1"], share=1.0)
    without = swarm(5, ["node-1"], share=1.0, kinds=[kind for kind in CATALOGUE if kind != "pause"])
    assert {fault for fault in whole.faults if fault.kind != "pause"} <= set(without.faults)
    assert {fault.kind for fault in whole.faults} == {
        name for name, kind in CATALOGUE.items() if kind.in_swarm and kind.nodes_min == 1
    }


# ------------------------------------------------------------------------------------------------------------- faults


def test_a_crash_at_every_step_of_a_command_does_no_harm() -> None:
    for step in range(60):
        plan = FaultPlan((Fault("crash_at_step", 1.0, 0.05, "node-1", step / 400),), 2.0)

        async def story(world: World) -> tuple[int, int]:
            counter = world.client("client").get(Counter, "c")
            await counter.add()
            await world.sleep_until(1.0)
            told = await answered(counter.add.options(idempotency_key="the second", deadline_s=1.0))
            return told, await answered(counter.read)

        assert world(step, plan=plan).run(story) == (2, 2)


def test_the_store_without_its_duty_to_sync_is_found_out() -> None:
    """A world that finds nothing shows nothing: one that is broken must be found before long."""
    for seed in range(40):
        settings = CapacitySettings(store=StoreSettings(sync=False))
        capacity = Capacity(seed, swarm(seed, ["node-1"]), settings)
        if not all(verdict.ok for verdict in check_linearizable(capacity.run(), PoolModel())):
            return
    pytest.fail("40 seeds have not found a store that loses what it has acknowledged")


def test_a_call_that_nobody_waits_for_any_longer_may_fail() -> None:
    async def story(world: World) -> None:
        client = world.client("client")
        for node in world.nodes:
            node.crash("by the test")
        waiting = world.loop.create_task(world.spawn(client.process, client.get(Counter, "c").read(), name="client"))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(60)

    run = world()
    run.run(story)
    assert run.findings() == []


# -------------------------------------------------------------------------------------------------------------- nodes


def test_a_node_that_was_crashed_comes_back_under_its_name_with_what_it_had_stored() -> None:
    async def story(world: World) -> list[int]:
        counter = world.client("client").get(Counter, "c")
        seen = [await counter.add()]
        node = world.node("node-1")
        before = node.process
        node.crash("by the test")
        assert not node.up
        node.start()
        await world.up()
        seen.append(await counter.read())
        assert (node.lives, node.process is before) == (2, False)
        return seen

    run = world()
    assert run.run(story) == [1, 1]
    assert run.findings() == []


def test_a_node_whose_store_fails_ends_by_itself_and_is_started_again() -> None:
    plan = FaultPlan((Fault("sync_error", 0.5, 5.0, intensity=0.0),), 6.0)

    async def story(world: World) -> int:
        counter = world.client("client").get(Counter, "c")
        await counter.add()
        await world.healed()
        return await counter.add()

    run = world(plan=plan)
    assert run.run(story) == 2
    assert run.nodes[0].lives == 2
    assert any("ends: input/output error in fsync" in line for line in run.trace.lines)


def test_an_async_handler_waits_on_virtual_time_by_its_nodes_clock() -> None:
    async def story(world: World) -> float:
        await world.client("client").get(Counter, "c").add_later.options(deadline_s=60)(25.0)
        return world.loop.now_s

    assert 25.0 < world().run(story) < 26.0


def test_what_reaches_outside_fails_the_run_even_if_it_is_swallowed() -> None:
    async def story(world: World) -> float:
        return await world.client("client").get(Counter, "c").look_at_the_clock()

    with pytest.raises(SimulationEscape, match=r"time\.time .*test_world.*context\.now_us"):
        world().run(story)


def test_the_report_tells_the_last_of_what_happened_and_how_to_repeat_it() -> None:
    capacity = Capacity(4, settings=CapacitySettings(operations=10))
    capacity.run()
    report = capacity.world.report()
    assert "store: append of node-1: pool/" in report
    assert "python -m tests.simulation.capacity --seed 4 --nodes 1" in report

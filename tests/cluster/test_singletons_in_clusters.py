"""A singleton of a cluster: it runs again elsewhere before long, whatever becomes of its node, and never two commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from actorkit import Event, PersistentActor, State, applies, command, query
from actorkit.ids import PersistenceId, shard_of
from actorkit.sharding.singletons import SINGLETON_ID
from actorkit.testing.simulation import NodeSettings, World
from actorkit.testing.simulation.faults import FaultPlan, swarm
from actorkit.testing.simulation.node import Node
from tests.cluster.worlds import SHARDS, Tally, cut, formed, statuses, surely, until

BEAT_S = 0.1
TAKEN_OVER_S = 5.0
"""As docs/operations.md promises: the lease has run out, and the others have agreed on who is lost."""


class Beaten(Event, name="beaten"):
    node: str


class Beats(State):
    count: int = 0

    @applies(Beaten)
    def beaten(self, event: Beaten) -> None:
        self.count += 1


class Heart(PersistentActor[Beats, Beaten], name="heart"):
    @command
    def started(self) -> None:
        self.context.every("beat", BEAT_S, Heart.beat)

    @command
    def beat(self) -> None:
        self.emit(Beaten(str(self.context.system.node)))

    @query
    def count(self) -> int:
        return self.state.count


NODES = NodeSettings(entities=[Tally], singletons=[Heart], shards=SHARDS, clustered=True)
STREAM = str(PersistenceId("heart", SINGLETON_ID))


class Beating:
    """What was committed, as the store has it."""

    def __init__(self, world: World) -> None:
        self.world = world

    @property
    def beats(self) -> list[tuple[int, str]]:
        """The epoch and the incarnation of each beat, in order."""
        disk = self.world.store.disk
        records = disk.read("read_stream", (STREAM,), {"after": 0, "limit": 1 << 30}, 0.0)
        codec = Heart.entity_type.codec if Heart.entity_type is not None else None
        assert codec is not None
        events = [(record.epoch, codec.decode(record.type, record.version, record.payload)) for record in records]
        return [(epoch, event.node) for epoch, event in events]

    async def owner(self) -> Node:
        """The node that has the singleton, by the store's account, once it beats there."""
        number = shard_of(STREAM, SHARDS)
        await until(
            self.world,
            lambda: self.beats[-1][1] == statuses(self.world)[number].owner,
            "its owner beats",
            within_s=TAKEN_OVER_S,
        )
        return self.world.node(self.beats[-1][1].partition("#")[0])

    async def elsewhere(self, than: str, *, within_s: float) -> float:
        """Until another incarnation has committed a beat; how long that took."""
        return await until(
            self.world, lambda: self.beats[-1][1] != than, f"a beat of another than {than}", within_s=within_s
        )

    async def goes_on(self, *, within_s: float = 1.0) -> None:
        count = len(self.beats)
        await until(self.world, lambda: len(self.beats) > count, "a beat", within_s=within_s)

    def never_two(self) -> None:
        """Each epoch is one incarnation's, and once there is a newer one nothing of an older one is stored."""
        epochs = [epoch for epoch, _ in self.beats]
        assert epochs == sorted(epochs)
        assert len(set(self.beats)) == len(set(epochs))


def run(seed: int, story: Callable[[World, Beating], Coroutine[Any, Any, None]], *, nodes: int = 3) -> None:
    world = World(seed, NODES, nodes=nodes)
    beating = Beating(world)

    async def whole(world: World) -> None:
        await formed(world)
        await until(world, lambda: bool(beating.beats), "the first beat", within_s=5.0)
        await beating.goes_on()
        await story(world, beating)

    world.run(whole)
    assert not world.findings(), world.report()
    beating.never_two()


@pytest.mark.parametrize("seed", range(12))
def test_after_a_crash_of_its_node_it_runs_elsewhere_within_the_bound(seed: int) -> None:
    async def story(world: World, beating: Beating) -> None:
        for _ in range(3):
            owner = await beating.owner()
            assert owner.system is not None
            incarnation = str(owner.system.node)
            owner.crash("by the test")
            took_s = await beating.elsewhere(incarnation, within_s=TAKEN_OVER_S)
            print(f"after {took_s:.2f} s")
            await beating.goes_on()
            owner.start()
            await formed(world)

    run(seed, story)


@pytest.mark.parametrize("seed", range(6))
def test_a_node_that_leaves_hands_it_over(seed: int) -> None:
    async def story(world: World, beating: Beating) -> None:
        owner = await beating.owner()
        assert owner.system is not None
        incarnation = str(owner.system.node)
        owner.leave()
        await beating.elsewhere(incarnation, within_s=1.0)
        await formed(world)
        await beating.goes_on()

    run(seed, story)


@pytest.mark.parametrize("seed", range(6))
def test_a_node_that_is_cut_off_or_stands_still_loses_it_and_commits_nothing_afterwards(seed: int) -> None:
    """Cut off, its timers go on, and what they emit is refused by the fence once another has it."""

    async def story(world: World, beating: Beating) -> None:
        owner = await beating.owner()
        assert owner.system is not None
        incarnation, process = str(owner.system.node), owner.process
        others = [node.name for node in world.nodes if node is not owner]
        mend: Callable[[], None]
        if seed % 2:
            mend = cut(world, [owner.name], others)
        else:
            world.loop.pause(process)

            def mend() -> None:
                world.loop.resume(process)

        took_s = await beating.elsewhere(incarnation, within_s=TAKEN_OVER_S + 1.0)
        print(f"after {took_s:.2f} s")
        await world.sleep_until(world.loop.now_s + 15.0)
        mend()
        await formed(world, within_s=40.0)
        await beating.goes_on()
        count = await surely(world, world.client("test").get(Heart, SINGLETON_ID).count)
        assert count <= len(beating.beats)

    run(seed, story)


@pytest.mark.parametrize("seed", range(30))
def test_whatever_goes_wrong_it_runs_again_afterwards_and_never_two_commit(seed: int) -> None:
    plan = swarm(seed, [f"node-{number}" for number in range(1, 4)], duration_s=20.0)
    # A store that goes back takes what was committed with it.
    plan = FaultPlan(tuple(fault for fault in plan.faults if fault.kind != "store_goes_back"), plan.heal_at_s)
    world = World(seed, NODES, nodes=3, plan=plan)
    beating = Beating(world)

    async def story(world: World) -> None:
        await world.healed()
        await asyncio.sleep(0.1)
        await until(world, lambda: all(node.up for node in world.nodes), "all are up", within_s=20.0)
        count = len(beating.beats)
        await until(world, lambda: len(beating.beats) > count, "it runs again", within_s=30.0)

    world.run(story)
    beating.never_two()

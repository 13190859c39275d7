"""P8, P10: a planned leave does not wait without limit for a handler that does not end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from actorkit import ActorSystem, ClusterNode, OutcomeUnknown, PersistentActor, command, query
from actorkit.config import SystemSettings
from actorkit.ids import shard_of
from actorkit.sharding.settings import ShardingSettings
from tests.persistence.actors import AccountState, Put
from tests.test_node_of_a_cluster import free_address

DRAIN_S = 0.3


class Stuck(PersistentActor[AccountState, Put], name="stuck"):
    runs: ClassVar[list[str]] = []
    """The ids of entities whose handler has begun, once for each time."""
    gate: ClassVar[asyncio.Event]

    @command
    async def put(self, amount: int) -> int:
        """Hangs the first time."""
        self.emit(Put(amount))
        self.runs.append(self.entity_id)
        if self.runs.count(self.entity_id) == 1:
            await asyncio.Event().wait()
        return self.state.balance

    @command
    async def put_come_what_may(self, amount: int) -> int:
        """Ends when the gate opens, and not when it is told to."""
        self.emit(Put(amount))
        self.runs.append(self.entity_id)
        while not self.gate.is_set():
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                continue
        return self.state.balance

    @query
    def balance(self) -> int:
        return self.state.balance


@asynccontextmanager
async def two(tmp_path: Path) -> AsyncGenerator[list[ActorSystem]]:
    Stuck.runs.clear()
    Stuck.gate = asyncio.Event()
    seeds = (free_address(), free_address())
    settings = SystemSettings(sharding=ShardingSettings(handoff_drain_s=DRAIN_S))
    systems = [
        ActorSystem(
            f"sqlite:///{tmp_path}/a.db",
            name=f"n{number}",
            shards=8,
            entities=(Stuck,),
            settings=settings,
            cluster=ClusterNode(remoting=address, seeds=seeds),
        )
        for number, address in enumerate(seeds)
    ]
    async with AsyncExitStack() as stack, asyncio.timeout(60):
        for system in systems:
            await stack.enter_async_context(system)
        await asyncio.gather(*(system.own_all_shards() for system in systems))
        yield systems
        Stuck.gate.set()


async def begun(number: int) -> None:
    while len(Stuck.runs) < number:
        await asyncio.sleep(0)


async def one_at(system: ActorSystem) -> str:
    """The id of an entity that this node owns."""
    statuses = {status.shard: status.owner for status in await system.shards()}
    for number in range(1000):
        if statuses[shard_of(f"stuck/{number}", 8)] == str(system.node):
            return f"{number}"
    raise AssertionError("it owns nothing")


async def test_a_handler_that_hangs_is_cut_off_and_its_command_runs_once_at_the_next_owner(tmp_path: Path) -> None:
    async with two(tmp_path) as (leaving, staying):
        id = await one_at(leaving)
        calls = [asyncio.ensure_future(leaving.get(Stuck, id).put.options(deadline_s=30)(1))]
        await begun(1)
        calls.append(asyncio.ensure_future(staying.get(Stuck, id).put.options(deadline_s=30)(1)))
        began_s = time.monotonic()
        await leaving.leave()
        assert time.monotonic() - began_s < 10, "the limit is 2 * handoff_drain_s and what moving takes"
        assert "n0" not in {status.owner.partition("#")[0] for status in await staying.shards()}
        assert sorted(await asyncio.gather(*calls)) == [1, 2]
        assert await staying.get(Stuck, id).balance() == 2
        assert Stuck.runs.count(id) == 3


async def test_a_handler_that_does_not_even_end_then_is_left_behind_and_stores_nothing(tmp_path: Path) -> None:
    async with two(tmp_path) as (leaving, staying):
        id = await one_at(leaving)
        stuck = asyncio.ensure_future(leaving.get(Stuck, id).put_come_what_may.options(deadline_s=30)(1))
        await begun(1)
        behind = asyncio.ensure_future(leaving.get(Stuck, id).balance.options(deadline_s=30)())
        await leaving.leave()
        with pytest.raises(OutcomeUnknown, match="its shard went to another node"):
            await stuck
        assert await behind == 0
        Stuck.gate.set()
        assert await staying.get(Stuck, id).balance() == 0
        assert [status.head for status in await staying.shards()] == [0] * 8

"""What the tests of processes have in common: load while something happens, and how long until all is served again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

from actorkit.testing.checkers import Recorder
from tests.processes.callers import Caller, pools_of_all_shards, verdict
from tests.processes.links import Links
from tests.processes.nodes import NodeProcess, Nodes, processes

CAPACITY = 60
"""Scarce, so that refusals occur."""


class Story:
    """One cluster, its callers and what they wrote down."""

    def __init__(self, nodes: Nodes, seed: int) -> None:
        self.nodes = nodes
        self.recorder = Recorder()
        self.random = Random(seed)
        self.pools = pools_of_all_shards(nodes.shards)
        self.callers: list[Caller] = []
        self.answered = 0

    def caller(self, name: str, *, only: NodeProcess | None = None) -> Caller:
        caller = Caller(name, self.nodes, self.recorder, Random(self.random.random()), only=only)
        self.callers.append(caller)
        return caller

    @property
    def failures(self) -> list[str]:
        return [failure for caller in self.callers for failure in caller.failures]

    async def create_pools(self, capacity: int = CAPACITY) -> None:
        creator = self.caller("creator")
        for pool in self.pools:
            told = await creator.call("change", pool, {"capacity": capacity}, key=creator.next_key())
            assert told.status == 200, told

    @asynccontextmanager
    async def load(self, callers: int = 6, *, loyal: bool = False) -> AsyncIterator[None]:
        """Callers that go on until the block is left; each then ends what it has begun.

        ``loyal``: and one more for each node, which asks no other, however unreachable the node may be for its peers.
        """
        stopping = asyncio.Event()

        async def go_on(caller: Caller) -> None:
            while not stopping.is_set():
                await caller.work(self.pools)
                self.answered += 1

        numbers = range(len(self.callers), len(self.callers) + callers)
        loading = [self.caller(f"caller-{number}") for number in numbers]
        if loyal:
            loading += [self.caller(f"loyal-{node.name}-{numbers.stop}", only=node) for node in self.nodes.all]
        tasks = [asyncio.create_task(go_on(caller)) for caller in loading]
        try:
            yield
        finally:
            stopping.set()
            await asyncio.gather(*tasks)

    async def progress(self, answers: int) -> None:
        """Returns after so many more answers."""
        goal = self.answered + answers
        async with asyncio.timeout(60):
            while self.answered < goal:
                await asyncio.sleep(0.01)

    async def served_again_s(self, pools: Sequence[str] | None = None) -> float:
        """How long it takes until every pool, and so every shard, has taken a write."""
        began_s = time.monotonic()
        caller = self.caller(f"prober-{len(self.callers)}")

        async def write(pool: str) -> None:
            told = await caller.call("reserve", pool, 1, None, key=caller.next_key())
            assert told.final, told

        await asyncio.gather(*(write(pool) for pool in pools or self.pools))
        return time.monotonic() - began_s

    async def shows_the_same_everywhere(self, nodes: Iterable[NodeProcess]) -> bool:
        """Whether the read models of these nodes show what the owners say."""
        asker = self.caller(f"asker-{len(self.callers)}")
        owners = {pool: (await asker.call("describe", pool)).body for pool in self.pools}
        right = {pool: (body["version"], body["remaining"]) for pool, body in owners.items()}
        for node in nodes:
            async with self.nodes.session.post(f"{node.url}/rpc/availability", json={}) as response:
                shown = (await response.json()).get("pools", [])
            if {pool["pool_id"]: (pool["version"], pool["remaining"]) for pool in shown} != right:
                return False
        return True

    async def wrong(self) -> list[str]:
        """Ends all nodes and judges everything."""
        statuses = await self.nodes.stop_all()
        assert set(statuses) <= {0}, statuses
        return await verdict(self.recorder, self.nodes.journal)


@asynccontextmanager
async def cluster(
    directory: Path, *, nodes: int = 3, seed: int = 1, shards: int = 16, links: Links | None = None
) -> AsyncIterator[Story]:
    """Nodes n1, n2, … on one file, that have formed a cluster, with a pool in each shard."""
    print(f"seed {seed}")
    names = [f"n{number}" for number in range(1, nodes + 1)]
    async with processes(directory, names, shards=shards, links=links) as started:
        await started.start_all()
        story = Story(started, seed)
        await story.create_pools()
        yield story

"""A node of the take-over's benchmark: does what it is told by lines of JSON, and answers each with one.

Its entities are those of the shards that are to be lost; they are named by number, so that all nodes know the same.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import sys
import time
from collections import Counter
from typing import Any

import structlog

import actorkit
from actorkit import ActorSystem, CallError
from actorkit.config import ClusterNode
from actorkit.ids import shard_of
from bench.pools import Pool

AT_ONCE = 250
"""Calls that are made before the loop has its turn: no caller makes 100,000 in one go."""
FILLED_AT_ONCE = 2_000
LAG_EVERY_S = 0.005


class Lags:
    """How late the loop is."""

    def __init__(self) -> None:
        self.late_s: list[float] = []

    async def watch(self) -> None:
        """Until it is cancelled."""
        while True:
            began_s = time.monotonic()
            await asyncio.sleep(LAG_EVERY_S)
            self.late_s.append(time.monotonic() - began_s - LAG_EVERY_S)


class Asked:
    """Calls to entities and how they ended: the ending, when (by the machine's clock), and after how long."""

    def __init__(self, system: ActorSystem) -> None:
        self._system = system
        self.endings: Counter[str] = Counter()
        self.first_s: dict[int, float] = {}
        """By shard, when the first answer was there."""
        self.took_s: dict[str, list[float]] = {}
        self.last_s = 0.0

    async def ask(self, number: int, deadline_s: float, events: int = 1) -> None:
        """One call."""
        began_s = time.monotonic()
        try:
            await self._system.get(Pool, str(number)).reserve_each.options(deadline_s=deadline_s)(events)
            ending = "answered"
        except CallError as error:
            ending = type(error).__name__
        ended_s = time.monotonic()
        self.endings[ending] += 1
        self.took_s.setdefault(ending, []).append(ended_s - began_s)
        if ending == "answered":
            self.last_s = ended_s
            self.first_s.setdefault(_shard(self._system, number), ended_s)

    async def ask_all(self, numbers: list[int], deadline_s: float, events: int = 1) -> None:
        """All of them, as soon as it goes."""
        async with asyncio.TaskGroup() as group:
            for begin in range(0, len(numbers), AT_ONCE):
                for number in numbers[begin : begin + AT_ONCE]:
                    group.create_task(self.ask(number, deadline_s, events))
                await asyncio.sleep(0)

    def summary(self) -> dict[str, Any]:
        """As it travels."""
        return {
            "endings": dict(self.endings),
            "first_s": self.first_s,
            "last_s": self.last_s,
            "took_s": {ending: _percentiles(took) for ending, took in self.took_s.items()},
        }


def _shard(system: ActorSystem, number: int) -> int:
    return shard_of(f"{Pool.__name__}/{number}", system.store.shards)


def _percentiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values) or [0.0]
    return {name: ordered[min(len(ordered) - 1, int(len(ordered) * part))] for name, part in _PARTS}


_PARTS = (("p50", 0.5), ("p99", 0.99), ("max", 1.0))


class Node:
    """What it can be told."""

    def __init__(self, system: ActorSystem) -> None:
        self._system = system
        self._numbers: list[int] = []
        self._lags = Lags()
        self._watching = asyncio.ensure_future(self._lags.watch())

    async def own(self) -> list[int]:
        """Returns when its share of the shards is owned: which."""
        await self._system.own_all_shards()
        mine = str(self._system.node)
        return [status.shard for status in await self._system.shards() if status.owner == mine]

    async def know(self, shards: list[int], count: int) -> None:
        """The entities are the first so many of these shards."""
        lost = set(shards)
        self._numbers, number = [], 0
        while len(self._numbers) < count:
            if _shard(self._system, number) in lost:
                self._numbers.append(number)
            number += 1

    async def fill(self, events: int) -> dict[str, Any]:
        """So many events for each entity."""
        asked = Asked(self._system)
        for begin in range(0, len(self._numbers), FILLED_AT_ONCE):
            await asked.ask_all(self._numbers[begin : begin + FILLED_AT_ONCE], 60.0, events)
        return asked.summary()

    async def herd(self, part: int, of: int, leave_out: int, deadline_s: float) -> dict[str, Any]:
        """Asks every ``of``-th entity, all at once, but for the first ``leave_out`` entities."""
        self._lags.late_s = []
        asked = Asked(self._system)
        recovered = self._system.counters.recoveries
        numbers = self._numbers[leave_out:][part::of]
        random.Random(part).shuffle(numbers)
        await asked.ask_all(numbers, deadline_s)
        lags = _percentiles(self._lags.late_s)
        return asked.summary() | {"lag_s": lags, "recovered": self._system.counters.recoveries - recovered}

    async def probe(self, part: int, of: int, count: int, deadline_s: float, pause_s: float) -> dict[str, Any]:
        """Single calls to the first ``count`` entities, one after the other."""
        asked = Asked(self._system)
        numbers = self._numbers[:count][part::of]
        random.Random(part).shuffle(numbers)
        for number in numbers:
            await asked.ask(number, deadline_s)
            await asyncio.sleep(pause_s)
        return asked.summary()

    async def first(self, part: int, of: int, deadline_s: float) -> dict[str, Any]:
        """One call to one entity of each shard, all at once: when is the shard served?"""
        asked = Asked(self._system)
        one_each = {_shard(self._system, number): number for number in reversed(self._numbers)}
        await asked.ask_all(sorted(one_each.values())[part::of], deadline_s)
        return asked.summary()


async def serve(name: str, journal: str, port: str, seeds: str) -> None:
    """Until its input ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    cluster = ClusterNode(remoting=f"127.0.0.1:{port}", seeds=tuple(seeds.split(",")))
    async with ActorSystem(journal, name=name, cluster=cluster, entities=[Pool]) as system:
        node = Node(system)

        async def do(number: int, what: str, arguments: dict[str, Any]) -> None:
            print(json.dumps([number, await getattr(node, what)(**arguments)]), flush=True)

        tasks: set[asyncio.Task[None]] = set()
        while line := await reader.readline():
            tasks.add(asyncio.create_task(do(*json.loads(line))))


if __name__ == "__main__":
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    actorkit.run(serve(*sys.argv[1:]))

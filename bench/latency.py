"""How long does one durable command take when nothing else is to be done?

The floor is one transaction that stores the same row, in a thread. Both wait for one sync of the disk.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import actorkit
from actorkit import ActorSystem
from bench.measure import interleaved, result, scratch
from bench.pools import Counter
from bench.sqlite_floor import SingleCommitFloor, new_rows

COMMANDS = 500
ROUNDS = 9
TARGET = 1.5


async def _median_ms(calls: list[Callable[[], Awaitable[Any]]]) -> float:
    times_s: list[float] = []
    for call in calls:
        begin_s = time.perf_counter()
        await call()
        times_s.append(time.perf_counter() - begin_s)
    return statistics.median(times_s) * 1e3


async def _measure(directory: Path) -> dict[str, Any]:
    journal = directory / "ours.db"
    copied = 0
    floor = SingleCommitFloor(directory / "floor.db")
    async with ActorSystem(journal=f"sqlite:///{journal}") as system:
        pool = system.get(Counter, "pool")

        async def ours() -> float:
            return await _median_ms([lambda: pool.reserve(1)] * COMMANDS)

        async def theirs() -> float:
            nonlocal copied
            rows, copied = new_rows(journal, copied)
            return await _median_ms([lambda row=row: floor.store(row) for row in rows])

        values, floors = await interleaved(ours, theirs, rounds=ROUNDS)
    floor.close()
    question = "latency of a durable command, one at a time, against one transaction in a thread"
    return result(question, "ms", values, floors, target=TARGET, at_most=True)


def run() -> dict[str, Any]:
    """The median of the rounds' medians."""
    with scratch() as directory:
        return actorkit.run(_measure(directory))


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))

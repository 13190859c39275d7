"""How many durable commands a second, over 1,000 entities and on one, with 1,000 in flight?

The floor stores the very rows that the entities have just written, in a file with the same tables, through one thread
that commits in groups, with a future for each row.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import actorkit
from actorkit import ActorSystem
from bench.measure import interleaved, result, scratch
from bench.pools import Counter
from bench.sqlite_floor import GroupCommitFloor, new_rows, write_all

ENTITIES = 1_000
IN_FLIGHT = 1_000
COMMANDS_EACH = 60
ROUNDS = 7
TARGET = 0.7
TARGET_ONE = 1.0
TARGET_ASYNC = 0.7


async def _commands(targets: list[Any], handler: str = "reserve") -> float:
    """Commands a second; caller n asks target n."""

    async def caller(target: Any) -> None:
        call = getattr(target, handler)
        for _ in range(COMMANDS_EACH):
            await call(1)

    begin_s = time.perf_counter()
    await asyncio.gather(*(caller(targets[number % len(targets)]) for number in range(IN_FLIGHT)))
    return IN_FLIGHT * COMMANDS_EACH / (time.perf_counter() - begin_s)


async def _against_the_floor(directory: Path) -> dict[str, Any]:
    journal = directory / "ours.db"
    copied = 0
    async with ActorSystem(journal=f"sqlite:///{journal}") as system:
        floor = GroupCommitFloor(directory / "floor.db")
        pools = [system.get(Counter, f"pool-{number}") for number in range(ENTITIES)]

        async def ours() -> float:
            return await _commands(pools)

        async def theirs() -> float:
            nonlocal copied
            rows, copied = new_rows(journal, copied)
            begin_s = time.perf_counter()
            await write_all(floor, rows, IN_FLIGHT)
            return len(rows) / (time.perf_counter() - begin_s)

        values, floors = await interleaved(ours, theirs, rounds=ROUNDS)
        floor.close()
    question = f"durable commands, {ENTITIES:,} entities, {IN_FLIGHT:,} in flight, against the same rows in one thread"
    return result(question, "1/s", values, floors, target=TARGET)


async def _one_against_many(directory: Path) -> dict[str, Any]:
    async with ActorSystem(journal=f"sqlite:///{directory / 'one.db'}") as system:
        one = [system.get(Counter, "the-one")]
        many = [system.get(Counter, f"pool-{number}") for number in range(ENTITIES)]
        values, floors = await interleaved(lambda: _commands(one), lambda: _commands(many), rounds=ROUNDS)
    question = f"durable commands on one entity, {IN_FLIGHT:,} in flight, against {ENTITIES:,} entities"
    return result(question, "1/s", values, floors, target=TARGET_ONE)


async def _async_against_plain(directory: Path) -> dict[str, Any]:
    """An ``async`` handler that never waits; before Python 3.12 it costs a task all the same."""
    async with ActorSystem(journal=f"sqlite:///{directory / 'async.db'}") as system:
        pools = [system.get(Counter, f"pool-{number}") for number in range(ENTITIES)]
        values, floors = await interleaved(
            lambda: _commands(pools, "reserve_async"), lambda: _commands(pools), rounds=ROUNDS
        )
    question = f"durable commands with async handlers, {ENTITIES:,} entities, against plain ones"
    return result(question, "1/s", values, floors, target=TARGET_ASYNC)


def run() -> list[dict[str, Any]]:
    """All three questions."""
    with scratch() as directory:
        return [
            actorkit.run(_against_the_floor(directory)),
            actorkit.run(_one_against_many(directory)),
            actorkit.run(_async_against_plain(directory)),
        ]


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))

"""Shards that were taken over are read up to their heads, whenever that happens and whatever fails meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from actorkit.errors import JournalUnavailable
from actorkit.readmodel.adoption import Adoption


class Log:
    """Stands in for the reader and its store: says what was read."""

    shards = 4

    def __init__(self) -> None:
        self.read: list[tuple[int, int]] = []
        self.read_all = 0
        self.fails = 0

    async def read_log(self, shard: int, *, after: int) -> int:
        await asyncio.sleep(0)
        if self.fails:
            self.fails -= 1
            raise JournalUnavailable("the test says so")
        self.read.append((shard, after))
        return after

    async def read_streams(self, types: Any, *, where: Any) -> int:
        await asyncio.sleep(0)
        self.read_all += 1
        return 0


def adoption(log: Log, positions: dict[int, int], adopted: list[tuple[int, int, int]], told: set[int]) -> Adoption:
    return Adoption(
        cast("Any", log),
        cast("Any", log),
        {},
        position=positions.get,
        may_be_told=lambda shard: shard in told,
        adopted=lambda shard, epoch, head: adopted.append((shard, epoch, head)),
        wait_max_s=2.0,
        fatal=lambda error: None,
    )


async def test_the_log_is_read_from_where_it_is_shown() -> None:
    log, adopted = Log(), list[tuple[int, int, int]]()
    reading = adoption(log, {1: 5, 2: 9}, adopted, set())
    reading.taken_over(1, 3, 8)
    reading.taken_over(2, 4, 9)
    while reading.busy:
        await asyncio.sleep(0.01)
    assert log.read == [(1, 5)]
    assert adopted == [(1, 3, 8), (2, 4, 9)]


async def test_a_shard_that_is_taken_over_at_any_moment_of_the_reading_of_another_is_read() -> None:
    for turns in range(20):
        log, adopted = Log(), list[tuple[int, int, int]]()
        reading = adoption(log, {1: 5, 2: 5}, adopted, set())
        reading.taken_over(1, 1, 8)
        for _ in range(turns):
            await asyncio.sleep(0)
        reading.taken_over(2, 1, 8)
        async with asyncio.timeout(5.0):
            while len(adopted) < 2:
                await asyncio.sleep(0.01)


async def test_where_nobody_knows_the_position_all_entities_are_read_after_others_had_time_to_say() -> None:
    log, adopted = Log(), list[tuple[int, int, int]]()
    positions: dict[int, int] = {}
    told = {1, 2}
    reading = adoption(log, positions, adopted, told)
    for shard in (1, 2, 3):
        reading.taken_over(shard, 1, 8)
    await asyncio.sleep(0.5)
    assert [shard for shard, _, _ in adopted] == [3]
    positions[1] = 6
    await asyncio.sleep(0.5)
    assert log.read == [(1, 6)]
    assert log.read_all == 1
    await asyncio.sleep(2.0)
    assert {shard for shard, _, _ in adopted} == {1, 2, 3}
    assert log.read_all == 2


async def test_reading_that_fails_is_tried_again() -> None:
    log, adopted = Log(), list[tuple[int, int, int]]()
    log.fails = 4
    reading = adoption(log, {1: 5}, adopted, set())
    reading.taken_over(1, 3, 8)
    async with asyncio.timeout(30.0):
        while reading.busy:
            await asyncio.sleep(0.1)
    assert adopted == [(1, 3, 8)]


async def test_a_shard_that_changes_hands_while_it_is_read_is_read_again() -> None:
    log, adopted = Log(), list[tuple[int, int, int]]()
    reading = adoption(log, {1: 5}, adopted, set())
    reading.taken_over(1, 3, 8)
    await asyncio.sleep(0)
    reading.taken_over(1, 5, 12)
    while reading.busy:
        await asyncio.sleep(0.01)
    assert adopted == [(1, 5, 12)]
    assert log.read == [(1, 5), (1, 5)]

"""Leases: renewing, confirming and asking again, against a store that hangs or belongs to somebody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from actorkit.journal.memory import MemoryJournal
from actorkit.sharding.leases import Leases
from actorkit.sharding.settings import ShardingSettings
from actorkit.sharding.shard import Shard
from tests.persistence.kit import LoopClock, ScriptedJournal, eventually, turns

SETTINGS = ShardingSettings(lease_s=3.0, lease_renew_s=1.0, acquire_retry_s=0.25)


class Process:
    """The leases of one process, and what they have told its region."""

    def __init__(self, clock: LoopClock, inner: Any = None) -> None:
        self.clock = clock
        self.store = ScriptedJournal(inner, clock=clock)
        self.renewals = asyncio.Event()
        self.renewals.set()
        """Renewals are answered only while this is set; until then they wait, having been carried out."""
        self.store.renew = self._renew  # type: ignore[method-assign]
        self.leases = Leases(
            self.store,
            owner="this one",
            clock=clock,
            settings=SETTINGS,
            acquired=lambda shard, unbroken, head: None,
            lost=lambda shard: self.leases.want(shard),
            fatal=lambda error: None,
        )

    async def _renew(self, *args: Any, **how: Any) -> Any:
        renewed = await self.store.inner.renew(*args, **how)
        await self.renewals.wait()
        return renewed

    async def own(self, *numbers: int) -> list[Shard]:
        shards = [Shard(number, self.clock, self.leases, SETTINGS.clock_rate_error) for number in numbers]
        for shard in shards:
            self.leases.want(shard)
        await eventually(lambda: all(shard.ready for shard in shards))
        return shards

    def hang(self) -> None:
        """Reads of the shards' records are never answered from now on."""

        async def status(*args: Any, **how: Any) -> Any:
            await asyncio.get_running_loop().create_future()

        self.store.status = status  # type: ignore[method-assign]

    def answer(self) -> None:
        self.store.status = self.store.inner.status


@pytest.fixture
async def process() -> AsyncIterator[Process]:
    process = Process(LoopClock())
    await process.store.open(8)
    process.leases.start()
    yield process
    await process.leases.stop()


async def test_a_read_that_hangs_keeps_no_confirmation_waiting_for_good(process: Process) -> None:
    [shard] = await process.own(1)
    process.renewals.clear()
    process.hang()
    told: list[bool] = []
    shard.confirm(shard.epoch, told.append)
    await turns()
    process.answer()
    shard.confirm(shard.epoch, told.append)
    await asyncio.sleep(SETTINGS.lease_s + 0.1)
    assert told == [True, True]


async def test_confirmations_end_when_the_store_never_answers(process: Process) -> None:
    [shard] = await process.own(1)
    process.renewals.clear()
    process.hang()
    told: list[bool] = []
    shard.confirm(shard.epoch, told.append)
    await asyncio.sleep(60)
    assert told == [False]


async def test_one_that_fails_when_told_keeps_nobody_else_from_being_told(process: Process) -> None:
    [shard, other] = await process.own(1, 2)
    told: list[bool] = []

    def fail(still_counts: bool) -> None:
        raise ZeroDivisionError

    shard.confirm(shard.epoch, fail)
    shard.confirm(shard.epoch, told.append)
    other.confirm(other.epoch, told.append)
    await turns()
    assert told == [True, True]


async def test_a_renewal_confirms_what_waits_while_reads_hang(process: Process) -> None:
    [shard] = await process.own(1)
    process.hang()
    told: list[bool] = []
    shard.confirm(shard.epoch, told.append)
    await asyncio.sleep(SETTINGS.lease_renew_s + 0.1)
    assert told == [True]


async def test_a_renewal_that_is_answered_after_it_has_run_out_confirms_nothing(process: Process) -> None:
    """Another one may have taken over between the renewal and its answer, before the confirmation was asked for."""
    [shard] = await process.own(1)
    process.hang()
    process.renewals.clear()
    await asyncio.sleep(SETTINGS.lease_renew_s + 0.1)
    process.clock.lease_offset_s += SETTINGS.lease_s
    told: list[bool] = []
    shard.confirm(shard.epoch, told.append)
    process.renewals.set()
    await turns()
    assert told == []
    await asyncio.sleep(SETTINGS.lease_renew_s)
    assert told == [True], "the next renewal was in time"


async def test_raising_ones_own_epoch_confirms_memory_of_the_epoch_before(process: Process) -> None:
    [shard] = await process.own(1)
    before = shard.epoch
    process.hang()
    told: list[bool] = []
    shard.confirm(before, told.append)
    assert await shard.settle_doubt(before)
    await turns()
    assert shard.epoch == before + 1
    assert told == [True]


async def test_a_read_confirms_memory_of_an_older_epoch_unless_others_were_in_between(process: Process) -> None:
    [shard] = await process.own(1)
    first = shard.epoch
    assert await shard.settle_doubt(first)
    told: list[bool] = []
    shard.confirm(first, told.append)
    await turns()
    assert told == [True]
    second = shard.epoch
    process.clock.lease_offset_s += SETTINGS.lease_s
    await process.store.inner.acquire([1], owner="another one", duration_s=1)
    await asyncio.sleep(SETTINGS.lease_renew_s + 1.5)
    assert shard.ready
    assert shard.unbroken_since == shard.epoch == second + 2
    shard.confirm(second, told.append)
    shard.confirm(shard.epoch, told.append)
    await turns()
    assert told == [True, False, True]


async def test_shards_of_others_are_asked_for_at_one_pace_however_many_are_wanted() -> None:
    clock = LoopClock()
    inner = MemoryJournal(clock=clock)
    process = Process(clock, inner)
    await process.store.open(256)
    await inner.acquire(list(range(256)), owner="another one", duration_s=10_000)
    asked = 0

    async def acquire(*args: Any, **how: Any) -> Any:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.001)
        return await inner.acquire(*args, **how)

    process.store.acquire = acquire  # type: ignore[method-assign]
    process.leases.start()
    for number in range(256):
        process.leases.want(Shard(number, clock, process.leases, SETTINGS.clock_rate_error))
        await asyncio.sleep(0.0013)
    await asyncio.sleep(1)
    asked = 0
    await asyncio.sleep(10)
    assert asked <= 10 / SETTINGS.acquire_retry_s
    await process.leases.stop()

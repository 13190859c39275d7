"""Requests about leases: they have time limits, late answers do no harm, and whoever is waited for is named."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from actorkit.errors import JournalUnavailable
from actorkit.journal.memory import MemoryJournal
from actorkit.journal.protocols import Append, Appended, Fenced, NewEvent
from actorkit.sharding.leases import Leases
from actorkit.sharding.settings import ShardingSettings
from actorkit.sharding.shard import Shard
from tests.persistence.actors import Account
from tests.persistence.kit import LoopClock, Nodes, eventually, turns

SETTINGS = ShardingSettings()


class SlowStore:
    """Carries each request out after its delay, whether or not anybody still waits for the answer."""

    def __init__(self, clock: LoopClock) -> None:
        self.inner: Any = MemoryJournal(clock=clock)
        self.delays: deque[tuple[float, float]] = deque()
        """For the next requests: how long until it is carried out, and from then until it is answered."""
        self.asked: list[tuple[str, float]] = []

    async def _request(self, how: str, *args: Any, **named: Any) -> Any:
        loop = asyncio.get_running_loop()
        self.asked.append((how, loop.time()))
        until_done_s, until_answered_s = self.delays.popleft() if self.delays else (0.0, 0.0)

        async def carry_out() -> Any:
            await asyncio.sleep(until_done_s)
            answer = await getattr(self.inner, how)(*args, **named)
            await asyncio.sleep(until_answered_s)
            return answer

        return await asyncio.shield(loop.create_task(carry_out()))

    async def acquire(self, *args: Any, **how: Any) -> Any:
        return await self._request("acquire", *args, **how)

    async def renew(self, *args: Any, **how: Any) -> Any:
        return await self._request("renew", *args, **how)

    async def release(self, *args: Any, **how: Any) -> Any:
        return await self._request("release", *args, **how)

    async def status(self, *args: Any, **how: Any) -> Any:
        return await self.inner.status(*args, **how)


class Process:
    def __init__(self) -> None:
        self.clock = LoopClock()
        self.store = SlowStore(self.clock)
        self.lost: list[int] = []
        self.leases = Leases(
            self.store,
            owner="this one",
            clock=self.clock,
            settings=SETTINGS,
            acquired=lambda shard, unbroken, head: None,
            lost=self._lost,
            fatal=lambda error: None,
        )

    def _lost(self, shard: Shard) -> None:
        self.lost.append(shard.shard)
        self.leases.want(shard)

    def want(self, number: int = 1) -> Shard:
        shard = Shard(number, self.clock, self.leases, SETTINGS.clock_rate_error)
        self.leases.want(shard)
        return shard

    async def epoch(self, number: int = 1) -> int:
        [status] = await self.store.inner.status([number])
        return int(status.epoch)

    async def append(self, shard: Shard, epoch: int) -> Any:
        event = NewEvent("happened", 1, b"\x80")
        [status] = await self.store.inner.status([shard.shard])
        stream = f"x/{status.head}"
        [result] = await self.store.inner.append([Append(shard.shard, epoch, stream, 0, (event,), 0, b"", None, None)])
        return result


@pytest.fixture
async def process() -> AsyncIterator[Process]:
    process = Process()
    await process.store.inner.open(8)
    process.leases.start()
    yield process
    await process.leases.stop()


async def test_an_acquisition_that_is_answered_after_it_was_given_up_is_not_assumed(process: Process) -> None:
    """The store carries it out at once and answers late: the epoch is raised, and nobody here writes under it."""
    process.store.delays.append((0.0, 10.0))
    shard = process.want()
    await asyncio.sleep(SETTINGS.lease_acquire_timeout_s - 0.1)
    assert not shard.ready
    assert await process.epoch() == 1
    await eventually(lambda: shard.ready)
    assert shard.epoch == await process.epoch() == 2
    await asyncio.sleep(20)
    assert (shard.epoch, shard.ready, process.lost) == (2, True, []), "the late answer has changed nothing"
    assert isinstance(await process.append(shard, 1), Fenced)
    assert isinstance(await process.append(shard, 2), Appended)


async def test_an_acquisition_that_is_carried_out_after_a_later_one_only_costs_another(process: Process) -> None:
    process.store.delays.append((10.0, 0.0))
    shard = process.want()
    await eventually(lambda: shard.ready)
    assert shard.epoch == await process.epoch() == 1
    await asyncio.sleep(10)
    assert await process.epoch() >= 2
    assert isinstance(await process.append(shard, 1), Fenced)
    await eventually(lambda: shard.ready and shard.epoch == 3)
    assert process.lost == [1]
    assert shard.unbroken_since == 3, "memory from before does not count"
    assert isinstance(await process.append(shard, 3), Appended)


async def test_a_lease_counts_from_before_the_acquisition_that_was_answered_slowly(process: Process) -> None:
    process.store.delays.append((SETTINGS.lease_acquire_timeout_s - 0.1, 0.0))
    shard = process.want()
    begun_s = process.clock.lease_s()
    await eventually(lambda: shard.ready)
    assert shard.lease.valid_until_s < begun_s + SETTINGS.lease_s
    await asyncio.sleep(SETTINGS.lease_renew_s)
    assert shard.lease_is_valid(), "it has been renewed"


async def test_a_renewal_that_hangs_is_sent_again_before_the_lease_has_run_out(process: Process) -> None:
    shard = process.want()
    await eventually(lambda: shard.ready)
    process.store.asked.clear()
    process.store.delays.append((1_000.0, 0.0))
    await eventually(lambda: process.store.asked)
    [(_, first_s)] = process.store.asked
    for _ in range(40):
        await asyncio.sleep(0.05)
        assert shard.lease_is_valid()
    assert [how for how, _ in process.store.asked] == ["renew"] * len(process.store.asked)
    assert process.store.asked[1][1] - first_s <= SETTINGS.lease_renew_timeout_s + 0.1


async def test_a_renewal_that_is_carried_out_late_gives_nobody_here_a_longer_lease(process: Process) -> None:
    shard = process.want()
    await eventually(lambda: shard.ready)
    process.store.delays.extend([(1.5, 10.0)] * 3)
    valid_until_s = shard.lease.valid_until_s
    await asyncio.sleep(SETTINGS.lease_renew_s + 2.5)
    assert shard.lease.valid_until_s == valid_until_s
    assert not shard.lease_is_valid()
    assert shard.ready, "nobody else has it"
    await eventually(shard.lease_is_valid)
    assert process.lost == []


async def test_giving_leases_up_has_an_end_although_the_store_hangs(process: Process) -> None:
    shard = process.want()
    await eventually(lambda: shard.ready)
    process.store.delays.extend([(1_000.0, 0.0)] * 3)
    begun_s = asyncio.get_running_loop().time()
    await process.leases.stop()
    assert asyncio.get_running_loop().time() - begun_s <= SETTINGS.lease_acquire_timeout_s + 0.1
    process.store.delays.clear()


async def test_calls_end_in_time_and_are_served_again_although_acquiring_hangs(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal, shards=1)
    acquire, hung = journal.acquire, asyncio.Event()

    async def hang(*args: Any, **how: Any) -> Any:
        hung.set()
        await asyncio.get_running_loop().create_future()

    journal.acquire = hang  # type: ignore[method-assign]
    account = system.get(Account, "a")
    first = asyncio.ensure_future(account.put.options(deadline_s=60)(1))
    await hung.wait()
    journal.acquire = acquire  # type: ignore[method-assign]
    begun_s = asyncio.get_running_loop().time()
    assert await first == 1
    assert asyncio.get_running_loop().time() - begun_s <= SETTINGS.lease_acquire_timeout_s + 0.5


async def test_a_store_that_fails_is_asked_with_growing_pauses_and_a_renewal_at_its_pace(process: Process) -> None:
    shard = process.want()
    await eventually(lambda: shard.ready)
    process.store.asked.clear()

    async def fail(*args: Any, **how: Any) -> Any:
        process.store.asked.append(("renew", asyncio.get_running_loop().time()))
        raise JournalUnavailable("cut off")

    process.store.renew = fail  # type: ignore[method-assign]
    await asyncio.sleep(10)
    assert len(process.store.asked) <= 11


async def test_whoever_has_the_shards_is_named_once_and_then_rarely(nodes: Nodes) -> None:
    first_journal = nodes.journal()
    first = await nodes.start(first_journal, shards=8)
    await first.own_all_shards()
    with capture_logs() as lines:
        second = await nodes.start(nodes.journal(first_journal.inner), shards=8)
        owning = asyncio.ensure_future(second.own_all_shards())
        await asyncio.sleep(50)
        [line] = [line for line in lines if line["event"] == "leases.waiting"]
        assert line["log_level"] == "info"
        assert line["owners"] == [str(first.node)]
        assert line["shards"] == 8
        assert "waiting_for" in line["hint"]
        assert second.region.waiting_for == dict.fromkeys(range(8), str(first.node))
        await asyncio.sleep(100)
        assert len([line for line in lines if line["event"] == "leases.waiting"]) == 3
        await first.stop()
        await owning
        await turns()
    assert second.region.waiting_for == {}


async def test_shards_that_are_given_up_at_once_or_meanwhile_go_to_the_store_together(process: Process) -> None:
    shards = [process.want(number) for number in range(8)]
    await eventually(lambda: all(shard.ready for shard in shards))
    process.store.asked.clear()
    process.store.delays.append((1.0, 0.0))
    first = [asyncio.create_task(process.leases.release([shard])) for shard in shards[:3]]
    await turns()
    second = [asyncio.create_task(process.leases.release([shard])) for shard in shards[3:]]
    await asyncio.gather(*first)
    assert not any(task.done() for task in second), "theirs has only just been asked for"
    await asyncio.gather(*second)
    assert [how for how, _ in process.store.asked].count("release") == 2
    assert {status.owner for status in await process.store.inner.status()} == {""}


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_shard_is_given_up_although_the_request_with_which_it_went_came_to_nothing(
    process: Process, cancelled: bool
) -> None:
    one, other = process.want(1), process.want(2)
    await eventually(lambda: one.ready and other.ready)
    process.store.delays.append((1_000.0, 0.0))
    begun_s = asyncio.get_running_loop().time()
    first = asyncio.create_task(process.leases.release([one]))
    await asyncio.sleep(1.0 if cancelled else SETTINGS.lease_acquire_timeout_s - 0.1)
    second = asyncio.create_task(process.leases.release([other]))
    await turns()
    if cancelled:
        first.cancel()
    await second
    took_s = asyncio.get_running_loop().time() - begun_s
    assert took_s <= (1.0 if cancelled else SETTINGS.lease_acquire_timeout_s) + 0.1
    assert {status.owner for status in await process.store.inner.status([1, 2])} == {""}
    await asyncio.wait([first])


async def test_what_could_not_be_given_up_takes_no_later_lease_away(process: Process) -> None:
    shard, other = process.want(1), process.want(2)
    await eventually(lambda: shard.ready and other.ready)
    process.store.delays.append((1_000.0, 0.0))
    await process.leases.release([shard])
    process.leases.want(shard)
    await eventually(lambda: shard.ready)
    await process.leases.release([other])
    await asyncio.sleep(SETTINGS.lease_s)
    assert shard.ready
    assert process.lost == []
    [status] = await process.store.inner.status([1])
    assert status.owner == "this one"

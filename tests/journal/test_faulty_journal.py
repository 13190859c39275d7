"""The faulty journal does what its faults say, and is a journal otherwise."""

from __future__ import annotations

import asyncio

import pytest

from actorkit.errors import AppendUncertain, JournalFailed, JournalUnavailable
from actorkit.journal.memory import MemoryJournal
from actorkit.journal.protocols import Acquired, Appended, Conflict, Fenced, Refused, StoredSnapshot
from actorkit.testing.faulty_journal import Fault, FaultyJournal, Spoil
from actorkit.testing.journal_spec import JournalSpec, MakeStore, some_append


class TestFaultyJournalWithoutFaults(JournalSpec):
    @pytest.fixture
    def make(self) -> MakeStore:
        return lambda clock: FaultyJournal(MemoryJournal(clock=clock))


@pytest.fixture
async def journal() -> FaultyJournal:
    journal = FaultyJournal(MemoryJournal())
    await journal.open(4)
    await journal.acquire(range(4), owner="me", duration_s=60)
    return journal


@pytest.mark.parametrize(
    ("fault", "error", "stored"),
    [
        (Fault.UNCERTAIN_LOST, AppendUncertain, 0),
        (Fault.UNCERTAIN_STORED, AppendUncertain, 1),
        (Fault.UNAVAILABLE, JournalUnavailable, 0),
        (JournalUnavailable("mine"), JournalUnavailable, 0),
    ],
)
async def test_a_fault_of_the_next_append(
    journal: FaultyJournal, fault: Fault, error: type[Exception], stored: int
) -> None:
    journal.faults.extend([None, fault])
    await journal.append([some_append(0)])
    with pytest.raises(error):
        await journal.append([some_append(1)])
    assert len(await journal.read_stream("pool/a", after=1, limit=9)) == stored
    assert await journal.append([some_append(1 + stored)]) == [Appended(2 + stored)]
    assert len(journal.batches) == 3


async def test_a_failed_journal_stays_failed(journal: FaultyJournal) -> None:
    journal.faults.append(Fault.FAILED)
    for _ in range(2):
        with pytest.raises(JournalFailed):
            await journal.append([some_append(0)])
    with pytest.raises(JournalFailed):
        await journal.status()


async def test_a_hung_append_is_stored_late_although_its_caller_is_gone(journal: FaultyJournal) -> None:
    journal.faults.append(Fault.HANG)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await journal.append([some_append(0)])
    assert journal.hung == 1
    assert await journal.read_stream("pool/a", after=0, limit=9) == []
    await journal.release_hung()
    assert len(await journal.read_stream("pool/a", after=0, limit=9)) == 1


async def test_raising_the_epoch_kills_a_hung_append(journal: FaultyJournal) -> None:
    journal.faults.append(Fault.HANG)
    hung = asyncio.ensure_future(journal.append([some_append(0)]))
    await asyncio.sleep(0)
    assert await journal.acquire([0], owner="me", duration_s=60) == [Acquired(0, 2, 0)]
    await journal.release_hung()
    assert await hung == [Fenced(2)]


async def test_a_hung_append_may_be_lost(journal: FaultyJournal) -> None:
    journal.faults.append(Fault.HANG_LOST)
    hung = asyncio.ensure_future(journal.append([some_append(0)]))
    await asyncio.sleep(0)
    await journal.release_hung()
    with pytest.raises(AppendUncertain):
        await hung
    assert await journal.append([some_append(0)]) == [Appended(1)]


async def test_one_append_of_a_batch_is_spoilt(journal: FaultyJournal) -> None:
    batch = [some_append(0), some_append(0, stream="pool/b", shard=1), some_append(1)]
    journal.faults.append(Spoil(lambda append: append.shard == 1, Fenced(7)))
    assert await journal.append(batch) == [Appended(1), Fenced(7), Appended(2)]
    journal.on_append = lambda batch: Spoil(lambda append: append.expected == 2, Refused("too large"))
    assert await journal.append([some_append(2), some_append(3)]) == [Refused("too large"), Conflict(2)]


async def test_reads_and_snapshots_fail_on_demand(journal: FaultyJournal) -> None:
    journal.on_read = lambda call: JournalUnavailable("down") if call == "read_log" else None
    with pytest.raises(JournalUnavailable):
        await journal.read_log(0, after=0, limit=1)
    assert await journal.read_stream("pool/a", after=0, limit=1) == []
    journal.on_save_snapshot = lambda snapshot: AppendUncertain("disk full")
    with pytest.raises(AppendUncertain):
        await journal.save_snapshot(StoredSnapshot("pool/a", 1, 1, b""), keep=1)
    assert await journal.load_snapshots("pool/a") == []

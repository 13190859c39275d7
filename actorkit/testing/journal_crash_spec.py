"""What a crash leaves of a journal, as tests: the part of the contract for backends that are durable.

Subclass ``JournalCrashSpec`` beside ``JournalSpec``, and say what the store's place looks like after a crash at this
very moment, as a store that has not been opened yet::

    class TestMyCrashes(JournalCrashSpec):
        @pytest.fixture
        def make(self, tmp_path: Path) -> MakeStore:
            return lambda clock: MyJournal(tmp_path / "journal", clock=clock)

        @pytest.fixture
        def crash(self, tmp_path: Path, clock: SteppedClock) -> CrashStore:
            async def crash(store: Store) -> Store:
                copy_what_is_on_disk(tmp_path / "journal", tmp_path / "left")
                return MyJournal(tmp_path / "left", clock=clock)

            return crash

A crash may lose what was not acknowledged, or keep it, but never a part of a batch where the engine says that a batch
is one transaction, and never a part of one append.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

import pytest

from actorkit.errors import JournalError
from actorkit.journal.protocols import Acquired, Append, Appended, Fenced, Recorded, Store, StoredSnapshot
from actorkit.testing.journal_spec_kit import OWNER, SHARDS, SteppedClock, StoreSpec, outcome_of, some_append

__all__ = ["CrashStore", "JournalCrashSpec"]

CrashStore: TypeAlias = Callable[[Store], Awaitable[Store]]

BATCHES = 12
SUCCESSOR = "node-1#b"


def batch(number: int) -> list[Append]:
    """Something for each shard: two events, an outcome alone, one event."""
    return [
        some_append(2 * number, b"1", b"2", stream="pool/0", shard=0, key=f"k{number}", outcome=b"done"),
        outcome_of(0, b"no", key=f"k{number}", stream="pool/1", shard=1, time_us=100 + number),
        some_append(number, b"x" * 10_000, stream="pool/2", shard=2),
    ]


async def logs_of(store: Store) -> list[list[Recorded]]:
    return [await store.read_log(shard, after=0, limit=10_000) for shard in range(SHARDS)]


@pytest.mark.asyncio
class JournalCrashSpec(StoreSpec):
    """What every durable ``Store`` has after a crash. A subclass gives the fixtures ``make`` and ``crash``."""

    @pytest.fixture
    def crash(self) -> CrashStore:
        raise NotImplementedError("give a fixture crash() -> CrashStore")

    async def test_what_was_acknowledged_is_there(self, store: Store, crash: CrashStore) -> None:
        for number in range(BATCHES):
            assert all(isinstance(result, Appended) for result in await store.append(batch(number)))
        await store.save_cursor("view", {1: 7})
        await store.save_snapshot(StoredSnapshot("pool/0", 2, 100, b"state"), keep=2)
        before = await logs_of(store)
        left = await crash(store)
        await left.open(None)
        assert left.shards == SHARDS
        assert await logs_of(left) == before
        assert await left.load_cursor("view") == {1: 7}
        assert [snapshot.payload for snapshot in await left.load_snapshots("pool/0")] == [b"state"]
        found = await left.find_key("pool/0", "k3", since_us=0)
        assert found is not None
        assert found.outcome == b"done"
        await left.close()

    async def test_leases_and_epochs_survive(self, store: Store, crash: CrashStore, clock: SteppedClock) -> None:
        await store.acquire([2], owner=OWNER, duration_s=3.0)
        left = await crash(store)
        await left.open(None)
        held = await left.acquire([1, 2], owner=SUCCESSOR, duration_s=3.0)
        assert [(answer.epoch, isinstance(answer, Acquired)) for answer in held] == [(1, False), (2, False)]
        clock.advance(3.001)
        assert await left.acquire([1, 2], owner=SUCCESSOR, duration_s=3.0) == [Acquired(1, 2, 0), Acquired(2, 3, 0)]
        late = [some_append(0, stream="pool/2", shard=2, epoch=2), some_append(0, stream="pool/2", shard=2, epoch=3)]
        assert await left.append(late) == [Fenced(3), Appended(1)]
        await left.close()

    @pytest.mark.parametrize("after_s", [0.0, 0.000_3, 0.001, 0.003, 0.006, 0.01, 0.02, 0.05])
    async def test_in_the_middle_of_appends_nothing_is_torn(
        self, store: Store, crash: CrashStore, clock: SteppedClock, after_s: float
    ) -> None:
        acknowledged: list[int] = []

        async def write() -> None:
            for number in range(BATCHES):
                await store.append(batch(number))
                acknowledged.append(number)

        writing = asyncio.create_task(write())
        await asyncio.wait([writing], timeout=after_s)
        told = len(acknowledged)
        # Whoever was writing dies, too; what has left goes on by itself.
        writing.cancel()
        left = await crash(store)
        await left.open(None)
        kept = self._check(await logs_of(left), atomic=left.capabilities.multi_stream_atomic)
        assert kept >= told, f"{told} batches were acknowledged, {kept} are left"
        with suppress(asyncio.CancelledError, JournalError):
            await writing
        await self._goes_on(left, clock, kept)
        await left.close()

    @staticmethod
    def _check(logs: Sequence[Sequence[Recorded]], *, atomic: bool) -> int:
        """Whether the logs hold the first batches, and nothing else; returns how many."""
        for log in logs:
            assert [record.position for record in log] == list(range(1, len(log) + 1))
        assert [record.sequence for record in logs[0]] == list(range(1, len(logs[0]) + 1))
        assert [record.sequence for record in logs[2]] == list(range(1, len(logs[2]) + 1))
        assert len(logs[0]) % 2 == 0, "one of two events of an append is left"
        counts = {len(logs[0]) // 2, len(logs[1]), len(logs[2])}
        assert not atomic or len(counts) == 1, f"a part of a batch is left: {counts}"
        return min(counts)

    @staticmethod
    async def _goes_on(left: Store, clock: SteppedClock, kept: int) -> None:
        """A successor takes over and writes where the crash has left off."""
        clock.advance(3.001)
        acquired = await left.acquire([2], owner=SUCCESSOR, duration_s=3.0)
        assert acquired == [Acquired(2, 2, kept)]
        assert await left.append([some_append(kept, stream="pool/2", shard=2, epoch=2)]) == [Appended(kept + 1)]

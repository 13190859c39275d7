"""A journal that fails when a test says so.

``FaultyJournal`` wraps any store. Its ``faults`` are used up by the next appends, one each; ``on_append`` decides about
every append by what is in the batch; ``on_read`` and ``on_save_snapshot`` raise in front of reads and snapshots::

    journal = FaultyJournal(MemoryJournal())
    journal.faults.extend([None, Fault.UNCERTAIN_STORED])    # the second append from now loses its answer
    journal.on_append = lambda batch: Fault.UNAVAILABLE if any(a.shard == 3 for a in batch) else None

Faults of one append in a batch (one shard fenced, one payload refused) are a ``Spoil``; the rest of the batch goes on.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from actorkit.errors import AppendUncertain, JournalError, JournalFailed, JournalUnavailable
from actorkit.journal.protocols import (
    Acquired,
    Append,
    AppendResult,
    Capabilities,
    EventPage,
    Fenced,
    Held,
    Recorded,
    Refused,
    ShardStatus,
    Store,
    StoredSnapshot,
)

__all__ = ["Fault", "FaultyJournal", "Spoil"]


class Fault(enum.Enum):
    """What may happen to a whole batch."""

    UNCERTAIN_LOST = enum.auto()
    """An I/O error or a full disk before anything was stored, which the store cannot tell from one after it."""
    UNCERTAIN_STORED = enum.auto()
    """The batch is stored, but the answer is lost or a time-out."""
    UNAVAILABLE = enum.auto()
    """The store cannot be reached; surely nothing is stored."""
    FAILED = enum.auto()
    """A sync failed: the batch is not stored, and from now on every call fails."""
    HANG = enum.auto()
    """No answer until ``release_hung``; the batch is stored only then, however late that is."""
    HANG_LOST = enum.auto()
    """No answer until ``release_hung``; the batch is never stored, and then says it is not sure."""


class Spoil:
    """Gives the appends that ``which`` picks this result instead of storing them; the rest of the batch goes on.

    With ``Refused`` that is a payload the store does not take, with ``Fenced`` a shard that was lost in mid-batch.
    """

    def __init__(self, which: Callable[[Append], bool], result: Refused | Fenced) -> None:
        self.which = which
        self.result = result


AppendFault: TypeAlias = Fault | Spoil | JournalError | None


class FaultyJournal:
    """A ``Store`` in front of another one. ``batches`` keeps what was appended, in the order it came."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.faults: deque[AppendFault] = deque()
        self.on_append: Callable[[Sequence[Append]], AppendFault] | None = None
        self.on_read: Callable[[str], JournalError | None] | None = None
        """Asked before every read and lease call with the method's name; what it returns is raised."""
        self.on_save_snapshot: Callable[[StoredSnapshot], JournalError | None] | None = None
        self.batches: list[Sequence[Append]] = []
        self.failed: JournalFailed | None = None
        self._hung: deque[asyncio.Future[None]] = deque()

    @property
    def hung(self) -> int:
        """How many batches hang."""
        return sum(not gate.done() for gate in self._hung)

    async def release_hung(self, count: int | None = None) -> None:
        """Lets the oldest ``count`` hanging batches go on (all of them), and waits until they have."""
        waiting = [gate for gate in self._hung if not gate.done()]
        for gate in waiting[:count]:
            gate.set_result(None)
        for _ in range(10):
            await asyncio.sleep(0)

    # ----------------------------------------------------------------------------------------------------- appending

    async def append(self, batch: Sequence[Append]) -> list[AppendResult]:
        self._check("append")
        self.batches.append(batch)
        fault = self.faults.popleft() if self.faults else None
        if fault is None and self.on_append is not None:
            fault = self.on_append(batch)
        if fault is None:
            return await self.inner.append(batch)
        if isinstance(fault, JournalError):
            raise fault
        if isinstance(fault, Spoil):
            return await self._spoil(batch, fault)
        return await self._fault(batch, fault)

    async def _spoil(self, batch: Sequence[Append], spoil: Spoil) -> list[AppendResult]:
        kept = iter(await self.inner.append([append for append in batch if not spoil.which(append)]))
        return [spoil.result if spoil.which(append) else next(kept) for append in batch]

    async def _fault(self, batch: Sequence[Append], fault: Fault) -> list[AppendResult]:
        match fault:
            case Fault.UNCERTAIN_LOST:
                raise AppendUncertain("injected: an I/O error, nothing is stored")
            case Fault.UNCERTAIN_STORED:
                await self.inner.append(batch)
                raise AppendUncertain("injected: a time-out, everything is stored")
            case Fault.UNAVAILABLE:
                raise JournalUnavailable("injected: the store cannot be reached")
            case Fault.FAILED:
                self.failed = JournalFailed("injected: a sync failed")
                raise self.failed
            case Fault.HANG | Fault.HANG_LOST:
                return await self._hang(batch, stored=fault is Fault.HANG)

    async def _hang(self, batch: Sequence[Append], *, stored: bool) -> list[AppendResult]:
        """The batch goes on by itself, as a request does that has left: cancelling the caller does not recall it."""
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._hung.append(gate)

        async def late() -> list[AppendResult]:
            await gate
            self._hung.remove(gate)
            if not stored:
                raise AppendUncertain("injected: a time-out, nothing is stored")
            return await self.inner.append(batch)

        task = asyncio.ensure_future(late())
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(task)

    def _check(self, call: str) -> None:
        if self.failed is not None:
            raise self.failed
        if call != "append" and self.on_read is not None:
            error = self.on_read(call)
            if error is not None:
                raise error

    # ------------------------------------------------------------------------------------------------- passed through

    @property
    def capabilities(self) -> Capabilities:
        return self.inner.capabilities

    @property
    def shards(self) -> int:
        return self.inner.shards

    @property
    def generation(self) -> int:
        return self.inner.generation

    @property
    def identity(self) -> str:
        return self.inner.identity

    async def open(self, shards: int | None) -> None:
        await self.inner.open(shards)

    async def close(self) -> None:
        """Batches that still hang are never stored."""
        for gate in self._hung:
            gate.cancel()
        await self.inner.close()

    async def read_stream(self, stream: str, *, after: int, limit: int) -> list[Recorded]:
        self._check("read_stream")
        return await self.inner.read_stream(stream, after=after, limit=limit)

    async def read_events(self, stream: str, *, after: int, limit: int) -> EventPage:
        self._check("read_events")
        return await self.inner.read_events(stream, after=after, limit=limit)

    async def read_log(self, shard: int, *, after: int, limit: int) -> list[Recorded]:
        self._check("read_log")
        return await self.inner.read_log(shard, after=after, limit=limit)

    async def find_key(self, stream: str, key: str, *, since_us: int) -> Recorded | None:
        self._check("find_key")
        return await self.inner.find_key(stream, key, since_us=since_us)

    async def recent_keys(self, stream: str, *, since_us: int, limit: int) -> list[Recorded]:
        self._check("recent_keys")
        return await self.inner.recent_keys(stream, since_us=since_us, limit=limit)

    async def count_keys(self, stream: str, *, since_us: int) -> int:
        self._check("count_keys")
        return await self.inner.count_keys(stream, since_us=since_us)

    async def streams(self, type: str, *, after: str, limit: int) -> list[str]:
        self._check("streams")
        return await self.inner.streams(type, after=after, limit=limit)

    async def save_snapshot(self, snapshot: StoredSnapshot, *, keep: int) -> None:
        self._check("save_snapshot")
        error = self.on_save_snapshot(snapshot) if self.on_save_snapshot is not None else None
        if error is not None:
            raise error
        await self.inner.save_snapshot(snapshot, keep=keep)

    async def load_snapshots(
        self, stream: str, *, max_sequence: int | None = None, max_time_us: int | None = None, limit: int = 3
    ) -> list[StoredSnapshot]:
        self._check("load_snapshots")
        return await self.inner.load_snapshots(stream, max_sequence=max_sequence, max_time_us=max_time_us, limit=limit)

    async def delete_snapshots(self, stream: str) -> None:
        self._check("delete_snapshots")
        await self.inner.delete_snapshots(stream)

    async def acquire(self, shards: Sequence[int], *, owner: str, duration_s: float) -> list[Acquired | Held]:
        self._check("acquire")
        return await self.inner.acquire(shards, owner=owner, duration_s=duration_s)

    async def renew(self, epochs: Mapping[int, int], *, owner: str, duration_s: float) -> set[int]:
        self._check("renew")
        return await self.inner.renew(epochs, owner=owner, duration_s=duration_s)

    async def release(self, epochs: Mapping[int, int], *, owner: str) -> None:
        self._check("release")
        await self.inner.release(epochs, owner=owner)

    async def claim(self, name: str, *, owner: str, duration_s: float) -> str:
        self._check("claim")
        return await self.inner.claim(name, owner=owner, duration_s=duration_s)

    async def status(self, shards: Sequence[int] | None = None) -> list[ShardStatus]:
        self._check("status")
        return await self.inner.status(shards)

    async def load_cursor(self, name: str) -> dict[int, int]:
        self._check("load_cursor")
        return await self.inner.load_cursor(name)

    async def save_cursor(self, name: str, positions: Mapping[int, int]) -> None:
        self._check("save_cursor")
        await self.inner.save_cursor(name, positions)

"""What a simulated store keeps: its writes, in order, and what they amount to.

The list of writes is the disk. A crash cuts its unsynced end, a restore of an older copy cuts more, and what the store
then says is found by doing the remaining writes again. Each write is one transaction: a torn one is dropped as a whole,
as every engine's recovery does.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, NamedTuple, TypeVar

import msgspec

from actorkit.journal.memory import MemoryJournal
from actorkit.journal.protocols import Append, Conflict, Fenced, Recorded, Store, StoredSnapshot

__all__ = ["Disk", "Write"]

T = TypeVar("T")


class Write(NamedTuple):
    """One transaction: a method of the store that changes it, and when that was by the store's clock."""

    method: str
    args: tuple[Any, ...]
    options: dict[str, Any]
    at_s: float


class _Instant:
    """The clock of an engine that does writes of the past again."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def wall_us(self) -> int:
        return int(self.now_s * 1e6)

    def lease_s(self) -> float:
        return self.now_s


class _Engine(MemoryJournal):
    """The memory journal, whose refusals can be switched off: to see whether the checkers notice."""

    def __init__(self, clock: _Instant, *, fence: bool, expect: bool, payload_max_bytes: int) -> None:
        super().__init__(clock=clock, payload_max_bytes=payload_max_bytes)
        self._fence = fence
        self._expect = expect

    def _fenced(self, append: Append) -> Fenced | None:
        return super()._fenced(append) if self._fence else None

    def _conflicting(self, append: Append) -> Conflict | None:
        return super()._conflicting(append) if self._expect else None

    async def read_stream(self, stream: str, *, after: int, limit: int) -> list[Recorded]:
        if self._expect:
            return await super().read_stream(stream, after=after, limit=limit)
        # Sequences may be anything then, and are what a table without the constraint would give.
        events = await super().read_stream(stream, after=0, limit=1 << 60)
        return sorted((event for event in events if event.sequence > after), key=lambda event: event.sequence)[:limit]


class Disk:
    """The writes, and the engine that has done them."""

    def __init__(self, *, fence: bool = True, expect: bool = True, payload_max_bytes: int = 1 << 20) -> None:
        self._fence = fence
        self._expect = expect
        self._payload_max_bytes = payload_max_bytes
        self._writes: list[Write] = []
        self._synced = 0
        self.generation = 1
        """Raised whenever an older copy takes the place of this one."""
        self._clock: _Instant
        self._engine: _Engine
        self._replay()

    def _replay(self) -> None:
        self._clock = _Instant()
        self._engine = _Engine(
            self._clock, fence=self._fence, expect=self._expect, payload_max_bytes=self._payload_max_bytes
        )
        for write in self._writes:
            self._do(write)

    def _do(self, write: Write) -> Any:
        self._clock.now_s = write.at_s
        return _now(getattr(self._engine, write.method)(*write.args, **write.options))

    @property
    def created(self) -> bool:
        return bool(self._writes)

    @property
    def shards(self) -> int:
        return self._engine.shards

    @property
    def store(self) -> Store:
        """What is stored, for whoever judges it afterwards; it answers without waiting."""
        return self._engine

    @property
    def length(self) -> int:
        """How many writes there are: a place to ``restore``."""
        return len(self._writes)

    @property
    def unsynced(self) -> int:
        """How many of the newest writes a crash may take away."""
        return len(self._writes) - self._synced

    def write(self, write: Write) -> Any:
        """Does it; others see it, and a crash may take it away until ``sync``. Raises what the store's method raises,
        and then nothing is written."""
        result = self._do(write)
        self._writes.append(write)
        return result

    def sync(self) -> None:
        self._synced = len(self._writes)

    def read(self, method: str, args: tuple[Any, ...], options: dict[str, Any], at_s: float) -> Any:
        return self._do(Write(method, args, options, at_s))

    def crash(self, keep: int) -> None:
        """Of what was not synced the oldest ``keep`` writes are found again, and nothing else."""
        del self._writes[self._synced + keep :]
        self.sync()
        self._replay()

    def restore(self, length: int) -> None:
        """An older copy takes its place: what came after its first ``length`` writes is gone."""
        del self._writes[max(1, length) :]
        self.generation += 1
        self.sync()
        self._replay()

    def corrupt_snapshots(self, *, part: float) -> int:
        """Flips a bit in each stored snapshot, ``part`` of the way through it; says in how many."""
        found = 0
        for place, write in enumerate(self._writes):
            if write.method == "save_snapshot":
                self._writes[place] = write._replace(args=(_flipped(write.args[0], part),))
                found += 1
        if found:
            self._replay()
        return found


def _flipped(snapshot: StoredSnapshot, part: float) -> StoredSnapshot:
    payload = bytearray(snapshot.payload)
    if payload:
        payload[min(int(len(payload) * part), len(payload) - 1)] ^= 0x10
    return msgspec.structs.replace(snapshot, payload=bytes(payload))


def _now(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise AssertionError("the memory journal has waited for something")

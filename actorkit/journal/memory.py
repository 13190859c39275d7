"""A journal in this process's memory: for tests, simulations and first steps. Nothing survives the process.

It is also the shortest description of what a journal does; the conformance suite holds every backend to it.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Mapping, Sequence

from actorkit.clock import Clock, SystemClock
from actorkit.errors import JournalUnavailable, NamespaceMismatch
from actorkit.journal.checks import refusal, storable
from actorkit.journal.protocols import (
    Acquired,
    Append,
    Appended,
    AppendResult,
    Capabilities,
    Conflict,
    EventPage,
    Fenced,
    Held,
    NewEvent,
    Recorded,
    Refused,
    ShardStatus,
    StoredSnapshot,
)

__all__ = ["MemoryJournal"]

SHARDS_DEFAULT = 256


class _Shard:
    """One shard's lease and log."""

    __slots__ = ("epoch", "expires_s", "log", "owner")

    def __init__(self) -> None:
        self.epoch = 0
        self.owner = ""
        self.expires_s = 0.0
        self.log: list[Recorded] = []


class _Stream:
    """One stream's events, and its records that have a key."""

    __slots__ = ("events", "keyed", "newest")

    def __init__(self) -> None:
        self.events: list[Recorded] = []
        self.keyed: list[Recorded] = []
        """By time, and in their order within one."""
        self.newest: dict[str, Recorded] = {}


class MemoryJournal:
    """A whole ``Store`` in memory.

    It may be closed and opened again by the same process, which finds everything as it was: that is how a test
    restarts a node.
    """

    def __init__(self, *, clock: Clock | None = None, payload_max_bytes: int = 1 << 20) -> None:
        self._clock: Clock = SystemClock() if clock is None else clock
        self._capabilities = Capabilities(
            durable=False,
            multi_process=False,
            gapless_positions=True,
            multi_stream_atomic=True,
            payload_max_bytes=payload_max_bytes,
        )
        self._open = False
        self._shards: list[_Shard] = []
        self._streams: dict[str, _Stream] = {}
        self._snapshots: dict[str, dict[int, StoredSnapshot]] = {}
        self._cursors: dict[str, dict[int, int]] = {}
        self._claims: dict[str, tuple[str, float]] = {}

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def shards(self) -> int:
        return len(self._shards)

    @property
    def generation(self) -> int:
        return 1

    @property
    def identity(self) -> str:
        return ""

    async def open(self, shards: int | None) -> None:
        if not self._shards:
            self._shards = [_Shard() for _ in range(SHARDS_DEFAULT if shards is None else shards)]
        elif shards is not None and shards != len(self._shards):
            raise NamespaceMismatch("shards", len(self._shards), shards)
        self._open = True

    async def close(self) -> None:
        self._open = False

    def _check_open(self) -> None:
        if not self._open:
            raise JournalUnavailable("the journal is not open")

    # ------------------------------------------------------------------------------------------------------ journal

    async def append(self, batch: Sequence[Append]) -> list[AppendResult]:
        self._check_open()
        return [self._append(append) for append in batch]

    def _append(self, append: Append) -> AppendResult:
        why = refusal(append, shards=len(self._shards), payload_max_bytes=self._capabilities.payload_max_bytes)
        why = why or storable(append)
        if why is not None:
            return Refused(why)
        unfit = self._fenced(append) or self._conflicting(append)
        if unfit is not None:
            return unfit
        shard = self._shards[append.shard]
        stream = self._streams.get(append.stream)
        if stream is None:
            stream = self._streams[append.stream] = _Stream()
        records = self._records(append, append.expected, len(shard.log))
        shard.log.extend(records)
        if append.events:
            stream.events.extend(records)
        if append.key is not None:
            insort(stream.keyed, records[-1], key=_time_us)
            stream.newest[append.key] = records[-1]
        return Appended(len(shard.log))

    def _fenced(self, append: Append) -> Fenced | None:
        epoch = self._shards[append.shard].epoch
        return Fenced(epoch) if append.epoch != epoch or epoch == 0 else None

    def _conflicting(self, append: Append) -> Conflict | None:
        stream = self._streams.get(append.stream)
        sequence = len(stream.events) if stream is not None else 0
        return Conflict(sequence) if sequence != append.expected else None

    @staticmethod
    def _records(append: Append, sequence: int, head: int) -> list[Recorded]:
        events = append.events or (NewEvent("", 0, b""),)
        last = len(events)
        return [
            Recorded(
                shard=append.shard,
                position=head + n,
                stream=append.stream,
                sequence=sequence + n if append.events else 0,
                type=event.type,
                version=event.version,
                payload=event.payload,
                time_us=append.time_us,
                epoch=append.epoch,
                metadata=append.metadata,
                key=append.key if n == last else None,
                outcome=append.outcome if n == last else None,
            )
            for n, event in enumerate(events, 1)
        ]

    async def read_stream(self, stream: str, *, after: int, limit: int) -> list[Recorded]:
        self._check_open()
        found = self._streams.get(stream)
        return found.events[max(after, 0) : max(after, 0) + max(limit, 0)] if found is not None else []

    async def read_events(self, stream: str, *, after: int, limit: int) -> EventPage:
        page = await self.read_stream(stream, after=after, limit=limit)
        events = [(event.sequence, event.type, event.version, event.payload, event.time_us) for event in page]
        return EventPage.of(events, more=len(page) == limit)

    async def read_log(self, shard: int, *, after: int, limit: int) -> list[Recorded]:
        self._check_open()
        return self._shards[shard].log[max(after, 0) : max(after, 0) + max(limit, 0)]

    async def find_key(self, stream: str, key: str, *, since_us: int) -> Recorded | None:
        self._check_open()
        found = self._streams.get(stream)
        record = found.newest.get(key) if found is not None else None
        return record if record is not None and record.time_us >= since_us else None

    async def recent_keys(self, stream: str, *, since_us: int, limit: int) -> list[Recorded]:
        self._check_open()
        first = self._first_key(stream, since_us)
        return self._streams[stream].keyed[first:][::-1][:limit] if stream in self._streams else []

    async def count_keys(self, stream: str, *, since_us: int) -> int:
        self._check_open()
        return len(self._streams[stream].keyed) - self._first_key(stream, since_us) if stream in self._streams else 0

    def _first_key(self, stream: str, since_us: int) -> int:
        found = self._streams.get(stream)
        return 0 if found is None else bisect_right(found.keyed, since_us - 1, key=_time_us)

    async def streams(self, type: str, *, after: str, limit: int) -> list[str]:
        self._check_open()
        prefix = f"{type}/"
        return sorted(name for name in self._streams if name.startswith(prefix) and name > after)[:limit]

    # ---------------------------------------------------------------------------------------------------- snapshots

    async def save_snapshot(self, snapshot: StoredSnapshot, *, keep: int) -> None:
        self._check_open()
        kept = self._snapshots.setdefault(snapshot.stream, {})
        kept[snapshot.sequence] = snapshot
        for sequence in sorted(kept)[:-keep] if keep > 0 else list(kept):
            del kept[sequence]

    async def load_snapshots(
        self, stream: str, *, max_sequence: int | None = None, max_time_us: int | None = None, limit: int = 3
    ) -> list[StoredSnapshot]:
        self._check_open()
        kept = self._snapshots.get(stream, {})
        return [
            kept[sequence]
            for sequence in sorted(kept, reverse=True)
            if (max_sequence is None or sequence <= max_sequence)
            and (max_time_us is None or kept[sequence].time_us <= max_time_us)
        ][:limit]

    async def delete_snapshots(self, stream: str) -> None:
        self._check_open()
        self._snapshots.pop(stream, None)

    # ------------------------------------------------------------------------------------------------------- leases

    async def acquire(self, shards: Sequence[int], *, owner: str, duration_s: float) -> list[Acquired | Held]:
        self._check_open()
        now_s = self._clock.lease_s()
        answers: list[Acquired | Held] = []
        for number in shards:
            shard = self._shards[number]
            remaining_s = shard.expires_s - now_s
            if shard.owner not in ("", owner) and remaining_s > 0:
                answers.append(Held(number, shard.epoch, shard.owner, remaining_s))
                continue
            shard.epoch += 1
            shard.owner = owner
            shard.expires_s = now_s + duration_s
            answers.append(Acquired(number, shard.epoch, len(shard.log)))
        return answers

    async def renew(self, epochs: Mapping[int, int], *, owner: str, duration_s: float) -> set[int]:
        self._check_open()
        expires_s = self._clock.lease_s() + duration_s
        renewed = {number for number, epoch in epochs.items() if self._owns(number, epoch, owner)}
        for number in renewed:
            self._shards[number].expires_s = expires_s
        return renewed

    async def release(self, epochs: Mapping[int, int], *, owner: str) -> None:
        self._check_open()
        for number, epoch in epochs.items():
            if self._owns(number, epoch, owner):
                self._shards[number].owner = ""
                self._shards[number].expires_s = 0.0

    def _owns(self, number: int, epoch: int, owner: str) -> bool:
        shard = self._shards[number]
        return shard.owner == owner and shard.epoch == epoch

    async def claim(self, name: str, *, owner: str, duration_s: float) -> str:
        self._check_open()
        now_s = self._clock.lease_s()
        holder, expires_s = self._claims.get(name, (owner, now_s))
        if holder != owner and expires_s > now_s:
            return holder
        self._claims[name] = owner, now_s + duration_s
        return owner

    async def status(self, shards: Sequence[int] | None = None) -> list[ShardStatus]:
        self._check_open()
        now_s = self._clock.lease_s()
        numbers = range(len(self._shards)) if shards is None else shards
        return [
            ShardStatus(
                shard=number,
                owner=shard.owner,
                epoch=shard.epoch,
                head=len(shard.log),
                remaining_s=max(0.0, shard.expires_s - now_s),
            )
            for number, shard in ((number, self._shards[number]) for number in numbers)
        ]

    # ------------------------------------------------------------------------------------------------------ cursors

    async def load_cursor(self, name: str) -> dict[int, int]:
        self._check_open()
        return dict(self._cursors.get(name, {}))

    async def save_cursor(self, name: str, positions: Mapping[int, int]) -> None:
        self._check_open()
        self._cursors.setdefault(name, {}).update(positions)


def _time_us(record: Recorded) -> int:
    return record.time_us

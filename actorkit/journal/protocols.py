"""What a journal store must do, for authors of backends and for everything that stands on one.

A store holds one **log per shard**. A record of the log is one event of one stream, or the outcome of one command that
emitted nothing but must be remembered (a keyed refusal, a keyed no-op). Positions within a shard start at 1, are given
in commit order and, where ``Capabilities.gapless_positions`` is set, have no holes. Events of a stream are numbered
from 1 by ``sequence`` without holes; an outcome record takes a position but no sequence (it is 0).

Every append carries the shard's epoch and is refused inside the atomic step that would store it if the shard has
another epoch by then (the fencing token of Kleppmann, "How to do distributed locking", 2016; Chubby's sequencers).
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias

import msgspec

from actorkit.errors import JournalCorrupt

__all__ = [
    "Acquired",
    "Append",
    "AppendResult",
    "Appended",
    "Capabilities",
    "Conflict",
    "CursorStore",
    "EventPage",
    "Fenced",
    "Held",
    "Journal",
    "LeaseStore",
    "NewEvent",
    "Recorded",
    "Refused",
    "ShardStatus",
    "SnapshotStore",
    "Store",
    "StoredEvent",
    "StoredSnapshot",
]


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """How engines differ. Code that stands on a journal asks here, never which engine it is."""

    durable: bool
    """Whether an acknowledged append survives the end of the process."""
    multi_process: bool
    """Whether several processes may open the same store."""
    gapless_positions: bool
    """Whether positions within a shard have no holes; else they only grow."""
    multi_stream_atomic: bool
    """Whether one batch is one transaction, so that its appends become visible together."""
    payload_max_bytes: int
    """The largest payload, metadata or outcome of one record; larger ones are ``Refused``."""


# ------------------------------------------------------------------------------------------------------------ appends


class NewEvent(NamedTuple):
    """An event that is to be stored."""

    type: str
    version: int
    payload: bytes


class Append(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What one command adds to one stream, stored entirely or not at all.

    With no events it is the outcome of a keyed command alone, which is then stored as a record of its own.
    """

    shard: int
    epoch: int
    """From 1: an append under epoch 0 is always fenced, also in a shard that was never acquired."""
    stream: str
    expected: int
    """The stream's sequence before this append; 0 for a stream without events."""
    events: tuple[NewEvent, ...]
    time_us: int
    """The records' time: microseconds since 1970 UTC, never less than that of the stream's previous event."""
    metadata: bytes
    """Who caused it; opaque to the store, kept with each event."""
    key: str | None = None
    """The command's idempotency key, under which ``find_key`` finds its record; scoped to the stream."""
    outcome: bytes | None = None
    """How the command ended; opaque to the store, kept with the last event or as a record of its own."""


class Appended(msgspec.Struct, frozen=True, gc=False):
    """Stored and durable. ``position`` is that of the append's last record in its shard's log."""

    position: int


class Fenced(msgspec.Struct, frozen=True, gc=False):
    """Surely not stored: the shard has another epoch by now."""

    epoch: int


class Conflict(msgspec.Struct, frozen=True, gc=False):
    """Surely not stored: the stream's sequence is not the expected one."""

    sequence: int


class Refused(msgspec.Struct, frozen=True, gc=False):
    """Surely not stored, and never will be: the record itself is not acceptable (too large)."""

    why: str


AppendResult: TypeAlias = Appended | Fenced | Conflict | Refused | JournalCorrupt
"""``JournalCorrupt`` (a value here, not raised): surely not stored, because what is stored contradicts itself there."""


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """A record as it was read."""

    shard: int
    position: int
    stream: str
    sequence: int
    """0 for an outcome without events."""
    type: str
    """Empty for an outcome without events."""
    version: int
    payload: bytes
    time_us: int
    epoch: int
    metadata: bytes
    key: str | None
    outcome: bytes | None


StoredEvent: TypeAlias = tuple[int, str, int, bytes, int]
"""What a replay needs of an event, and nothing else: sequence, type, version, payload, time in microseconds."""


class EventPage(msgspec.Struct, frozen=True, gc=False):
    """Events of one stream that follow each other, as a replay needs them: column by column."""

    sequences: Sequence[int]
    """Ascending."""
    kinds: Sequence[tuple[str, int]]
    """Type and version of each event."""
    payloads: Sequence[bytes]
    time_us: int
    """The time of the last event; 0: there is none."""
    more: bool
    """Whether there may be events after these. An empty page is the end."""

    @classmethod
    def of(cls, events: Sequence[StoredEvent], *, more: bool = False) -> EventPage:
        """The page of events that are at hand one by one."""
        return cls(
            [event[0] for event in events],
            [event[1:3] for event in events],
            [event[3] for event in events],
            events[-1][4] if events else 0,
            more,
        )


class Journal(Protocol):
    """Appending to and reading from the shards' logs.

    ``open`` is called once, before anything else, and ``close`` once, after everything else. All calls are made from
    the same asyncio loop and may overlap.
    """

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def shards(self) -> int:
        """The number of shards that the store was created with; known once it is open."""
        ...

    @property
    def generation(self) -> int:
        """Raised whenever the store may have gone back (a restore, a copy); known once it is open."""
        ...

    @property
    def identity(self) -> str:
        """Tells this store from every other one, so that nodes with different ones never form a cluster; empty where it
        has no such name. Known once it is open."""
        ...

    async def open(self, shards: int | None) -> None:
        """Opens the store, creating it with this number of shards where it does not exist (``None``: 256).

        What is read after ``open`` is on disk: leftovers of failed commits are settled first. Raises
        ``NamespaceMismatch`` where the store has another number of shards, ``JournalUnavailable`` where it cannot be
        opened.
        """
        ...

    async def close(self) -> None: ...

    def append(self, batch: Sequence[Append]) -> Awaitable[list[AppendResult]]:
        """Stores a batch in one commit; each append succeeds or fails for itself, in the order given.

        Appends of one stream build on each other, so one that fails makes the later ones of its stream conflict.
        Returns, once everything stored is durable, one result for each append. Raises ``JournalUnavailable`` if surely
        nothing was stored, ``AppendUncertain`` if that is not known, ``JournalFailed`` if the process must end.
        Cancelling the call does not undo it: what becomes of the batch is then unknown.

        To be declared ``async``. It may also return a future of what it has begun already; it raises nothing itself
        then, and stores what it has begun in that order, so that the next batch can be given to it before the future
        has ended.
        """
        ...

    async def read_stream(self, stream: str, *, after: int, limit: int) -> list[Recorded]:
        """The stream's events with a sequence greater than ``after``, ascending, at most ``limit``.

        Sequences begin at 1: 0 and everything below it means from the beginning. A limit of 0 or less gives nothing.
        """
        ...

    async def read_events(self, stream: str, *, after: int, limit: int) -> EventPage:
        """The same events as ``read_stream``, with only what a replay needs; fewer where many would be too large.

        Recovery stands on it, so it is worth an engine's while to make this its quickest read.
        """
        ...

    async def read_log(self, shard: int, *, after: int, limit: int) -> list[Recorded]:
        """The shard's records (outcomes too) with a position greater than ``after``, ascending, at most ``limit``.

        ``after`` and ``limit`` as for ``read_stream``; positions begin at 1, too.
        """
        ...

    async def find_key(self, stream: str, key: str, *, since_us: int) -> Recorded | None:
        """The newest record of the stream with this key and a time of at least ``since_us``."""
        ...

    async def recent_keys(self, stream: str, *, since_us: int, limit: int) -> list[Recorded]:
        """The stream's newest keyed records with a time of at least ``since_us``, newest first, at most ``limit``."""
        ...

    async def count_keys(self, stream: str, *, since_us: int) -> int:
        """How many keyed records of the stream have a time of at least ``since_us``."""
        ...

    async def streams(self, type: str, *, after: str, limit: int) -> list[str]:
        """Names of the streams of one entity type that sort after ``after``, ascending, at most ``limit``.

        A stream that has nothing but an outcome is one of them.
        """
        ...


# ---------------------------------------------------------------------------------------------------------- snapshots


class StoredSnapshot(msgspec.Struct, frozen=True, gc=False):
    """A stream's state after one of its events, as bytes. Always expendable."""

    stream: str
    sequence: int
    time_us: int
    payload: bytes


class SnapshotStore(Protocol):
    """Snapshots, by stream and sequence."""

    async def save_snapshot(self, snapshot: StoredSnapshot, *, keep: int) -> None:
        """Stores it and deletes all but the stream's ``keep`` newest ones. Never holds up appends for long."""
        ...

    async def load_snapshots(
        self, stream: str, *, max_sequence: int | None = None, max_time_us: int | None = None, limit: int = 3
    ) -> list[StoredSnapshot]:
        """The stream's snapshots, newest first, not later than the given sequence and time."""
        ...

    async def delete_snapshots(self, stream: str) -> None: ...


# ------------------------------------------------------------------------------------------------------------- leases


class Acquired(msgspec.Struct, frozen=True, gc=False):
    """The shard is the caller's, under a new epoch. ``head`` is the position of its newest record."""

    shard: int
    epoch: int
    head: int


class Held(msgspec.Struct, frozen=True, gc=False):
    """Another owner has a lease on the shard for ``remaining_s`` more seconds, unless renewed."""

    shard: int
    epoch: int
    owner: str
    remaining_s: float


class ShardStatus(msgspec.Struct, frozen=True, gc=False):
    """One shard's record: who owns it (empty: nobody), its epoch, the position of its newest record."""

    shard: int
    owner: str
    epoch: int
    head: int
    remaining_s: float


class LeaseStore(Protocol):
    """Who may write a shard. The store's own clock decides when a lease has run out.

    Like all writes of a store, these raise ``JournalUnavailable`` if surely nothing was changed, ``AppendUncertain`` if
    that is not known, ``JournalFailed`` if the process must end. An uncertain ``acquire`` may have raised the epoch:
    acquire again. A lease that has run out can be renewed as long as nobody else has acquired the shard.
    """

    async def acquire(self, shards: Sequence[int], *, owner: str, duration_s: float) -> list[Acquired | Held]:
        """Takes each shard that is free, expired or the owner's already, raising its epoch by one; one answer each.

        Raising one's own epoch kills every append that is still on its way under the old one.
        """
        ...

    async def renew(self, epochs: Mapping[int, int], *, owner: str, duration_s: float) -> set[int]:
        """Extends the leases on ``{shard: epoch}`` that still are the owner's; returns those shards."""
        ...

    async def release(self, epochs: Mapping[int, int], *, owner: str) -> None:
        """Gives up the leases on ``{shard: epoch}`` that still are the owner's, so that others may acquire at once."""
        ...

    async def claim(self, name: str, *, owner: str, duration_s: float) -> str:
        """Takes the lease of that name, or extends it, if it is free, has run out or is the owner's already.

        Returns who has it now. These leases have nothing to do with shards; there are as many as there are names.
        """
        ...

    async def status(self, shards: Sequence[int] | None = None) -> list[ShardStatus]:
        """The records of the given shards, or of all, by a read that sees every commit before it."""
        ...


class CursorStore(Protocol):
    """How far a reader of the logs has got: a position for each shard."""

    async def load_cursor(self, name: str) -> dict[int, int]: ...

    async def save_cursor(self, name: str, positions: Mapping[int, int]) -> None:
        """Merges the positions into the cursor."""
        ...


class Store(Journal, SnapshotStore, LeaseStore, CursorStore, Protocol):
    """All of it in one place, as every backend here is."""

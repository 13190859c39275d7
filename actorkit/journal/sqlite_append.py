"""Appending a batch to SQLite: what is accepted, under which numbers, in which few statements.

Everything is decided inside the transaction that stores it: the shards' epochs and heads are read there, so a newer
epoch fences, and positions are given in commit order. What the file says of shards is remembered between transactions,
as long as nobody has written to the file but this appender: SQLite tells inside the transaction whether another
connection has, and ``total_changes`` whether this one did on behalf of others. The streams' numbers are remembered as
long as nobody else has appended to their shard: its epoch and head must be what this writer left there.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from itertools import islice

import structlog

from actorkit.errors import JournalCorrupt
from actorkit.journal.checks import append_bytes, refusal, storable
from actorkit.journal.protocols import Append, Appended, AppendResult, Conflict, Fenced, Refused
from actorkit.journal.settings import SqliteSettings
from actorkit.journal.sqlite_schema import POSITION_BITS, insert_many

__all__ = ["Appender"]

_log = structlog.get_logger("actorkit.journal")

_RECORD = "record(log, stream, sequence, type, version, payload, time_us, epoch, metadata, key, outcome)"
_RECORD_COLUMNS = 11
_LOAD_SHARDS = "SELECT json_group_array(json_array(shard, epoch, head)) FROM shard WHERE shard BETWEEN ? AND ?"
_STORE_HEADS = """UPDATE shard SET head = changed.value FROM json_each(?) AS changed
    WHERE shard.shard = CAST(changed.key AS INTEGER)"""
_NAMES_AT_ONCE = 64
_LOAD_STREAMS = f"""SELECT name, id, coalesce((SELECT max(sequence) FROM record WHERE record.stream = stream.id), 0)
    FROM stream WHERE name IN ({", ".join("?" * _NAMES_AT_ONCE)})"""  # noqa: S608 - our own constants


class _Stream:
    """A stream's number (0: not stored yet) and sequence, true while its shard is in this state."""

    __slots__ = ("id", "name", "sequence", "state")

    def __init__(self, name: str, id: int, sequence: int, state: int) -> None:
        self.name = name
        self.id = id
        self.sequence = sequence
        self.state = state


class _Shard:
    """A shard as this writer left it. ``state`` changes when somebody else has changed it."""

    __slots__ = ("epoch", "head", "state")

    def __init__(self, epoch: int, head: int, state: int) -> None:
        self.epoch = epoch
        self.head = head
        self.state = state


class Appender:
    """Stores batches; used in the writer's thread, inside its transactions."""

    def __init__(self, *, shards: int, settings: SqliteSettings) -> None:
        self._shard_count = shards
        self._settings = settings
        self._shards: dict[int, _Shard] = {}
        self._streams: dict[str, _Stream] = {}
        self._states = 0
        self._seen = (-1, -1)
        self._fresh: set[int] = set()
        """The shards that were read since somebody else last wrote to the file."""
        self.pages = 0
        """About how many pages the last batch has written, rather too many."""

    def forget(self) -> None:
        """Drops all that is remembered: a transaction has not committed."""
        self._shards.clear()
        self._streams.clear()
        self._fresh.clear()

    def append(self, db: sqlite3.Connection, batch: Sequence[Append]) -> list[AppendResult]:
        """Stores what is acceptable of the batch; one result for each append, valid once committed."""
        self.pages = 8
        for attempt in (self._append, self._append_checked):
            try:
                return attempt(db, batch)
            except (UnicodeEncodeError, OverflowError, sqlite3.IntegrityError):
                # One append cannot be stored. Which one costs a look at each, so that is done only now. The
                # transaction begins again: a savepoint would copy every page that it changes, each time, for this case.
                self.forget()
                if db.in_transaction:
                    db.execute("ROLLBACK")
                db.execute("BEGIN IMMEDIATE")
        return [self._append_alone(db, append) for append in batch]

    def _append_checked(self, db: sqlite3.Connection, batch: Sequence[Append]) -> list[AppendResult]:
        """Refuses what cannot be represented."""
        return self._append(db, batch, strict=True)

    def _append_alone(self, db: sqlite3.Connection, append: Append) -> AppendResult:
        """Stores one append unless what is stored already contradicts it, and leaves the others of its batch alone."""
        db.execute("SAVEPOINT alone")
        try:
            (result,) = self._append(db, (append,), strict=True, or_roll_back=False)
        except sqlite3.IntegrityError as error:
            self.forget()
            db.execute("ROLLBACK TO alone")
            result = JournalCorrupt(f"{append.stream}: a record is there already that nobody was to write: {error}")
            _log.critical("journal.corrupt", stream=append.stream, shard=append.shard, error=str(error))
        db.execute("RELEASE alone")
        return result

    def _append(
        self, db: sqlite3.Connection, batch: Sequence[Append], *, strict: bool = False, or_roll_back: bool = True
    ) -> list[AppendResult]:
        shard_count, payload_max_bytes = self._shard_count, self._settings.payload_max_bytes
        refused: dict[int, str] = {}
        for n, append in enumerate(batch):
            why = refusal(append, shards=shard_count, payload_max_bytes=payload_max_bytes)
            if why is None and strict:
                why = storable(append)
            if why is not None:
                refused[n] = why
        rest = [append for n, append in enumerate(batch) if n not in refused] if refused else batch
        self._load_shards(db, {append.shard for append in rest})
        self._load_streams(db, rest)
        results: list[AppendResult] = []
        rows: list[object] = []
        created: list[_Stream] = []
        changed: dict[int, int] = {}
        for n, append in enumerate(batch):
            if n in refused:
                results.append(Refused(refused[n]))
                continue
            shard = self._shards[append.shard]
            if append.epoch != shard.epoch or shard.epoch == 0:
                results.append(Fenced(shard.epoch))
                continue
            stream = self._streams[append.stream]
            if append.expected != stream.sequence:
                results.append(Conflict(stream.sequence))
                continue
            if stream.id == 0:
                stream.id = created[-1].id + 1 if created else self._next_id(db)
                created.append(stream)
            _add_rows(rows, append, stream, shard)
            changed[append.shard] = shard.head
            results.append(Appended(shard.head))
        if changed:
            names = [value for stream in created for value in (stream.id, stream.name)]
            insert_many(db, "stream(id, name)", 2, names, or_roll_back=or_roll_back)
            insert_many(db, _RECORD, _RECORD_COLUMNS, rows, or_roll_back=or_roll_back)
            db.execute(_STORE_HEADS, (json.dumps(changed),))
            self._seen = (self._seen[0], db.total_changes)
        # Leaves of the indexes by shard, by stream and by key; the records themselves.
        records = len(rows) // _RECORD_COLUMNS
        keyed = sum(append.key is not None for append in batch)
        streams = len(set(rows[1::_RECORD_COLUMNS]))
        self.pages += len(changed) + streams + 2 * keyed + (sum(map(append_bytes, batch)) + 100 * records) // 3500
        self._bound()
        return results

    def _load_shards(self, db: sqlite3.Connection, shards: set[int]) -> None:
        """Reads the shards as they are in this transaction, in one step, unless they must be as they are remembered."""
        seen = (db.execute("PRAGMA data_version").fetchone()[0], db.total_changes)
        if seen != self._seen:
            self._fresh.clear()
            self._seen = seen
        if shards <= self._fresh:
            return
        (found,) = db.execute(_LOAD_SHARDS, (min(shards), max(shards))).fetchone()
        for number, epoch, head in json.loads(found):
            shard = self._shards.get(number)
            if shard is None or shard.epoch != epoch or shard.head != head:
                self._states += 1
                self._shards[number] = _Shard(epoch, head, self._states)
            self._fresh.add(number)

    def _load_streams(self, db: sqlite3.Connection, batch: Sequence[Append]) -> None:
        """Looks up the streams that are not remembered, or whose shard somebody else has changed since."""
        streams = self._streams
        shards = self._shards
        missing: dict[str, int] = {}
        for append in batch:
            state = shards[append.shard].state
            stream = streams.get(append.stream)
            if stream is None or stream.state != state:
                missing[append.stream] = state
        names = list(missing)
        for start in range(0, len(names), _NAMES_AT_ONCE):
            some = names[start : start + _NAMES_AT_ONCE]
            padded = some + some[-1:] * (_NAMES_AT_ONCE - len(some))
            known = {name: (id, sequence) for name, id, sequence in db.execute(_LOAD_STREAMS, padded).fetchall()}
            for name in some:
                id, sequence = known.get(name, (0, 0))
                streams[name] = _Stream(name, id, sequence, missing[name])

    @staticmethod
    def _next_id(db: sqlite3.Connection) -> int:
        id: int = db.execute("SELECT coalesce(max(id), 0) + 1 FROM stream").fetchone()[0]
        return id

    def _bound(self) -> None:
        """Forgets the streams that were looked up longest ago: they are looked up again when needed."""
        excess = len(self._streams) - self._settings.streams_cached_max
        for name in list(islice(self._streams, max(0, excess))):
            del self._streams[name]


def _add_rows(rows: list[object], append: Append, stream: _Stream, shard: _Shard) -> None:
    """Adds the append's rows, and advances stream and shard. The last row carries key and outcome."""
    log = (append.shard << POSITION_BITS) + shard.head + 1
    id, epoch, time_us, metadata = stream.id, append.epoch, append.time_us, append.metadata
    events = append.events
    if not events:
        rows += (log, id, None, "", 0, b"", time_us, epoch, metadata, append.key, append.outcome)
        shard.head += 1
        return
    sequence = stream.sequence + 1
    for event in events[:-1]:
        rows += (log, id, sequence, *event, time_us, epoch, metadata, None, None)
        log += 1
        sequence += 1
    rows += (log, id, sequence, *events[-1], time_us, epoch, metadata, append.key, append.outcome)
    stream.sequence = sequence
    shard.head += len(events)

"""A journal in one SQLite file, for all processes of one machine.

Writes are synced (WAL, ``synchronous=FULL``) and go through one thread (``sqlite_writer``), batch by batch; reads go
through a second connection, so that they never wait for a commit. Only local file systems will do.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Awaitable, Mapping, Sequence
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiosqlite
import structlog

from actorkit.clock import Clock, SystemClock
from actorkit.errors import AppendUncertain, ConfigurationError, JournalUnavailable
from actorkit.journal import sqlite_tables as tables
from actorkit.journal.protocols import (
    Acquired,
    Append,
    AppendResult,
    Capabilities,
    EventPage,
    Held,
    Recorded,
    ShardStatus,
    StoredSnapshot,
)
from actorkit.journal.settings import SqliteSettings
from actorkit.journal.sqlite_append import Appender
from actorkit.journal.sqlite_errors import read_error
from actorkit.journal.sqlite_events import READ_EVENTS, page_of
from actorkit.journal.sqlite_process import AppendHelper
from actorkit.journal.sqlite_schema import POSITION_BITS, POSITION_MASK, touch
from actorkit.journal.sqlite_writer import SqliteWriter

__all__ = ["SqliteJournal"]

_log = structlog.get_logger("actorkit.journal")

_SQLITE_OLDEST = (3, 35, 0)
_SQLITE_SAFE_WITH_OTHERS = (3, 51, 3)

_RECORD = f"""SELECT record.log >> {POSITION_BITS}, record.log & {POSITION_MASK}, stream.name,
    coalesce(record.sequence, 0), record.type, record.version, record.payload, record.time_us, record.epoch,
    record.metadata, record.key, record.outcome
    FROM record JOIN stream ON stream.id = record.stream"""  # noqa: S608 - our own constants
_READ_STREAM = f"""SELECT log >> {POSITION_BITS}, log & {POSITION_MASK}, ?1, sequence, type, version, payload, time_us,
    epoch, metadata, key, outcome FROM record
    WHERE stream = (SELECT id FROM stream WHERE name = ?1) AND sequence > ?2 ORDER BY sequence LIMIT ?3"""  # noqa: S608
_READ_LOG = f"{_RECORD} WHERE record.log > ? AND record.log <= ? ORDER BY record.log LIMIT ?"
_KEYED = "record.stream = (SELECT id FROM stream WHERE name = ?) AND record.key IS NOT NULL AND record.time_us >= ?"
_FIND_KEY = f"{_RECORD} WHERE {_KEYED} AND record.key = ? ORDER BY record.row DESC LIMIT 1"
_RECENT_KEYS = f"{_RECORD} WHERE {_KEYED} ORDER BY record.time_us DESC, record.row DESC LIMIT ?"
_COUNT_KEYS = f"SELECT count(*) FROM record WHERE {_KEYED}"  # noqa: S608 - our own constants
_STREAMS = "SELECT name FROM stream WHERE name >= ? AND name < ? AND name > ? ORDER BY name LIMIT ?"
_SNAPSHOTS = """SELECT stream, sequence, time_us, payload FROM snapshot
    WHERE stream = ?1 AND (?2 IS NULL OR sequence <= ?2) AND (?3 IS NULL OR time_us <= ?3)
    ORDER BY sequence DESC LIMIT ?4"""
_SNAPSHOTS_AT_ONCE = 256


class SqliteJournal:
    """A whole ``Store`` in a SQLite file. It may be opened again after ``close``."""

    def __init__(
        self,
        file: str | Path,
        *,
        clock: Clock | None = None,
        settings: SqliteSettings = SqliteSettings(),  # noqa: B008 - frozen
    ) -> None:
        self._file = Path(file).absolute()
        self._clock: Clock = SystemClock() if clock is None else clock
        self._settings = settings
        self._capabilities = Capabilities(
            durable=True,
            multi_process=True,
            gapless_positions=True,
            multi_stream_atomic=True,
            payload_max_bytes=settings.payload_max_bytes,
        )
        self._shards = 0
        self._generation = 0
        self._identity = 0
        self._writer: SqliteWriter | None = None
        self._reader: aiosqlite.Connection | None = None
        self._reads = 0
        self._appender = Appender(shards=0, settings=settings)
        self._helper = AppendHelper(str(self._file), settings)
        self._snapshots: _SnapshotGroup | None = None
        self._snapshots_turn = asyncio.Lock()

    @property
    def file(self) -> Path:
        """The database file; SQLite keeps ``-wal`` and ``-shm`` beside it, and we ``-lock`` and ``-lock-gate``."""
        return self._file

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def shards(self) -> int:
        return self._shards

    @property
    def generation(self) -> int:
        return self._generation

    @property
    def identity(self) -> str:
        return f"{self._identity:x}" if self._identity else ""

    async def open(self, shards: int | None) -> None:
        """As the protocol says; a file that is no journal, or a newer one, raises ``ConfigurationError``."""
        if sqlite3.sqlite_version_info < _SQLITE_OLDEST:
            raise ConfigurationError(f"SQLite {sqlite3.sqlite_version} is too old: at least 3.35 is needed")
        if not self._file.parent.is_dir():
            raise JournalUnavailable(f"{self._file}: there is no directory {self._file.parent}; create it first")
        if sqlite3.sqlite_version_info < _SQLITE_SAFE_WITH_OTHERS:
            _log.info(
                "journal.sqlite_version",
                version=sqlite3.sqlite_version,
                hint="before 3.51.3, other programs that write to the file while it is in use may corrupt it",
            )
        writer = SqliteWriter(self._file, self._settings)
        # What an earlier loop has left behind will never end.
        self._snapshots = None
        try:
            self._shards, self._generation, self._identity = await writer.open(shards)
            self._appender = Appender(shards=self._shards, settings=self._settings)
            writer.connection.on_rollback(self._appender.forget)
            self._reader = await self._connect_reader()
            await self._helper.open(writer.connection.failed_elsewhere)
        except BaseException:
            reader, self._reader = self._reader, None
            try:
                if reader is not None:
                    await reader.close()
            finally:
                await writer.close()
            raise
        self._writer = writer

    async def _connect_reader(self) -> aiosqlite.Connection:
        connection = aiosqlite.connect(
            f"file:{quote(os.fsencode(self._file))}?mode=ro",
            uri=True,
            isolation_level=None,
            timeout=self._settings.busy_timeout_s,
        )
        # A process that ends without close() would otherwise wait for this thread for ever. Until 0.21 the connection
        # was the thread itself.
        thread: Any = getattr(connection, "_thread", connection)
        thread.daemon = True
        try:
            return await connection
        except sqlite3.Error as error:
            raise read_error(error, str(self._file)) from error

    async def close(self) -> None:
        """The reader goes first: the last connection to close makes a checkpoint, which is the writer's to make."""
        reader, self._reader = self._reader, None
        writer, self._writer = self._writer, None
        try:
            await self._helper.close()
        finally:
            try:
                if reader is not None:
                    await reader.close()
            finally:
                if writer is not None:
                    await writer.close()

    def _open_writer(self) -> SqliteWriter:
        if self._writer is None:
            raise JournalUnavailable(f"{self._file}: the journal is not open")
        return self._writer

    async def _read(self, statement: str, parameters: tuple[Any, ...]) -> list[Any]:
        """Rows as of every commit before this call. Settles first what a failed commit has left open."""
        writer = self._open_writer()
        if writer.connection.failed is not None:
            raise writer.connection.failed.with_traceback(None)
        if writer.connection.unsettled:
            try:
                await writer.run(touch)
            except AppendUncertain as error:
                text = f"{self._file}: a commit has failed and none has succeeded since: nothing can be said yet"
                raise JournalUnavailable(text) from error
        if self._reader is None:
            raise JournalUnavailable(f"{self._file}: the journal is not open")
        if self._reads >= self._settings.reads_max:
            raise JournalUnavailable(f"{self._file}: {self._reads} reads are waiting already")
        self._reads += 1
        try:
            return list(await self._reader.execute_fetchall(statement, parameters))
        except UnicodeEncodeError:
            # A name or key that is no UTF-8 is asked for. It cannot have been stored: appends refuse it.
            return []
        except sqlite3.Error as error:
            raise read_error(error, str(self._file)) from error
        finally:
            self._reads -= 1

    # ------------------------------------------------------------------------------------------------------ journal

    def append(self, batch: Sequence[Append]) -> Awaitable[list[AppendResult]]:
        writer = self._writer
        if writer is not None and writer.connection.failed is None:
            process = self._helper.ready_for(len(batch))
            if process is not None:
                # The thread finds out which append it is that cannot be handed over, and refuses that one.
                return process.append(batch, partial(self._append, batch))
        return self._append(batch)

    async def _append(self, batch: Sequence[Append]) -> list[AppendResult]:
        appender = self._appender
        return await self._open_writer().run(lambda db: appender.append(db, batch), pages=lambda: appender.pages)

    async def read_stream(self, stream: str, *, after: int, limit: int) -> list[Recorded]:
        return list(starmap(Recorded, await self._read(_READ_STREAM, (stream, after, max(limit, 0)))))

    async def read_events(self, stream: str, *, after: int, limit: int) -> EventPage:
        rows = await self._read(READ_EVENTS, (stream, after, max(limit, 0), self._settings.replay_max_bytes))
        return page_of(stream, rows)

    async def read_log(self, shard: int, *, after: int, limit: int) -> list[Recorded]:
        start = shard << POSITION_BITS
        rows = await self._read(_READ_LOG, (start + max(after, 0), start + POSITION_MASK, max(limit, 0)))
        return [Recorded(*row) for row in rows]

    async def find_key(self, stream: str, key: str, *, since_us: int) -> Recorded | None:
        rows = await self._read(_FIND_KEY, (stream, since_us, key))
        return Recorded(*rows[0]) if rows else None

    async def recent_keys(self, stream: str, *, since_us: int, limit: int) -> list[Recorded]:
        return [Recorded(*row) for row in await self._read(_RECENT_KEYS, (stream, since_us, limit))]

    async def count_keys(self, stream: str, *, since_us: int) -> int:
        rows = await self._read(_COUNT_KEYS, (stream, since_us))
        return rows[0][0] if rows else 0

    async def streams(self, type: str, *, after: str, limit: int) -> list[str]:
        # "0" is the character after "/", so this is the range of all names that begin with "type/".
        rows = await self._read(_STREAMS, (f"{type}/", f"{type}0", after, limit))
        return [row[0] for row in rows]

    # ---------------------------------------------------------------------------------------------------- snapshots

    async def save_snapshot(self, snapshot: StoredSnapshot, *, keep: int) -> None:
        """Snapshots that wait for the same turn are stored in one transaction."""
        group = self._snapshots
        if group is None:
            group = self._snapshots = _SnapshotGroup()
        if len(group.snapshots) >= _SNAPSHOTS_AT_ONCE:
            raise JournalUnavailable(f"{self._file}: {_SNAPSHOTS_AT_ONCE} snapshots are waiting already")
        # Before there is a task, which begins at once where the loop's tasks do.
        group.snapshots.append((snapshot, keep))
        if group.task is None:
            group.task = asyncio.create_task(self._save_snapshots(group))
            group.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(group.task)

    async def _save_snapshots(self, group: _SnapshotGroup) -> None:
        async with self._snapshots_turn:
            self._snapshots = None
            await self._open_writer().run(
                lambda db: tables.save_snapshots(db, group.snapshots),
                pages=lambda: sum(8 + len(snapshot.payload) // 4000 for snapshot, _ in group.snapshots),
            )

    async def load_snapshots(
        self, stream: str, *, max_sequence: int | None = None, max_time_us: int | None = None, limit: int = 3
    ) -> list[StoredSnapshot]:
        rows = await self._read(_SNAPSHOTS, (stream, max_sequence, max_time_us, limit))
        return [StoredSnapshot(*row) for row in rows]

    async def delete_snapshots(self, stream: str) -> None:
        await self._open_writer().run(lambda db: tables.delete_snapshots(db, stream))

    # ------------------------------------------------------------------------------------------------------- leases

    async def acquire(self, shards: Sequence[int], *, owner: str, duration_s: float) -> list[Acquired | Held]:
        clock = self._clock
        return await self._open_writer().run(
            lambda db: tables.acquire(db, shards, owner=owner, duration_s=duration_s, now_s=clock.lease_s())
        )

    async def renew(self, epochs: Mapping[int, int], *, owner: str, duration_s: float) -> set[int]:
        clock = self._clock
        return await self._open_writer().run(
            lambda db: tables.renew(db, epochs, owner=owner, duration_s=duration_s, now_s=clock.lease_s())
        )

    async def release(self, epochs: Mapping[int, int], *, owner: str) -> None:
        await self._open_writer().run(lambda db: tables.release(db, epochs, owner=owner))

    async def claim(self, name: str, *, owner: str, duration_s: float) -> str:
        clock = self._clock
        return await self._open_writer().run(
            lambda db: tables.claim(db, name, owner=owner, duration_s=duration_s, now_s=clock.lease_s())
        )

    async def status(self, shards: Sequence[int] | None = None) -> list[ShardStatus]:
        asked = None if shards is None else json.dumps(list(shards))
        rows = await self._read(tables.STATUS, (asked,))
        now_s = self._clock.lease_s()
        found = {row[0]: tables.status_of(row, now_s) for row in rows}
        return [found[shard] for shard in (found if shards is None else shards)]

    # ------------------------------------------------------------------------------------------------------ cursors

    async def load_cursor(self, name: str) -> dict[int, int]:
        return dict(await self._read("SELECT shard, position FROM cursor WHERE name = ?", (name,)))

    async def save_cursor(self, name: str, positions: Mapping[int, int]) -> None:
        await self._open_writer().run(lambda db: tables.save_cursor(db, name, positions))


class _SnapshotGroup:
    """Snapshots that will be stored together."""

    __slots__ = ("snapshots", "task")

    def __init__(self) -> None:
        self.snapshots: list[tuple[StoredSnapshot, int]] = []
        self.task: asyncio.Task[None] | None = None

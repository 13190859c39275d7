"""The tables of a journal in SQLite, how the file is created, and how it is recognised.

``record`` is filled in the order of commits, so that its rows are always appended; two unique indexes give the shards'
logs and the streams. Measured (``bench/journal_shapes.py``) against a table clustered by shard and position and one
clustered by stream and sequence: over 1,000 streams it took 1.3 and 2 times as many rows a second, over one stream
0.95 and 0.97 times. Keys cost two more index entries, but only for records that have one. Every commit writes the pages
of ``shard`` that it changes, so its rows are few bytes, and what changes seldom is in ``lease``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import cache

from actorkit.errors import ConfigurationError, JournalUnavailable, NamespaceMismatch

__all__ = ["POSITION_BITS", "POSITION_MASK", "SHARDS_DEFAULT", "connect", "insert_many", "prepare", "touch"]

SHARDS_DEFAULT = 256
SCHEMA_VERSION = 1
APPLICATION_ID = 0x61_6B_6A_31
"""``akj1``: marks the file as a journal of actorkit."""
POSITION_BITS = 40
"""``record.log`` is ``shard << 40 | position``."""
POSITION_MASK = (1 << POSITION_BITS) - 1
SHARDS_MAX = 1 << 16
_STATEMENTS_CACHED = 256

_TABLES = (
    "CREATE TABLE meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    """CREATE TABLE shard(
        shard INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, head INTEGER NOT NULL)""",
    """CREATE TABLE lease(
        shard INTEGER PRIMARY KEY, owner TEXT NOT NULL, expires REAL NOT NULL, granted REAL NOT NULL)""",
    "CREATE TABLE stream(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    """CREATE TABLE record(
        row INTEGER PRIMARY KEY, log INTEGER NOT NULL, stream INTEGER NOT NULL, sequence INTEGER,
        type TEXT NOT NULL, version INTEGER NOT NULL, time_us INTEGER NOT NULL, epoch INTEGER NOT NULL,
        payload BLOB NOT NULL, metadata BLOB NOT NULL, key TEXT, outcome BLOB)""",
    "CREATE UNIQUE INDEX record_log ON record(log)",
    "CREATE UNIQUE INDEX record_stream ON record(stream, sequence)",
    "CREATE INDEX record_key ON record(stream, key) WHERE key IS NOT NULL",
    "CREATE INDEX record_keyed ON record(stream, time_us) WHERE key IS NOT NULL",
    """CREATE TABLE snapshot(
        stream TEXT NOT NULL, sequence INTEGER NOT NULL, time_us INTEGER NOT NULL, payload BLOB NOT NULL,
        PRIMARY KEY(stream, sequence))""",
    """CREATE TABLE cursor(
        name TEXT NOT NULL, shard INTEGER NOT NULL, position INTEGER NOT NULL,
        PRIMARY KEY(name, shard)) WITHOUT ROWID""",
)


def connect(file: str, *, busy_timeout_s: float, cache_max_kib: int) -> sqlite3.Connection:
    """The writer's connection. Every commit is synced; checkpoints are made by the writer alone.

    SQLite's automatic checkpoints would also run under our lock, but they ignore errors: a failed sync of the database
    file followed by a successful one loses what the log file no longer holds. Raises ``ConfigurationError`` where the
    file is something else than a journal, which is then left as it was.
    """
    db = sqlite3.connect(file, isolation_level=None, timeout=busy_timeout_s, cached_statements=_STATEMENTS_CACHED)
    try:
        _identify(db, file)
        for pragma in (
            "synchronous=FULL",
            "fullfsync=1",
            "checkpoint_fullfsync=1",
            "wal_autocheckpoint=0",
            "temp_store=MEMORY",
            f"cache_size=-{cache_max_kib}",
        ):
            db.execute(f"PRAGMA {pragma}").fetchall()
    except BaseException:
        db.close()
        raise
    return db


def _identify(db: sqlite3.Connection, file: str) -> None:
    try:
        marked = _application_id(db)
        tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorname", "") != "SQLITE_NOTADB":
            raise
        raise ConfigurationError(f"{file} is not an SQLite database: give the journal a file of its own") from error
    if marked != APPLICATION_ID and (marked or tables):
        raise ConfigurationError(f"{file} is not a journal of actorkit: give the journal a file of its own")


def _application_id(db: sqlite3.Connection) -> int:
    id: int = db.execute("PRAGMA application_id").fetchone()[0]
    return id


def prepare(db: sqlite3.Connection, file: str, shards: int | None) -> tuple[int, int, int]:
    """Creates or checks the schema; returns the number of shards, the generation and the identity (0: it has none).

    Raises ``NamespaceMismatch`` where the file has another number of shards, ``ConfigurationError`` where a newer
    version of actorkit wrote it.
    """
    mode = db.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        raise JournalUnavailable(f"{file}: SQLite cannot use its log file (mode {mode}): is it on a local file system?")
    if _application_id(db) != APPLICATION_ID:
        _create(db, SHARDS_DEFAULT if shards is None else shards)
    meta: dict[str, int] = dict(db.execute("SELECT name, value FROM meta").fetchall())
    if meta["schema"] != SCHEMA_VERSION:
        raise ConfigurationError(
            f"{file} has the journal schema {meta['schema']}, this version of actorkit knows {SCHEMA_VERSION}: "
            "use the version that wrote it, or another file"
        )
    if shards is not None and meta["shards"] != shards:
        raise NamespaceMismatch("shards", meta["shards"], shards)
    return meta["shards"], meta["generation"], meta.get("identity", 0)


def _create(db: sqlite3.Connection, shards: int) -> None:
    if not 1 <= shards <= SHARDS_MAX:
        raise ConfigurationError(f"a journal has 1 to {SHARDS_MAX} shards, not {shards}")
    db.execute("BEGIN IMMEDIATE")
    try:
        for statement in _TABLES:
            db.execute(statement)
        meta = {"schema": SCHEMA_VERSION, "shards": shards, "generation": 1, "touched": 0}
        db.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        db.execute("INSERT INTO meta SELECT 'identity', abs(random() % 9007199254740991) + 1")
        db.executemany("INSERT INTO shard VALUES (?, 0, 0)", [(shard,) for shard in range(shards)])
        db.executemany("INSERT INTO lease VALUES (?, '', 0, 0)", [(shard,) for shard in range(shards)])
        db.execute(f"PRAGMA application_id={APPLICATION_ID}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def touch(db: sqlite3.Connection) -> None:
    """A small write, so that the commit around it goes to disk."""
    db.execute("UPDATE meta SET value = value + 1 WHERE name = 'touched'")


_ROWS_AT_ONCE = (256, 64)
"""Beyond these, a statement for each number of rows: all are kept prepared (``_STATEMENTS_CACHED``)."""


def insert_many(
    db: sqlite3.Connection, into: str, columns: int, values: Sequence[object], *, or_roll_back: bool = True
) -> None:
    """Inserts rows, given one after another in a flat list, with few steps of many rows.

    ``executemany`` takes a step for each row and lets go of the interpreter's lock at each. Against a busy event loop
    each step then waits to get it back: 2,000 rows/s were measured where these statements made 80,000.

    A violated constraint ends the whole transaction, unless told otherwise. So SQLite need not keep a copy of each page
    that a statement of many rows changes, which it would need to undo that statement alone.
    """
    start = 0
    left = len(values) // columns
    while left:
        rows = next((rows for rows in _ROWS_AT_ONCE if rows <= left), left)
        end = start + rows * columns
        db.execute(_insert(into, columns, rows, or_roll_back), values[start:end])
        start = end
        left -= rows


@cache
def _insert(into: str, columns: int, rows: int, or_roll_back: bool) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"{'INSERT OR ROLLBACK' if or_roll_back else 'INSERT'} INTO {into} VALUES {', '.join([row] * rows)}"  # noqa: S608 - our own constants

"""The floors under everything durable: the same rows in the same tables, without anything around them.

The tables are those of a journal of ours, the pragmas and the number of pages between checkpoints too. A floor keeps no
epochs, checks no sequence and knows no actor: it only stores rows, and the new heads of the shards that they are in.
"""

from __future__ import annotations

import asyncio
import json
import queue
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from actorkit.journal.settings import SqliteSettings
from actorkit.journal.sqlite_schema import POSITION_BITS, POSITION_MASK, connect, insert_many, prepare

__all__ = ["GroupCommitFloor", "Row", "SingleCommitFloor", "new_rows", "open_floor"]

Row = tuple[Any, ...]
COLUMNS = ("log", "stream", "sequence", "type", "version", "payload", "time_us", "epoch", "metadata", "key", "outcome")
RECORD = f"record({', '.join(COLUMNS)})"
STORE_HEADS = """UPDATE shard SET head = changed.value FROM json_each(?) AS changed
    WHERE shard.shard = CAST(changed.key AS INTEGER)"""


def new_rows(journal: Path, after: int) -> tuple[list[Row], int]:
    """The records that the journal has got after a row, in the order of commits, and the last one's row."""
    db = sqlite3.connect(journal)
    rows = db.execute(f"SELECT row, {', '.join(COLUMNS)} FROM record WHERE row > ? ORDER BY row", (after,)).fetchall()
    db.close()
    return [row[1:] for row in rows], rows[-1][0] if rows else after


def open_floor(file: Path) -> sqlite3.Connection:
    """An empty journal's file, to be filled by hand."""
    settings = SqliteSettings()
    db = connect(str(file), busy_timeout_s=settings.busy_timeout_s, cache_max_kib=settings.cache_max_kib)
    prepare(db, str(file), None)
    db.execute(f"PRAGMA wal_autocheckpoint={settings.checkpoint_pages}").fetchall()
    return db


def store(db: sqlite3.Connection, rows: list[Row]) -> None:
    """One transaction."""
    heads = {row[0] >> POSITION_BITS: row[0] & POSITION_MASK for row in rows}
    db.execute("BEGIN IMMEDIATE")
    # Many rows in a statement: one by one (executemany) they let go of the interpreter's lock each time.
    insert_many(db, RECORD, len(COLUMNS), [value for row in rows for value in row])
    db.execute(STORE_HEADS, (json.dumps(heads),))
    db.execute("COMMIT")


class GroupCommitFloor:
    """One thread that commits whatever has gathered while it was busy; a future for each row."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._loop = asyncio.get_running_loop()
        self._gathered: list[tuple[Row, asyncio.Future[None]]] = []
        self._busy = False
        self._batches: queue.SimpleQueue[list[tuple[Row, asyncio.Future[None]]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def submit(self, row: Row) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()
        self._gathered.append((row, future))
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._hand_over)
        return future

    def close(self) -> None:
        self._batches.put(None)
        self._thread.join()

    def _hand_over(self) -> None:
        batch, self._gathered = self._gathered, []
        self._batches.put(batch)

    def _committed(self, batch: list[tuple[Row, asyncio.Future[None]]]) -> None:
        if self._gathered:
            self._hand_over()
        else:
            self._busy = False
        for _, future in batch:
            future.set_result(None)

    def _work(self) -> None:
        db = open_floor(self._file)
        while (batch := self._batches.get()) is not None:
            store(db, [row for row, _ in batch])
            self._loop.call_soon_threadsafe(self._committed, batch)
        db.close()


async def write_all(floor: GroupCommitFloor, rows: list[Row], in_flight: int) -> None:
    """Stores the rows in their order, so many of them in flight."""
    remaining: Iterator[Row] = iter(rows)

    async def caller() -> None:
        for row in remaining:
            await floor.submit(row)

    await asyncio.gather(*(caller() for _ in range(in_flight)))


class SingleCommitFloor:
    """One row, one transaction, through a thread and back."""

    def __init__(self, file: Path) -> None:
        self._executor = ThreadPoolExecutor(1)
        self._db: sqlite3.Connection | None = None
        self._file = file

    async def store(self, row: Row) -> None:
        await asyncio.get_running_loop().run_in_executor(self._executor, self._store, row)

    def close(self) -> None:
        self._executor.submit(self._close).result()
        self._executor.shutdown()

    def _store(self, row: Row) -> None:
        if self._db is None:
            self._db = open_floor(self._file)
        store(self._db, [row])

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()

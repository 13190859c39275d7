"""How much of a bare loop's speed does the group-commit writer keep?

Run ``python bench/group_commit.py [directory]``. The floor puts the same rows into the same tables with executemany
through one thread, 1,000 at a time, each batch started by the loop. The writer has 1,000 appends outstanding; as soon
as one is settled the next is submitted. Rows and appends are made before the clock starts.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog
import uvloop

from actorkit.clock import SystemClock
from actorkit.journal.protocols import Append, NewEvent
from actorkit.journal.settings import SqliteSettings
from actorkit.journal.sqlite import SqliteJournal
from actorkit.journal.sqlite_schema import connect
from actorkit.journal.writer import GroupCommit

ROWS = int(os.environ.get("ROWS", "200000"))
OUTSTANDING = int(os.environ.get("OUTSTANDING", "1000"))
SHARDS = 256
PAYLOAD, METADATA = b"p" * 110, b"m" * 40


async def floor(directory: str, streams: int) -> float:
    """Rows a second of the bare loop, checkpoints included at the same distance."""
    file = Path(directory) / f"floor{streams}.db"
    journal = SqliteJournal(file)
    await journal.open(SHARDS)
    await journal.close()
    thread = ThreadPoolExecutor(1)
    loop = asyncio.get_running_loop()
    db: sqlite3.Connection = await loop.run_in_executor(
        thread, lambda: connect(str(file), busy_timeout_s=5, cache_max_kib=64 << 10)
    )
    heads, sequences = [0] * SHARDS, [0] * streams
    names = [(n + 1, f"pool/{n}") for n in range(streams)]
    await loop.run_in_executor(thread, db.executemany, "INSERT INTO stream VALUES (?, ?)", names)

    def put(rows: list[tuple[object, ...]], changed: list[tuple[int, int]]) -> None:
        db.execute("BEGIN IMMEDIATE")
        db.executemany(
            "INSERT INTO record(log, stream, sequence, type, version, payload, time_us, epoch, metadata, key, outcome) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )
        db.executemany("UPDATE shard SET head = ? WHERE shard = ?", changed)
        db.execute("COMMIT")

    batches: list[tuple[list[tuple[object, ...]], list[tuple[int, int]]]] = []
    for _ in range(ROWS // OUTSTANDING):
        rows: list[tuple[object, ...]] = []
        touched: dict[int, int] = {}
        for n in range(OUTSTANDING):
            stream = n % streams
            shard = stream % SHARDS
            heads[shard] += 1
            sequences[stream] += 1
            touched[shard] = heads[shard]
            log = shard << 40 | heads[shard]
            rows.append((log, stream + 1, sequences[stream], "Reserved", 1, PAYLOAD, 1, 1, METADATA, None, None))
        batches.append((rows, [(head, shard) for shard, head in touched.items()]))
    pages = 0
    start = time.perf_counter()
    for some, changed in batches:
        await loop.run_in_executor(thread, put, some, changed)
        pages += 8 + min(streams, OUTSTANDING) + len(changed) + OUTSTANDING * 250 // 3500
        if pages >= SqliteSettings().checkpoint_pages:
            await loop.run_in_executor(thread, lambda: db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall())
            pages = 0
    took_s = time.perf_counter() - start
    await loop.run_in_executor(thread, db.close)
    thread.shutdown()
    return ROWS / took_s


async def grouped(directory: str, streams: int) -> tuple[float, float]:
    """Rows a second through the writer, and appends in an average batch."""
    journal = SqliteJournal(Path(directory) / f"grouped{streams}.db", clock=SystemClock())
    await journal.open(SHARDS)
    await journal.acquire(range(SHARDS), owner="bench", duration_s=60)
    writer = GroupCommit(journal)
    appends: list[list[Append]] = [[] for _ in range(streams)]
    for n in range(ROWS):
        stream = n % streams
        append = Append(
            shard=stream % SHARDS,
            epoch=1,
            stream=f"pool/{stream}",
            expected=len(appends[stream]),
            events=(NewEvent("Reserved", 1, PAYLOAD),),
            time_us=1,
            metadata=METADATA,
        )
        appends[stream].append(append)
    nexts = [iter(some) for some in appends]
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    left = ROWS

    def submit(stream: int) -> None:
        append = next(nexts[stream], None)
        if append is None:
            return

        def settled(result: object) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                done.set_result(None)
            else:
                submit(stream)

        writer.submit(append, settled)

    start = time.perf_counter()
    for n in range(OUTSTANDING):
        submit(n % streams)
    await done
    took_s = time.perf_counter() - start
    await writer.close()
    await journal.close()
    return ROWS / took_s, writer.appends / writer.batches


async def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as directory:
        print("| streams | floor rows/s | writer rows/s | ratio | appends per batch |\n| --- | --- | --- | --- | --- |")
        for streams in (1000, 1):
            bare = await floor(directory, streams)
            rate, batch = await grouped(directory, streams)
            print(f"| {streams} | {bare:,.0f} | {rate:,.0f} | {rate / bare:.2f} | {batch:.0f} |", flush=True)


if __name__ == "__main__":
    uvloop.run(main())

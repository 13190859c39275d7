"""Which SQLite table shape takes the most rows a second?

Run ``python bench/journal_shapes.py [directory]``. One thread, ``BEGIN IMMEDIATE``, executemany, ``synchronous=FULL``;
batches of 1,000 rows of about 150 bytes over 1,000 streams in 256 shards, then over one stream; with and without keys.
Checkpoints are included: PASSIVE whenever about ``CHECKPOINT_PAGES`` may have been written.
"""

from __future__ import annotations

import os
import random
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

BATCH = 1000
ROWS = int(os.environ.get("ROWS", "300000"))
SHARDS = 256
CHECKPOINT_PAGES = int(os.environ.get("CKPT", "4000"))
COLUMNS = (
    "type TEXT, version INTEGER, time_us INTEGER, epoch INTEGER, payload BLOB, metadata BLOB, key TEXT, outcome BLOB"
)
KEYS = (
    "CREATE INDEX record_key ON record(stream, key) WHERE key IS NOT NULL",
    "CREATE INDEX record_keyed ON record(stream, time_us) WHERE key IS NOT NULL",
)
SHAPES: dict[str, tuple[str, ...]] = {
    "id = shard<<40|position": (
        f"CREATE TABLE record(id INTEGER PRIMARY KEY, stream INTEGER, sequence INTEGER, {COLUMNS})",
        "CREATE UNIQUE INDEX record_stream ON record(stream, sequence)",
        *KEYS,
    ),
    "id = shard<<40|position, strict index partial": (
        f"CREATE TABLE record(id INTEGER PRIMARY KEY, stream INTEGER, sequence INTEGER, {COLUMNS})",
        "CREATE UNIQUE INDEX record_stream ON record(stream, sequence) WHERE sequence IS NOT NULL",
        *KEYS,
    ),
    "clustered by stream": (
        f"CREATE TABLE record(stream INTEGER, sequence INTEGER, id INTEGER, {COLUMNS}, "
        "PRIMARY KEY(stream, sequence)) WITHOUT ROWID",
        "CREATE UNIQUE INDEX record_log ON record(id)",
        *KEYS,
    ),
    "rowid in commit order": (
        f"CREATE TABLE record(row INTEGER PRIMARY KEY, id INTEGER, stream INTEGER, sequence INTEGER, {COLUMNS})",
        "CREATE UNIQUE INDEX record_stream ON record(stream, sequence)",
        "CREATE UNIQUE INDEX record_log ON record(id)",
        *KEYS,
    ),
    "log alone (no stream index)": (
        f"CREATE TABLE record(id INTEGER PRIMARY KEY, stream INTEGER, sequence INTEGER, {COLUMNS})",
        *KEYS,
    ),
}
INSERT = (
    "INSERT INTO record(id, stream, sequence, type, version, time_us, epoch, payload, metadata, key, outcome) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def run(shape: str, streams: int, keyed: bool, directory: str) -> tuple[float, float, int]:
    """Rows a second, the seconds spent in checkpoints, the file's size in MB."""
    rng = random.Random(1)
    path = Path(directory) / "bench.db"
    for name in os.listdir(directory):
        os.unlink(Path(directory) / name)
    db = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "wal_autocheckpoint=0", "cache_size=-65536"):
        db.execute(f"PRAGMA {pragma}").fetchall()
    if "PAGE" in os.environ:
        db.execute(f"PRAGMA page_size={os.environ['PAGE']}")
        db.execute("VACUUM")
    for statement in SHAPES[shape]:
        db.execute(statement)
    db.execute("CREATE TABLE shard(shard INTEGER PRIMARY KEY, epoch INTEGER, head INTEGER)")
    db.executemany("INSERT INTO shard VALUES (?, 1, 0)", [(n,) for n in range(SHARDS)])
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    heads = [0] * SHARDS
    sequences = [0] * streams
    payload, metadata = b"p" * 110, b"m" * 40
    took_s = checkpoint_s = 0.0
    pages = 0
    for _ in range(ROWS // BATCH):
        rows = []
        touched = set()
        for n in range(BATCH):
            stream = n if streams >= BATCH else rng.randrange(streams)
            shard = stream % SHARDS
            heads[shard] += 1
            sequences[stream] += 1
            touched.add(shard)
            key, outcome = (f"{rng.getrandbits(128):032x}", b"o" * 20) if keyed else (None, None)
            rows.append(
                (
                    shard << 40 | heads[shard],
                    stream,
                    sequences[stream],
                    "Reserved",
                    1,
                    1,
                    1,
                    payload,
                    metadata,
                    key,
                    outcome,
                )
            )
        start = time.perf_counter()
        db.execute("BEGIN IMMEDIATE")
        db.executemany("UPDATE shard SET head = ? WHERE shard = ?", [(heads[shard], shard) for shard in touched])
        db.executemany(INSERT, rows)
        db.execute("COMMIT")
        took_s += time.perf_counter() - start
        if os.stat(f"{path}-wal").st_size / 4096 > 0:
            pages += min(streams, BATCH) + len(touched) + 60 + (1000 if keyed else 0)
        if pages > CHECKPOINT_PAGES:
            start = time.perf_counter()
            db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            checkpoint_s += time.perf_counter() - start
            pages = 0
    db.close()
    size_mb = path.stat().st_size >> 20
    return ROWS / (took_s + checkpoint_s), checkpoint_s, size_mb


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as directory:
        print("| shape | streams | keyed | rows/s | checkpoints s | MB |\n| --- | --- | --- | --- | --- | --- |")
        for streams, keyed in ((1000, False), (1, False), (1000, True), (1, True)):
            for shape in SHAPES:
                rate, checkpoint_s, size_mb = run(shape, streams, keyed, directory)
                print(f"| {shape} | {streams} | {keyed} | {rate:,.0f} | {checkpoint_s:.2f} | {size_mb} |", flush=True)


if __name__ == "__main__":
    main()

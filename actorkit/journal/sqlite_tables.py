"""Leases, snapshots and cursors in SQLite: the statements, each set run in one transaction of the writer's thread.

A lease's end is a time of the machine's own clock, which all its processes share and which starts again at a reboot. A
lease that seems to last longer than it was granted for was therefore written before a reboot, and has run out.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from actorkit.journal.protocols import Acquired, Held, ShardStatus, StoredSnapshot

__all__ = [
    "STATUS",
    "acquire",
    "claim",
    "delete_snapshots",
    "release",
    "renew",
    "save_cursor",
    "save_snapshots",
    "status_of",
]

_TOLERANCE_S = 0.001
STATUS = """SELECT shard, owner, epoch, head, expires, granted FROM shard JOIN lease USING (shard)
    WHERE ?1 IS NULL OR shard IN (SELECT value FROM json_each(?1)) ORDER BY shard"""
_LEASE = "SELECT owner, epoch, head, expires, granted FROM shard JOIN lease USING (shard) WHERE shard = ?"
_CLAIMS = """CREATE TABLE IF NOT EXISTS claim(
    name TEXT PRIMARY KEY, owner TEXT NOT NULL, expires REAL NOT NULL, granted REAL NOT NULL) WITHOUT ROWID"""
_OWNED = "shard = ? AND owner = ? AND (SELECT epoch FROM shard WHERE shard.shard = lease.shard) = ?"


def _remaining_s(expires_s: float, granted_s: float, now_s: float) -> float:
    remaining_s = expires_s - now_s
    return remaining_s if 0 < remaining_s <= granted_s + _TOLERANCE_S else 0.0


def acquire(
    db: sqlite3.Connection, shards: Sequence[int], *, owner: str, duration_s: float, now_s: float
) -> list[Acquired | Held]:
    """Takes what is free, run out, or the owner's; raises ``KeyError`` for a shard that does not exist."""
    answers: list[Acquired | Held] = []
    for shard in shards:
        row = db.execute(_LEASE, (shard,)).fetchone()
        if row is None:
            raise KeyError(shard)
        holder, epoch, head, expires_s, granted_s = row
        remaining_s = _remaining_s(expires_s, granted_s, now_s)
        if holder not in ("", owner) and remaining_s > 0:
            answers.append(Held(shard, epoch, holder, remaining_s))
            continue
        db.execute("UPDATE shard SET epoch = ? WHERE shard = ?", (epoch + 1, shard))
        db.execute(
            "UPDATE lease SET owner = ?, expires = ?, granted = ? WHERE shard = ?",
            (owner, now_s + duration_s, duration_s, shard),
        )
        answers.append(Acquired(shard, epoch + 1, head))
    return answers


def renew(
    db: sqlite3.Connection, epochs: Mapping[int, int], *, owner: str, duration_s: float, now_s: float
) -> set[int]:
    return {
        shard
        for shard, epoch in epochs.items()
        if db.execute(
            f"UPDATE lease SET expires = ?, granted = ? WHERE {_OWNED}",  # noqa: S608 - our own constant
            (now_s + duration_s, duration_s, shard, owner, epoch),
        ).rowcount
    }


def release(db: sqlite3.Connection, epochs: Mapping[int, int], *, owner: str) -> None:
    db.executemany(
        f"UPDATE lease SET expires = 0, granted = 0, owner = '' WHERE {_OWNED}",  # noqa: S608 - our own constant
        [(shard, owner, epoch) for shard, epoch in epochs.items()],
    )


def claim(db: sqlite3.Connection, name: str, *, owner: str, duration_s: float, now_s: float) -> str:
    """Claims are rare, and files that were created without their table are as good as others."""
    db.execute(_CLAIMS)
    row = db.execute("SELECT owner, expires, granted FROM claim WHERE name = ?", (name,)).fetchone()
    if row is not None and row[0] != owner and _remaining_s(row[1], row[2], now_s) > 0:
        holder: str = row[0]
        return holder
    db.execute("INSERT OR REPLACE INTO claim VALUES (?, ?, ?, ?)", (name, owner, now_s + duration_s, duration_s))
    return owner


def status_of(row: tuple[int, str, int, int, float, float], now_s: float) -> ShardStatus:
    """A row of ``STATUS``, as seen at ``now_s``."""
    shard, owner, epoch, head, expires_s, granted_s = row
    return ShardStatus(
        shard=shard, owner=owner, epoch=epoch, head=head, remaining_s=_remaining_s(expires_s, granted_s, now_s)
    )


def save_snapshots(db: sqlite3.Connection, snapshots: Sequence[tuple[StoredSnapshot, int]]) -> None:
    """Stores each snapshot and deletes all but the given number of its stream's newest."""
    for snapshot, keep in snapshots:
        stream = snapshot.stream
        db.execute(
            "INSERT OR REPLACE INTO snapshot VALUES (?, ?, ?, ?)",
            (stream, snapshot.sequence, snapshot.time_us, snapshot.payload),
        )
        db.execute(
            """DELETE FROM snapshot WHERE stream = ?1 AND sequence NOT IN
                (SELECT sequence FROM snapshot WHERE stream = ?1 ORDER BY sequence DESC LIMIT ?2)""",
            (stream, max(keep, 0)),
        )


def delete_snapshots(db: sqlite3.Connection, stream: str) -> None:
    db.execute("DELETE FROM snapshot WHERE stream = ?", (stream,))


def save_cursor(db: sqlite3.Connection, name: str, positions: Mapping[int, int]) -> None:
    db.executemany(
        "INSERT OR REPLACE INTO cursor VALUES (?, ?, ?)",
        [(name, shard, position) for shard, position in positions.items()],
    )

"""Moving what is committed from the log file (WAL) to the database file.

SQLite tells the log file's length only in answer to a checkpoint, so the pages written in between are estimated, rather
too high than too low. All of this runs in the writer's thread and under the lock between processes.
"""

from __future__ import annotations

import os
import sqlite3

import structlog

from actorkit.errors import JournalUnavailable
from actorkit.journal.settings import SqliteSettings
from actorkit.journal.sqlite_schema import touch

__all__ = ["Checkpointer"]

_log = structlog.get_logger("actorkit.journal")


class Checkpointer:
    """When to checkpoint, and how."""

    def __init__(self, file: str, settings: SqliteSettings) -> None:
        self._file = file
        self._settings = settings
        self._pages = 0
        self._oversize_pages = 0

    def wrote(self, pages: int) -> None:
        """Counts what a transaction has written."""
        self._pages += pages

    def settle(self, db: sqlite3.Connection) -> None:
        """Makes what the file says the truth, before anything is answered from it.

        A process may have died after a commit whose sync failed. Its frames are in the log file as the kernel shows it,
        so that recovery takes them for committed, although they may not be on disk. A truncating checkpoint writes and
        syncs their content again, into the database file; after it, what is read is on disk.

        A reader of another process may keep the log file from being cut. A FULL checkpoint then still moves and syncs
        all frames, and one more commit lands where any leftovers behind the last good frame begin: frames are chained
        by checksums, so that nothing behind it can ever count as committed again. If a reader holds on to an old
        snapshot for the whole busy timeout, not even that is possible, and the file is not opened.
        """
        busy, _, _ = _checkpoint(db, "TRUNCATE")
        if not busy:
            return
        busy, frames, moved = _checkpoint(db, "FULL")
        if busy or frames != moved:
            raise JournalUnavailable(
                f"{self._file}: another process has kept it locked or a read of it open for "
                f"{self._settings.busy_timeout_s:g} s, so that leftovers of a crash cannot be settled; retry"
            )
        db.execute("BEGIN IMMEDIATE")
        touch(db)
        db.execute("COMMIT")

    def due(self, db: sqlite3.Connection) -> None:
        """Checkpoints if enough was written since the last time."""
        if self._pages < self._settings.checkpoint_pages:
            return
        self._pages = 0
        if self._wal_bytes() <= self._settings.wal_max_bytes:
            self.passive(db)
            return
        db.execute(f"PRAGMA busy_timeout={int(self._settings.truncate_timeout_s * 1000)}")
        try:
            busy, _, _ = _checkpoint(db, "TRUNCATE")
        finally:
            db.execute(f"PRAGMA busy_timeout={int(self._settings.busy_timeout_s * 1000)}")
        if busy:
            _log.warning("journal.wal_not_cut", file=self._file, bytes=self._wal_bytes(), why="a reader holds it open")

    def passive(self, db: sqlite3.Connection) -> None:
        """Moves what can be moved without waiting for anybody."""
        _checkpoint(db, "PASSIVE")

    def _wal_bytes(self) -> int:
        try:
            return os.stat(f"{self._file}-wal").st_size
        except FileNotFoundError:
            return 0


def _checkpoint(db: sqlite3.Connection, mode: str) -> tuple[int, int, int]:
    """Whether somebody was in the way, how many frames the log file has, how many of them are moved."""
    busy, frames, moved = db.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    return busy, frames, moved

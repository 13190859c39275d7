"""The connection that writes to a SQLite file: one transaction at a time, and what its failures mean.

Used by one thread, while it has the process's turn at the file (``sqlite_lock``).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TypeVar

import structlog

from actorkit.errors import AppendUncertain, JournalFailed, JournalUnavailable
from actorkit.journal.settings import SqliteSettings
from actorkit.journal.sqlite_checkpoint import Checkpointer
from actorkit.journal.sqlite_errors import is_fatal, write_error
from actorkit.journal.sqlite_schema import connect, prepare, touch

__all__ = ["WriterConnection"]

T = TypeVar("T")
_log = structlog.get_logger("actorkit.journal")


class WriterConnection:
    """A connection with what is known about its last commits.

    ``unsettled`` is set by a commit that failed and cleared by the next one that succeeded: in between, what is absent
    from the file may still come back. ``failed`` is set for good by a failed sync, and by an error that nobody has
    foreseen: nothing is written after that.
    """

    def __init__(self, file: str, settings: SqliteSettings) -> None:
        self.unsettled = False
        self.failed: JournalFailed | None = None
        self.checkpointer = Checkpointer(file, settings)
        self._file = file
        self._settings = settings
        self._db: sqlite3.Connection | None = None
        self._weigh: Callable[[], int] | None = None
        self._forget: list[Callable[[], None]] = []

    @property
    def is_open(self) -> bool:
        return self._db is not None

    def on_rollback(self, forget: Callable[[], None]) -> None:
        """Registers what drops remembered values when a transaction has not committed."""
        self._forget.append(forget)

    def crashed(self, error: BaseException) -> None:
        """Whether locks are held, and what a checkpoint has done, is unknown: nothing more is written."""
        self.failed = JournalFailed(f"{self._file}: its writer has failed: {error!r}; this process must end")
        self.failed.__cause__ = error
        _log.critical("journal.writer_failed", file=self._file, error=repr(error), exc_info=error)

    def failed_elsewhere(self, error: AppendUncertain | JournalFailed) -> None:
        """A commit of another connection of this process has failed: what that says of the file holds here as well."""
        self.unsettled = True
        if isinstance(error, JournalFailed):
            self.failed = error

    def open(self, shards: int | None, *, settle: bool = True) -> tuple[int, int, int]:
        """Returns what ``prepare`` does. ``settle``: what a crash may have left is settled first."""
        try:
            db = connect(
                self._file, busy_timeout_s=self._settings.busy_timeout_s, cache_max_kib=self._settings.cache_max_kib
            )
        except sqlite3.Error as error:
            raise write_error(error, self._file, written=False) from error
        try:
            found = prepare(db, self._file, shards)
            if settle:
                self.checkpointer.settle(db)
        except sqlite3.Error as error:
            db.close()
            raise self._failure(write_error(error, self._file, written=False)) from error
        except BaseException:
            db.close()
            raise
        self._db = db
        return found

    def close(self) -> None:
        """Under the lock: the last connection to close makes a checkpoint of its own."""
        db, self._db = self._db, None
        if db is None:
            return
        try:
            if self.failed is None:
                self.checkpointer.passive(db)
            db.close()
        except sqlite3.Error as error:
            raise self._failure(write_error(error, self._file, written=False)) from error

    def transaction(self, body: Callable[[sqlite3.Connection], T], pages: Callable[[], int]) -> T:
        """Runs ``body`` in one transaction; its result is durable when this returns.

        ``pages`` says about how many pages it has written. Raises ``JournalUnavailable`` if surely nothing was stored,
        ``AppendUncertain`` if that is not known, ``JournalFailed`` if the process must end.
        """
        if self.failed is not None:
            raise self.failed.with_traceback(None)
        db = self._db
        if db is None:
            raise JournalUnavailable(f"{self._file}: the journal is not open")
        written = committing = False
        try:
            db.execute("BEGIN IMMEDIATE")
            before = db.total_changes
            written = True
            result = body(db)
            if self.unsettled:
                touch(db)
            written = db.total_changes != before
            committing = True
            db.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back(db, written)
            raise self._failure(write_error(error, self._file, written=written)) from error
        except BaseException:
            # Raised by the body itself, before the commit: nothing of it is stored. Or there was no memory to commit.
            self._roll_back(db, written=committing and written)
            raise
        if written:
            self.unsettled = False
            self._weigh = pages
        return result

    def _roll_back(self, db: sqlite3.Connection, written: bool) -> None:
        self.unsettled = self.unsettled or written
        for forget in self._forget:
            forget()
        if not db.in_transaction:
            return
        try:
            db.execute("ROLLBACK")
        except sqlite3.Error as error:
            self.failed = JournalFailed(f"{self._file}: a transaction cannot be rolled back: {error}")
            raise self.failed from error

    def _failure(self, error: Exception) -> Exception:
        if isinstance(error, JournalFailed):
            self.failed = error
        return error

    def checkpoint(self) -> None:
        """Checkpoints if it is time to; called after a transaction was answered, under the same turn."""
        db, weigh = self._db, self._weigh
        if db is None or weigh is None or self.failed is not None:
            return
        self._weigh = None
        self.checkpointer.wrote(weigh())
        try:
            self.checkpointer.due(db)
        except sqlite3.Error as error:
            # What is committed stays in the log file, so only a failed sync of the database file is fatal.
            if is_fatal(error):
                self._failure(write_error(error, self._file, written=True))
            _log.warning("journal.checkpoint_failed", file=self._file, error=str(error))

"""The one thread that writes to a SQLite file.

Everything that changes the file runs here, one job at a time: a job waits for the process's turn (``sqlite_lock``), and
whoever asked for it may give up until then, so that no call waits for ever although the thread may. Results go back to
the loop before the log file is checkpointed, under the same turn.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import structlog

from actorkit.errors import ActorkitError, JournalFailed, JournalUnavailable
from actorkit.journal.settings import SqliteSettings
from actorkit.journal.sqlite_checkpoint import Checkpointer
from actorkit.journal.sqlite_errors import is_fatal, write_error
from actorkit.journal.sqlite_lock import FileLock
from actorkit.journal.sqlite_schema import connect, prepare, touch

__all__ = ["SqliteWriter"]

T = TypeVar("T")
_log = structlog.get_logger("actorkit.journal")


class _Job(Generic[T]):
    """Work for the thread, and the future that waits for it in the loop."""

    __slots__ = ("_claimed", "future", "loop", "work")

    def __init__(self, work: Callable[[], T], loop: asyncio.AbstractEventLoop) -> None:
        self.work = work
        self.loop = loop
        self.future: asyncio.Future[T] = loop.create_future()
        self._claimed = threading.Lock()

    def claim(self) -> bool:
        """True once: either the thread does the work, or the caller has given up before it began."""
        return self._claimed.acquire(blocking=False)

    def deliver(self, result: T | None, error: BaseException | None) -> None:
        """Called by the thread; the loop may be gone by then."""
        try:
            self.loop.call_soon_threadsafe(self._settle, result, error)
        except RuntimeError:
            _log.debug("journal.loop_gone")

    def _settle(self, result: Any, error: BaseException | None) -> None:
        if self.future.done():
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class SqliteWriter:
    """A connection, the thread that owns it, and the queue before it.

    ``unsettled`` is set by a commit that failed and cleared by the next one that succeeded: in between, what is absent
    from the file may still come back. ``failed`` is set for good by a failed sync, and by an error in the thread that
    nobody has foreseen: every call then raises it.
    """

    def __init__(self, file: Path, settings: SqliteSettings) -> None:
        self.unsettled = False
        self.failed: JournalFailed | None = None
        self._file = str(file)
        self._settings = settings
        self._lock = FileLock(file.with_name(f"{file.name}-lock"))
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._main, name=f"actorkit-journal {file.name}", daemon=True)
        self._db: sqlite3.Connection | None = None
        self._checkpointer = Checkpointer(self._file, settings)
        self._weigh: Callable[[], int] | None = None
        self._forget: list[Callable[[], None]] = []

    def on_rollback(self, forget: Callable[[], None]) -> None:
        """Registers what drops remembered values when a transaction has not committed; called in the thread."""
        self._forget.append(forget)

    # --------------------------------------------------------------------------------------------------- from the loop

    async def open(self, shards: int | None) -> tuple[int, int]:
        """Starts the thread and opens the file; returns the number of shards and the generation."""
        try:
            self._lock.open()
        except OSError as error:
            raise JournalUnavailable(f"{self._file}: the lock file beside it cannot be opened: {error}") from error
        self._thread.start()
        return await self._submit(lambda: self._open(shards))

    async def run(self, body: Callable[[sqlite3.Connection], T], *, pages: Callable[[], int] = lambda: 8) -> T:
        """Runs ``body`` in one transaction in the thread; its result is durable when this returns.

        ``pages`` says about how many pages it writes. Raises ``JournalUnavailable`` if surely nothing was stored,
        ``AppendUncertain`` if that is not known, ``JournalFailed`` if the process must end.
        """
        return await self._submit(lambda: self._transaction(body, pages))

    async def close(self) -> None:
        """Checkpoints and closes, in turn with other processes; gives up after the busy timeout."""
        if self._db is not None:
            try:
                await self._submit(self._close)
            except ActorkitError as error:
                _log.warning("journal.close_failed", file=self._file, error=str(error))
        if self._thread.is_alive():
            self._jobs.put(None)

    async def _submit(self, work: Callable[[], T]) -> T:
        if self.failed is not None:
            raise self.failed.with_traceback(None)
        loop = asyncio.get_running_loop()
        if self._jobs.qsize() >= self._settings.jobs_max:
            raise JournalUnavailable(f"{self._file}: {self._settings.jobs_max} writes are waiting already")
        job = _Job(work, loop)
        self._jobs.put(job)
        timer = loop.call_later(self._settings.busy_timeout_s, self._give_up, job)
        try:
            return await job.future
        finally:
            timer.cancel()

    def _give_up(self, job: _Job[Any]) -> None:
        if job.claim():
            text = f"{self._file}: no turn within {self._settings.busy_timeout_s:g} s, nothing was stored; retry"
            job.deliver(None, JournalUnavailable(text))

    # ---------------------------------------------------------------------------------------------------- in the thread

    def _main(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                if self.failed is None:
                    self._do(job)
            except BaseException as error:  # noqa: BLE001 - a thread that ended here would end silently
                self._fail(error)
            if self.failed is not None:
                # Whoever has an answer already keeps it.
                job.deliver(None, self.failed)
        try:
            with self._lock.turn():
                self._close()
        except (ActorkitError, OSError) as error:
            _log.warning("journal.close_failed", file=self._file, error=str(error))
        self._lock.close()

    def _do(self, job: _Job[Any]) -> None:
        with self._lock.turn():
            if not job.claim():
                return
            try:
                result = job.work()
            except BaseException as error:  # noqa: BLE001 - the thread goes on; the caller gets what happened
                job.deliver(None, error)
            else:
                job.deliver(result, None)
            self._checkpoint()

    def _fail(self, error: BaseException) -> None:
        """Whether locks are held, and what a checkpoint has done, is unknown: nothing more is written."""
        self.failed = JournalFailed(f"{self._file}: the writer's thread has failed: {error!r}; this process must end")
        self.failed.__cause__ = error
        _log.critical("journal.thread_failed", file=self._file, error=repr(error), exc_info=error)

    def _open(self, shards: int | None) -> tuple[int, int]:
        try:
            db = connect(
                self._file, busy_timeout_s=self._settings.busy_timeout_s, cache_max_kib=self._settings.cache_max_kib
            )
        except sqlite3.Error as error:
            raise write_error(error, self._file, written=False) from error
        try:
            found = prepare(db, self._file, shards)
            self._checkpointer.settle(db)
        except sqlite3.Error as error:
            db.close()
            raise self._failure(write_error(error, self._file, written=False)) from error
        except BaseException:
            db.close()
            raise
        self._db = db
        return found

    def _close(self) -> None:
        """Under the lock: the last connection to close makes a checkpoint of its own."""
        db, self._db = self._db, None
        if db is None:
            return
        try:
            if self.failed is None:
                self._checkpointer.passive(db)
            db.close()
        except sqlite3.Error as error:
            raise self._failure(write_error(error, self._file, written=False)) from error

    def _transaction(self, body: Callable[[sqlite3.Connection], T], pages: Callable[[], int]) -> T:
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

    def _checkpoint(self) -> None:
        db, weigh = self._db, self._weigh
        if db is None or weigh is None or self.failed is not None:
            return
        self._weigh = None
        self._checkpointer.wrote(weigh())
        try:
            self._checkpointer.due(db)
        except sqlite3.Error as error:
            # What is committed stays in the log file, so only a failed sync of the database file is fatal.
            if is_fatal(error):
                self._failure(write_error(error, self._file, written=True))
            _log.warning("journal.checkpoint_failed", file=self._file, error=str(error))

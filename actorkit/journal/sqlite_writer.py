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

from actorkit.errors import ActorkitError, JournalUnavailable
from actorkit.journal.settings import SqliteSettings
from actorkit.journal.sqlite_connection import WriterConnection
from actorkit.journal.sqlite_errors import no_turn
from actorkit.journal.sqlite_lock import FileLock

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
    """The thread, the connection that it owns, and the queue before it."""

    def __init__(self, file: Path, settings: SqliteSettings) -> None:
        self.connection = WriterConnection(str(file), settings)
        self._file = str(file)
        self._settings = settings
        self._lock = FileLock(file.with_name(f"{file.name}-lock"), gate_max_s=settings.gate_max_s)
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._main, name=f"actorkit-journal {file.name}", daemon=True)

    # --------------------------------------------------------------------------------------------------- from the loop

    async def open(self, shards: int | None) -> tuple[int, int, int]:
        """Starts the thread and opens the file; returns what ``prepare`` does."""
        try:
            self._lock.open()
        except OSError as error:
            raise JournalUnavailable(f"{self._file}: the lock file beside it cannot be opened: {error}") from error
        self._thread.start()
        return await self._submit(lambda: self.connection.open(shards))

    async def run(self, body: Callable[[sqlite3.Connection], T], *, pages: Callable[[], int] = lambda: 8) -> T:
        """Runs ``body`` in one transaction in the thread; its result is durable when this returns.

        ``pages`` says about how many pages it writes. Raises ``JournalUnavailable`` if surely nothing was stored,
        ``AppendUncertain`` if that is not known, ``JournalFailed`` if the process must end.
        """
        return await self._submit(lambda: self.connection.transaction(body, pages))

    async def close(self) -> None:
        """Checkpoints and closes, in turn with other processes; gives up after the busy timeout."""
        try:
            if self.connection.is_open:
                await self._submit(self.connection.close)
        except ActorkitError as error:
            _log.warning("journal.close_failed", file=self._file, error=str(error))
        finally:
            if self._thread.is_alive():
                self._jobs.put(None)

    async def _submit(self, work: Callable[[], T]) -> T:
        if self.connection.failed is not None:
            raise self.connection.failed.with_traceback(None)
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
            # Whoever has given up is not to find it done after all, as far as it has not begun.
            job.claim()

    def _give_up(self, job: _Job[Any]) -> None:
        if job.claim():
            text = no_turn(self._file, self._settings.busy_timeout_s)
            job.deliver(None, JournalUnavailable(text))

    # ---------------------------------------------------------------------------------------------------- in the thread

    def _main(self) -> None:
        connection = self.connection
        while (job := self._jobs.get()) is not None:
            try:
                if connection.failed is None:
                    self._do(job)
            except BaseException as error:  # noqa: BLE001 - a thread that ended here would end silently
                connection.crashed(error)
            if connection.failed is not None:
                # Whoever has an answer already keeps it.
                job.deliver(None, connection.failed)
        try:
            with self._lock.turn():
                connection.close()
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
            self.connection.checkpoint()

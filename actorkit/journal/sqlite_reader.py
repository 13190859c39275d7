"""The one thread that reads from a SQLite file.

Each hand-over between the loop and a thread costs both of them the interpreter's lock, which a busy loop lets go of
only now and then. So what is asked for within one turn of the loop goes to the thread together, and while the thread
reads, the next reads gather; answers come back together, too, but none waits for long for others behind it. With 64
entities that recover at the same time that makes one hand-over of dozens.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from typing import Any, TypeAlias

import structlog

__all__ = ["SqliteReader"]

_log = structlog.get_logger("actorkit.journal")
_TOGETHER_S = 0.002
"""How long an answer that is there waits for the next ones."""

_Answer: TypeAlias = tuple["asyncio.Future[list[Any]]", list[Any], Exception | None]


class _Read:
    """A statement, and the future that waits for its rows."""

    __slots__ = ("future", "parameters", "statement")

    def __init__(self, statement: str, parameters: tuple[Any, ...], future: asyncio.Future[list[Any]]) -> None:
        self.statement = statement
        self.parameters = parameters
        self.future = future


class SqliteReader:
    """The thread, and the connection that it owns. Used from one asyncio loop."""

    def __init__(self, uri: str, *, busy_timeout_s: float) -> None:
        self._uri = uri
        self._busy_timeout_s = busy_timeout_s
        self._loop = asyncio.get_running_loop()
        self._gathered: list[_Read] = []
        self._orders: queue.SimpleQueue[list[_Read] | None] = queue.SimpleQueue()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        # A process that ends without close() does not wait for it.
        self._thread = threading.Thread(target=self._main, name=f"actorkit-reader {uri}", daemon=True)

    async def open(self) -> None:
        """Raises ``sqlite3.Error``."""
        self._thread.start()
        try:
            await self._opened
        except BaseException:
            # Whoever has given up while it was being opened will not close it.
            self._orders.put(None)
            raise

    async def read(self, statement: str, parameters: tuple[Any, ...]) -> list[Any]:
        """All rows, as of every commit before this call. Raises ``sqlite3.Error``."""
        if not self._gathered:
            self._loop.call_soon(self._order)
        read = _Read(statement, parameters, self._loop.create_future())
        self._gathered.append(read)
        return await read.future

    async def close(self) -> None:
        """Returns when the connection is closed; what was asked for before is answered first."""
        self._order()
        self._orders.put(None)
        await self._closed

    def _order(self) -> None:
        gathered, self._gathered = self._gathered, []
        if gathered:
            self._orders.put(gathered)

    # --------------------------------------------------------------------------------------------------- in the thread

    def _main(self) -> None:
        try:
            db = sqlite3.connect(self._uri, uri=True, isolation_level=None, timeout=self._busy_timeout_s)
        except sqlite3.Error as error:
            self._tell(self._settle, self._opened, error)
            return
        self._tell(self._settle, self._opened, None)
        try:
            while (reads := self._orders.get()) is not None:
                self._read(db, reads)
        finally:
            db.close()
            self._tell(self._settle, self._closed, None)

    def _read(self, db: sqlite3.Connection, reads: list[_Read]) -> None:
        answers: list[_Answer] = []
        told_s = time.monotonic()
        for read in reads:
            if read.future.cancelled():
                continue
            rows: list[Any] = []
            failure: Exception | None = None
            try:
                rows = db.execute(read.statement, read.parameters).fetchall()
            except Exception as error:  # noqa: BLE001 - the thread goes on; whoever asked gets what happened
                failure = error
            answers.append((read.future, rows, failure))
            now_s = time.monotonic()
            if now_s - told_s >= _TOGETHER_S:
                self._tell(_answer, answers)
                answers, told_s = [], now_s
        if answers:
            self._tell(_answer, answers)

    def _tell(self, what: Any, *arguments: Any) -> None:
        """The loop may be gone by then."""
        try:
            self._loop.call_soon_threadsafe(what, *arguments)
        except RuntimeError:
            _log.debug("journal.loop_gone")

    @staticmethod
    def _settle(future: asyncio.Future[None], error: Exception | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


def _answer(answers: list[_Answer]) -> None:
    for future, rows, error in answers:
        if future.done():
            continue
        if error is None:
            future.set_result(rows)
        else:
            future.set_exception(error)

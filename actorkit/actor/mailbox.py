"""What stands in a mailbox (a shell): a plain message (from ``tell``), an ``Ask``, or a fired ``Timer``.

And the line of those who wait for room in it: whoever frees room puts the first one's message in on its behalf, so that
nobody who comes later can take the place.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from actorkit.errors import OutcomeUnknown, Overloaded, Unavailable

if TYPE_CHECKING:
    from actorkit.actor.cell import Cell
    from actorkit.actor.deadlines import Bucket

__all__ = ["Ask", "Senders"]


class Ask(msgspec.Struct, eq=False):
    """A message whose sender waits for the answer. It is the sender's entry in ``Deadlines``, too."""

    message: Any
    future: asyncio.Future[Any]
    cell: Cell
    bucket: Bucket
    """Where it waits for its deadline."""
    running: bool = False
    """An async handler has been started with it: from here on nobody can say that it was not executed."""

    def expire(self) -> None:
        if not self.running:
            self.cell.has_expired = True
        if self.future.done():
            return
        path = self.cell.path
        if self.running:
            self.fail(OutcomeUnknown(path, "its handler had not ended at the deadline"))
        else:
            self.fail(Unavailable(path, "the message was still waiting in the mailbox at the deadline"))

    def fail(self, error: BaseException) -> None:
        """Answer with an exception, unless there is an answer."""
        if not self.future.done():
            self.future.set_exception(error)
        self.bucket.pop(self, None)

    def answer(self, result: object) -> None:
        """Answer, unless there is an answer."""
        if not self.future.done():
            self.future.set_result(result)
        self.bucket.pop(self, None)


class Senders:
    """Who waits for room in a mailbox: first come, first served; at most ``limit`` at once."""

    __slots__ = ("_limit", "_loop", "_receiver", "line")

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int, receiver: str) -> None:
        self._loop = loop
        self._limit = limit
        self._receiver = receiver
        self.line: deque[tuple[asyncio.Future[bool], Any]] = deque()
        """Who waits, with what. Only looked at from outside: the hot path asks whether there is anybody."""

    async def wait(self, message: object, deadline_s: float) -> bool:
        """Until ``message`` has been let in (True) or sent away by ``close`` (False).

        Raises ``TimeoutError`` after ``deadline_s`` seconds, ``Overloaded`` if too many wait already. Then, and on
        cancellation, the message is not in, except that a cancellation may come just after it got in.
        """
        if len(self.line) >= self._limit:
            raise Overloaded(f"the line of senders to {self._receiver}", limit=self._limit)
        admitted: asyncio.Future[bool] = self._loop.create_future()
        entry = (admitted, message)
        self.line.append(entry)
        try:
            async with asyncio.timeout(deadline_s):
                return await admitted
        except TimeoutError:
            if admitted.done() and not admitted.cancelled():
                return admitted.result()
            raise
        finally:
            # Messages are not compared: an author's __eq__ may do anything.
            if not admitted.done() or admitted.cancelled():
                self.line = deque(other for other in self.line if other is not entry)

    def admit(self, mailbox: deque[Any], capacity: int) -> None:
        """Let in as many as there is room for."""
        while self.line and len(mailbox) < capacity:
            admitted, message = self.line.popleft()
            if not admitted.done():
                mailbox.append(message)
                admitted.set_result(True)

    def close(self) -> Iterator[Any]:
        """Send everybody away; gives their messages."""
        while self.line:
            admitted, message = self.line.popleft()
            if not admitted.done():
                admitted.set_result(False)
                yield message

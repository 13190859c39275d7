"""What stands in a mailbox: a plain message (from ``tell``), an ``Ask``, or a fired ``Timer``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from actorkit.errors import OutcomeUnknown, Unavailable

if TYPE_CHECKING:
    from actorkit.actor.cell import Cell

__all__ = ["Ask"]


class Ask(msgspec.Struct, eq=False):
    """A message whose sender waits for the answer. It is the sender's entry in ``Deadlines``, too."""

    message: Any
    future: asyncio.Future[Any]
    cell: Cell
    bucket: set[Any]
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
        self.bucket.discard(self)

    def answer(self, result: object) -> None:
        """Answer, unless there is an answer."""
        if not self.future.done():
            self.future.set_result(result)
        self.bucket.discard(self)

"""Actor: what authors subclass."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from actorkit.actor.supervision import SupervisionStrategy
from actorkit.actor.turn import PlainTurn, Turn
from actorkit.actor.watch import Signal

if TYPE_CHECKING:
    from actorkit.actor.context import ActorContext

__all__ = ["Actor"]

M = TypeVar("M")


class Actor(Generic[M]):
    """An object that handles one message at a time, and that nobody else touches.

    ::

        class Counter(Actor[int]):
            def __init__(self) -> None:
                self.total = 0

            def receive(self, message: int) -> int:
                self.total += message
                return self.total

    Every method below may be plain or ``async``. A plain one runs inline and must be quick; an ``async`` one runs in a
    task of its own, and the mailbox waits until it ends. Messages of one sender arrive in the order they were sent,
    each at most once.

    All methods of one actor share one ``contextvars`` context: a variable set in a plain handler is still set at the
    next message, one set in an ``async`` handler is not.
    """

    supervision: ClassVar[SupervisionStrategy] = SupervisionStrategy()
    """How failures of this actor's *children* are treated."""

    context: ActorContext
    """The actor's surroundings. Set after ``__init__`` and before ``started``."""

    def started(self) -> Awaitable[None] | None:
        """Runs before the first message of this instance; the mailbox waits meanwhile. Failing is supervised."""
        return None

    def receive(self, message: M) -> object:
        """Handle one message. What it returns answers an ``ask``; of awaitables, only a coroutine is awaited.

        Raising ``Rejected`` refuses: the asker gets it as it is, and the actor goes on. Any other exception is a
        failure: the asker gets ``HandlerFailed``, and the parent's supervision decides.
        """
        raise NotImplementedError(f"{type(self).__qualname__} has no receive")

    def signal(self, signal: Signal) -> Awaitable[None] | None:
        """System notices, such as ``Terminated``. They go before all waiting messages."""
        return None

    def stopped(self) -> Awaitable[None] | None:
        """Runs after the last message, when all children have stopped. Not run after a shutdown's deadline."""
        return None

    def restarting(self, error: Exception) -> Awaitable[None] | None:
        """Runs on the failed instance before it is replaced. Raising here is logged and changes nothing."""
        return None

    def new_turn(self) -> Turn:
        """The turn that is current while this instance's handlers run. For builders of other kinds of actors.

        Called once per instance, after ``context`` is set and before ``started``.
        """
        return PlainTurn(self.context.path)

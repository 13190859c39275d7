"""ActorRef: how others reach an actor."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from actorkit.actor.mailbox import Ask
from actorkit.actor.turn import PlainTurn, current_turn
from actorkit.ids import ActorPath

if TYPE_CHECKING:
    from actorkit.actor.cell import Cell

__all__ = ["ActorRef"]

M = TypeVar("M")


class ActorRef(Generic[M]):
    """The address of one actor, for the loop it runs on (no other thread). It stays valid over restarts.

    An actor that is spawned later under the same path is another actor: references to the first one do not reach it.
    """

    __slots__ = ("cell", "path")

    path: ActorPath
    cell: Cell
    """The runtime's side of the actor. Not for applications."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.path = cell.path

    def tell(self, message: M) -> None:
        """Put ``message`` into the mailbox: it arrives at most once, after what the same sender sent before.

        Raises ``Overloaded`` if the mailbox is full. To a stopped actor it is a dead letter. Within a turn that holds
        effects back it leaves later, and a mailbox that is full then makes it a dead letter, too.
        """
        turn = current_turn.get()
        # The type is tested first so that plain actors do not pay for an effect that nobody holds.
        if turn is not None and type(turn) is not PlainTurn and turn.hold(partial(self.cell.put_or_bury, message)):
            return
        cell = self.cell
        mailbox = cell.mailbox
        if len(mailbox) >= cell.capacity and not cell.has_room_for(message):
            return
        mailbox.append(message)
        if cell.asleep:
            cell.asleep = False
            cell.loop.call_soon(cell.run, context=cell.variables)

    async def send(self, message: M, *, deadline_s: float) -> None:
        """Like ``tell``, but waits up to ``deadline_s`` seconds for room, in the order of arrival.

        Returns when the message stands in the mailbox. Raises ``Overloaded`` if there was no room in time or too many
        wait for it, ``ActorStopped`` if the actor has stopped (then it is a dead letter, too): if it raises one of
        these, the message was not and will not be handled. Cancelled, it may have got in. Within a turn that holds
        effects back it returns at once, as ``tell`` does.
        """
        turn = current_turn.get()
        if turn is not None and turn.hold(partial(self.cell.put_or_bury, message)):
            return
        await self.cell.put(message, deadline_s)

    def ask(self, message: M, *, deadline_s: float = 5.0) -> asyncio.Future[Any]:
        """Send ``message``; the future ends with what ``receive`` returns, within ``deadline_s`` seconds + 100 ms.

        Or with one of: ``Rejected`` as the handler raised it; ``HandlerFailed``; ``Overloaded`` (the mailbox was full);
        ``Unavailable`` (surely not executed: the actor has stopped, or the message was still waiting at the deadline);
        ``OutcomeUnknown`` (its handler was still running at the deadline). Cancelling the future takes a waiting
        message back, and leaves a running handler alone. Raises ``CallingOutAfterEmit`` within a turn that cannot wait.
        """
        turn = current_turn.get()
        if turn is not None and type(turn) is not PlainTurn:
            turn.before_ask(self.path)
        cell = self.cell
        loop = cell.loop
        future: asyncio.Future[Any] = loop.create_future()
        mailbox = cell.mailbox
        if len(mailbox) >= cell.capacity and (refusal := cell.refusal()) is not None:
            future.set_exception(refusal)
            return future
        bucket = cell.deadlines.recent.get(deadline_s)
        if bucket is None:
            bucket = cell.deadlines.within(deadline_s)
        ask = Ask(message, future, cell, bucket)
        bucket[ask] = None
        mailbox.append(ask)
        if cell.asleep:
            cell.asleep = False
            loop.call_soon(cell.run, context=cell.variables)
        return future

    def __repr__(self) -> str:
        return f"<ActorRef {self.path}>"

"""ActorContext: what an actor may do beyond handling its message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from actorkit import logs
from actorkit.actor.ref import ActorRef
from actorkit.actor.timers import Timers
from actorkit.clock import Clock, Randomness
from actorkit.errors import ConfigurationError
from actorkit.ids import ActorPath

if TYPE_CHECKING:
    from actorkit.actor.actor import Actor
    from actorkit.actor.cell import Cell
    from actorkit.actor.runtime import ActorRuntime

__all__ = ["ActorContext"]

N = TypeVar("N")


class ActorContext:
    """The surroundings of one instance of an actor. For use from within the actor only."""

    def __init__(self, cell: Cell, system: ActorRuntime) -> None:
        self._cell = cell
        self.system = system
        """The runtime."""
        self.path: ActorPath = cell.path
        self.self_ref: ActorRef[Any] = cell.ref
        self.parent: ActorRef[Any] | None = cell.parent.ref if cell.parent is not None else None
        """None for the guardian at the root only."""
        self.timers: Timers = cell.life.timers
        """End with the instance."""
        self.clock: Clock = system.clock
        self.randomness: Randomness = system.randomness
        self.log: Any = logs.logger(actor=cell.path)
        """A structlog logger bound to the actor."""

    @property
    def children(self) -> Sequence[ActorRef[Any]]:
        """The living children, oldest first."""
        return tuple(child.ref for child in self._cell.life.children.values())

    def spawn(
        self, factory: Callable[[], Actor[N]], name: str | None = None, *, mailbox: int | None = None
    ) -> ActorRef[N]:
        """Start a child. ``factory`` makes its instance, now and at each restart; it runs soon, not within this call.

        ``mailbox`` bounds its messages (None: ``ActorSettings.mailbox_max``). Messages may be sent at once. Raises
        ``ConfigurationError`` on a name that is taken or malformed, or if this actor is stopping.
        """
        return self.system.spawn(factory, name, mailbox=mailbox, under=self.path)

    def stop(self, ref: ActorRef[Any] | None = None) -> None:
        """Stop a child, or this actor itself (None): after the message being handled, before all waiting ones.

        Raises ``ConfigurationError`` for any other actor; a child that has stopped already is ignored.
        """
        cell = self._cell if ref is None else ref.cell
        if cell is not self._cell and cell.parent is not self._cell:
            raise ConfigurationError(f"{self.path} can stop itself and its children, not {cell.path}")
        cell.post(cell.life.stop)

    def watch(self, ref: ActorRef[Any]) -> None:
        """Be told by ``signal(Terminated(ref))`` when that actor stops, or soon, if it has stopped."""
        self._cell.life.watch(ref)

    def unwatch(self, ref: ActorRef[Any]) -> None:
        """Not be told any more, even if it has stopped and the notice is on its way."""
        self._cell.life.unwatch(ref)

    def stash(self) -> None:
        """Put the current message aside, with its ask, until ``unstash_all``. What the handler returns is ignored.

        Its deadline goes on running, and then counts as not executed: so stash before doing anything. Raises
        ``StashFull``, to be let pass, and ``RuntimeError`` outside of the handling of a message.
        """
        self._cell.stash()

    def unstash_all(self) -> None:
        """Handle everything put aside next, in its order of arrival and before what is waiting in the mailbox."""
        self._cell.unstash_all()

    def requeue(self, messages: Sequence[Any]) -> None:
        """Put ``messages`` at the front of the own mailbox, in order, beyond its bound: they have been in it before.

        They are told, not asked: whoever waits for their outcome is the caller's matter. On a stopped actor they become
        dead letters.
        """
        self._cell.requeue(messages)

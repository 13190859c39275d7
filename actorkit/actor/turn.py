"""The turn: one message being handled by one actor.

While a handler runs, ``current_turn`` says whose. What leaves the actor (messages to others, timers) is offered to the
turn first: a turn that must not let anything out yet, because the events it depends on are not durable, keeps the
effect and runs it later. Plain actors let everything out at once.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Final, Protocol

__all__ = ["PlainTurn", "Turn", "current_turn", "held"]


class Turn(Protocol):
    """What a running handler's surroundings decide about things that leave the actor."""

    @property
    def path(self) -> str:
        """The path of the actor whose turn it is."""
        ...

    def hold(self, effect: Callable[[], None]) -> bool:
        """True: the turn has taken the effect and will run it, or drop it, later. False: run it now."""
        ...

    def before_ask(self, target: str) -> None:
        """Raises ``CallingOutAfterEmit`` where awaiting a reply would wait for this turn itself."""
        ...


class PlainTurn:
    """The turn of an actor that keeps nothing back."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def hold(self, effect: Callable[[], None]) -> bool:
        return False

    def before_ask(self, target: str) -> None:
        return


current_turn: Final[ContextVar[Turn | None]] = ContextVar("actorkit_turn", default=None)
"""The turn that runs here; None outside of actors."""


def held(effect: Callable[[], None]) -> bool:
    """Whether the current turn, if there is one, has taken the effect."""
    turn = current_turn.get()
    return turn is not None and turn.hold(effect)

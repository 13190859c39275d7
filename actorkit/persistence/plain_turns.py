"""The turns of plain handlers (a shell): whose turn it is, without a context variable to be set for each.

A context variable that is set for each command is not cheap (``bench/README.md``), and the entity's context would keep
the turn, with the call and all that belongs to it, until the next command.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident

from actorkit.actor.turn import current_turn
from actorkit.persistence.turn import EntityTurn

__all__ = ["PlainTurns", "turn_in_progress"]


class PlainTurns:
    """The turns of one entity's plain handlers, which stand in its context variables as one.

    While a plain handler runs nothing else does on its thread. So what it leaves behind, as a task or in another
    thread, finds no turn here, neither its own that is over nor a later one.
    """

    __slots__ = ("_thread", "now", "path", "stream")

    def __init__(self, path: str, stream: str) -> None:
        self.path = path
        self.stream = stream
        self.now: EntityTurn | None = None
        """The turn in progress, on the thread of the entity."""
        self._thread = get_ident()

    @property
    def here(self) -> EntityTurn | None:
        """The turn in progress, unless another thread asks, which an earlier one may have started."""
        turn = self.now
        return turn if turn is not None and get_ident() == self._thread else None

    def log_fields(self) -> dict[str, str]:
        turn = self.here
        return {"actor": self.path, "entity": self.stream} if turn is None else turn.log_fields()

    def hold(self, effect: Callable[[], None]) -> bool:
        turn = self.here
        return turn is not None and turn.hold(effect)

    def before_ask(self, target: str) -> None:
        turn = self.here
        if turn is not None:
            turn.before_ask(target)


def turn_in_progress() -> EntityTurn | None:
    """The turn of a persistent actor that runs here and is not over, if there is one."""
    turn = current_turn.get()
    if type(turn) is PlainTurns:
        turn = turn.here
    return turn if isinstance(turn, EntityTurn) and not turn.over else None

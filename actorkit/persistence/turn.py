"""The turn of a persistent actor: what one call has done so far, and has not let out yet."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import msgspec

from actorkit.errors import CallingOutAfterEmit
from actorkit.journal.protocols import NewEvent
from actorkit.persistence.calls import OUTSIDE, EntityCall, Handler

__all__ = ["EntityTurn", "id_of_call_within"]


class EntityTurn(msgspec.Struct, eq=False):
    """One call being handled. It is also the fields of every log line that the handler writes."""

    path: str
    stream: str
    call: EntityCall
    time_us: int
    """The time of this turn and of all its events."""
    emitted: list[NewEvent] = []
    effects: list[Callable[[], None]] = []
    calls_made: int = 0
    gone_out: bool = False
    over: bool = False
    spoiled: Exception | None = None
    """An event could not be applied: the turn fails, whatever its handler makes of that."""

    def log_fields(self) -> dict[str, str]:
        call = self.call
        trace = "" if call.origin is OUTSIDE else call.trace.trace_parent or call.trace.correlation
        return {"actor": self.path, "entity": self.stream, "command": call.command_id, "trace": trace}

    def hold(self, effect: Callable[[], None]) -> bool:
        """Messages to others and timers wait at the output gate with the answer of the call that they come from."""
        if self.over:
            return False
        self.effects.append(effect)
        return True

    def before_ask(self, target: str) -> None:
        """A plain actor is asked, which may act on it at once and again when the handler runs again."""
        if self.over:
            return
        if self.emitted:
            raise CallingOutAfterEmit(target)
        self.gone_out = True

    def next_call_id(self, target: str, handler: Handler, args: tuple[Any, ...]) -> str:
        """The id of the next call to another entity: the same when this handler runs again and calls the same."""
        if self.emitted:
            raise CallingOutAfterEmit(target)
        self.calls_made += 1
        self.call.has_called = True
        return id_of_call_within(self.call.command_id, self.calls_made, target, handler, args)


def id_of_call_within(command_id: str, number: int, target: str, handler: Handler, args: tuple[Any, ...]) -> str:
    """The id of the call that a command makes as its ``number``-th: another one if it calls something else there."""
    what = blake2b(target.encode() + b"\0" + handler.signature.digest(args), digest_size=6).hexdigest()
    return f"{command_id}/{number}.{what}"

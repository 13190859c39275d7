"""Death watch: what the runtime tells an actor about others.

Signals overtake messages, so they are not messages: they arrive in ``Actor.signal``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actorkit.actor.ref import ActorRef

__all__ = ["Signal", "Terminated"]


class Signal:
    """A notice of the runtime."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Terminated(Signal):
    """A watched actor has stopped: it will handle nothing any more. Sent once per watch, also if it had stopped before.

    Not sent for a restart, and not after ``unwatch``.
    """

    ref: ActorRef[Any]
    error: Exception | None = None
    """The failure because of which it was stopped; None if it was asked to."""

"""State: what all events of an entity add up to, and how each of them changes it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from hashlib import blake2b
from typing import Any, ClassVar, Protocol, TypeVar, cast, dataclass_transform

import msgspec
from msgspec import field

from actorkit.errors import DeclarationError
from actorkit.persistence.events import Event

__all__ = ["Apply", "State", "applies", "schema_digest"]

S = TypeVar("S", bound="State")
E = TypeVar("E", bound=Event)

Apply = Callable[[Any, Any], None]


class _Marked(Protocol):
    applies_event: type[Event]


@dataclass_transform(field_specifiers=(field,))
class State(msgspec.Struct):
    """Base class of states: a mutable record whose fields all have defaults, since every entity starts without events.

    Each event has one method, marked with ``@applies``, that changes the state and does nothing else: no I/O, no clock,
    no randomness, no failure for what was once accepted. It runs when the event is emitted and on every replay.
    """

    appliers: ClassVar[dict[type[Event], Apply]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        appliers = dict(cls.appliers)
        for name, member in cls.__dict__.items():
            event = getattr(member, "applies_event", None)
            if event is None:
                continue
            other = appliers.get(event)
            if other is not None and other.__qualname__.rpartition(".")[0] == cls.__qualname__:
                raise DeclarationError(
                    f"{cls.__qualname__} applies {event.__qualname__} twice, again in {name}: keep one"
                )
            appliers[event] = member
        cls.appliers = appliers


def applies(event: type[E]) -> Callable[[Callable[[S, E], None]], Callable[[S, E], None]]:
    """Marks the method of a ``State`` that an event of this class is applied by."""

    def mark(function: Callable[[S, E], None]) -> Callable[[S, E], None]:
        cast("_Marked", function).applies_event = event
        return function

    return mark


@cache
def schema_digest(state: type[State]) -> bytes:
    """Changes whenever the declared fields of the state change: snapshots of another schema are not used."""
    _, components = msgspec.json.schema_components([state])
    return blake2b(msgspec.json.encode(components, order="deterministic"), digest_size=8).digest()

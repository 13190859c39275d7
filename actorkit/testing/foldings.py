"""Foldings: whether the events of an entity, and nothing else, make up its state.

An entity lives on in memory, and is made again from its events after a restart. Both must give the same state. They do
not where a handler assigns to the state instead of emitting an event, or where an ``@applies`` method looks at a clock,
at randomness, or at anything else outside of state and event. In production such an entity changes its mind when it is
recovered. Here its history is folded twice and compared, with itself and with the state in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from actorkit.journal.protocols import StoredEvent
from actorkit.persistence.declaration import EntityType
from actorkit.persistence.encodable import UNDECODABLE
from actorkit.testing.rendering import differences, indented, shown

__all__ = ["check_foldings", "encoded_state", "fold", "same_state"]

_encoder = msgspec.msgpack.Encoder()


def fold(entity_type: EntityType, stream: str, history: Sequence[StoredEvent]) -> Any:
    """The state that these events give, from the first on. Raises ``EventError`` where one cannot be used."""
    state = entity_type.new_state()
    entity_type.fold(state, stream, history, 0)
    return state


def encoded_state(entity_type: EntityType, state: Any) -> bytes:
    """The state as a snapshot holds it. Raises ``AssertionError`` where it could not be read again."""
    name = entity_type.state.__qualname__
    try:
        encoded = _encoder.encode(state)
    except (TypeError, ValueError, OverflowError) as error:
        raise AssertionError(f"{name} cannot be stored as a snapshot: {error}\n{indented(shown(state))}") from error
    try:
        msgspec.msgpack.decode(encoded, type=entity_type.state)
    except UNDECODABLE as error:
        raise AssertionError(
            f"{name} holds something that its declaration does not allow, so its snapshots cannot be read: {error}\n"
            f"{indented(shown(state))}"
        ) from error
    return encoded


def same_state(entity_type: EntityType, one: bytes, other: bytes) -> bool:
    """Sets and dicts may be encoded in another order and still be the same."""
    if one == other:
        return True
    decoder = msgspec.msgpack.Decoder(entity_type.state)
    same: bool = decoder.decode(one) == decoder.decode(other)
    return same


def check_foldings(entity_type: EntityType, stream: str, history: Sequence[StoredEvent], live: Any, call: str) -> Any:
    """The state that the history gives; ``live`` is what memory holds after ``call`` (``None``: it is thrown away).

    Raises ``AssertionError`` where the two differ, or where two foldings of the same history do.
    """
    state = fold(entity_type, stream, history)
    again = fold(entity_type, stream, history)
    encoded = encoded_state(entity_type, state)
    if not same_state(entity_type, encoded, encoded_state(entity_type, again)):
        raise AssertionError(_impure(entity_type, stream, history, state, again))
    if live is not None and not same_state(entity_type, encoded, encoded_state(entity_type, live)):
        raise AssertionError(
            f"{stream}, {call}: the state in memory is not the one that the events give, so it will be gone when the "
            f"entity is next made from its journal. Only @applies methods may change the state, and they may depend on "
            f"nothing but state and event\n{indented(differences('the events give', state, 'in memory is', live))}"
        )
    return state


def _impure(entity_type: EntityType, stream: str, history: Sequence[StoredEvent], state: Any, again: Any) -> str:
    number = _first_difference(entity_type, stream, history)
    event = "an event" if number is None else f"event {number} ({history[number - 1][1]!r})"
    return (
        f"{stream}: applying {event} twice to the same state gave two different states. The method of "
        f"{entity_type.state.__qualname__} that applies it depends on something other than state and event (a clock, "
        "randomness, a variable outside): decide such things in the command, and let the event carry them\n"
        f"{indented(differences('once', state, 'again', again))}"
    )


def _first_difference(entity_type: EntityType, stream: str, history: Sequence[StoredEvent]) -> int | None:
    one, other = entity_type.new_state(), entity_type.new_state()
    for after, event in enumerate(history):
        entity_type.fold(one, stream, (event,), after)
        entity_type.fold(other, stream, (event,), after)
        if not same_state(entity_type, encoded_state(entity_type, one), encoded_state(entity_type, other)):
            return after + 1
    return None

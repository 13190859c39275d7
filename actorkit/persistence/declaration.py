"""What a persistent actor's class declares, checked once and kept ready for use.

The checks run when the class is defined, so that a program with a wrong declaration does not start: an event that no
method of the state applies, two events of one name, a field or parameter that cannot be encoded, a handler without
annotations.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from operator import length_hint
from typing import Any, Union, get_args, get_origin

from actorkit.errors import DeclarationError, JournalCorrupt, UndecodableEvent
from actorkit.journal.protocols import EventPage, NewEvent, StoredEvent
from actorkit.persistence.calls import Handler
from actorkit.persistence.commands import HandlerDeclaration
from actorkit.persistence.encodable import unencodable
from actorkit.persistence.events import Event, EventCodec
from actorkit.persistence.published import Published
from actorkit.persistence.signatures import Signature
from actorkit.persistence.state import State, schema_digest

__all__ = ["EntityType", "state_and_events"]


class EntityType:
    """One entity type: its name, its state and events, its handlers."""

    def __init__(
        self,
        cls: type[Any],
        name: str,
        state: type[State],
        events: tuple[type[Event], ...],
        namespace: Mapping[str, Any],
    ) -> None:
        if not name or "/" in name:
            raise DeclarationError(f"{name!r} is no name for an entity type: it must be non-empty and without a slash")
        self.cls = cls
        self.name = name
        self.state = state
        self.events = frozenset(events)
        self._check_state(cls, state, events)
        self.codec = EventCodec(dict.fromkeys((*events, *state.appliers)))
        self.handlers = _handlers(cls, namespace)
        self.published = _published(cls, namespace)
        self.schema = schema_digest(state)
        self._apply: dict[type[Event], Callable[[Any, Any], None]] = dict(state.appliers)
        self._known = {
            (event.event_name, event.event_version): (self.codec.decoder_of(event), apply)
            for event, apply in self._apply.items()
        }
        """How events in their current version are decoded and applied, without a detour."""

    def emitted(self, event: Event) -> tuple[NewEvent, Event]:
        """An event in the form that is stored, and as whoever reads it will see it. Raises ``DeclarationError``."""
        cls = type(event)
        if cls not in self.events:
            raise DeclarationError(
                f"{self.cls.__qualname__} emits {cls.__qualname__}, which it does not declare: add it to "
                "PersistentActor[State, Events]"
            )
        payload, stored = self.codec.encode(event)
        return NewEvent(cls.event_name, cls.event_version, payload), stored

    def _check_state(self, cls: type[Any], state: type[State], events: tuple[type[Event], ...]) -> None:
        for event in events:
            if event not in state.appliers:
                raise DeclarationError(
                    f"{cls.__qualname__} declares the event {event.__qualname__}, but {state.__qualname__} does not "
                    f"apply it: give the state a method marked with @applies({event.__name__})"
                )
        try:
            strange = unencodable(state)
        except (TypeError, NameError) as error:
            raise DeclarationError(f"a field of {state.__qualname__} cannot be stored: {error}") from error
        if strange is not None:
            raise DeclarationError(
                f"a field of {state.__qualname__} cannot be stored: {strange} has no form in MessagePack"
            )
        try:
            state()
        except TypeError as error:
            raise DeclarationError(
                f"{state.__qualname__} cannot start empty ({error}): give each of its fields a default"
            ) from error

    def new_state(self) -> Any:
        return self.state()

    def apply(self, state: Any, event: Any) -> None:
        self._apply[type(event)](state, event)

    def fold(self, state: Any, stream: str, events: Sequence[StoredEvent], after: int) -> None:
        """As ``fold_page``, for events that are at hand one by one."""
        self.fold_page(state, stream, EventPage.of(events), after)

    def fold_page(self, state: Any, stream: str, page: EventPage, after: int) -> None:
        """Applies events as they were read, the first of which follows the event with sequence ``after``.

        Raises ``EventError`` for one that cannot be used, ``JournalCorrupt`` for a gap.
        """
        sequences, kinds = page.sequences, page.kinds
        if not sequences:
            return
        if list(sequences) != list(range(after + 1, after + 1 + len(sequences))):
            raise _not_gapless(stream, sequences, after)
        left = iter(page.payloads)
        known = self._known.get(kinds[0])
        try:
            if known is not None and kinds.count(kinds[0]) == len(kinds):
                decode, apply = known
                for payload in left:
                    apply(state, decode(payload))
            else:
                for (name, version), payload in zip(kinds, left, strict=True):
                    event = self.codec.decode(name, version, payload)
                    self._apply[type(event)](state, event)
        except Exception as error:
            number = len(page.payloads) - length_hint(left) - 1
            sequence, (name, version), payload = sequences[number], kinds[number], page.payloads[number]
            # If it is the event that is no good, this says what is wrong with it.
            self.codec.decode(name, version, payload, stream=stream, sequence=sequence)
            why = f"applying it to {self.state.__qualname__} failed: {error!r}"
            raise UndecodableEvent(stream, sequence, name, version, why) from error


def _not_gapless(stream: str, sequences: Sequence[int], after: int) -> JournalCorrupt:
    before, sequence = next(
        (before, sequence)
        for before, sequence in zip((after, *sequences), sequences, strict=False)
        if sequence != before + 1
    )
    return JournalCorrupt(f"{stream} has event {sequence} after event {before}: events are missing or doubled")


def state_and_events(cls: type[Any], base: type[Any]) -> tuple[type[State], tuple[type[Event], ...]] | None:
    """What the class gives for ``PersistentActor[State, Events]``; ``None`` where that is left open for subclasses."""
    for candidate in getattr(cls, "__orig_bases__", ()):
        if get_origin(candidate) is not base:
            continue
        state, declared = get_args(candidate)
        members = get_args(declared) if get_origin(declared) in (Union, types.UnionType) else (declared,)
        if not (isinstance(state, type) and issubclass(state, State)):
            return None
        events: list[type[Event]] = []
        for member in members:
            if not (isinstance(member, type) and issubclass(member, Event)):
                raise DeclarationError(
                    f"{cls.__qualname__} declares {member!r} as an event, which is no subclass of Event"
                )
            events.append(member)
        return state, tuple(events)
    return None


def _handlers(cls: type[Any], namespace: Mapping[str, Any]) -> dict[str, Handler]:
    handlers: dict[str, Handler] = {}
    for name in dir(cls):
        declared = getattr(cls, name, None)
        if isinstance(declared, HandlerDeclaration):
            signature = Signature(cls.__qualname__, declared.function, namespace)
            invoke = signature.taking_bound(declared.function)
            handlers[name] = Handler(declared.kind, signature, declared.is_async, name, invoke)
    return handlers


def _published(cls: type[Any], namespace: Mapping[str, Any]) -> dict[str, Published[Any, Any]]:
    found: dict[str, Published[Any, Any]] = {}
    for name in dir(cls):
        member = getattr(cls, name, None)
        if isinstance(member, Published):
            member.declare(cls, namespace)
            found[name] = member
    return found

"""Events: what has happened, declared as immutable classes and stored under stable names.

An event class has a **name** and a **version**, both of which are written to the journal with each event. The name is
that of the class unless given; rename the class and keep the name. Raise the version when a new program could not read
what the old one wrote, and say with ``upcasts`` how to lift the old form into the new one. (Adding a field with a
default, or removing one, needs no new version: events are stored as maps, and unknown members are ignored.)

See Young, "Versioning in an Event Sourced System" (2017), for the strategies behind this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, TypeVar, dataclass_transform

import msgspec
from msgspec import field

from actorkit.errors import DeclarationError, EventError, UndecodableEvent, UnknownEvent, UnknownEventVersion
from actorkit.persistence.encodable import UNDECODABLE, unencodable

__all__ = ["Event", "EventCodec", "field", "upcasts"]

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
U = TypeVar("U", bound=Upcaster)


class EventMeta(msgspec.StructMeta):
    """Takes ``name`` and ``version`` in the class line and makes every event immutable."""

    def __new__(
        mcls,
        class_name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        name: str | None = None,
        version: int = 1,
        **struct_options: Any,
    ) -> Any:
        if version < 1:
            raise DeclarationError(f"the version of event {class_name} must be at least 1, not {version}")
        struct_options["frozen"] = True
        cls: Any = super().__new__(mcls, class_name, bases, namespace, **struct_options)
        cls.event_name = name or class_name
        cls.event_version = version
        cls.event_upcasters = {}
        return cls


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class Event(msgspec.Struct, frozen=True, metaclass=EventMeta):
    """Base class of events: an immutable record with declared fields, validated when it is decoded.

    ::

        class Reserved(Event):
            reservation: str
            units: int


        class Released(Event, name="released", version=2):
            reservation: str
            units: int
    """

    event_name: ClassVar[str]
    event_version: ClassVar[int]
    event_upcasters: ClassVar[dict[int, Upcaster]]


def upcasts(event: type[Event], *, version: int) -> Callable[[U], U]:
    """Declares how the stored form of ``version`` becomes that of ``version + 1``.

    The function takes and returns the event's members as a dict (plain MessagePack values). It must be pure: it runs
    on every replay. Lifting goes step by step up to the event's current version.
    """

    def register(function: U) -> U:
        if not 1 <= version < event.event_version:
            raise DeclarationError(
                f"an upcaster from version {version} of {event.event_name!r} makes no sense: its current version is "
                f"{event.event_version}"
            )
        if version in event.event_upcasters:
            raise DeclarationError(f"{event.event_name!r} has two upcasters from version {version}: keep one")
        event.event_upcasters[version] = function
        return function

    return register


class EventCodec:
    """Encodes and decodes the declared events of one entity type; nothing else can come out of it."""

    def __init__(self, events: Iterable[type[Event]]) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self.by_name: dict[str, type[Event]] = {}
        self._by_class: dict[type[Event], msgspec.msgpack.Decoder[Any]] = {}
        self._current: dict[tuple[str, int], msgspec.msgpack.Decoder[Any]] = {}
        for event in events:
            known = self.by_name.get(event.event_name)
            if known is not None:
                raise DeclarationError(
                    f"the events {known.__qualname__} and {event.__qualname__} have the same name "
                    f"{event.event_name!r}: give one another, as in class {event.__name__}(Event, name='...')"
                )
            self.by_name[event.event_name] = event
            self._by_class[event] = self._current[event.event_name, event.event_version] = _decoder(event)

    def decoder_of(self, event: type[Event]) -> Callable[[bytes], Any]:
        """Decodes events of this class in its current version; raises whatever msgspec raises."""
        return self._by_class[event].decode

    def encode(self, event: Event) -> tuple[bytes, Any]:
        """The bytes to be stored, and the event as every later replay will see it.

        Raises ``DeclarationError`` if the event is not a declared one or a value does not fit its declared type: what
        could not be read again must not be written.
        """
        cls = type(event)
        decoder = self._by_class.get(cls)
        if decoder is None:
            raise DeclarationError(
                f"{cls.__qualname__} is not among the declared events ({', '.join(sorted(self.by_name))}): "
                "add it to the actor's PersistentActor[State, Events]"
            )
        try:
            payload = self._encoder.encode(event)
            return payload, decoder.decode(payload)
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
            raise DeclarationError(f"{event!r} does not fit its own declaration: {error}") from error

    def decode(self, name: str, version: int, payload: bytes, *, stream: str = "?", sequence: int = 0) -> Any:
        """The event, lifted to its current version. Raises ``EventError`` (see its subclasses)."""
        decoder = self._current.get((name, version))
        try:
            if decoder is not None:
                return decoder.decode(payload)
            return self._lift(name, version, payload, stream, sequence)
        except UNDECODABLE as error:
            raise UndecodableEvent(stream, sequence, name, version, str(error)) from error

    def _lift(self, name: str, version: int, payload: bytes, stream: str, sequence: int) -> Any:
        def refuse(kind: type[EventError], why: str) -> EventError:
            return kind(stream, sequence, name, version, why)

        event = self.by_name.get(name)
        if event is None:
            raise refuse(
                UnknownEvent, f"no event of that name is declared (there are {', '.join(sorted(self.by_name))})"
            )
        if version > event.event_version:
            raise refuse(
                UnknownEventVersion,
                f"this program knows versions up to {event.event_version}: a newer one wrote it, deploy that here too",
            )
        members = msgspec.msgpack.decode(payload, type=dict[str, Any])
        for step in range(version, event.event_version):
            upcaster = event.event_upcasters.get(step)
            if upcaster is None:
                raise refuse(UndecodableEvent, f"there is no upcaster from version {step}: declare one with upcasts")
            try:
                lifted: object = upcaster(members)
            except Exception as error:
                raise refuse(UndecodableEvent, f"{_named(upcaster, step)} failed: {error!r}") from error
            if not isinstance(lifted, dict):
                what = "None (is a return missing?)" if lifted is None else f"a {type(lifted).__name__}"
                raise refuse(UndecodableEvent, f"{_named(upcaster, step)} returned {what}, not the event's members")
            members = lifted
        return msgspec.convert(members, event)


def _named(upcaster: Upcaster, step: int) -> str:
    return f"the upcaster from version {step} ({getattr(upcaster, '__qualname__', upcaster)})"


def _decoder(event: type[Event]) -> msgspec.msgpack.Decoder[Any]:
    try:
        if (strange := unencodable(event)) is not None:
            raise DeclarationError(
                f"event {event.__qualname__} cannot be encoded: {strange} has no form in MessagePack; use numbers, "
                "text, bytes, dates, enums, records, and lists, sets or maps of these"
            )
        return msgspec.msgpack.Decoder(event)
    except DeclarationError:
        raise
    except (TypeError, NameError) as error:
        raise DeclarationError(f"event {event.__qualname__} cannot be encoded: {error}") from error

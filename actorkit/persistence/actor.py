"""PersistentActor: the class that users subclass."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Generic, ParamSpec, Self, TypeVar

from actorkit.errors import DeclarationError
from actorkit.persistence.commands import HandlerDeclaration
from actorkit.persistence.declaration import EntityType, state_and_events
from actorkit.persistence.events import Event
from actorkit.persistence.state import State

if TYPE_CHECKING:
    from actorkit.persistence.entity import Entity

__all__ = ["EntityContext", "PersistentActor", "entity_type_of"]

S = TypeVar("S", bound=State)
E = TypeVar("E", bound=Event)
P = ParamSpec("P")

_EPOCH_UTC = datetime(1970, 1, 1, tzinfo=UTC)


class EntityContext:
    """What a handler may use besides its state and arguments: time, ids, others, timers, the log.

    Time and ids come from here, and from nowhere else, so that what a handler does can be repeated.
    """

    def __init__(self, entity: Entity) -> None:
        self._entity = entity

    @property
    def now_us(self) -> int:
        """Microseconds since 1970 UTC: the time of this turn and of what it emits; never decreases within an entity."""
        return self._entity.turn.time_us

    @property
    def now(self) -> datetime:
        """``now_us`` as an aware datetime in UTC."""
        return _EPOCH_UTC + timedelta(microseconds=self.now_us)

    def new_id(self) -> str:
        """A new unique id: 32 lower-case hexadecimal digits."""
        return self._entity.services.randomness.token(16).hex()

    @property
    def idempotency_key(self) -> str | None:
        """The key that the caller gave, if any."""
        return self._entity.turn.call.key

    @property
    def system(self) -> Any:
        """The ``ActorSystem``, for calls to others: ``await self.context.system.get(Other, "id").call()``.

        Await replies before emitting: afterwards it raises ``CallingOutAfterEmit``.
        """
        return self._entity.services.system

    @property
    def log(self) -> Any:
        """A structlog logger; a handler's lines carry the entity, the command and the trace.

        Those of tasks, callbacks and threads that outlive a plain handler carry the entity only.
        """
        return self._entity.context.log

    def once(
        self, name: str, delay_s: float, handler: HandlerDeclaration[Any, P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Calls the entity's own ``handler`` after ``delay_s`` seconds, as in ``once("expire", 60, Pool.expire, id)``.

        A timer starts when what this turn emitted is durable, replaces an earlier one of the same name, and is gone
        when the entity leaves memory (idle entities with timers stay; a restart of the process loses them).
        """
        self._entity.start_timer(name, delay_s, handler.__name__, args, kwargs, repeat=False)

    def every(
        self,
        name: str,
        interval_s: float,
        handler: HandlerDeclaration[Any, P, Any],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """As ``once``, and again every ``interval_s`` seconds until it is cancelled."""
        self._entity.start_timer(name, interval_s, handler.__name__, args, kwargs, repeat=True)

    def cancel(self, name: str) -> None:
        """Cancels the timer of that name, if there is one, when this turn's events are durable."""
        self._entity.cancel_timer(name)


class PersistentActor(Generic[S, E]):
    """An entity whose state is the sum of its events.

    Subclass it with the state and the events it emits, ``PersistentActor[PoolState, Reserved | Released]``. For each
    id there is one instance in the whole system, which handles one call at a time. It is made without arguments when a
    first message for its id arrives, and its state is rebuilt from the journal. The entity type is named after the
    class; ``class Pool(PersistentActor[...], name="pool")`` gives it another name, under which it is stored.
    """

    entity_type: ClassVar[EntityType | None] = None

    _entity: Entity

    if TYPE_CHECKING:

        @classmethod
        def __declares__(cls) -> tuple[Self, S, E]:
            """For type checkers only: what they may infer from the class, as ``actorkit.testing.given`` does."""
            ...

    def attach(self, entity: Entity) -> None:
        """Called by the framework when the entity comes into memory, before its state is rebuilt."""
        self._entity = entity

    def __init_subclass__(cls, *, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.entity_type = None
        declared = state_and_events(cls, PersistentActor)
        if declared is not None:
            state, events = declared
            cls.entity_type = EntityType(cls, name or cls.__name__, state, events, _namespace(cls))

    @property
    def state(self) -> S:
        """The state after all events up to now, this turn's included. Only ``@applies`` methods may change it."""
        state: S = self._entity.state
        return state

    @property
    def context(self) -> EntityContext:
        """Time, ids, others, timers, the log."""
        return self._entity.handler_context

    @property
    def version(self) -> int:
        """The sequence number of the last event, this turn's included; 0 before the first."""
        return self._entity.sequence

    @property
    def entity_id(self) -> str:
        """The id of this entity."""
        return self._entity.pid.id

    def emit(self, *events: E) -> None:
        """Records that something has happened. It is applied to the state now; the reply leaves when it is durable.

        All events of one command are stored together or not at all. What is applied, and stored, is a copy as the
        journal will give it back. Raises ``DeclarationError`` for an undeclared event or one whose values do not fit
        its declared types, and ``RuntimeError`` outside of a command.
        """
        self._entity.emit(events)


def entity_type_of(cls: type[Any]) -> EntityType:
    """The declaration of a concrete persistent actor. Raises ``DeclarationError`` for any other class."""
    declared: EntityType | None = cls.__dict__.get("entity_type")
    if declared is None:
        raise DeclarationError(
            f"{cls.__qualname__} is no persistent actor that could be addressed: it needs its state and events, as in "
            f"class {cls.__name__}(PersistentActor[State, Event1 | Event2])"
        )
    return declared


def _namespace(cls: type[Any]) -> Mapping[str, Any]:
    """The names that are visible where the class is defined, for annotations that are strings.

    A class in a function refers to that function's locals, which only its frame knows.
    """
    names: dict[str, Any] = {}
    frame = inspect.currentframe()
    while frame is not None:
        inside = frame.f_globals.get("__name__") == cls.__module__ and frame.f_code.co_name != "<module>"
        if inside:
            names = {**frame.f_locals, **names}
        frame = frame.f_back
    return names

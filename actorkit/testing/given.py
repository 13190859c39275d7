"""Given, when, then: what an entity does, as a sentence that is a test.

::

    given(Pool, Created(10)).when(lambda pool: pool.reserve(3)).emits(Reserved("r1", 3)).replies("r1")

It needs no loop, no journal and no fixture, and takes microseconds. Events, arguments and replies go through the same
declarations and encodings as in production (see ``rehearsal``), and each step also looks for states that were changed
by something other than events.

Every part of a sentence is a value: it can be kept in a variable and continued in several ways.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from copy import copy
from typing import Any, Generic, Protocol, Self, TypeVar, cast

import msgspec

from actorkit.errors import CallError, DeclarationError
from actorkit.ids import PersistenceId
from actorkit.journal.protocols import StoredEvent
from actorkit.persistence.actor import PersistentActor, entity_type_of
from actorkit.persistence.events import Event
from actorkit.persistence.state import State
from actorkit.testing.foldings import fold
from actorkit.testing.outcomes import Expectations
from actorkit.testing.rehearsal import Setting, rehearse
from actorkit.testing.requests import Prepared, Request, request_of

__all__ = ["START_US", "Calling", "Given", "Outcome", "given"]

START_US = 1_767_225_600_000_000
"""When every test begins, unless it says otherwise: 2026-01-01, 00:00 UTC."""

A = TypeVar("A")
A_co = TypeVar("A_co", covariant=True)
B = TypeVar("B", bound="PersistentActor[Any, Any]")
S = TypeVar("S", bound=State)
S_co = TypeVar("S_co", bound=State, covariant=True)
E = TypeVar("E", bound=Event)
E_co = TypeVar("E_co", bound=Event, covariant=True)
R = TypeVar("R")
T = TypeVar("T")


class Declares(Protocol[A_co, S_co, E_co]):
    """A class of persistent actors, by which type checkers infer its state and its events."""

    def __declares__(self) -> tuple[A_co, S_co, E_co]: ...


class Scenario:
    """What both the beginning of a sentence and the end of a step can say about what comes next."""

    setting: Setting
    """What the next step finds."""

    def at(self, time_us: int) -> Self:
        """The time of the next step: microseconds since 1970 UTC. An entity's own time never decreases, though."""
        return self._with(time_us=time_us)

    def later(self, delay_s: float) -> Self:
        """The next step is this many seconds later."""
        return self._with(time_us=self.setting.now_us + int(delay_s * 1_000_000))

    def with_ids(self, *ids: str) -> Self:
        """What ``context.new_id()`` gives next. Without it, and after these, it counts: 00…01, 00…02, ..."""
        return self._with(ids=ids)

    def calling(self, actor: type[B], id: str, call: Callable[[B], Coroutine[Any, Any, R]]) -> Calling[Self, R]:
        """Prepares what another entity answers, once, as in
        ``.calling(Pool, "p1", lambda pool: pool.reserve(3)).answers("r1")``.

        The next step must make this very call; a call that is not prepared fails the test.
        """
        entity_type = entity_type_of(actor)
        pid = PersistenceId.checked(entity_type.name, id)
        return Calling(self, request_of(entity_type, pid, call))

    def prepare(self, prepared: Prepared) -> Self:
        """For ``Calling``."""
        return self._with(prepared=(*self.setting.prepared, prepared))

    def _with(self, **changes: Any) -> Self:
        changed = copy(self)
        changed.setting = msgspec.structs.replace(self.setting, **changes)
        return changed


class Calling(Generic[T, R]):
    """A call to another entity that waits for its answer."""

    def __init__(self, scenario: Scenario, request: Request) -> None:
        self._scenario = scenario
        self._request = request

    def answers(self, reply: R) -> T:
        """The other entity replies. Raises ``TypeError`` where the reply does not fit what its handler declares."""
        signature = self._request.handler.signature
        encoded = signature.encode_reply(reply)
        try:
            signature.decode_reply(encoded)
        except msgspec.MsgspecError as error:
            raise TypeError(f"{signature.where} cannot answer {reply!r}: {error}") from error
        return cast("T", self._scenario.prepare(Prepared(self._request, encoded, None)))

    def raises(self, error: CallError) -> T:
        """The call ends otherwise: ``Rejected``, ``Unavailable``, ``OutcomeUnknown``, ..."""
        return cast("T", self._scenario.prepare(Prepared(self._request, b"", error)))


class Given(Scenario, Generic[A, S, E]):
    """An entity with a history, before the call that is tested."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def when(self, call: Callable[[A], Coroutine[Any, Any, R]]) -> Outcome[A, S, E, R]:
        """Runs one command or query, as in ``.when(lambda pool: pool.reserve(3))``.

        With an idempotency key: ``lambda pool: pool.reserve.options(idempotency_key="k")(3)``. Raises ``TypeError``
        where the arguments do not fit, and ``AssertionError`` for what is wrong whatever the test expects: a call to
        another entity that is not prepared, a state changed by other means than events.
        """
        __tracebackhide__ = True
        return Outcome(self.setting, request_of(self.setting.entity_type, self.setting.pid, call))


class Outcome(Expectations[S, E, R], Scenario, Generic[A, S, E, R]):
    """What the call did. Each expectation that does not hold raises ``AssertionError`` and says what was instead."""

    def __init__(self, setting: Setting, request: Request) -> None:
        __tracebackhide__ = True
        self._before = setting
        self._did = rehearse(setting, request)
        self.setting = self._did.after
        self._foreseen = False

    def and_when(self, call: Callable[[A], Coroutine[Any, Any, T]]) -> Outcome[A, S, E, T]:
        """One more call of the same entity, after this one's events. A refusal must have been expected before."""
        __tracebackhide__ = True
        self._must_be_foreseen()
        return Outcome(self.setting, request_of(self.setting.entity_type, self.setting.pid, call))

    def and_when_timer(self, name: str) -> Outcome[A, S, E, Any]:
        """The timer of that name fires: at its time, with the arguments that it was started with."""
        __tracebackhide__ = True
        self._must_be_foreseen()
        timer = self.setting.timers.get(name)
        if timer is None:
            running = ", ".join(map(repr, self.setting.timers)) or "none"
            raise AssertionError(f"{self.setting.pid} has no timer {name!r} running; running are: {running}")
        timers = dict(self.setting.timers)
        time_us = max(timer.due_us, self.setting.now_us)
        if timer.repeats:
            timers[name] = msgspec.structs.replace(timer, due_us=time_us + int(timer.delay_s * 1_000_000))
        else:
            del timers[name]
        setting = msgspec.structs.replace(self.setting, time_us=time_us, timers=timers)
        return Outcome(setting, timer.request)


def given(actor: Declares[A, S, E], /, *events: Event, id: str = "id", at: int = START_US) -> Given[A, S, E]:
    """The entity ``id`` of a class, after these events (at ``at``, in microseconds since 1970 UTC); or without any.

    The events are encoded, decoded and applied as recovery does it. Raises ``DeclarationError`` for an event that the
    class does not know, and ``UndecodableEvent`` for one that cannot be applied to what was before.
    """
    entity_type = entity_type_of(cast("type[Any]", actor))
    history: list[StoredEvent] = []
    for sequence, event in enumerate(events, 1):
        if not isinstance(event, Event):
            raise DeclarationError(f"{event!r} is no event: give the history of {entity_type.name} as instances")
        payload, _ = entity_type.codec.encode(event)
        history.append((sequence, event.event_name, event.event_version, payload, at))
    pid = PersistenceId.checked(entity_type.name, id)
    fold(entity_type, str(pid), history)
    return Given(Setting(entity_type=entity_type, pid=pid, time_us=at, history=tuple(history)))

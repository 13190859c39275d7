"""Rehearsal: one handler of one entity is run for its test, without a loop, a journal, a clock or a random source.

The entity's history is decoded and folded by the same ``EntityType`` that production uses, the arguments travel through
the handler's signature, emitted events through the codec, the reply through its encoding. So what passes here passes
there. What differs is the surroundings: time stands still, ids are numbered, other entities answer what the test
prepared, timers are only noted down.

Afterwards the rehearsal looks for two mistakes that stay hidden in production until an entity is recovered: a state
that was changed by something other than events, and an ``@applies`` method that depends on more than state and event.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from contextvars import copy_context
from typing import Any, cast

import msgspec

from actorkit import logs
from actorkit.actor.turn import current_turn
from actorkit.errors import CallCycle, CallError, Rejected
from actorkit.ids import PersistenceId
from actorkit.journal.protocols import NewEvent, StoredEvent
from actorkit.persistence.actor import EntityContext, entity_type_of
from actorkit.persistence.calls import OUTSIDE, EntityCall, Handler, Kind
from actorkit.persistence.commands import EntityReference
from actorkit.persistence.declaration import EntityType
from actorkit.persistence.events import Event
from actorkit.persistence.records import detached
from actorkit.persistence.turn import EntityTurn
from actorkit.testing.foldings import check_foldings, fold
from actorkit.testing.requests import Prepared, Request, TimerNoted

__all__ = ["Rehearsed", "Setting", "rehearse"]


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """All that a handler can depend on."""

    entity_type: EntityType
    pid: PersistenceId
    time_us: int
    history: tuple[StoredEvent, ...] = ()
    ids: tuple[str, ...] = ()
    """What ``new_id`` gives next; then numbers follow."""
    ids_made: int = 0
    prepared: tuple[Prepared, ...] = ()
    timers: dict[str, TimerNoted] = {}

    @property
    def now_us(self) -> int:
        """An entity's time never decreases."""
        return max(self.time_us, self.history[-1][4]) if self.history else self.time_us

    def following(self, events: tuple[NewEvent, ...]) -> tuple[StoredEvent, ...]:
        """The history with these events after it, as the journal would give it back."""
        first = len(self.history) + 1
        new = [(n, event.type, event.version, event.payload, self.now_us) for n, event in enumerate(events, first)]
        return (*self.history, *new)


class Rehearsed(msgspec.Struct, frozen=True, kw_only=True):
    """What one handler did."""

    request: Request
    emitted: tuple[Event, ...]
    reply: Any
    rejected: Rejected | None
    error: Exception | None
    """What the handler raised, or what was wrong with what it gave: callers would get ``HandlerFailed``."""
    state: Any
    """The state afterwards, as the events alone give it."""
    actor: Any
    """The instance, for its published methods."""
    after: Setting
    started: tuple[TimerNoted, ...] = ()
    cancelled: tuple[str, ...] = ()


class _Mistake(BaseException):
    """The test itself is wrong. Not an ``Exception``, so that no handler swallows it."""


def rehearse(setting: Setting, request: Request) -> Rehearsed:
    """Runs the handler.

    Raises ``AssertionError`` for mistakes in the test, in ``@applies`` methods, and in handlers that change the state.
    """
    return _Rehearsal(setting, request).run()


class _Context(EntityContext):
    """What the handler sees of its surroundings."""

    def __init__(self, rehearsal: _Rehearsal) -> None:
        super().__init__(cast("Any", rehearsal))
        self._rehearsal = rehearsal

    def new_id(self) -> str:
        return self._rehearsal.next_id()

    @property
    def system(self) -> Any:
        return _Others(self._rehearsal)

    @property
    def log(self) -> Any:
        return logs.logger(entity=self._rehearsal.stream)


class _Others:
    """The ``ActorSystem`` as far as there is one: entities that answer what was prepared."""

    def __init__(self, rehearsal: _Rehearsal) -> None:
        self._rehearsal = rehearsal

    def get(self, cls: type[Any], id: str) -> EntityReference:
        entity_type = entity_type_of(cls)
        pid = PersistenceId.checked(entity_type.name, id)
        return EntityReference(cast("Any", self._rehearsal), pid, entity_type.handlers)

    def __getattr__(self, name: str) -> Any:
        raise _Mistake(
            f"the handler uses context.system.{name}: here are only calls to other entities; test this with a whole "
            "ActorSystem (the fixture actor_system)"
        )


class _Answer:
    """Awaited, it is there at once."""

    def __init__(self, reply: Any, error: CallError | None) -> None:
        self._reply = reply
        self._error = error

    def __await__(self) -> Generator[None, None, Any]:
        if self._error is not None:
            raise self._error
        return self._reply
        yield


class _Rehearsal:
    """Stands in for the live entity while one handler runs."""

    def __init__(self, setting: Setting, request: Request) -> None:
        self._setting = setting
        self._request = request
        self.entity_type = setting.entity_type
        self.pid = setting.pid
        self.stream = str(setting.pid)
        self.state: Any = fold(setting.entity_type, self.stream, setting.history)
        self.sequence = len(setting.history)
        self.handler_context = _Context(self)
        self._events: list[Event] = []
        self._ids = list(setting.ids)
        self._ids_made = setting.ids_made
        self._prepared = list(setting.prepared)
        self._timers = dict(setting.timers)
        self._started: list[TimerNoted] = []
        self._cancelled: list[str] = []
        call = EntityCall(setting.pid, request.handler, (), "test", request.key, 0.0, cast("Any", None), {}, OUTSIDE, 1)
        self._turn = EntityTurn(self.stream, self.stream, call, setting.now_us)
        self._actor = setting.entity_type.cls()
        self._actor.attach(cast("Any", self))

    # ----------------------------------------------------------------------------------------- the handler's side

    @property
    def turn(self) -> EntityTurn:
        if self._turn.over:
            raise RuntimeError(
                f"no handler of {self.pid} is in progress: events, time and timers are for handlers only"
            )
        return self._turn

    def next_id(self) -> str:
        if self._ids:
            return self._ids.pop(0)
        self._ids_made += 1
        return f"{self._ids_made:032x}"

    def emit(self, events: tuple[Event, ...]) -> None:
        turn, entity_type = self.turn, self.entity_type
        if self._request.handler.kind is not Kind.COMMAND:
            raise RuntimeError(f"{self._request.handler.signature.where} is no command: only commands emit events")
        for event in events:
            to_store, stored = entity_type.emitted(event)
            turn.emitted.append(to_store)
            # A copy of its own: the state may keep, and later change, what the applied one holds.
            self._events.append(entity_type.codec.encode(event)[1])
            try:
                entity_type.apply(self.state, stored)
            except Exception as error:
                turn.spoiled = error
                raise
            self.sequence += 1

    def call(
        self, pid: PersistenceId, handler: Handler, args: tuple[Any, ...], *, key: str | None, deadline_s: float | None
    ) -> _Answer:
        """The handler calls another entity."""
        self.turn.next_call_id(str(pid), handler, args)
        if pid == self.pid:
            return _Answer(None, CallCycle(str(pid), f"it waits for its own answer: {pid} → {pid}"))
        request = Request(pid, handler, handler.signature.encode(args))
        for prepared in self._prepared:
            known = prepared.request
            if (known.pid, known.handler, known.arguments) == (pid, handler, request.arguments):
                self._prepared.remove(prepared)
                reply = None if prepared.error else handler.signature.decode_reply(prepared.reply)
                return _Answer(reply, prepared.error)
        answers = "".join(f"\n    {each.request.pid} {each.request}" for each in self._prepared) or " nothing"
        raise _Mistake(
            f"the handler calls {request} of {pid}, for which no answer is prepared: give one with .calling(...); "
            f"prepared is{answers}"
        )

    def start_timer(
        self, name: str, after_s: float, handler: str, args: tuple[Any, ...], kwargs: dict[str, Any], *, repeat: bool
    ) -> None:
        if after_s < 0 or (repeat and after_s == 0):
            raise ValueError(f"a delay cannot be negative, nor an interval 0: {after_s}")
        declared = self.entity_type.handlers[handler]
        request = Request(self.pid, declared, declared.signature.encode(declared.signature.bind(args, kwargs)))
        timer = TimerNoted(name, after_s, self.turn.time_us + int(after_s * 1_000_000), request, repeat)
        self._timers[name] = timer
        self._started.append(timer)

    def cancel_timer(self, name: str) -> None:
        self.turn  # noqa: B018 - raises outside of handlers
        self._timers.pop(name, None)
        self._cancelled.append(name)

    # --------------------------------------------------------------------------------------------------------- run

    def run(self) -> Rehearsed:
        reply: Any = None
        rejected: Rejected | None = None
        error: Exception | None = None
        try:
            reply = copy_context().run(self._handle)
            if self._events:
                self._publish()
        except Rejected as refusal:
            rejected = refusal
            try:
                rejected.details = detached(rejected.details)
            except Exception as raised:  # noqa: BLE001 - what cannot be encoded is the handler's failure
                rejected, error = None, raised
        except Exception as raised:  # noqa: BLE001 - a handler may raise anything, and the test decides about it
            error = raised
        except _Mistake as mistake:
            raise AssertionError(f"{self.pid}, {self._request}: {mistake}") from None
        self._turn.over = True
        if self._turn.spoiled is not None:
            rejected, error = None, self._turn.spoiled
        done = rejected is None and error is None
        if self._prepared and error is None:
            left = ", ".join(f"{each.request} of {each.request.pid}" for each in self._prepared)
            raise AssertionError(f"{self.pid}, {self._request}: answers were prepared that nobody asked for: {left}")
        return self._concluded(done, reply, rejected, error)

    def _concluded(self, done: bool, reply: Any, rejected: Rejected | None, error: Exception | None) -> Rehearsed:
        stored = tuple(self._turn.emitted) if done else ()
        history = self._setting.following(stored)
        # A handler that fails, or that refuses after having emitted, costs the entity its memory; only otherwise does
        # what it did to the state live on.
        live = self.state if done or (rejected is not None and not self._turn.emitted) else None
        state = check_foldings(self.entity_type, self.stream, history, live, str(self._request))
        after = msgspec.structs.replace(
            self._setting,
            history=history,
            ids=tuple(self._ids),
            ids_made=self._ids_made,
            prepared=(),
            timers=self._timers if done else self._setting.timers,
        )
        return Rehearsed(
            request=self._request,
            emitted=tuple(self._events) if done else (),
            reply=reply if done else None,
            rejected=rejected,
            error=error,
            state=state,
            actor=self._actor,
            after=after,
            started=tuple(self._started) if done else (),
            cancelled=tuple(self._cancelled) if done else (),
        )

    def _handle(self) -> Any:
        current_turn.set(self._turn)
        logs.current.set(self._turn)
        handler = self._request.handler
        outcome = handler.invoke(self._actor, *handler.signature.decode(self._request.arguments))
        if handler.is_async:
            outcome = self._awaited(outcome)
        self._turn.over = True
        return self._as_answered(outcome)

    def _awaited(self, running: Coroutine[Any, Any, Any]) -> Any:
        why = (
            "there is no event loop here. Prepare what other entities answer with .calling(...), and test a handler "
            "that awaits anything else with a whole ActorSystem (the fixture actor_system)"
        )
        try:
            awaited = running.send(None)
        except StopIteration as end:
            return end.value
        except RuntimeError as error:
            if "no running event loop" not in str(error):
                raise
            raise _Mistake(f"the handler awaits something real, and {why}") from error
        running.close()
        raise _Mistake(f"the handler awaits {'something real' if awaited is None else repr(awaited)}, and {why}")

    def _as_answered(self, reply: Any) -> Any:
        """The reply as the caller gets it."""
        signature = self._request.handler.signature
        encoded = signature.encode_reply(reply)
        try:
            return signature.decode_reply(encoded)
        except msgspec.MsgspecError as error:
            raise TypeError(
                f"{signature.where} replied {reply!r}, which does not fit what it declares: {error}"
            ) from error

    def _publish(self) -> None:
        """What cannot be published is the handler's failure, as in production."""
        for view in self.entity_type.published.values():
            view.check(view.value(self._actor))

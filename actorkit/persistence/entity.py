"""Entity (a shell): runs one persistent actor.

Each call goes through: *admit* (is it a repetition?), *run* (the handler, plain or in a task), *conclude* (its answer
takes its place at the output gate, its events go to the writer), *release* (the answer leaves). When anything goes
wrong on the way (an append fails, a handler raises) the memory of the entity is thrown away; ``settling.py`` then
finds out what is true and goes on from there.

All of it runs on one loop. While a coroutine of the entity runs, the actor's cell gives it no other message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import msgspec

from actorkit import logs
from actorkit.actor.actor import Actor
from actorkit.actor.turn import Turn
from actorkit.errors import (
    CallError,
    HandlerFailed,
    JournalError,
    JournalFailed,
    OutcomeUnknown,
    Overloaded,
    Rejected,
    Unavailable,
)
from actorkit.ids import PersistenceId
from actorkit.journal.protocols import Append, Appended, AppendResult
from actorkit.persistence.actor import EntityContext
from actorkit.persistence.admission import Admission
from actorkit.persistence.async_handler import RunningHandler, begin
from actorkit.persistence.calls import OUTSIDE, EntityCall, Handler, Kind, Progress
from actorkit.persistence.declaration import EntityType
from actorkit.persistence.events import Event
from actorkit.persistence.gate import Answer, Gate
from actorkit.persistence.plain_turns import PlainTurns, turn_in_progress
from actorkit.persistence.records import Metadata, detached, encode_metadata, encode_outcome, encode_rejection
from actorkit.persistence.services import EntityServices, ShardOwnership
from actorkit.persistence.settling import Settling
from actorkit.persistence.snapshots import SnapshotPolicy, append_digest, encode_snapshot
from actorkit.persistence.turn import EntityTurn

__all__ = ["Entity"]

_SETTLE = object()
"""The message by which an entity tells itself to settle; it goes before all waiting calls."""


class _TimerFired:
    __slots__ = ("args", "handler")

    def __init__(self, handler: Handler, args: tuple[Any, ...]) -> None:
        self.handler = handler
        self.args = args


class Entity(Actor[Any]):
    """One entity in memory, from the first call until it is passivated."""

    def __init__(
        self, entity_type: EntityType, pid: PersistenceId, shard: ShardOwnership, services: EntityServices
    ) -> None:
        self.entity_type = entity_type
        self.pid = pid
        self.stream = str(pid)
        self.shard = shard
        self.services = services
        self.handler_context = EntityContext(self)
        self.actor = entity_type.cls()
        self.actor.attach(self)
        settings = services.settings
        self.state: Any = entity_type.new_state()
        self.sequence = 0
        self.time_us = 0
        self.gate = Gate()
        self.admission = Admission(self)
        self.snapshot_policy = SnapshotPolicy(settings.snapshot_every_events)
        self.settling = Settling(self)
        self._wall_us = services.clock.wall_us
        self._publishes = bool(entity_type.published)
        self._pending_max = settings.pending_max_answers
        self.broken: CallError | None = None
        """Why the entity takes no calls: its state could not be rebuilt."""
        self.lost = False
        """The shard has another owner: whatever is still in the mailbox goes back to the region."""
        self.running: RunningHandler | None = None
        """The ``async`` handler that runs now."""
        self._turn: EntityTurn | None = None
        self._plain_turns: PlainTurns
        self._confirming: list[Answer] | None = None

    @property
    def turn(self) -> EntityTurn:
        """The turn in progress. Raises ``RuntimeError`` where there is none."""
        turn = self._turn
        if turn is None or turn_in_progress() is not turn:
            raise RuntimeError(
                f"this does not run in a handler of {self.pid} that is in progress: events, time and timers are for "
                "handlers only, and not for tasks that outlive them"
            )
        return turn

    @property
    def idle(self) -> bool:
        """Whether leaving memory now would lose nothing."""
        return not self.gate and not self.gate.outstanding and self._turn is None and not self.settling.failed

    @property
    def has_timers(self) -> bool:
        return len(self.context.timers) > 0

    # ------------------------------------------------------------------------------------------------ the actor's side

    def new_turn(self) -> Turn:
        turns = self._plain_turns = PlainTurns(self.context.path, self.stream)
        logs.current.set(turns)
        return turns

    async def started(self) -> None:
        try:
            await self.settling.recover()
        finally:
            self.services.host.recovered(self.pid, self)

    def receive(self, message: Any) -> Coroutine[Any, Any, None] | None:
        if message is _SETTLE:
            return self.settling.settle()
        if type(message) is _TimerFired:
            message = self.services.host.send_to_self(self.pid, message.handler, message.args)
        if type(message) is not EntityCall:
            raise TypeError(f"{self.pid} got {message!r}, which is no call")
        try:
            # Most calls come without a key, the first time, while nothing is wrong: they need not be looked at closer.
            if (
                message.key is None
                and message.attempt == 1
                and (message.origin is OUTSIDE or not self.shard.tenure)
                and self.broken is None
                and not self.lost
                and len(self.gate.waiting) < self._pending_max
                and self.services.writer.has_room
            ):
                step = self.run(message)
            else:
                step = self.admission.admit(message)
        except Exception as error:  # noqa: BLE001 - a defect of ours ends this call, and nothing that others wait for
            self._crashed(message, error)
            return None
        return None if step is None else self._guarded(message, step)

    async def _guarded(self, call: EntityCall, step: Coroutine[Any, Any, None]) -> None:
        try:
            await step
        except Exception as error:  # noqa: BLE001 - as in receive
            self._crashed(call, error)

    def _crashed(self, call: EntityCall, error: Exception) -> None:
        """Something other than the handler has failed: the entity finds out what is true, then goes on."""
        self._turn = None
        self.context.log.critical(
            "entity.crashed", entity=self.stream, handler=call.handler.name, command=call.command_id, exc_info=error
        )
        call.give_up(f"the entity crashed with {error!r}")
        self.settling.fail(doubt=True)

    def stopped(self) -> None:
        self.lost = True
        self.abandon("its node is stopping")
        self.services.host.forget(self.pid, self)

    async def restarting(self, error: Exception) -> None:
        """The shell itself has failed, which is a defect: whoever waits is told what is known.

        The next instance reads the journal, so nothing may still be on its way there.
        """
        self.abandon(f"the entity crashed: {error!r}")
        await self.shard.settle_doubt(self.shard.epoch)

    def abandon(self, why: str) -> None:
        for answer in self.drain():
            answer.call.fail(OutcomeUnknown(str(self.pid), why))

    # ----------------------------------------------------------------------------------------------------------- run

    def now_us(self) -> int:
        return max(self.services.clock.wall_us(), self.time_us)

    def run(self, call: EntityCall) -> Coroutine[Any, Any, None] | None:
        if call.progress is not Progress.QUEUED:
            # It has been ended, as surely not executed, while the store was asked about it.
            return None
        call.progress = Progress.RUNNING
        handler = call.handler
        wall_us = self._wall_us()
        turns = self._plain_turns
        turn = self._turn = EntityTurn(turns.path, self.stream, call, max(self.time_us, wall_us))
        if handler.is_async:
            return begin(self, call, turn)
        turns.now = turn
        try:
            self._run_plain(call, turn)
        finally:
            turns.now = None
        return None

    def _run_plain(self, call: EntityCall, turn: EntityTurn) -> None:
        rejected: Rejected | None = None
        reply: Any = None
        error: Exception | None = None
        try:
            reply = call.handler.invoke(self.actor, *call.args)
        except Rejected as refusal:
            rejected = refusal
        except asyncio.CancelledError:
            error = RuntimeError("the handler raised CancelledError, which it got from something that was cancelled")
        except Exception as raised:  # noqa: BLE001 - a handler may raise anything; its caller is told
            error = raised
        # Though it is over, it is still this turn: what is logged about its end names its command.
        self.conclude(call, turn, reply, rejected, error)

    def cancelled(self, call: EntityCall, turn: EntityTurn) -> None:
        """The node stops without waiting any longer: what the handler emitted is not kept."""
        turn.over = True
        self._turn = None
        self.settling.fail(doubt=False)
        call.fail(Unavailable(str(self.pid), "its node stopped while the handler was running"))

    def emit(self, events: tuple[Event, ...]) -> None:
        turn = self.turn
        if turn.over or turn.call.handler.kind is not Kind.COMMAND:
            raise RuntimeError(f"{turn.call.handler.signature.where} is no command: only commands emit events")
        entity_type = self.entity_type
        for event in events:
            to_store, stored = entity_type.emitted(event)
            turn.emitted.append(to_store)
            try:
                entity_type.apply(self.state, stored)
            except Exception as error:
                # Whatever the handler makes of it, the state may be half changed.
                turn.spoiled = error
                raise
            self.sequence += 1

    # ------------------------------------------------------------------------------------------------------ conclude

    def conclude(
        self, call: EntityCall, turn: EntityTurn, reply: Any, rejected: Rejected | None, error: Exception | None
    ) -> None:
        """The handler has ended: its answer goes to the gate, its events to the writer."""
        turn.over = True
        self._turn = None
        if self.settling.failed:
            self.settling.undone(call, gone_out=turn.gone_out)
            return
        encoded = b""
        if turn.spoiled is not None:
            error = turn.spoiled
        if error is None and rejected is None:
            signature = call.handler.signature
            try:
                if not signature.reply_is_value or turn.emitted or call.key is not None:
                    encoded = signature.encode_reply(reply)
                if not signature.reply_is_value:
                    # The caller must not share anything mutable with the state.
                    reply = signature.decode_reply(encoded)
            except Exception as raised:  # noqa: BLE001 - what cannot be encoded is the handler's failure
                error = raised
        if rejected is not None and rejected.details:
            try:
                rejected.details = detached(rejected.details)
            except Exception as raised:  # noqa: BLE001 - as above
                error = raised
        if error is not None:
            self._handler_failed(call, turn, error)
        elif rejected is not None and turn.emitted:
            self.settling.discard(call, rejected, gone_out=turn.gone_out)
        else:
            self.answer(call, turn, reply, encoded, rejected)

    def answer(self, call: EntityCall, turn: EntityTurn, reply: Any, encoded: bytes, rejected: Rejected | None) -> None:
        """Puts the answer at the gate, and what must be stored with it on its way to the journal."""
        counters = self.services.counters
        if rejected is not None:
            counters.rejected += 1
        elif call.handler.kind is Kind.COMMAND:
            counters.commands += 1
        else:
            counters.queries += 1
        remembered = call.key is not None and (rejected is None or rejected.remembered)
        if not turn.emitted and not remembered:
            answer = Answer(call, reply, rejected, self.sequence, self.shard.epoch, True, True)
            answer.gone_out = turn.gone_out
            if rejected is None:
                answer.effects = turn.effects
            self.answer_from_memory(answer)
            return
        try:
            outcome = (
                encode_outcome(call.digest, encoded) if rejected is None else encode_rejection(call.digest, rejected)
            )
        except (TypeError, OverflowError, ValueError) as error:
            self._handler_failed(call, turn, error)
            return
        answer = Answer(call, reply, rejected, self.sequence, self.shard.epoch)
        answer.gone_out = turn.gone_out
        if rejected is None:
            answer.effects = turn.effects
        self._append(answer, turn, outcome)

    def _append(self, answer: Answer, turn: EntityTurn, outcome: bytes) -> None:
        call, emitted = answer.call, turn.emitted
        if call.origin is OUTSIDE:
            metadata = Metadata(call.command_id, call.handler.name, call.command_id)
        else:
            trace = call.origin.trace
            metadata = Metadata(
                call.command_id,
                call.handler.name,
                trace.correlation or call.command_id,
                trace.causation,
                trace.trace_parent,
            )
        append = Append(
            self.shard.shard,
            answer.epoch,
            self.stream,
            self.sequence - len(emitted),
            tuple(emitted),
            turn.time_us,
            encode_metadata(metadata),
            call.key,
            outcome,
        )
        self.time_us = turn.time_us
        if emitted and (self._publishes or self.snapshot_policy.due(self.sequence)):
            try:
                self._note_state(answer, append)
            except Exception as error:  # noqa: BLE001 - what cannot be shown is the actor's failure
                self._handler_failed(call, turn, error)
                return
        if call.key is not None:
            self.admission.keys.remember(call.key, outcome, turn.time_us, pending=len(self.gate) + 1)
        if not emitted:
            answer.outcome = append
        self._submit(answer, append)

    def _submit(self, answer: Answer, append: Append) -> None:
        self.gate.hold(answer)
        try:
            self.services.writer.submit(append, partial(self._landed, answer))
        except (Overloaded, JournalError) as error:
            self._landed(answer, error)

    def append_again(self, answer: Answer, outcome: Append) -> None:
        """The outcome of a command that emitted nothing was lost: it is stored as it was decided."""
        again = Answer(answer.call, answer.reply, answer.rejected, self.sequence, self.shard.epoch)
        again.gone_out, again.effects = answer.gone_out, answer.effects
        # Events with later times may have been stored since, and times never decrease.
        outcome = again.outcome = msgspec.structs.replace(
            outcome, epoch=self.shard.epoch, expected=self.sequence, time_us=max(outcome.time_us, self.time_us)
        )
        if outcome.key is not None and outcome.outcome is not None:
            self.admission.keys.remember(outcome.key, outcome.outcome, outcome.time_us, pending=len(self.gate) + 1)
        self._submit(again, outcome)

    def _note_state(self, answer: Answer, append: Append) -> None:
        """What shows the state at this very version is taken now and let out with the answer."""
        answer.views = [(name, view.value(self.actor)) for name, view in self.entity_type.published.items()]
        if self.snapshot_policy.due(self.sequence):
            answer.snapshot = encode_snapshot(
                self.entity_type, self.stream, self.sequence, self.time_us, append_digest(append), self.state
            )
            self.snapshot_policy.taken(self.sequence, len(answer.snapshot.payload))

    def _handler_failed(self, call: EntityCall, turn: EntityTurn, error: Exception) -> None:
        """What it emitted is discarded, and the memory that it may have touched with it."""
        self.services.counters.handler_failures += 1
        why = f"{call.handler.name} failed ({type(error).__name__}: {error}); nothing of it was kept"
        failure = HandlerFailed(str(self.pid), why)
        failure.__cause__ = error
        self.context.log.error("entity.handler_failed", entity=self.stream, handler=call.handler.name, exc_info=error)
        self.settling.discard(call, failure, gone_out=turn.gone_out)

    # ------------------------------------------------------------------------------------------------------- release

    def _landed(self, answer: Answer, result: AppendResult | JournalError | Overloaded) -> None:
        """What became of an append."""
        if type(result) is Appended:
            gate = self.gate
            gate.landed(answer)
            if not self.settling.failed:
                if len(gate.waiting) == 1 and gate.waiting[0] is answer and not self.admission.waits_for_room:
                    gate.waiting.clear()
                    self.leave_now(answer)
                else:
                    self.release()
                return
        else:
            self.gate.failed(answer, result)
            if isinstance(result, JournalFailed):
                self.services.fatal(result)
            self.settling.fail(doubt=not isinstance(result, Overloaded))
        self.settling.landed()

    def answer_from_memory(self, answer: Answer) -> None:
        """An answer that rests on memory leaves under a valid lease, or once the store has confirmed the ownership."""
        if not self.gate.waiting and not self.settling.failed and self.shard.lease_is_valid():
            self.leave_now(answer)
            return
        self.gate.hold(answer)
        if not self.settling.failed:
            self.release()

    def release(self) -> None:
        """Lets out what may leave, in order."""
        waiting = self.gate.waiting
        while waiting and waiting[0].durable:
            answer = waiting[0]
            if answer.from_memory and not answer.confirmed and not self.shard.lease_is_valid():
                self._confirm(answer.epoch)
                break
            waiting.popleft()
            self.leave_now(answer)
        if self.admission.waits_for_room:
            self.admission.has_room()

    def _confirm(self, epoch: int) -> None:
        """Asks the store, once for all answers that wait now and rest on the memory of this epoch."""
        if self._confirming is None:
            asked = [answer for answer in self.gate.waiting if answer.from_memory and answer.epoch == epoch]
            self._confirming = asked
            self.shard.confirm(epoch, partial(self._confirmed, asked))

    def _confirmed(self, asked: list[Answer], still_owner: bool) -> None:
        if self._confirming is not asked:
            return
        self._confirming = None
        if not still_owner:
            self.settling.fail(doubt=True)
            return
        for answer in asked:
            answer.confirmed = True
        self.release()

    def drain(self) -> list[Answer]:
        """Takes everything out of the gate, for it to be settled otherwise."""
        self._confirming = None
        return self.gate.drain()

    def leave_now(self, answer: Answer) -> None:
        if answer.effects:
            self._let_out(answer.effects)
        for name, value in answer.views:
            self.services.publish(self.shard.shard, self.pid.type, name, self.pid.id, answer.sequence, value)
        if answer.snapshot is not None:
            self.services.save_snapshot(answer.snapshot)
        if answer.rejected is None:
            answer.call.reply(answer.reply)
        else:
            answer.call.fail(answer.rejected)

    def _let_out(self, effects: Sequence[Callable[[], None]]) -> None:
        for effect in effects:
            try:
                effect()
            except Exception as error:
                self.services.counters.effects_failed += 1
                self.context.log.error("entity.effect_failed", entity=self.stream, exc_info=error)

    # -------------------------------------------------------------------------------------------------------- timers

    def start_timer(
        self, name: str, after_s: float, handler: str, args: tuple[Any, ...], kwargs: dict[str, Any], *, repeat: bool
    ) -> None:
        declared = self.entity_type.handlers[handler]
        message = _TimerFired(declared, declared.signature.bind(args, kwargs))
        timers = self.context.timers
        (timers.every if repeat else timers.once)(name, after_s, message)

    def cancel_timer(self, name: str) -> None:
        self.context.timers.cancel(name)

    def leave(self, calls: list[EntityCall]) -> None:
        """The shard has another owner: this activation ends, and its calls are routed anew."""
        self.lost = True
        self.services.host.move_out(self.pid, self, calls)

    def settle_soon(self) -> None:
        self.context.requeue([_SETTLE])

"""Settling (a shell): finding out what is true after something went wrong, and going on from there.

When an append of an entity is fenced, conflicts, fails or gets no answer, or when a handler fails, the entity's memory
is no longer what the journal says. Then, before the next call is handled:

1. all appends on their way are awaited;
2. if the fate of one is in doubt, the shard's epoch is raised, which kills whatever may still arrive;
3. the state is recovered from the journal;
4. answers whose events are found leave; calls that are surely not stored run again, in their order; what has reached
   others by itself and is not stored ends as ``OutcomeUnknown``.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from actorkit.errors import (
    CallError,
    EventError,
    HandlerFailed,
    JournalCorrupt,
    JournalError,
    JournalFailed,
    OutcomeUnknown,
    Overloaded,
    RecoveryFailed,
    Rejected,
    Unavailable,
)
from actorkit.journal.protocols import Refused
from actorkit.persistence.calls import EntityCall, Progress
from actorkit.persistence.gate import Answer
from actorkit.persistence.records import decode_metadata
from actorkit.persistence.recovery import Recovery, recover
from actorkit.persistence.snapshots import encode_snapshot, event_digest
from actorkit.persistence.turn import EntityTurn

if TYPE_CHECKING:
    from actorkit.persistence.entity import Entity

__all__ = ["Settling"]

_ATTEMPTS = 12
_BACKOFF_FIRST_S = 0.05
_BACKOFF_MAX_S = 1.0
_LOOK_BACK_EVENTS = 4_096
"""How many events are searched for a command that the framework sent again; such retries end with the call's
deadline."""


class Settling:
    """The recovering side of one entity."""

    def __init__(self, entity: Entity) -> None:
        self._entity = entity
        self.failed = False
        """The memory does not count any more, and nothing that rests on it leaves."""
        self._doubt = False
        self._undone: list[EntityCall] = []
        self._refused: list[tuple[EntityCall, Rejected]] = []
        self._all_landed: asyncio.Future[None] | None = None

    # ------------------------------------------------------------------------------------------- what has gone wrong

    def fail(self, *, doubt: bool) -> None:
        """Something went wrong. ``doubt``: an append may be stored, or yet come to be stored."""
        self._doubt = self._doubt or doubt
        if not self.failed:
            self.failed = True
            self._entity.settle_soon()

    def undone(self, call: EntityCall, *, gone_out: bool) -> None:
        """A call whose handler has ended after the failure: it saw what may not be true."""
        if gone_out:
            call.fail(self._unknown("it was undone after having asked others"))
        else:
            self._undone.append(call)

    def discard_and_refuse(self, call: EntityCall, rejected: Rejected) -> None:
        """The handler has refused after having emitted: the state is rebuilt, then the refusal is answered."""
        self._refused.append((call, rejected))
        self.fail(doubt=False)

    def landed(self) -> None:
        """One more append has its result."""
        if self._all_landed is not None and not self._entity.gate.outstanding and not self._all_landed.done():
            self._all_landed.set_result(None)

    # ------------------------------------------------------------------------------------------------------ settling

    async def settle(self) -> None:
        """The turn in which an entity finds out what is true. Other calls wait."""
        entity = self._entity
        entity.services.counters.settlements += 1
        if entity.gate.outstanding:
            self._all_landed = entity.services.loop.create_future()
            await self._all_landed
            self._all_landed = None
        answers = entity.gate.drain()
        try:
            owned, again = await self._sort(answers)
        except asyncio.CancelledError:
            self._end_all(answers, self._unknown("its node stopped before it was settled"))
            raise
        except JournalError as error:
            self._end_all(answers, self._unknown(f"the journal cannot be read: {error}"))
            owned, again = True, []
        again += self._undone
        refused, self._undone, self._refused = self._refused, [], []
        self.failed = self._doubt = False
        again = [call for call in again if self._made_ready(call)]
        for call, rejected in refused:
            entity.answer(
                call, EntityTurn(entity.context.path, entity.stream, call, entity.time_us), None, b"", rejected
            )
        if owned:
            entity.context.requeue(again)
        else:
            entity.leave(again)

    async def _sort(self, answers: list[Answer]) -> tuple[bool, list[EntityCall]]:
        """Settles each answer; returns whether the shard is still owned, and the calls that are to run again."""
        entity = self._entity
        owned = True
        committed = entity.gate.committed
        if self._doubt:
            epoch = max((answer.epoch for answer in answers), default=entity.shard.epoch)
            owned = await entity.shard.settle_doubt(epoch)
        await self.recover()
        if entity.broken is not None:
            self._end_all(answers, self._unknown(f"afterwards, {entity.broken}") if self._doubt else entity.broken)
            return owned, []
        stored = await self._stored_since(committed) if answers else set[str]()
        again: list[EntityCall] = []
        for answer in answers:
            if answer.from_memory:
                if again:
                    again.append(answer.call)
                else:
                    entity.leave_from_memory(answer)
            elif answer.durable or answer.call.command_id in stored or await self._is_outcome_stored(answer):
                entity.leave_now(answer)
            elif isinstance(answer.failure, Refused):
                why = f"the journal refuses its events: {answer.failure.why}"
                answer.call.fail(HandlerFailed(str(entity.pid), why))
            elif isinstance(answer.failure, Overloaded):
                answer.call.fail(answer.failure)
            elif isinstance(answer.failure, JournalFailed):
                answer.call.fail(self._unknown(str(answer.failure)))
            elif answer.gone_out:
                answer.call.fail(self._unknown("it was not stored, but it had asked others"))
            else:
                again.append(answer.call)
        return owned, again

    def _made_ready(self, call: EntityCall) -> bool:
        """Whether a call that is surely undone is to run again: not if its caller has been answered already."""
        if call.progress is Progress.ENDED or (call.future.done() and not call.future.cancelled()):
            call.progress = Progress.ENDED
            return False
        call.progress = Progress.QUEUED
        # What it calls in turn may have been called before.
        call.attempt += 1
        return True

    async def _stored_since(self, committed: int) -> set[str]:
        """The ids of the commands whose events the journal has after the given sequence."""
        entity = self._entity
        page_events = entity.services.settings.recovery_page_events
        found: set[str] = set()
        after = committed
        while True:
            page = await entity.services.store.read_stream(entity.stream, after=after, limit=page_events)
            found.update(decode_metadata(record.metadata).command_id for record in page)
            if len(page) < page_events:
                return found
            after = page[-1].sequence

    async def _is_outcome_stored(self, answer: Answer) -> bool:
        """Whether the outcome of a command without events was stored."""
        entity, call = self._entity, answer.call
        if call.key is None:
            return False
        record = await entity.services.store.find_key(entity.stream, call.key, since_us=0)
        return record is not None and decode_metadata(record.metadata).command_id == call.command_id

    async def find_command(self, command_id: str) -> bytes | None:
        """The outcome of a command among the entity's newest events."""
        entity = self._entity
        page_events = entity.services.settings.recovery_page_events
        after = max(0, entity.sequence - _LOOK_BACK_EVENTS)
        while True:
            page = await entity.services.store.read_stream(entity.stream, after=after, limit=page_events)
            for record in page:
                if record.outcome is not None and decode_metadata(record.metadata).command_id == command_id:
                    return record.outcome
            if len(page) < page_events:
                return None
            after = page[-1].sequence

    # ------------------------------------------------------------------------------------------------------ recovery

    async def recover(self) -> None:
        """Rebuilds the entity's memory from the journal; sets ``entity.broken`` where that cannot be done."""
        entity, services = self._entity, self._entity.services
        entity.broken = None
        started_s = services.loop.time()
        try:
            async with services.recoveries:
                recovery = await self._read()
        except (EventError, JournalCorrupt) as error:
            self._break(RecoveryFailed(str(entity.pid), f"its state cannot be rebuilt: {error}"), error)
            return
        except JournalError as error:
            self._break(Unavailable(str(entity.pid), f"the journal cannot be read: {error}"), error)
            return
        services.counters.recoveries += 1
        services.counters.events_replayed += recovery.events_read
        for sequence, why in recovery.ignored:
            services.counters.snapshots_ignored += 1
            entity.context.log.warning("entity.snapshot_ignored", entity=entity.stream, sequence=sequence, why=why)
        self._take(recovery, services.loop.time() - started_s)

    async def _read(self) -> Recovery:
        entity, services = self._entity, self._entity.services
        delay_s = _BACKOFF_FIRST_S
        for _ in range(_ATTEMPTS - 1):
            try:
                return await self._recover_once()
            except JournalFailed as error:
                services.fatal(error)
                raise
            except JournalCorrupt:
                raise
            except JournalError as error:
                entity.context.log.warning("entity.recovery_retried", entity=entity.stream, why=str(error))
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _BACKOFF_MAX_S)
        return await self._recover_once()

    async def _recover_once(self) -> Recovery:
        entity, services = self._entity, self._entity.services
        return await recover(
            services.store, entity.entity_type, entity.stream, page_events=services.settings.recovery_page_events
        )

    def _take(self, recovery: Recovery, took_s: float) -> None:
        entity, services = self._entity, self._entity.services
        entity.state = recovery.state
        entity.sequence = entity.gate.committed = recovery.sequence
        entity.time_us = recovery.time_us
        entity.admission.forget_all()
        entity.snapshot_policy.restart(recovery.from_snapshot)
        if took_s > services.settings.snapshot_after_recovery_s and recovery.event is not None:
            digest = event_digest(recovery.event)
            snapshot = encode_snapshot(
                entity.entity_type, entity.stream, recovery.sequence, recovery.time_us, digest, recovery.state
            )
            entity.snapshot_policy.taken(recovery.sequence, len(snapshot.payload))
            services.save_snapshot(snapshot)
        for name, view in entity.entity_type.published.items():
            services.publish(entity.pid.type, name, entity.pid.id, recovery.sequence, view.function(entity.actor))

    def _break(self, broken: CallError, error: Exception) -> None:
        entity = self._entity
        broken.__cause__ = error
        entity.broken = broken
        entity.services.counters.recovery_failures += 1
        entity.context.log.error("entity.recovery_failed", entity=entity.stream, why=str(error))
        entity.services.host.retire(entity.pid)

    def _unknown(self, why: str) -> OutcomeUnknown:
        return OutcomeUnknown(str(self._entity.pid), why)

    def _end_all(self, answers: list[Answer], error: CallError) -> None:
        for answer in answers:
            answer.call.fail(error)

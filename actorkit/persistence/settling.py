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
_RETRY_FIRST_S = 0.05
_RETRY_MAX_S = 1.0
"""How long calls that are to run again wait, where the last time brought the entity no further."""
_BACKOFF_FIRST_S = 0.05
_BACKOFF_MAX_S = 1.0


class Settling:
    """The recovering side of one entity."""

    def __init__(self, entity: Entity) -> None:
        self._entity = entity
        self.failed = False
        """The memory does not count any more, and nothing that rests on it leaves."""
        self._doubt = False
        self._reading = False
        """The journal is being read: what fails from now on is not in what is read."""
        self._once_more = False
        self._undone: list[EntityCall] = []
        self._all_landed: asyncio.Future[None] | None = None
        self._settled_at = -1
        self._fruitless = 0

    # ------------------------------------------------------------------------------------------- what has gone wrong

    def fail(self, *, doubt: bool) -> None:
        """Something went wrong. ``doubt``: an append may be stored, or yet come to be stored."""
        self._doubt = self._doubt or doubt
        if self._reading:
            self._once_more = True
        elif not self.failed:
            self.failed = True
            self._entity.settle_soon()
            self._entity.admission.make_room()

    def undone(self, call: EntityCall, *, gone_out: bool) -> None:
        """A call whose handler has ended after the failure: it saw what may not be true."""
        if gone_out:
            call.fail(self._unknown("it was undone after having asked others"))
        elif call.queue_again():
            self._undone.append(call)

    def discard(self, call: EntityCall, ending: CallError, *, gone_out: bool) -> None:
        """The handler has refused after having emitted, or has failed: the state is rebuilt before it is answered.

        It stands in line like any other answer, since it may have seen what is not durable yet.
        """
        answer = Answer(call, None, ending, 0, self._entity.shard.epoch, True)
        answer.discards = True
        answer.gone_out = gone_out
        self._entity.gate.hold(answer)
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
        answers = entity.drain()
        try:
            owned, kept, again = await self._sort(answers)
        except JournalError as error:
            self._end_unread(answers, self._unknown(f"the journal cannot be read: {error}"))
            owned, kept, again = True, [], []
        again = [call for call in (*again, *self._undone) if call.queue_again()]
        self._undone = []
        oldest, leaving = entity.shard.tenures_since, entity.shard.leaving
        entity.services.host.give_back([call for call in again if leaving or call.has_outlived(oldest)])
        again = [call for call in again if not (leaving or call.has_outlived(oldest))]
        await self._back_off(again)
        self._reading = False
        once_more, self._once_more = self._once_more, False
        self.failed = once_more
        if not owned:
            entity.leave([*(answer.call for answer in kept if answer.call.queue_again()), *again])
        else:
            entity.context.requeue(again)
            for answer in kept:
                self._answer_again(answer)
            if once_more:
                entity.settle_soon()

    async def _back_off(self, again: list[EntityCall]) -> None:
        """What failed again and again is not tried without end at full speed."""
        sequence = self._entity.sequence
        self._fruitless = self._fruitless + 1 if again and sequence == self._settled_at else 0
        self._settled_at = sequence
        if self._fruitless:
            await asyncio.sleep(min(_RETRY_FIRST_S * 2.0 ** min(self._fruitless - 1, 10), _RETRY_MAX_S))

    def _answer_again(self, answer: Answer) -> None:
        """The state is rebuilt, and the answer still holds."""
        entity, call, ending = self._entity, answer.call, answer.rejected
        if answer.durable and not answer.from_memory:
            entity.gate.waiting.append(answer)
            if not self.failed:
                entity.release()
        elif answer.outcome is not None:
            entity.append_again(answer, answer.outcome)
        elif not answer.discards:
            entity.answer_from_memory(answer)
        elif isinstance(ending, Rejected):
            turn = EntityTurn(entity.context.path, entity.stream, call, entity.now_us())
            turn.gone_out = answer.gone_out
            entity.answer(call, turn, None, b"", ending)
        elif ending is not None:
            call.fail(ending)

    async def _sort(self, answers: list[Answer]) -> tuple[bool, list[Answer], list[EntityCall]]:
        """Settles each answer; returns whether the shard is still owned, answers that hold, and calls to run again.

        An answer may have seen everything before it in the line: where that is not so, it is decided again.
        """
        entity = self._entity
        owned, doubt = True, self._doubt
        committed = entity.gate.committed
        self._let_durable_ones_go(answers)
        if doubt:
            epoch = max((answer.epoch for answer in answers), default=0) or entity.shard.epoch
            owned = await entity.shard.settle_doubt(epoch)
        self._doubt, self._reading = False, True
        await self.recover()
        if entity.broken is not None:
            self._end_broken(answers, entity.broken, doubt=doubt)
            return owned, [], []
        stored = await self._stored_since(committed) if answers else set[tuple[str, int]]()
        kept: list[Answer] = []
        again: list[EntityCall] = []
        all_true = owned
        for answer in answers:
            if not answer.from_memory and (
                answer.durable
                or (answer.call.command_id, answer.epoch) in stored
                or await self._is_outcome_stored(answer)
            ):
                answer.durable = True
                if kept:
                    # What others are told leaves in the order in which it was handled.
                    kept.append(answer)
                else:
                    entity.leave_now(answer)
                continue
            # Since the shard was last owned by others, perhaps, what was in memory before says nothing any more.
            all_true = all_true and answer.epoch >= entity.shard.unbroken_since
            if all_true and (answer.from_memory or _may_be_stored_again(answer)):
                kept.append(answer)
                continue
            saw_the_truth, all_true = all_true, False
            if isinstance(answer.failure, Refused) and saw_the_truth:
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
        return owned, kept, again

    def _let_durable_ones_go(self, answers: list[Answer]) -> None:
        """What is durable, and has only seen what is, need not wait for the journal to be read."""
        while answers and answers[0].durable and not (answers[0].from_memory and self._doubt):
            if answers[0].from_memory and not self._entity.shard.lease_is_valid():
                return
            self._entity.leave_now(answers.pop(0))

    def _end_broken(self, answers: list[Answer], broken: CallError, *, doubt: bool) -> None:
        """The state cannot be rebuilt. Each call is told what is known of it all the same."""
        for answer in answers:
            if answer.durable and not answer.from_memory:
                self._entity.leave_now(answer)
            elif doubt and not answer.from_memory:
                answer.call.fail(self._unknown(f"afterwards, {broken}"))
            else:
                answer.call.fail(broken)

    async def _stored_since(self, committed: int) -> set[tuple[str, int]]:
        """The commands whose events the journal has after the given sequence, each with the epoch that stored them.

        Under another epoch it may have been another copy of the command that was run elsewhere, on another state.
        """
        entity = self._entity
        page_events = entity.services.settings.recovery_page_events
        found: set[tuple[str, int]] = set()
        after = committed
        while True:
            page = await entity.services.store.read_stream(entity.stream, after=after, limit=page_events)
            found.update((decode_metadata(record.metadata).command_id, record.epoch) for record in page)
            if len(page) < page_events:
                return found
            after = page[-1].sequence

    async def _is_outcome_stored(self, answer: Answer) -> bool:
        """Whether the outcome of a command without events was stored."""
        entity, call = self._entity, answer.call
        if call.key is None:
            return False
        record = await entity.services.store.find_key(entity.stream, call.key, since_us=0)
        if record is None or record.epoch != answer.epoch:
            return False
        return decode_metadata(record.metadata).command_id == call.command_id

    async def find_command(self, command_id: str) -> bytes | None:
        """The outcome of a command among the entity's newest events, as far back as a retry may come."""
        entity = self._entity
        store, page_events = entity.services.store, entity.services.settings.recovery_page_events
        oldest_us = entity.now_us() - int(entity.services.settings.retry_window_s * 1e6)
        before = entity.sequence + 1
        while before > 1:
            after = max(0, before - 1 - page_events)
            page = await store.read_stream(entity.stream, after=after, limit=before - 1 - after)
            for record in page:
                if record.outcome is not None and decode_metadata(record.metadata).command_id == command_id:
                    return record.outcome
            if not page or page[0].time_us < oldest_us:
                return None
            before = page[0].sequence
        return None

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
        self._take(recovery)
        if services.loop.time() - started_s > services.settings.snapshot_after_recovery_s:
            await self._save_snapshot(recovery)

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

    def _take(self, recovery: Recovery) -> None:
        entity, services = self._entity, self._entity.services
        entity.state = recovery.state
        entity.sequence = entity.gate.committed = recovery.sequence
        entity.time_us = recovery.time_us
        entity.admission.forget_all()
        entity.snapshot_policy.restart(recovery.from_snapshot)
        if recovery.sequence == 0:
            # Asking for an id does not make it one that others see.
            return
        for name, view in entity.entity_type.published.items():
            try:
                value = view.value(entity.actor)
            except Exception as error:
                services.counters.effects_failed += 1
                entity.context.log.error("entity.not_published", entity=entity.stream, view=name, exc_info=error)
                continue
            services.publish(entity.shard.shard, entity.pid.type, name, entity.pid.id, recovery.sequence, value)

    async def _save_snapshot(self, recovery: Recovery) -> None:
        """The recovery took long: the next one is to be quicker. Nothing depends on this."""
        entity, store = self._entity, self._entity.services.store
        try:
            last = await store.read_stream(entity.stream, after=recovery.sequence - 1, limit=1)
            if not last or last[0].sequence != recovery.sequence:
                # Nothing was stored then; an append that was on its way may have been meanwhile.
                return
            snapshot = encode_snapshot(
                entity.entity_type,
                entity.stream,
                recovery.sequence,
                recovery.time_us,
                event_digest(last[0]),
                entity.state,
            )
        except (JournalError, TypeError, ValueError, OverflowError) as error:
            entity.context.log.error("entity.no_snapshot", entity=entity.stream, exc_info=error)
            return
        entity.snapshot_policy.taken(recovery.sequence, len(snapshot.payload))
        entity.services.save_snapshot(snapshot)

    def _break(self, broken: CallError, error: Exception) -> None:
        entity = self._entity
        broken.__cause__ = error
        entity.broken = broken
        entity.services.counters.recovery_failures += 1
        entity.context.log.error("entity.recovery_failed", entity=entity.stream, why=str(error))
        # Once this turn is over: the next call begins afresh.
        entity.services.loop.call_soon(entity.services.host.retire, entity.pid)

    def _unknown(self, why: str) -> OutcomeUnknown:
        return OutcomeUnknown(str(self._entity.pid), why)

    def _end_unread(self, answers: list[Answer], error: CallError) -> None:
        """Nothing more can be found out. What is known to be stored is answered, and tells others, all the same."""
        for answer in answers:
            if answer.call.progress is Progress.ENDED:
                # It has left, before the journal could not be read any more.
                continue
            if answer.durable and not answer.from_memory:
                self._entity.leave_now(answer)
            else:
                answer.call.fail(error)


def _may_be_stored_again(answer: Answer) -> bool:
    """Whether what is lost is only the outcome of a command that emitted nothing: it is as true as it was."""
    return answer.outcome is not None and not isinstance(answer.failure, Refused | Overloaded | JournalFailed)

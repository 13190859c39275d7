"""Admission (a shell): decides whether a call is run, answered as before, or ended at once.

A repeated command is recognised by its idempotency key, or by its id where the framework itself has sent it again. What
memory does not hold is looked up in the store; the entity's other calls wait meanwhile, so that order is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from actorkit.errors import CallError, IdempotencyKeyReused, JournalError, OutcomeUnknown, Overloaded, Unavailable
from actorkit.persistence.calls import EntityCall, Kind, Progress
from actorkit.persistence.deduplication import KeyMemory, Remembered
from actorkit.persistence.gate import Answer
from actorkit.persistence.records import decode_outcome

if TYPE_CHECKING:
    from actorkit.persistence.entity import Entity

__all__ = ["Admission"]

Step = Coroutine[Any, Any, None] | None
"""What is left to be awaited, if anything: most calls need nothing of the kind, and so no task."""


class Admission:
    """The incoming side of one entity."""

    def __init__(self, entity: Entity) -> None:
        settings = entity.services.settings
        self._entity = entity
        self._services = entity.services
        self._pending_max = settings.pending_max_answers
        self._window_us = int(settings.keys_window_s * 1e6)
        self._room: asyncio.Future[None] | None = None
        self.keys = KeyMemory(in_memory=settings.keys_in_memory, window_us=self._window_us)
        self.waits_for_room = False

    def forget_all(self) -> None:
        """The entity's memory is rebuilt: what is remembered here comes from the store again."""
        self.keys.forget_all()

    def admit(self, call: EntityCall) -> Step:
        entity = self._entity
        if call.progress is not Progress.QUEUED:
            return None
        if entity.lost:
            self._services.host.give_back([call])
            return None
        if entity.broken is not None:
            call.fail(entity.broken)
            self._services.host.retire(entity.pid)
            return None
        if len(entity.gate) >= self._pending_max:
            return self._when_there_is_room(call)
        if not self._services.writer.has_room and call.handler.kind is Kind.COMMAND:
            # Found out before anything is done, so that being overloaded costs nothing.
            call.fail(Overloaded("the queue of the journal's writer", limit=self._services.writer.queued))
            return None
        if call.key is not None:
            return self._admit_keyed(call, call.key)
        if call.attempt > 1 or self._may_have_been_sent_elsewhere(call):
            return self._admit_repeated(call)
        return entity.run(call)

    def _may_have_been_sent_elsewhere(self, call: EntityCall) -> bool:
        """Whether another copy of its caller may have made this call, too, without either knowing of the other.

        Where other nodes may own shards, the handler that calls may run at a node which has lost its entity and has not
        noticed yet. What it emits is fenced; whom it calls has to see that the new owner's handler has called already.
        """
        return bool(call.origin.chain) and self._entity.shard.tenure > 0 and call.handler.kind is Kind.COMMAND

    def has_room(self) -> None:
        """Answers have left the gate."""
        if self._room is not None and len(self._entity.gate) <= self._pending_max // 2:
            self.make_room()

    def make_room(self) -> None:
        """The entity has to settle, for which it must not be waiting here."""
        if self._room is not None:
            room, self._room, self.waits_for_room = self._room, None, False
            if not room.done():
                room.set_result(None)

    def _when_there_is_room(self, call: EntityCall) -> Step:
        # Answers may leave before the coroutine begins: it waits from now on, not from then.
        room = self._room = self._services.loop.create_future()
        self.waits_for_room = True
        return self._admit_after(room, call)

    async def _admit_after(self, room: asyncio.Future[None], call: EntityCall) -> None:
        await room
        if self._entity.settling.failed:
            self._entity.settling.undone(call, gone_out=False)
        else:
            await _rest(self.admit(call))

    # ---------------------------------------------------------------------------------------------------------- keys

    def _admit_keyed(self, call: EntityCall, key: str) -> Step:
        if not self.keys.loaded:
            return self._look_up_key(call, key)
        known = self.keys.find(key, self._entity.now_us())
        if known is not None:
            return self._repeat(call, known.outcome)
        if not self.keys.complete:
            return self._look_up_key(call, key)
        return self._run_new_key(call)

    def _run_new_key(self, call: EntityCall) -> Step:
        if self.keys.count >= self._services.settings.keys_max:
            return self._count_keys(call)
        return self._entity.run(call)

    async def _count_keys(self, call: EntityCall) -> None:
        """The count in memory may be too high, since keys that only the store has grow old unseen."""
        entity, limit = self._entity, self._services.settings.keys_max
        pending = sum(answer.call.key is not None for answer in entity.gate.waiting)
        try:
            stored = await self._services.store.count_keys(entity.stream, since_us=entity.now_us() - self._window_us)
        except JournalError as error:
            self._store_failed(call, error)
            return
        self.keys.count = pending + stored
        if self.keys.count >= limit:
            full = Overloaded(f"the memory of idempotency keys of {entity.pid}", limit=limit, retry_after_s=60)
            call.fail(full)
            return
        await _rest(entity.run(call))

    async def _look_up_key(self, call: EntityCall, key: str) -> None:
        """What memory does not hold, the store's index does."""
        entity, store = self._entity, self._services.store
        since_us = entity.now_us() - self._window_us
        try:
            if not self.keys.loaded:
                await self._load_keys(since_us)
            known = self.keys.find(key, entity.now_us())
            if known is None and not self.keys.complete:
                record = await store.find_key(entity.stream, key, since_us=since_us)
                if record is not None and record.outcome is not None:
                    known = Remembered(record.outcome, record.time_us)
        except JournalError as error:
            self._store_failed(call, error)
            return
        await _rest(self._repeat(call, known.outcome) if known is not None else self._run_new_key(call))

    async def _load_keys(self, since_us: int) -> None:
        stream, store = self._entity.stream, self._services.store
        limit = self._services.settings.keys_in_memory
        newest = await store.recent_keys(stream, since_us=since_us, limit=limit)
        count = len(newest) if len(newest) < limit else await store.count_keys(stream, since_us=since_us)
        remembered = [(r.key, Remembered(r.outcome, r.time_us)) for r in reversed(newest) if r.key and r.outcome]
        self.keys.load(remembered, count)

    # --------------------------------------------------------------------------------------------------- command ids

    async def _admit_repeated(self, call: EntityCall) -> None:
        """A command that was sent before: it may be waiting at the gate, or be among the newest events."""
        entity = self._entity
        for answer in entity.gate.waiting:
            if answer.call.command_id == call.command_id:
                self._answer(call, answer.reply, answer.rejected)
                return
        try:
            known = await entity.settling.find_command(call.command_id)
        except JournalError as error:
            self._store_failed(call, error)
            return
        await _rest(self._repeat(call, known) if known is not None else entity.run(call))

    # ------------------------------------------------------------------------------------------------------- outcome

    def _repeat(self, call: EntityCall, stored: bytes) -> Step:
        """Answers as the first time."""
        self._services.counters.deduplicated += 1
        entity = self._entity
        outcome = decode_outcome(stored)
        if call.key is not None and outcome.digest != call.digest:
            reused = IdempotencyKeyReused(
                f"the idempotency key {call.key!r} was used before on {entity.pid}, for another call or other "
                "arguments: use a new key for a new command"
            )
            ending: CallError | None = reused
        else:
            ending = outcome.rejection()
        reply = None
        if ending is None:
            try:
                reply = call.handler.signature.decode_reply(outcome.reply)
            except msgspec.MsgspecError as error:
                why = f"it was executed before, and its reply of then does not fit the type declared now: {error}"
                ending = OutcomeUnknown(str(entity.pid), why)
        self._answer(call, reply, ending)
        return None

    def _answer(self, call: EntityCall, reply: Any, ending: CallError | None) -> None:
        entity = self._entity
        entity.answer_from_memory(Answer(call, reply, ending, entity.sequence, entity.shard.epoch, True, True))

    def _store_failed(self, call: EntityCall, error: JournalError) -> None:
        call.fail(Unavailable(str(self._entity.pid), f"the journal cannot be read: {error}"))


async def _rest(step: Step) -> None:
    if step is not None:
        await step

"""Entities (a shell): which entities of this process are in memory, and how they come and go.

They come with their first call, as many at a time as are recovered at once, and leave when they were idle for long,
when there are too many, or when their activation cannot go on.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable

from actorkit.actor.cell import Cell
from actorkit.actor.runtime import ActorRuntime
from actorkit.errors import CallError, Overloaded, Unavailable
from actorkit.ids import PersistenceId
from actorkit.persistence.calls import EntityCall
from actorkit.persistence.declaration import EntityType
from actorkit.persistence.entity import Entity
from actorkit.persistence.services import EntityServices
from actorkit.sharding.activation_queue import ActivationQueue
from actorkit.sharding.settings import ShardingSettings
from actorkit.sharding.shard import Shard

__all__ = ["Entities", "Slot"]

_SWEEPS = 10
"""How many sweeps for idle entities there are in one ``passivate_after_s``."""
_LOOKS = 64
_LOOKS_OF_A_SWEEP = 10_000
"""How many entities are looked at, at once, for some that can leave when there are too many."""
_QUEUE_TICK_S = 0.1
"""How often it is looked, while entities wait to come into memory, which of them wait in vain."""


class Slot:
    """One entity in memory: its actor's cell, and the instance that runs there."""

    __slots__ = ("cell", "entity", "shard", "used_tick")

    def __init__(self, shard: Shard, tick: int) -> None:
        self.shard = shard
        self.used_tick = tick
        self.cell: Cell
        self.entity: Entity | None = None

    @property
    def idle(self) -> bool:
        cell = self.cell
        return cell.asleep and not cell.mailbox and not cell.system and self.entity is not None and self.entity.idle

    @property
    def may_leave(self) -> bool:
        """Whether nothing is lost if the entity leaves memory, its timers included."""
        return self.idle and self.entity is not None and not self.entity.has_timers


class Entities:
    """All entities of a region that are in memory."""

    def __init__(
        self, runtime: ActorRuntime, settings: ShardingSettings, shard_of_number: Callable[[int], Shard], *, name: str
    ) -> None:
        self._runtime = runtime
        self._settings = settings
        self._shard_of_number = shard_of_number
        self._name = name
        self._sweeper: asyncio.TimerHandle | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._types: dict[str, EntityType]
        self._queue: ActivationQueue
        self._recovering: set[Slot] = set()
        """Those that are in memory and have not recovered for the first time."""
        self._services: EntityServices
        self.bound = 2 * settings.entities_max
        """How many there are at most."""
        self.slots: OrderedDict[PersistenceId, Slot] = OrderedDict()
        """Those that were used last stand last."""
        self.kept: dict[PersistenceId, Callable[[Slot], None]] = {}
        """Those that are never idle for too long, nor too many, and what each of their activations begins with."""
        self._by_shard: dict[int, dict[PersistenceId, Slot]] = {}
        self.tick = 0
        """Counts sweeps: when an entity was used last is told in these."""

    def start(self, services: EntityServices, types: dict[str, EntityType]) -> None:
        self._services = services
        self._types = types
        self._recoveries_max = services.settings.recoveries_max
        self._queue = ActivationQueue(
            calls_max=self._settings.buffer_max_calls, entity_calls_max=services.settings.mailbox_max_calls
        )
        self._sweep_later()

    def stop_sweeping(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()

    def close(self) -> None:
        """Nothing comes into memory any more; calls that wait for that have ended."""
        self.stop_sweeping()
        if self._ticker is not None:
            self._ticker.cancel()
        self._queue.clear()

    @property
    def all_idle(self) -> bool:
        return not self._queue and all(slot.idle for slot in self.slots.values())

    @property
    def waiting(self) -> int:
        """For metrics: entities that wait to come into memory."""
        return len(self._queue)

    def of(self, shard: Shard) -> list[tuple[PersistenceId, Slot]]:
        """Those in memory that belong to the shard."""
        return list(self._by_shard.get(shard.shard, {}).items())

    def _slots_of(self, shard: Shard) -> Iterable[Slot]:
        return self._by_shard.get(shard.shard, {}).values()

    def busy(self, shard: Shard) -> list[PersistenceId]:
        """Those of the shard that have calls in progress."""
        return [*(pid for pid, slot in self.of(shard) if not slot.idle), *self._queue.of(shard.shard)]

    def is_quiet(self, shard: Shard) -> bool:
        """Whether none of the shard has calls in progress."""
        return not self._queue.of(shard.shard) and all(slot.idle for slot in self._slots_of(shard))

    def settles(self, shard: Shard) -> bool:
        """Whether one of the shard, whose epoch was raised, is still finding out what became of its appends."""
        if shard.doubtful:
            entities = [slot.entity for slot in self._slots_of(shard)]
            shard.doubtful = any(entity is not None and entity.settling.failed for entity in entities)
        return shard.doubtful

    def is_idle(self, shard: int, pid: PersistenceId) -> bool:
        """Whether it has nothing in progress, if it is in memory at all."""
        slot = self.slots.get(pid)
        return not self._queue.has(shard, pid) if slot is None else slot.idle

    # ------------------------------------------------------------------------------------------------- into memory

    def bring_in(self, call: EntityCall, shard: Shard) -> None:
        """A call for an entity that is not in memory."""
        self._too_many(self._queue.add(shard.shard, call))
        self.go_on()

    def go_on(self) -> None:
        """As many come into memory as may recover at once."""
        while self._queue and len(self._recovering) < self._recoveries_max:
            found = self._queue.next(self._is_ready)
            if found is None:
                break
            number, pid, calls = found
            if not self._has_room():
                _overloaded(calls, f"the memory for entities of {self._name}", self.bound)
                continue
            slot = self._activate(self._types[pid.type], pid, self._shard_of_number(number))
            slot.cell.mailbox.extend(calls)
            slot.cell.wake()
        if self._queue and self._ticker is None:
            self._tick()

    def _is_ready(self, number: int) -> bool:
        return self._shard_of_number(number).ready

    def _tick(self) -> None:
        self._ticker = None
        self._too_many(self._queue.tick(self._services.loop.time()))
        if self._queue:
            self._ticker = self._services.loop.call_later(_QUEUE_TICK_S, self._tick)

    def _too_many(self, calls: list[EntityCall]) -> None:
        _overloaded(calls, f"what waits to come into memory on {self._name}", self._settings.buffer_max_calls)

    def recovered(self, pid: PersistenceId, entity: object) -> None:
        """Its first recovery has come to its end: there is room for another."""
        slot = self.slots.get(pid)
        if slot is not None and slot.entity is entity and slot in self._recovering:
            self._recovering.discard(slot)
            self.go_on()

    def _has_room(self) -> bool:
        """Whether one more may come; makes room if it can."""
        if len(self.slots) >= self.bound:
            self._shrink(_LOOKS)
        return len(self.slots) < self.bound

    def _activate(self, entity_type: EntityType, pid: PersistenceId, shard: Shard) -> Slot:
        slot = Slot(shard, self.tick)
        services = self._services

        def make() -> Entity:
            try:
                slot.entity = Entity(entity_type, pid, shard, services)
            except Exception as error:
                failure = Unavailable(str(pid), f"its constructor failed with {error!r}")
                failure.__cause__ = error
                self.end(pid, slot, failure)
                raise
            return slot.entity

        slot.cell = self._runtime.spawn(make, mailbox=services.settings.mailbox_max_calls).cell
        self.slots[pid] = slot
        self._recovering.add(slot)
        self._by_shard.setdefault(shard.shard, {})[pid] = slot
        if pid in self.kept:
            self.kept[pid](slot)
        if len(self.slots) > self._settings.entities_max:
            self._shrink(_LOOKS)
        return slot

    # ------------------------------------------------------------------------------------------------ out of memory

    def _shrink(self, looks: int) -> None:
        """While there are too many, those that were not used for longest leave, unless they are busy or have timers.

        Looks at a bounded number of them. What has to stay goes to the end of the line, so the next time goes on with
        those behind it.
        """
        slots = self.slots
        for _ in range(min(looks, len(slots))):
            if len(slots) <= self._settings.entities_max:
                return
            pid, slot = next(iter(slots.items()))
            if slot.may_leave and pid not in self.kept:
                self.passivate(pid)
            else:
                slots.move_to_end(pid)
                slot.used_tick = self.tick

    def remove(self, pid: PersistenceId) -> Slot:
        """From now on calls go to a new activation."""
        slot = self.slots.pop(pid)
        of_shard = self._by_shard[slot.shard.shard]
        del of_shard[pid]
        if not of_shard:
            del self._by_shard[slot.shard.shard]
        if slot in self._recovering:
            self._recovering.discard(slot)
            self._services.loop.call_soon(self.go_on)
        return slot

    def passivate(self, pid: PersistenceId) -> None:
        """It leaves memory; it has nothing in progress."""
        slot = self.remove(pid)
        assert slot.entity is not None
        slot.entity.context.stop()

    def end(self, pid: PersistenceId, slot: Slot, error: CallError) -> None:
        """This activation cannot go on: whoever waits for it gets the error, and later calls a new activation."""
        if self.slots.get(pid) is slot:
            self.remove(pid)
        waiting = [call for call in slot.cell.mailbox if type(call) is EntityCall]
        slot.cell.mailbox.clear()
        slot.cell.post(slot.cell.life.stop)
        for call in waiting:
            call.fail(error)

    def take_out(self, pid: PersistenceId, entity: object) -> list[EntityCall]:
        """The activation ends; the calls in its mailbox are the caller's to look after."""
        slot = self.slots.get(pid)
        if slot is None or slot.entity is None or slot.entity is not entity:
            return []
        self.remove(pid)
        waiting = [call for call in slot.cell.mailbox if type(call) is EntityCall]
        slot.cell.mailbox.clear()
        slot.entity.context.stop()
        return waiting

    def take_back(self, shard: Shard) -> list[EntityCall]:
        """The calls of the shard that have not begun; they are the caller's to look after."""
        taken: list[EntityCall] = []
        for _, slot in self.of(shard):
            mailbox = slot.cell.mailbox
            waiting = list(mailbox)
            mailbox.clear()
            for message in waiting:
                if type(message) is EntityCall:
                    taken.append(message)
                else:
                    mailbox.append(message)
        return [*taken, *self._queue.take(shard.shard)]

    def cut_off(self, shard: Shard) -> None:
        """Handlers of the shard that still run are cancelled; their calls are undone."""
        for _, slot in self.of(shard):
            if slot.entity is not None and slot.entity.running is not None:
                slot.entity.running.end()

    def abandon(self, shard: Shard) -> list[PersistenceId]:
        """The shard is given up although something is in progress: whatever that yet does is fenced.

        Returns which entities that are. Their calls in progress end as unknown, as far as they have begun.
        """
        left: list[PersistenceId] = []
        for pid, slot in self.of(shard):
            if slot.idle:
                continue
            left.append(pid)
            self.remove(pid)
            if slot.entity is None:
                continue
            why = "its shard went to another node before its outcome was known"
            slot.entity.settling.fail(doubt=True)
            if slot.entity.running is not None:
                slot.entity.running.call.give_up(why)
            slot.entity.abandon(why)
            slot.cell.post(slot.cell.life.stop)
        return left

    def retire(self, pid: PersistenceId) -> None:
        """It is broken. Under load its mailbox is never empty, so those who wait there now are told as others were."""
        slot = self.slots.get(pid)
        if slot is None or slot.entity is None or slot.cell.task is not None:
            return
        if slot.entity.broken is not None and slot.entity.idle:
            self.end(pid, slot, slot.entity.broken)

    def forget(self, pid: PersistenceId, entity: object) -> None:
        """It has stopped."""
        slot = self.slots.get(pid)
        if slot is not None and slot.entity is entity:
            self.remove(pid)
        if len(self.slots) > self._settings.entities_max:
            # One has left for lack of room, and there may be more that can.
            self._shrink(_LOOKS)

    def invalidate(self, shard: Shard) -> None:
        """Somebody else may have written: what is in memory of this shard does not count any more."""
        for pid, slot in self.of(shard):
            if slot.idle:
                self.passivate(pid)
            elif slot.entity is not None:
                slot.entity.settling.fail(doubt=True)

    def _sweep_later(self) -> None:
        delay_s = self._settings.passivate_after_s / _SWEEPS
        self._sweeper = asyncio.get_running_loop().call_later(delay_s, self._sweep)

    def _sweep(self) -> None:
        self.tick += 1
        old: list[PersistenceId] = []
        for pid, slot in self.slots.items():
            if self.tick - slot.used_tick <= _SWEEPS:
                break
            old.append(pid)
        for pid in old:
            if self.slots[pid].may_leave and pid not in self.kept:
                self.passivate(pid)
        self._shrink(_LOOKS_OF_A_SWEEP)
        self._sweep_later()


def _overloaded(calls: list[EntityCall], what: str, limit: int) -> None:
    for call in calls:
        call.fail(Overloaded(what, limit=limit))

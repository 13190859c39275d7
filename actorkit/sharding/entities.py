"""Entities (a shell): which entities of this process are in memory, and how they come and go.

They come with their first call, and leave when they were idle for long, when there are too many, or when their
activation cannot go on.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from actorkit.actor.cell import Cell
from actorkit.actor.runtime import ActorRuntime
from actorkit.errors import CallError, Unavailable
from actorkit.ids import PersistenceId
from actorkit.persistence.calls import EntityCall
from actorkit.persistence.declaration import EntityType
from actorkit.persistence.entity import Entity
from actorkit.persistence.services import EntityServices
from actorkit.sharding.settings import ShardingSettings
from actorkit.sharding.shard import Shard

__all__ = ["Entities", "Slot"]

_SWEEPS = 10
"""How many sweeps for idle entities there are in one ``passivate_after_s``."""
_LOOKS = 64
_LOOKS_OF_A_SWEEP = 10_000
"""How many entities are looked at, at once, for some that can leave when there are too many."""


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

    def __init__(self, runtime: ActorRuntime, settings: ShardingSettings) -> None:
        self._runtime = runtime
        self._settings = settings
        self._sweeper: asyncio.TimerHandle | None = None
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

    def start(self, services: EntityServices) -> None:
        self._services = services
        self._sweep_later()

    def stop_sweeping(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()

    @property
    def all_idle(self) -> bool:
        return all(slot.idle for slot in self.slots.values())

    def of(self, shard: Shard) -> list[tuple[PersistenceId, Slot]]:
        """Those in memory that belong to the shard."""
        return list(self._by_shard.get(shard.shard, {}).items())

    def busy(self, shard: Shard) -> list[PersistenceId]:
        """Those of the shard that have calls in progress."""
        return [pid for pid, slot in self.of(shard) if not slot.idle]

    def is_idle(self, pid: PersistenceId) -> bool:
        """Whether it has nothing in progress, if it is in memory at all."""
        slot = self.slots.get(pid)
        return slot is None or slot.idle

    # ------------------------------------------------------------------------------------------------- into memory

    def has_room(self) -> bool:
        """Whether one more may come; makes room if it can."""
        if len(self.slots) >= self.bound:
            self._shrink(_LOOKS)
        return len(self.slots) < self.bound

    def activate(self, entity_type: EntityType, pid: PersistenceId, shard: Shard) -> Slot:
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
        return taken

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

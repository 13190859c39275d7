"""Singletons (a shell): entities that are kept active without anybody calling them.

Intuition: a singleton is an entity with a fixed id. The owner of its shard activates it as soon as the shard is its
own, and again whenever it is not in memory; each activation begins with the singleton's command ``started``, before any
other call. So it moves as its shard does, and there are never two that could both commit: the fence is the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import structlog

from actorkit.errors import ConfigurationError, Unavailable
from actorkit.ids import PersistenceId, shard_of
from actorkit.persistence.actor import entity_type_of
from actorkit.persistence.calls import EntityCall, Kind, Progress
from actorkit.persistence.declaration import EntityType
from actorkit.persistence.entity import Entity
from actorkit.sharding.entities import Slot
from actorkit.sharding.region import Region
from actorkit.sharding.settings import ShardingSettings
from actorkit.sharding.shard import Shard

__all__ = ["SINGLETON_ID", "Singletons", "check_singleton"]

SINGLETON_ID: Final = "singleton"
"""The id of every singleton; its type tells it from others."""
_STARTED = "started"
_LOOK_S = 0.5
"""How often it is looked whether all are active: for what has ended them without anybody saying so."""
_BACKOFF_FIRST_S = 0.1

_log = structlog.get_logger("actorkit.sharding")


def check_singleton(cls: type[Any]) -> None:
    """Raises ``ConfigurationError`` where the class has no command ``started`` that can be called without arguments."""
    handler = entity_type_of(cls).handlers.get(_STARTED)
    if handler is None or handler.kind is not Kind.COMMAND or handler.signature.required:
        raise ConfigurationError(
            f"{cls.__qualname__} cannot be a singleton: give it a command `def {_STARTED}(self) -> None`, which is "
            "called whenever it has become active, and which starts its timers"
        )


class _Singleton:
    """One of them, as far as this process has to do with it."""

    __slots__ = ("active", "call", "failures", "handler", "pid", "retry_s", "shard")

    def __init__(self, entity_type: EntityType, shards: int) -> None:
        self.handler = entity_type.handlers[_STARTED]
        self.pid = PersistenceId(entity_type.name, SINGLETON_ID)
        self.shard = shard_of(str(self.pid), shards)
        self.active: Entity | None = None
        """The instance that has been started."""
        self.call: EntityCall | None = None
        """The call of ``started`` that is on its way."""
        self.failures = 0
        self.retry_s = 0.0
        """Before this it is not started again."""


class Singletons:
    """All singletons of a system, those included that other nodes own."""

    def __init__(self, region: Region, entity_types: Sequence[EntityType], *, shards: int, settings: ShardingSettings):
        """``region`` knows the types."""
        self._region = region
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._singletons = [_Singleton(entity_type, shards) for entity_type in entity_types]
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def start(self) -> None:
        """From now on those whose shards are owned here are active."""
        memory = self._region.memory
        for each in self._singletons:
            memory.kept[each.pid] = partial(self._begin, each)
        self._region.served = self._served
        if self._singletons:
            self._look()

    def close(self) -> None:
        """What is active stays so until its shard is given up; nothing is started any more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    @property
    def active(self) -> int:
        """For metrics: how many are active here."""
        slots = self._region.memory.slots
        return sum(
            each.active is not None and (slot := slots.get(each.pid)) is not None and slot.entity is each.active
            for each in self._singletons
        )

    def _served(self, shard: Shard) -> None:
        if any(each.shard == shard.shard for each in self._singletons):
            # Calls are taken when whatever tells of it has come to its end.
            self._loop.call_soon(self._ensure_all)

    def _look(self) -> None:
        self._ensure_all()
        self._timer = self._loop.call_later(_LOOK_S, self._look)

    def _ensure_all(self) -> None:
        for each in self._singletons:
            self._ensure(each)

    def _ensure(self, each: _Singleton) -> None:
        shard = self._region.shard(each.shard)
        if self._closed or each.call is not None or not shard.direct or self._loop.time() < each.retry_s:
            return
        memory = self._region.memory
        slot = memory.slots.get(each.pid)
        if slot is not None and slot.cell.capacity < 0:
            # It has stopped without having been told to, as after failing again and again.
            memory.remove(each.pid)
            slot = None
        if slot is None:
            self._region.enter(self._call(each, shard))
        elif slot.entity is not each.active:
            self._begin(each, slot)

    def _begin(self, each: _Singleton, slot: Slot) -> None:
        """The first call of an activation, whoever has caused that."""
        if not self._closed:
            slot.cell.requeue([self._call(each, slot.shard)])

    def _call(self, each: _Singleton, shard: Shard) -> EntityCall:
        """A call of ``started``, in place of an earlier one that has not begun."""
        earlier, handler = each.call, each.handler
        call = each.call = self._region.send_to_self(each.pid, handler, handler.signature.bind((), {}))
        call.tenure, call.hand_back = shard.tenure, _not_elsewhere
        call.future.add_done_callback(partial(self._begun, each, call))
        if earlier is not None and earlier.progress is Progress.QUEUED:
            earlier.fail(Unavailable(str(each.pid), "it is started by another call"))
        return call

    def _begun(self, each: _Singleton, call: EntityCall, future: asyncio.Future[Any]) -> None:
        if each.call is not call:
            return
        each.call = None
        each.active = None
        error = None if future.cancelled() else future.exception()
        if error is None:
            slot = self._region.memory.slots.get(each.pid)
            each.active = None if slot is None else slot.entity
            each.failures, each.retry_s = 0, 0.0
            _log.info("singleton.active", singleton=str(each.pid), shard=each.shard)
            return
        if self._closed or not self._region.shard(each.shard).direct:
            return
        delay_s = min(_BACKOFF_FIRST_S * 2.0 ** min(each.failures, 20), self._settings.singleton_retry_max_s)
        each.failures += 1
        each.retry_s = self._loop.time() + delay_s
        _log.warning("singleton.not_started", singleton=str(each.pid), why=str(error), again_in_s=delay_s)


def _not_elsewhere(call: EntityCall) -> None:
    """The next owner starts it by itself."""
    call.fail(Unavailable(str(call.pid), "its shard has another owner now"))

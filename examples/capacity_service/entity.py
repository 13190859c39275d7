"""The pool as a persistent actor: one writer for each pool, which decides by the rules in ``domain``."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct

from actorkit import PersistentActor, by, by_window, command, published, query
from examples.capacity_service.answers import (
    PoolAnswer,
    PoolDescription,
    PoolView,
    ReleaseAnswer,
    ReservationAnswer,
    ReserveAnswer,
)
from examples.capacity_service.domain import (
    PoolChange,
    PoolChanged,
    PoolCreated,
    PoolNotFound,
    PoolState,
    Released,
    Reserved,
    change,
    find,
    release,
    reserve,
)
from examples.capacity_service.ids import full_id, made_part

__all__ = ["Pool", "PoolSettings", "describe"]


class PoolSettings(Struct, frozen=True, kw_only=True):
    """What can be set about pools."""

    released_memory_s: float = 24 * 3600
    """How long a reservation is remembered once it is released, at least. Memory: about 200 bytes each."""
    reservations_max: int = 1_000_000
    """Reservations that one pool remembers, held or released; beyond that, ``overloaded``."""


class Pool(PersistentActor[PoolState, PoolCreated | PoolChanged | Reserved | Released], name="pool"):
    """One pool. Its version is the number of its events, since each change makes one."""

    settings: ClassVar[PoolSettings] = PoolSettings()
    """One for the process, set before the first pool is in memory. Events carry what follows from it, so that a replay
    under another setting gives the same state."""

    @command
    def change(self, wanted: PoolChange) -> PoolAnswer:
        """Creates the pool, or changes the given members of it."""
        event = change(self.state, wanted)
        if event is not None:
            self.emit(event)
        state = self.state
        return PoolAnswer(self.entity_id, state.capacity, state.reserved, state.remaining, state.version)

    @command
    def reserve(self, quantity: int, client_part: str | None) -> ReserveAnswer:
        """Grants the quantity; answers as it did first where the client repeats its own reservation."""
        part = made_part(self.context.new_id()) if client_part is None else client_part
        event = reserve(
            self.state,
            part,
            quantity,
            forget_before_us=self._forget_before_us(),
            reservations_max=self.settings.reservations_max,
        )
        if event is not None:
            self.emit(event)
        pool_id, granted = self.entity_id, self.state.reservations[part]
        return ReserveAnswer(full_id(pool_id, part), pool_id, quantity, granted.remaining, granted.version)

    @command
    def release(self, part: str, quantity: int | None) -> ReleaseAnswer:
        """Frees the quantity, at most what is held; all of it where no quantity is given."""
        pool_id = self.entity_id
        event = release(
            self.state,
            pool_id,
            part,
            quantity,
            now_us=self.context.now_us,
            forget_before_us=self._forget_before_us(),
        )
        if event is not None:
            self.emit(event)
        state = self.state
        return ReleaseAnswer(
            reservation_id=full_id(pool_id, part),
            pool_id=pool_id,
            released=0 if event is None else event.quantity,
            held=state.reservations[part].held,
            remaining=state.remaining,
            version=state.version,
        )

    @query
    def describe(self) -> PoolDescription:
        """The pool and its attributes as they are now."""
        return describe(self.entity_id, self.state)

    @query
    def reservation(self, part: str) -> ReservationAnswer:
        """A reservation as it is now."""
        pool_id = self.entity_id
        known = find(self.state, pool_id, part)
        return ReservationAnswer(
            full_id(pool_id, part), pool_id, known.quantity, known.held, "held" if known.held else "released"
        )

    @published(indexes=[by("region"), by_window("starts_at", "ends_at")])
    def availability(self) -> PoolView | None:
        """What everyone asks for all the time, from the read model."""
        state = self.state
        if not state.exists:
            return None
        return PoolView(
            pool_id=self.entity_id,
            capacity=state.capacity,
            remaining=state.remaining,
            version=state.version,
            region=state.region,
            starts_at=state.starts_at,
            ends_at=state.ends_at,
            labels=state.labels,
        )

    def _forget_before_us(self) -> int:
        return self.context.now_us - int(self.settings.released_memory_s * 1_000_000)


def describe(pool_id: str, state: PoolState) -> PoolDescription:
    """A pool, present or past. Raises ``PoolNotFound`` for one that did not exist."""
    if not state.exists:
        raise PoolNotFound("there is no such pool")
    return PoolDescription(
        pool_id=pool_id,
        capacity=state.capacity,
        reserved=state.reserved,
        remaining=state.remaining,
        version=state.version,
        region=state.region,
        starts_at=state.starts_at,
        ends_at=state.ends_at,
        labels=state.labels,
    )

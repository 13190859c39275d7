"""Pools and reservations: what has happened to a pool, what that adds up to, and what may happen next.

Everything here is a pure function of its arguments. Deciding functions look at the state and return the one event that
the command makes, or ``None`` where there is nothing to change; every change is one event, so a pool's version grows by
exactly one. Refusals are raised.

A released reservation is remembered for a while, so that a late retry of a reservation or of a release is recognised.
State may depend on nothing but events, so each event carries the time before which its writer wanted released
reservations forgotten.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import UNSET, Struct, UnsetType, field

from actorkit.errors import Rejected
from actorkit.persistence.events import Event
from actorkit.persistence.state import State, applies
from examples.capacity_service.ids import full_id

__all__ = [
    "InsufficientCapacity",
    "InvalidChange",
    "PoolChange",
    "PoolChanged",
    "PoolCreated",
    "PoolNotFound",
    "PoolState",
    "PoolTooLarge",
    "Released",
    "Reservation",
    "ReservationConflict",
    "ReservationNotFound",
    "Reserved",
    "change",
    "release",
    "reserve",
]


# ---------------------------------------------------------------------------------------------------------- refusals


class PoolNotFound(Rejected, code="pool-not-found", remembered=False):
    """There is no such pool."""


class ReservationNotFound(Rejected, code="reservation-not-found", remembered=False):
    """There is no such reservation, or it was released long ago."""


class InvalidChange(Rejected, code="invalid-request", remembered=False):
    """What was asked for does not fit what the pool is."""


class InsufficientCapacity(Rejected, code="insufficient-capacity"):
    """Less remains than was asked for."""


class ReservationConflict(Rejected, code="reservation-conflict"):
    """The client's reservation id was used before for another quantity."""


class PoolTooLarge(Rejected, code="overloaded", remembered=False):
    """The pool remembers as many reservations as it may."""


# ------------------------------------------------------------------------------------------------------------ events


class PoolCreated(Event, name="pool-created"):
    """The pool exists from now on."""

    capacity: int
    region: str | None = None
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    labels: dict[str, str] = field(default_factory=dict[str, str])


class PoolChanged(Event, name="pool-changed", omit_defaults=True):
    """Some members of the pool have new values; ``None`` removes an attribute, an absent member stays."""

    capacity: int | UnsetType = UNSET
    region: str | UnsetType | None = UNSET
    starts_at: datetime | UnsetType | None = UNSET
    ends_at: datetime | UnsetType | None = UNSET
    labels: dict[str, str] | UnsetType = UNSET


class Reserved(Event, name="reserved"):
    """Units are held under a new reservation."""

    part: str
    quantity: int
    forget_before_us: int = 0


class Released(Event, name="released"):
    """Some or all units of a reservation are free again."""

    part: str
    quantity: int
    at_us: int
    forget_before_us: int = 0


# ------------------------------------------------------------------------------------------------------------- state


class Reservation(Struct, array_like=True, gc=False):
    """A reservation, and the facts of its first answer, which every retry gets again."""

    quantity: int
    held: int
    remaining: int
    version: int


class PoolState(State):
    """A pool. Before its creation it has no events, and ``version`` is 0."""

    version: int = 0
    capacity: int = 0
    reserved: int = 0
    region: str | None = None
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    labels: dict[str, str] = field(default_factory=dict[str, str])
    reservations: dict[str, Reservation] = field(default_factory=dict[str, Reservation])
    released: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    """When (in microseconds) which reservation was released entirely, in that order."""
    forgotten: int = 0
    """How many entries at the front of ``released`` are of no use any more."""

    @property
    def exists(self) -> bool:
        return self.version > 0

    @property
    def remaining(self) -> int:
        return max(0, self.capacity - self.reserved)

    @applies(PoolCreated)
    def created(self, event: PoolCreated) -> None:
        self.version += 1
        self.capacity = event.capacity
        self.region = event.region
        self.starts_at = event.starts_at
        self.ends_at = event.ends_at
        self.labels = event.labels

    @applies(PoolChanged)
    def changed(self, event: PoolChanged) -> None:
        self.version += 1
        if event.capacity is not UNSET:
            self.capacity = event.capacity
        if event.region is not UNSET:
            self.region = event.region
        if event.starts_at is not UNSET:
            self.starts_at = event.starts_at
        if event.ends_at is not UNSET:
            self.ends_at = event.ends_at
        if event.labels is not UNSET:
            self.labels = event.labels

    @applies(Reserved)
    def granted(self, event: Reserved) -> None:
        self.version += 1
        self._forget(event.forget_before_us)
        self.reserved += event.quantity
        self.reservations[event.part] = Reservation(event.quantity, event.quantity, self.remaining, self.version)

    @applies(Released)
    def freed(self, event: Released) -> None:
        self.version += 1
        self._forget(event.forget_before_us)
        self.reserved -= event.quantity
        reservation = self.reservations[event.part]
        reservation.held -= event.quantity
        if not reservation.held:
            self.released.append((event.at_us, event.part))

    def _forget(self, before_us: int) -> None:
        released, forgotten = self.released, self.forgotten
        while forgotten < len(released) and released[forgotten][0] < before_us:
            del self.reservations[released[forgotten][1]]
            forgotten += 1
        # Cutting the front off only when it is half of the list keeps this cheap however long the list is.
        if forgotten * 2 > len(released):
            del released[:forgotten]
            forgotten = 0
        self.forgotten = forgotten


# --------------------------------------------------------------------------------------------------------- decisions


class PoolChange(Struct, frozen=True):
    """What is to become of a pool: the given members; ``None`` removes an attribute."""

    capacity: int | UnsetType = UNSET
    region: str | UnsetType | None = UNSET
    starts_at: datetime | UnsetType | None = UNSET
    ends_at: datetime | UnsetType | None = UNSET
    labels: dict[str, str] | UnsetType = UNSET


def change(state: PoolState, wanted: PoolChange) -> PoolCreated | PoolChanged | None:
    """Creates the pool, or changes the given members of one."""
    starts_at = state.starts_at if wanted.starts_at is UNSET else wanted.starts_at
    ends_at = state.ends_at if wanted.ends_at is UNSET else wanted.ends_at
    if starts_at is not None and ends_at is not None and not starts_at < ends_at:
        raise InvalidChange("starts_at must be before ends_at")
    if not state.exists:
        if wanted.capacity is UNSET:
            raise InvalidChange("there is no such pool yet: capacity is required to create it")
        region = None if wanted.region is UNSET else wanted.region
        labels = {} if wanted.labels is UNSET else wanted.labels
        return PoolCreated(wanted.capacity, region, starts_at, ends_at, labels)
    new: dict[str, Any] = {}
    for name in PoolChange.__struct_fields__:
        value = getattr(wanted, name)
        if value is not UNSET and value != getattr(state, name):
            new[name] = value
    return PoolChanged(**new) if new else None


def reserve(
    state: PoolState, part: str, quantity: int, *, forget_before_us: int, reservations_max: int
) -> Reserved | None:
    """Grants the quantity, or nothing anew where the same reservation was granted before."""
    if not state.exists:
        raise PoolNotFound("there is no such pool")
    known = state.reservations.get(part)
    if known is not None:
        if known.quantity == quantity:
            return None
        raise ReservationConflict(
            f"this reservation_id was used for a quantity of {known.quantity}, not {quantity}", version=state.version
        )
    remaining = state.remaining
    if quantity > remaining:
        raise InsufficientCapacity(
            f"{remaining} remain, {quantity} were requested",
            remaining=remaining,
            requested=quantity,
            version=state.version,
        )
    if len(state.reservations) >= reservations_max:
        raise PoolTooLarge(f"the pool remembers {reservations_max} reservations already")
    return Reserved(part, quantity, forget_before_us)


def release(
    state: PoolState, pool_id: str, part: str, quantity: int | None, *, now_us: int, forget_before_us: int
) -> Released | None:
    """Frees the quantity, at most what is held, and all of it where no quantity is given."""
    known = find(state, pool_id, part)
    if not known.held:
        return None
    freed = known.held if quantity is None else min(quantity, known.held)
    return Released(part, freed, now_us, forget_before_us)


def find(state: PoolState, pool_id: str, part: str) -> Reservation:
    """The reservation, held or released."""
    known = state.reservations.get(part)
    if known is None:
        raise ReservationNotFound(f"there is no reservation {full_id(pool_id, part)}")
    return known

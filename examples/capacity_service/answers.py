"""The bodies of 200 answers. The entity replies with most of them, so that they go to the client as they are."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from examples.capacity_service.ids import ID_PATTERN, RESERVATION_PATTERN

__all__ = [
    "AsOf",
    "AvailabilityAnswer",
    "PoolAnswer",
    "PoolDescription",
    "PoolView",
    "ReleaseAnswer",
    "ReservationAnswer",
    "ReserveAnswer",
]

PoolId = Annotated[str, Meta(pattern=ID_PATTERN)]
ReservationId = Annotated[str, Meta(pattern=RESERVATION_PATTERN)]
Count = Annotated[int, Meta(ge=0)]
Quantity = Annotated[int, Meta(ge=1, le=1_000_000)]
Version = Annotated[int, Meta(ge=1)]


class PoolAnswer(Struct, frozen=True, gc=False):
    """What a write to a pool answers. ``reserved`` may exceed ``capacity``, since a pool may shrink."""

    pool_id: PoolId
    capacity: Count
    reserved: Count
    remaining: Count
    version: Version


class PoolDescription(Struct, frozen=True):
    """A pool with its attributes; those it lacks are null, and no labels are an empty object."""

    pool_id: PoolId
    capacity: Count
    reserved: Count
    remaining: Count
    version: Version
    region: str | None
    starts_at: datetime | None
    ends_at: datetime | None
    labels: dict[str, str]


class PoolView(Struct, frozen=True):
    """A pool as the read model holds it, and as availability answers it."""

    pool_id: PoolId
    capacity: Count
    remaining: Count
    version: Version
    region: str | None
    starts_at: datetime | None
    ends_at: datetime | None
    labels: dict[str, str]


class ReserveAnswer(Struct, frozen=True, gc=False):
    """A grant. A retry of the same reservation answers what the first one did."""

    reservation_id: ReservationId
    pool_id: PoolId
    quantity: Quantity
    remaining: Count
    version: Version


class ReleaseAnswer(Struct, frozen=True, gc=False):
    """How much this call has released, and how much of the reservation is held after it."""

    reservation_id: ReservationId
    pool_id: PoolId
    released: Count
    held: Count
    remaining: Count
    version: Version


class ReservationAnswer(Struct, frozen=True, gc=False):
    """A reservation as it is."""

    reservation_id: ReservationId
    pool_id: PoolId
    quantity: Quantity
    held: Count
    status: Literal["held", "released"]


class AsOf(Struct, frozen=True, gc=False):
    """When an availability answer was read, and how old the oldest of its sources was then."""

    time: datetime
    oldest_source_ms: Count


class AvailabilityAnswer(Struct, frozen=True):
    """The matching pools, ordered by id; ``truncated`` says that there are more than the limit."""

    pools: list[PoolView]
    truncated: bool
    as_of: AsOf

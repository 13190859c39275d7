"""The bodies of requests: exactly what the contract admits, everything else is an error.

An absent member is ``UNSET`` (or its default), which is not the same as a null: only attributes of pools may be null,
and that removes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from examples.capacity_service.domain import PoolChange
from examples.capacity_service.ids import ID_PATTERN, ID_WORDS, RESERVATION_PATTERN, RESERVATION_WORDS, split_full_id
from examples.capacity_service.times import TIME_PATTERN, TIME_WORDS, parse_time
from examples.capacity_service.views import Filter

__all__ = [
    "CHANGES_QUERY",
    "AvailabilityRequest",
    "PoolRequest",
    "ReleaseRequest",
    "ReserveRequest",
    "parse_changes_query",
]

Id = Annotated[str, Meta(pattern=ID_PATTERN, min_length=1, max_length=128, description=ID_WORDS)]
ReservationId = Annotated[
    str, Meta(pattern=RESERVATION_PATTERN, min_length=3, max_length=258, description=RESERVATION_WORDS)
]
Time = Annotated[
    str,
    Meta(pattern=TIME_PATTERN, max_length=27, description=TIME_WORDS, extra_json_schema={"format": "date-time"}),
]
Text = Annotated[str, Meta(min_length=1, max_length=256)]
Capacity = Annotated[int, Meta(ge=0, le=1_000_000_000)]
Quantity = Annotated[int, Meta(ge=1, le=1_000_000)]
Labels = Annotated[dict[Id, Text], Meta(max_length=32)]
Limit = Annotated[int, Meta(ge=1, le=10_000)]
MinRemaining = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]


class PoolRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Creates a pool, or changes the given members of one; null removes an attribute."""

    pool_id: Id
    capacity: Capacity | UnsetType = UNSET
    region: Text | UnsetType | None = UNSET
    starts_at: Time | UnsetType | None = UNSET
    ends_at: Time | UnsetType | None = UNSET
    labels: Labels | UnsetType | None = UNSET

    def __post_init__(self) -> None:
        starts_at, ends_at = _time(self.starts_at), _time(self.ends_at)
        if isinstance(starts_at, datetime) and isinstance(ends_at, datetime) and not starts_at < ends_at:
            raise ValueError("starts_at must be before ends_at")

    def change(self) -> PoolChange:
        """The same for equal bodies, in whatever order the labels were written."""
        labels = self.labels
        return PoolChange(
            capacity=self.capacity,
            region=self.region,
            starts_at=_time(self.starts_at),
            ends_at=_time(self.ends_at),
            labels=UNSET if labels is UNSET else dict(sorted((labels or {}).items())),
        )


class ReserveRequest(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Reserves units of a pool."""

    pool_id: Id
    quantity: Quantity = 1
    reservation_id: Id | UnsetType = UNSET

    @property
    def part(self) -> str | None:
        return None if self.reservation_id is UNSET else self.reservation_id


class ReleaseRequest(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Releases units of a reservation; all that is left of it, where no quantity is given."""

    reservation_id: ReservationId
    quantity: Quantity | UnsetType = UNSET

    @property
    def units(self) -> int | None:
        return None if self.quantity is UNSET else self.quantity

    def split(self) -> tuple[str, str]:
        """The pool's id and the reservation's part."""
        parts = split_full_id(self.reservation_id)
        assert parts is not None
        return parts


class AvailabilityRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Which pools to show."""

    pool_ids: list[Id] | UnsetType = UNSET
    region: Text | UnsetType = UNSET
    starts_before: Time | UnsetType = UNSET
    ends_after: Time | UnsetType = UNSET
    labels: Labels | UnsetType = UNSET
    min_remaining: MinRemaining = 0
    limit: Limit = 1000

    def __post_init__(self) -> None:
        for time in (self.starts_before, self.ends_after):
            if time is not UNSET:
                parse_time(time)

    def filter(self) -> Filter:
        return Filter(
            pool_ids=None if self.pool_ids is UNSET else frozenset(self.pool_ids),
            region=None if self.region is UNSET else self.region,
            starts_before=None if self.starts_before is UNSET else parse_time(self.starts_before),
            ends_after=None if self.ends_after is UNSET else parse_time(self.ends_after),
            labels=() if self.labels is UNSET else tuple(self.labels.items()),
            min_remaining=self.min_remaining,
        )


CHANGES_QUERY: Final = ("pool_ids", "region", "starts_before", "ends_after", "labels", "min_remaining")
"""The query parameters by which changes may be filtered: members of ``AvailabilityRequest`` that say which pools."""

_labels: Final = msgspec.json.Decoder(dict[str, str]).decode


def parse_changes_query(query: Mapping[str, str]) -> AvailabilityRequest:
    """``pool_ids`` are separated by commas, ``labels`` are a JSON object. Raises ``ValueError``, which says why."""
    members: dict[str, object] = dict(query)
    if "pool_ids" in query:
        members["pool_ids"] = query["pool_ids"].split(",")
    try:
        if "labels" in query:
            members["labels"] = _labels(query["labels"])
        if "min_remaining" in query:
            members["min_remaining"] = msgspec.convert(query["min_remaining"], int, strict=False)
        return msgspec.convert(members, AvailabilityRequest)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ValueError(str(error)) from None


def _time(text: str | UnsetType | None) -> datetime | UnsetType | None:
    return parse_time(text) if isinstance(text, str) else text

"""The bodies of requests, and queries that say the same: exactly what the contract admits, everything else is an error.

An absent member is ``UNSET`` (or its default), which is not the same as a null: only attributes of pools may be null,
and that removes them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, Final, cast

from msgspec import UNSET, Meta, Struct, UnsetType

from actorkit.gateway.bodies import BodyDecoder
from actorkit.gateway.problems import Problem
from examples.capacity_service.domain import PoolChange
from examples.capacity_service.ids import (
    ID_PATTERN,
    ID_WORDS,
    RESERVATION_PATTERN,
    RESERVATION_WORDS,
    is_id,
    split_full_id,
)
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
_TEXT_MAX: Final = 256
_MIN_REMAINING_MAX: Final = (1 << 63) - 1
Text = Annotated[str, Meta(min_length=1, max_length=_TEXT_MAX)]
Capacity = Annotated[int, Meta(ge=0, le=1_000_000_000)]
Quantity = Annotated[int, Meta(ge=1, le=1_000_000)]
Labels = Annotated[dict[Id, Text], Meta(max_length=32)]
Limit = Annotated[int, Meta(ge=1, le=10_000)]
MinRemaining = Annotated[int, Meta(ge=0, le=_MIN_REMAINING_MAX)]


class PoolRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Creates a pool, or changes the given members of one; null removes an attribute."""

    pool_id: Id
    capacity: Capacity | UnsetType = UNSET
    region: Text | UnsetType | None = UNSET
    starts_at: Time | UnsetType | None = UNSET
    ends_at: Time | UnsetType | None = UNSET
    labels: Labels | UnsetType | None = UNSET

    def __post_init__(self) -> None:
        starts_at, ends_at = _time("starts_at", self.starts_at), _time("ends_at", self.ends_at)
        if isinstance(starts_at, datetime) and isinstance(ends_at, datetime) and not starts_at < ends_at:
            raise ValueError("starts_at must be before ends_at")

    def change(self) -> PoolChange:
        """The same for equal bodies, in whatever order the labels were written."""
        labels = self.labels
        return PoolChange(
            capacity=self.capacity,
            region=self.region,
            starts_at=_time("starts_at", self.starts_at),
            ends_at=_time("ends_at", self.ends_at),
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
        _time("starts_before", self.starts_before)
        _time("ends_after", self.ends_after)

    def filter(self) -> Filter:
        return Filter(
            pool_ids=None if self.pool_ids is UNSET else frozenset(self.pool_ids),
            region=None if self.region is UNSET else self.region,
            starts_before=None if self.starts_before is UNSET else parse_time(self.starts_before),
            ends_after=None if self.ends_after is UNSET else parse_time(self.ends_after),
            labels=() if self.labels is UNSET else tuple(self.labels.items()),
            min_remaining=self.min_remaining,
        )


def parse_changes_query(query: Mapping[str, str]) -> AvailabilityRequest:
    """What a body of the same members would ask for: ``pool_ids`` are separated by commas, ``labels`` a JSON object.

    ``query`` has no other names than ``CHANGES_QUERY``. Raises ``ValueError`` where a body would be refused; its text
    names the parameter, and says what is expected of it.
    """
    return AvailabilityRequest(**{name: _PARAMETERS[name](name, text) for name, text in query.items()})


def _parse_ids(name: str, text: str) -> list[str]:
    ids = text.split(",")
    for number, each in enumerate(ids, 1):
        if not is_id(each):
            raise ValueError(f"{name}: expected ids separated by commas, but number {number} is not {ID_WORDS}")
    return ids


def _parse_text(name: str, text: str) -> str:
    if not 1 <= len(text) <= _TEXT_MAX:
        raise ValueError(f"{name}: expected 1 to {_TEXT_MAX} characters, not {len(text)}")
    return text


def _parse_time_text(name: str, text: str) -> str:
    _time(name, text)
    return text


def _parse_labels(name: str, text: str) -> dict[str, str]:
    try:
        return _decode_labels(text.encode())
    except Problem as problem:
        raise ValueError(f"{name}: {problem.detail}") from None


def _parse_count(name: str, text: str) -> int:
    # So many digits at most, since Python takes quadratic time for more, or refuses them.
    if _is_count(text) is None or int(text) > _MIN_REMAINING_MAX:
        raise ValueError(f"{name}: expected a whole number from 0 to {_MIN_REMAINING_MAX}, as in 0 or 12")
    return int(text)


_is_count: Final = re.compile("0|[1-9][0-9]{0,18}").fullmatch
_decode_labels: Final = BodyDecoder(
    cast("type[dict[str, str]]", Labels), wrong='expected a JSON object of texts, as in {"kind":"large"}'
).decode
_PARAMETERS: Final[dict[str, Callable[[str, str], Any]]] = {
    "pool_ids": _parse_ids,
    "region": _parse_text,
    "starts_before": _parse_time_text,
    "ends_after": _parse_time_text,
    "labels": _parse_labels,
    "min_remaining": _parse_count,
}
CHANGES_QUERY: Final = tuple(_PARAMETERS)
"""The query parameters by which changes may be filtered: members of ``AvailabilityRequest`` that say which pools."""


def _time(name: str, text: str | UnsetType | None) -> datetime | UnsetType | None:
    if not isinstance(text, str):
        return text
    try:
        return parse_time(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None

"""Availability: which pools of the read model match, in the order of their ids.

The read model is a plain dict of a few hundred to ten thousand pools, and every question scans it: that costs less than
any index would cost each write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from examples.capacity_service.answers import PoolView

__all__ = ["Entry", "Filter", "SortedIds", "select"]


class Entry(Protocol):
    """What the read model holds under an id."""

    @property
    def value(self) -> PoolView: ...


class Filter(Struct, frozen=True, kw_only=True):
    """What a pool must be like; ``None`` asks for nothing. A pool without an attribute matches no filter on it."""

    pool_ids: frozenset[str] | None = None
    region: str | None = None
    starts_before: datetime | None = None
    ends_after: datetime | None = None
    labels: tuple[tuple[str, str], ...] = ()
    min_remaining: int = 0

    def matches(self, pool: PoolView) -> bool:
        if pool.remaining < self.min_remaining:
            return False
        if self.region is not None and pool.region != self.region:
            return False
        if self.starts_before is not None and (pool.starts_at is None or not pool.starts_at < self.starts_before):
            return False
        if self.ends_after is not None and (pool.ends_at is None or not pool.ends_at > self.ends_after):
            return False
        for name, value in self.labels:  # noqa: SIM110 - a generator would be most of the cost of a scan
            if pool.labels.get(name) != value:
                return False
        return True


class SortedIds:
    """The ids of the read model in order, sorted again when there are new ones. Pools are never removed from it."""

    def __init__(self) -> None:
        self._ids: list[str] = []

    def of(self, entries: Mapping[str, Entry]) -> list[str]:
        if len(self._ids) != len(entries):
            self._ids = sorted(entries)
        return self._ids


def select(
    entries: Mapping[str, Entry], ids: Iterable[str], wanted: Filter, *, limit: int
) -> tuple[list[PoolView], bool]:
    """The first ``limit`` matching pools in the order of ``ids``, and whether there are more."""
    found: list[PoolView] = []
    matches = wanted.matches
    for pool_id in ids:
        entry = entries.get(pool_id)
        if entry is not None and matches(entry.value):
            if len(found) == limit:
                return found, True
            found.append(entry.value)
    return found, False

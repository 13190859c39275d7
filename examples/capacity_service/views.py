"""Availability: which pools of the read model match.

Region and time are found by the view's indexes; what else may be asked for is looked up in the pools that these leave.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from msgspec import Struct

from actorkit.readmodel import after, before
from examples.capacity_service.answers import PoolView

__all__ = ["Filter"]


class Filter(Struct, frozen=True, kw_only=True):
    """What a pool must be like; ``None`` asks for nothing. A pool without an attribute matches no filter on it."""

    pool_ids: frozenset[str] | None = None
    region: str | None = None
    starts_before: datetime | None = None
    ends_after: datetime | None = None
    labels: tuple[tuple[str, str], ...] = ()
    min_remaining: int = 0

    def question(self) -> dict[str, Any]:
        """The same as arguments of ``View.find`` and ``View.changes``; there are no ``pool_ids`` among them."""
        question: dict[str, Any] = {"where": self._predicate()}
        if self.region is not None:
            question["region"] = self.region
        if self.starts_before is not None:
            question["starts_at"] = before(self.starts_before)
        if self.ends_after is not None:
            question["ends_at"] = after(self.ends_after)
        return question

    def _predicate(self) -> Callable[[PoolView], bool] | None:
        labels, least = self.labels, self.min_remaining
        if labels:
            return lambda pool: pool.remaining >= least and all(pool.labels.get(name) == text for name, text in labels)
        return (lambda pool: pool.remaining >= least) if least else None

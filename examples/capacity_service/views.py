"""Availability: which pools of the read model match.

Region and time are found by the view's indexes; what else may be asked for is looked up in the pools that these leave.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final

import msgspec
from msgspec import Struct

from actorkit.readmodel import after, before
from examples.capacity_service.answers import PoolView

__all__ = ["Filter", "RecentAnswers"]

_KEPT_MAX_BYTES: Final = 16 << 20
_KEY_MAX_BYTES: Final = 1 << 14
"""What a question takes besides its answer, where it does not name pools."""


class Filter(Struct, frozen=True, kw_only=True):
    """What a pool must be like; ``None`` asks for nothing. A pool without an attribute matches no filter on it."""

    pool_ids: frozenset[str] | None = None
    region: str | None = None
    starts_before: datetime | None = None
    ends_after: datetime | None = None
    labels: tuple[tuple[str, str], ...] = ()
    min_remaining: int = 0

    def digest(self) -> str:
        """The same for filters that are the same, however they were written."""
        ids = None if self.pool_ids is None else sorted(self.pool_ids)
        parts = (ids, self.region, self.starts_before, self.ends_after, sorted(self.labels), self.min_remaining)
        return blake2b(msgspec.msgpack.encode(parts), digest_size=8).hexdigest()

    def question(self, *, ids_too: bool = False) -> dict[str, Any]:
        """The same as arguments of ``View.find`` and ``View.changes``, with or without the ``pool_ids``."""
        question: dict[str, Any] = {"where": self._predicate(self.pool_ids if ids_too else None)}
        if self.region is not None:
            question["region"] = self.region
        if self.starts_before is not None:
            question["starts_at"] = before(self.starts_before)
        if self.ends_after is not None:
            question["ends_at"] = after(self.ends_after)
        return question

    def _predicate(self, ids: frozenset[str] | None) -> Callable[[PoolView], bool] | None:
        labels, least = self.labels, self.min_remaining
        if labels or ids is not None:
            return lambda pool: (
                pool.remaining >= least
                and (ids is None or pool.pool_id in ids)
                and all(pool.labels.get(name) == text for name, text in labels)
            )
        return (lambda pool: pool.remaining >= least) if least else None


class RecentAnswers:
    """The encoded pools of what was asked since the view has changed last: most ask the same, again and again.

    Bounded by bytes; where there is no room, or pools are asked for by their ids, an answer is not kept.
    """

    def __init__(self, *, kept_max_bytes: int = _KEPT_MAX_BYTES) -> None:
        self._kept_max_bytes = kept_max_bytes
        self._kept: dict[tuple[Filter, int], bytes] = {}
        self._bytes = 0
        self._revision = -1

    def get(self, revision: int, wanted: Filter, limit: int) -> bytes | None:
        """What was kept at this revision of the view."""
        if revision != self._revision:
            self._revision = revision
            self._kept.clear()
            self._bytes = 0
        return self._kept.get((wanted, limit))

    def keep(self, wanted: Filter, limit: int, pools: bytes) -> None:
        """Keeps an answer to what ``get`` has just been asked for."""
        size = len(pools) + _KEY_MAX_BYTES
        if wanted.pool_ids is None and self._bytes + size <= self._kept_max_bytes:
            self._kept[wanted, limit] = pools
            self._bytes += size

"""Deadlines of many short waits, swept coarsely.

A timer per call costs more than the call. Here a deadline is a place in a bucket: time is cut into ticks of 50 ms, each
tick that anybody waits for has a bucket, and a sweep every tick expires what is left in the buckets that are due.
Ending in time costs one ``dict.pop``. What expires does so within 100 ms after its deadline, as far as the
loop runs, and within a bucket in the order in which it was added: a set would expire in the order of addresses in
memory, which is another one in every process.

Most waits are of the same few lengths. All waits of one length that begin within one tick share a bucket, so the hot
path is a look into ``recent``, without reading the clock.

Memory is bounded by what is in flight: empty buckets are dropped when they outnumber the others.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from math import ceil
from typing import Final, Protocol, TypeAlias

__all__ = ["TICK_S", "Bucket", "Deadlines", "Expirable"]

TICK_S: Final = 0.05
TICKS_PER_S: Final = 20

_SPARE_BUCKETS: Final = 16
_RECENT_MAX: Final = 64


class Expirable(Protocol):
    """Something that ends at its deadline unless it was discarded before. Compared by identity."""

    def expire(self) -> None:
        """The deadline has passed. Called once, from the loop. Must not raise."""
        ...


Bucket: TypeAlias = dict[Expirable, None]
"""What waits for one tick, in the order of addition: an item enters by ``bucket[item] = None``, and leaves by
``bucket.pop(item, None)``."""


class Deadlines:
    """The deadlines of one process, on the loop that runs when it is made. Not for use from other threads."""

    __slots__ = ("_buckets", "_context", "_keep", "_loop", "_sweeper", "_swept", "_where", "recent")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._context = Context()
        self._buckets: dict[int, Bucket] = {}
        self._where: dict[Expirable, Bucket] = {}
        self._swept = 0
        self._keep = 0
        self._sweeper: asyncio.TimerHandle | None = None
        self.recent: dict[float, Bucket] = {}
        """What ``within`` returned since the last sweep, by its argument: look here first, where every call counts."""

    def add(self, deadline: float, item: Expirable) -> None:
        """``item.expire()`` is called at ``deadline`` (in ``loop.time()``) or up to 100 ms later, unless discarded.

        An item has one deadline at a time; adding it again replaces the deadline.
        """
        self.discard(item)
        bucket = self._bucket(int(deadline * TICKS_PER_S) + 1)
        bucket[item] = None
        self._where[item] = bucket

    def discard(self, item: Expirable) -> None:
        """The item has ended: it will not be expired. Unknown and expired items are ignored."""
        bucket = self._where.pop(item, None)
        if bucket is not None:
            bucket.pop(item, None)

    def within(self, delay_s: float) -> Bucket:
        """The bucket that is expired ``delay_s`` seconds from now, for callers that add to it themselves, at once.

        They take it out themselves, too, and keep the bucket only while their item is in it.
        """
        # Counted from the end of this tick: another wait may find the bucket in ``recent`` just before it.
        bucket = self._bucket(int(self._loop.time() * TICKS_PER_S) + 1 + ceil(delay_s * TICKS_PER_S))
        if len(self.recent) < _RECENT_MAX:
            self.recent[delay_s] = bucket
        return bucket

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def pending(self) -> list[Expirable]:
        """All that has neither ended nor expired."""
        return [item for bucket in self._buckets.values() for item in bucket]

    def close(self) -> None:
        """Stop sweeping; nothing expires any more."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        self._buckets.clear()
        self._where.clear()
        self.recent.clear()

    def _bucket(self, tick: int) -> Bucket:
        bucket = self._buckets.get(tick)
        return self._open(tick) if bucket is None else bucket

    def _open(self, tick: int) -> Bucket:
        if self._sweeper is None:
            self._swept = int(self._loop.time() * TICKS_PER_S)
            self._arm()
        elif len(self._buckets) > 2 * self._keep + _SPARE_BUCKETS:
            self._drop_empty()
        tick = max(tick, self._swept + 1)
        return self._buckets.setdefault(tick, {})

    def _arm(self) -> None:
        # Not in the context of whoever happens to wait: what expires belongs to others.
        self._sweeper = self._loop.call_at((self._swept + 1) / TICKS_PER_S, self._sweep, context=self._context)

    def _sweep(self) -> None:
        self.recent.clear()
        now = int(self._loop.time() * TICKS_PER_S)
        # Some loops call a little early, by less than their clock's resolution.
        last, self._swept = self._swept, max(now, self._swept + 1)
        if self._swept - last <= len(self._buckets):
            due = [tick for tick in range(last + 1, self._swept + 1) if tick in self._buckets]
        else:
            due = sorted(tick for tick in self._buckets if tick <= self._swept)
        for tick in due:
            bucket = self._buckets.pop(tick)
            for item in list(bucket):
                # Expiring one item may have ended another.
                if item in bucket:
                    self._where.pop(item, None)
                    del bucket[item]
                    item.expire()
        if not any(self._buckets.values()):
            self._buckets.clear()
        if self._buckets:
            self._arm()
        else:
            self._sweeper = None

    def _drop_empty(self) -> None:
        self.recent.clear()
        self._buckets = {tick: bucket for tick, bucket in self._buckets.items() if bucket}
        self._keep = len(self._buckets)

"""Changes (a shell): the changes of a view as an async iterator."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, NamedTuple, Self, TypeVar

from actorkit.readmodel.entry import Entry
from actorkit.readmodel.lww_map import LwwMap

__all__ = ["Change", "Changes"]

V = TypeVar("V")


class Change(NamedTuple, Generic[V]):
    """What an entity publishes now; ``None``: nothing any more, or nothing that was asked for."""

    id: str
    entry: Entry[V] | None


class Changes(Generic[V]):
    """What changes in a view, as ``View.changes`` gives it: iterate over it in one task.

    Of each entity versions only grow, and its newest one is always told in the end; what a reader was too slow for is
    left out. Between entities the order is that of their last changes on this node, which other nodes may have seen in
    another order. Ends when the system has stopped. Whoever leaves early may close it; one that nobody holds any more
    is closed by itself.

    Memory: the ids of those entities that have changed since the reader came last; where there is a filter, also the
    ids of what passes it.
    """

    def __init__(
        self,
        values: LwwMap[V],
        conditions: Mapping[str, Any],
        where: Callable[[V], object] | None,
        *,
        present: bool,
        after: int | None,
    ) -> None:
        self._values = values
        self._conditions = conditions
        self._where = where
        self._log = log = values.subscribe()
        self._release = weakref.finalize(self, values.unsubscribe)
        self._awake = asyncio.Event()
        self._closed = False
        self.resumed = after is not None and 0 <= after <= log.newest
        """Whether it goes on after the position that was asked for."""
        self._fetched = self._told_to = after if after is not None and self.resumed else log.newest
        tells_present = present and not self.resumed
        filtered = where is not None or any(wanted is not None for wanted in conditions.values())
        passing = self._passing(None) if tells_present or filtered else {}
        self._left: deque[str] = deque(passing if tells_present else ())
        """The ids whose newest values are told next."""
        self._present = tells_present
        self._told: dict[str, int] = {}
        """Up to which change of an id its reader knows, where that is beyond ``_fetched``."""
        self._known: set[str] | None = None
        """The ids that the reader may know of; ``None``: it is told of all."""
        if filtered:
            self._known = set() if tells_present else {*passing, *log.since(self._fetched)}

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change[V]:
        changes = await self.batch(1)
        if not changes:
            raise StopAsyncIteration
        return changes[0]

    async def batch(self, most: int) -> list[Change[V]]:
        """The next changes, up to so many, 1 or more; waits for the first one only.

        It is empty when there will be no more.
        """
        while not self._closed:
            if changes := self.ready(most):
                return changes
            if self._log.closed:
                break
            await self._change()
        self.close()
        return []

    def ready(self, most: int) -> list[Change[V]]:
        """As ``batch``, without waiting: it is empty when nothing has changed."""
        if most < 1:
            raise ValueError(f"a batch has up to so many changes, 1 or more: it cannot be {most}")
        changes = self._take(most)
        if not changes and self._log.newest > self._fetched:
            self._fetch()
            changes = self._take(most)
        return changes

    @property
    def position(self) -> int | None:
        """Up to which change of the view everything has been told: where another ``View.changes`` of this process may
        go on. ``None`` while that which was there at the beginning is being told."""
        if not self._left:
            return self._fetched
        return None if self._present else self._told_to

    def close(self) -> None:
        """Ends the iteration."""
        self._closed = True
        self._left.clear()
        self._awake.set()
        self._release()

    async def aclose(self) -> None:
        """As ``close``, for ``contextlib.aclosing``."""
        self.close()

    async def _change(self) -> None:
        self._awake.clear()
        self._log.when_changed(self._awake.set)
        try:
            await self._awake.wait()
        finally:
            self._log.forget(self._awake.set)

    def _fetch(self) -> None:
        log, told = self._log, self._told
        self._told_to = self._fetched
        self._present = False
        self._left.extend(key for key in log.since(self._fetched) if told.get(key) != log.number(key))
        self._fetched = log.newest
        told.clear()

    def _take(self, most: int) -> list[Change[V]]:
        changes: list[Change[V]] = []
        while self._left and len(changes) < most:
            ids = [self._left.popleft() for _ in range(min(len(self._left), most - len(changes)))]
            for id in ids:
                if (number := self._log.number(id)) > self._fetched:
                    self._told[id] = number
            changes += self._as_they_are(ids)
        return changes

    def _as_they_are(self, ids: list[str]) -> Iterator[Change[V]]:
        known = self._known
        entries = self._values.entries if known is None else self._passing(ids)
        for id in ids:
            entry = entries.get(id)
            if entry is not None:
                if known is not None:
                    known.add(id)
                yield Change(id, entry)
            elif known is None or id in known:
                if known is not None:
                    known.discard(id)
                yield Change(id, None)

    def _passing(self, ids: list[str] | None) -> dict[str, Entry[V]]:
        return self._values.find(self._conditions, where=self._where, ids=ids, limit=None).entries

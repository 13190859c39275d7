"""A last-writer-wins map: of all that was said of a key, the one with the greatest stamp counts.

Taking the greatest is commutative, associative and idempotent, so it does not matter in which order, how often or by
which way values arrive (Shapiro et al., "Conflict-free Replicated Data Types", 2011). The stamp of a key is the
sequence of its one entity, and after it the version of what is published. The journal admits one event for each
sequence: equal stamps mean equal values.

Memory is bounded by the number of entities of the type that have events: one stamp each, also where the value was
deleted, since it is the stamp that keeps an older value from coming back.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

from actorkit.errors import Overloaded
from actorkit.persistence.indexes import NOTHING_INDEXED, Declared
from actorkit.readmodel.change_log import ChangeLog
from actorkit.readmodel.entry import Entry
from actorkit.readmodel.index import Found, Indexes
from actorkit.readmodel.stamp import sequence_of, stamp_of

__all__ = ["Entry", "LwwMap"]

V = TypeVar("V")

_WAITING_MAX: Final = 10_000
_SUBSCRIBERS_MAX: Final = 1_000


class LwwMap(Generic[V]):
    """Values by key, with the newest stamp of each key, deleted ones included."""

    def __init__(
        self,
        *,
        view_version: int = 1,
        indexed: Declared = NOTHING_INDEXED,
        waiting_max: int = _WAITING_MAX,
        subscribers_max: int = _SUBSCRIBERS_MAX,
    ) -> None:
        """``waiting_max``: who may wait for versions at once; ``subscribers_max``: who may follow the changes."""
        self.view_version = view_version
        """Of what this program publishes; what others publish may have another one."""
        self._entries: dict[str, Entry[V]] = {}
        self._stamps: dict[str, int] = {}
        self._waiting: dict[str, dict[Callable[[], None], int]] = {}
        """By key, who waits and for which version."""
        self._waiting_count = 0
        self._waiting_max = waiting_max
        self.entries: Mapping[str, Entry[V]] = MappingProxyType(self._entries)
        """What is there now; always current, not to be kept across changes while iterating."""
        self.revision = 0
        """Grows with each change."""
        self._indexes: Indexes[V] = Indexes(self._entries, indexed)
        self._watchers: tuple[Callable[[str], None], ...] = ()
        self._log: ChangeLog | None = None
        self._subscribers = 0
        self._subscribers_max = subscribers_max
        self._closed = False

    def publish(self, key: str, sequence: int, value: V | None) -> bool:
        """Takes what this program says of an entity after its event ``sequence``; as ``put``."""
        return self.put(key, stamp_of(sequence, self.view_version), value)

    def put(self, key: str, stamp: int, value: V | None) -> bool:
        """Takes a value (``None``: deleted) unless a newer one is known. Returns whether it was taken."""
        if stamp <= self._stamps.get(key, -1):
            return False
        self._stamps[key] = stamp
        version = sequence_of(stamp)
        self._set(key, None if value is None else Entry(value, version))
        if key in self._waiting:
            self._tell(key, version)
        return True

    def take_back(self, key: str) -> None:
        """What was put under the key was never true: nothing is known of it any more."""
        if self._stamps.pop(key, None) is not None:
            self._set(key, None)

    def _set(self, key: str, entry: Entry[V] | None) -> None:
        self.revision += 1
        before = self._entries.get(key)
        if entry is not None:
            self._entries[key] = entry
            self._indexes.put(key, None if before is None else before.value, entry.value)
        elif before is not None:
            del self._entries[key]
            self._indexes.put(key, before.value, None)
        for watcher in self._watchers:
            watcher(key)

    def stamp(self, key: str) -> int:
        """The greatest stamp seen of a key, deleted or not; 0: none."""
        return self._stamps.get(key, 0)

    def version(self, key: str) -> int:
        """The newest version of its entity seen of a key, deleted or not; 0: none."""
        return sequence_of(self._stamps.get(key, 0))

    def find(
        self,
        conditions: Mapping[str, Any],
        *,
        where: Callable[[V], object] | None = None,
        ids: Iterable[str] | None = None,
        limit: int | None = None,
    ) -> Found[V]:
        """As ``View.find``."""
        return self._indexes.find(conditions, where=where, ids=ids, limit=limit)

    def watch(self, watcher: Callable[[str], None]) -> None:
        """Calls ``watcher`` with each key that has changed, at once: it must be quick, and must not raise."""
        self._watchers = (*self._watchers, watcher)

    def unwatch(self, watcher: Callable[[str], None]) -> None:
        """Whoever watched does not any more."""
        self._watchers = tuple(other for other in self._watchers if other is not watcher)

    def subscribe(self) -> ChangeLog:
        """The log of all changes, which begins with the first subscriber. Raises ``Overloaded``."""
        if self._subscribers >= self._subscribers_max:
            raise Overloaded("the line of those who follow the changes of a view", limit=self._subscribers_max)
        self._subscribers += 1
        if self._log is None:
            self._log = ChangeLog()
            self.watch(self._log.note)
            if self._closed:
                self._log.close()
        return self._log

    def unsubscribe(self) -> None:
        """One subscriber less."""
        self._subscribers -= 1

    def close(self) -> None:
        """There will be no more changes."""
        self._closed = True
        if self._log is not None:
            self._log.close()

    def when(self, key: str, version: int, reached: Callable[[], None]) -> None:
        """Calls ``reached`` once the key is at this version or beyond; at once if it is already.

        A function waits for one version of a key at a time. Raises ``Overloaded`` where too many wait already.
        """
        if self.version(key) >= version:
            reached()
            return
        if self._waiting_count >= self._waiting_max:
            raise Overloaded("the line of those who wait for a view", limit=self._waiting_max)
        waiting = self._waiting.setdefault(key, {})
        self._waiting_count += reached not in waiting
        waiting[reached] = version

    def forget(self, key: str, reached: Callable[[], None]) -> None:
        """Whoever waited does not any more."""
        waiting = self._waiting.get(key)
        if waiting is None or waiting.pop(reached, None) is None:
            return
        self._waiting_count -= 1
        if not waiting:
            del self._waiting[key]

    def _tell(self, key: str, version: int) -> None:
        for reached in [reached for reached, wanted in self._waiting[key].items() if wanted <= version]:
            self.forget(key, reached)
            reached()

"""A last-writer-wins map: of all that was said of a key, the one with the greatest stamp counts.

Taking the greatest is commutative, associative and idempotent, so it does not matter in which order, how often or by
which way values arrive (Shapiro et al., "Conflict-free Replicated Data Types", 2011). Here the stamp of a key is the
sequence of its one entity, of which the journal admits one event each: equal stamps mean equal values.

Pure. So far it is fed by the entities of this process only; replication between nodes comes with the cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Entry", "LwwMap"]

V = TypeVar("V")


class Entry(NamedTuple, Generic[V]):
    """A value, and the version of the entity that it shows."""

    value: V
    version: int


class LwwMap(Generic[V]):
    """Values by key, with the newest stamp of each key, deleted ones included."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry[V]] = {}
        self._stamps: dict[str, int] = {}
        self._waiting: dict[str, list[tuple[int, Callable[[], None]]]] = {}
        self.entries: Mapping[str, Entry[V]] = MappingProxyType(self._entries)
        """What is there now; always current, not to be kept across changes while iterating."""

    def put(self, key: str, version: int, value: V | None) -> bool:
        """Takes a value (``None``: deleted) unless a newer one is known. Returns whether it was taken."""
        if version <= self._stamps.get(key, -1):
            return False
        self._stamps[key] = version
        if value is None:
            self._entries.pop(key, None)
        else:
            self._entries[key] = Entry(value, version)
        if key in self._waiting:
            self._tell(key, version)
        return True

    def version(self, key: str) -> int:
        """The newest version seen of a key, deleted or not; 0: none."""
        return self._stamps.get(key, 0)

    def when(self, key: str, version: int, reached: Callable[[], None]) -> None:
        """Calls ``reached`` once the key is at this version or beyond; at once if it is already."""
        if self.version(key) >= version:
            reached()
        else:
            self._waiting.setdefault(key, []).append((version, reached))

    def forget(self, key: str, reached: Callable[[], None]) -> None:
        """Whoever waited does not any more."""
        left = [entry for entry in self._waiting.pop(key, []) if entry[1] != reached]
        if left:
            self._waiting[key] = left

    def _tell(self, key: str, version: int) -> None:
        waiting = self._waiting.pop(key)
        left = [entry for entry in waiting if entry[0] > version]
        if left:
            self._waiting[key] = left
        for wanted, reached in waiting:
            if wanted <= version:
                reached()

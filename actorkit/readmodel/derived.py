"""Values that follow from those of a map, each computed once. Pure."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from actorkit.readmodel.entry import Entry
from actorkit.readmodel.lww_map import LwwMap

__all__ = ["Derived"]

T = TypeVar("T")
V = TypeVar("V")


class Derived(Generic[V, T]):
    """A pure function of each value of a view, kept until the value changes. Memory: one result for each entry."""

    def __init__(self, values: LwwMap[V], function: Callable[[V], T]) -> None:
        self._current = values.entries
        self._function = function
        self._kept: dict[str, T] = {}
        kept = self._kept

        def forget(key: str) -> None:
            kept.pop(key, None)

        values.watch(forget)
        weakref.finalize(self, values.unwatch, forget)

    def of(self, entries: Mapping[str, Entry[V]]) -> list[T]:
        """Of each of these entries, in their order, which are to be those that the view shows at the moment."""
        kept = self._kept
        try:
            return [kept[key] for key in entries]
        except KeyError:
            return [kept[key] if key in kept else self._compute(key, entry) for key, entry in entries.items()]

    def _compute(self, key: str, entry: Entry[V]) -> T:
        derived = self._function(entry.value)
        if self._current.get(key) is entry:
            self._kept[key] = derived
        return derived

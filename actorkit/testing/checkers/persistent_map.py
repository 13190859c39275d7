"""A mapping whose every version stays usable, for the states of models: setting a key gives a new mapping.

A search through possible states goes forth and back between versions that differ by little. So only one version holds
a real dict; each other one knows by which key it differs from its neighbour, and the dict moves to whichever version is
asked (Baker, "Shallow binding makes functional arrays fast", 1991; Conchon and Filliâtre, "A persistent union-find data
structure", 2007). Moving costs as many steps as the versions are apart; equality and hash cost no more than that.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any, Final, TypeVar, cast

__all__ = ["PersistentMap"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Hashable)

_ABSENT: Final[Any] = object()
_HASH_MASK: Final = (1 << 61) - 1


class _Version:
    """One version: it holds the dict, or knows its neighbour on the way to the one that does."""

    __slots__ = ("digest", "held", "key", "toward", "value")

    held: dict[Any, Any] | None
    toward: _Version | None
    key: Any
    value: Any
    """What this version has under ``key``, by which alone it differs from the neighbour."""
    digest: int

    def holds(self, held: dict[Any, Any]) -> None:
        self.held, self.toward, self.key, self.value = held, None, None, None

    def differs(self, toward: _Version, key: Any, value: Any) -> None:
        self.held, self.toward, self.key, self.value = None, toward, key, value

    def here(self) -> dict[Any, Any]:
        """Moves the dict to this version."""
        if self.held is not None:
            return self.held
        path: list[_Version] = []
        version: _Version = self
        while version.toward is not None:
            path.append(version)
            version = version.toward
        held = version.held
        assert held is not None
        for nearer in reversed(path):
            key = nearer.key
            version.differs(nearer, key, held.get(key, _ABSENT))
            _put(held, key, nearer.value)
            version = nearer
        self.holds(held)
        return held


class PersistentMap(_Version, Mapping[K, V]):
    """Hashable; keys and values must be too. ``set`` and ``without`` give the next version."""

    __slots__ = ()

    def __init__(self, items: Mapping[K, V] | None = None) -> None:
        held: dict[K, V] = dict(items or {})
        self.holds(held)
        self.digest = sum(map(hash, held.items())) & _HASH_MASK

    def set(self, key: K, value: V) -> PersistentMap[K, V]:
        old = self.here().get(key, _ABSENT)
        return self if old is not _ABSENT and old == value else self._next(key, old, value)

    def without(self, key: K) -> PersistentMap[K, V]:
        old = self.here().get(key, _ABSENT)
        return self if old is _ABSENT else self._next(key, old, _ABSENT)

    def _next(self, key: K, old: Any, new: Any) -> PersistentMap[K, V]:
        digest = self.digest
        if old is not _ABSENT:
            digest -= hash((key, old))
        if new is not _ABSENT:
            digest += hash((key, new))
        held = self.here()
        following = cast("PersistentMap[K, V]", object.__new__(PersistentMap))
        following.holds(held)
        following.digest = digest & _HASH_MASK
        _put(held, key, new)
        self.differs(following, key, old)
        return following

    def __getitem__(self, key: K) -> V:
        value: V = self.here()[key]
        return value

    def get(self, key: Any, default: Any = None) -> Any:
        return self.here().get(key, default)

    def __iter__(self) -> Iterator[K]:
        return iter(list(self.here()))

    def __len__(self) -> int:
        return len(self.here())

    def __hash__(self) -> int:
        return self.digest

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, PersistentMap):
            return NotImplemented
        version = cast("_Version", other)
        if self.digest != version.digest:
            return False
        mine = self.here()
        seen: set[Any] = set()
        while version.toward is not None:
            # The first difference of a key on the way is what the other map has under it.
            if version.key not in seen:
                seen.add(version.key)
                if mine.get(version.key, _ABSENT) != version.value:
                    return False
            version = version.toward
        return version is self or mine == version.held

    def __repr__(self) -> str:
        return f"PersistentMap({self.here()!r})"


def _put(found: dict[Any, Any], key: Any, value: Any) -> None:
    if value is _ABSENT:
        found.pop(key, None)
    else:
        found[key] = value

"""Sets in order, and selections of keys: what indexes are made of. Pure."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

__all__ = ["Keys", "Order", "Selection"]

_CHANGES_MIN: Final = 8
_MEMBERS_PER_CHANGE: Final = 64


class Order:
    """Members of a set in order: sorted when somebody looks, and kept so for as long as that costs less.

    After many changes between two looks the order is dropped, so that a change never costs much where nobody looks.
    """

    __slots__ = ("_changes_left", "_members")

    def __init__(self) -> None:
        self._members: list[Any] | None = None
        self._changes_left = 0

    def of(self, members: Iterable[Any]) -> list[Any]:
        """``members`` are those that it has been told of. The list is not to be kept or changed."""
        if self._members is None:
            self._members = sorted(members)
        self._changes_left = _CHANGES_MIN + len(self._members) // _MEMBERS_PER_CHANGE
        return self._members

    def add(self, member: Any) -> None:
        if self._members is not None and self._changes():
            insort(self._members, member)

    def discard(self, member: Any) -> None:
        if self._members is not None and self._changes():
            del self._members[bisect_left(self._members, member)]

    def _changes(self) -> bool:
        self._changes_left -= 1
        if self._changes_left >= 0:
            return True
        self._members = None
        return False


class Selection(Protocol):
    """The entries that meet one condition."""

    def __len__(self) -> int: ...

    def __contains__(self, key: object, /) -> bool: ...

    def steps(self, total: int, limit: int) -> int:
        """About how many steps it takes to go through its keys in order, until ``limit`` are found."""
        ...

    def in_order(self) -> Sequence[str]:
        """The keys, sorted."""
        ...


class Keys:
    """A set of keys as a selection."""

    __slots__ = ("_keys", "_order")

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._keys = set(keys)
        self._order = Order()

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: object, /) -> bool:
        return key in self._keys

    def add(self, key: str) -> None:
        if key not in self._keys:
            self._keys.add(key)
            self._order.add(key)

    def discard(self, key: str) -> None:
        if key in self._keys:
            self._keys.discard(key)
            self._order.discard(key)

    def steps(self, total: int, limit: int) -> int:
        return min(len(self._keys), limit)

    def in_order(self) -> Sequence[str]:
        return self._order.of(self._keys)

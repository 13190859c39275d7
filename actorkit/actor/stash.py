"""Stash: messages an actor has put aside, to be handled when it is in another state."""

from __future__ import annotations

from collections import deque
from typing import Any

from actorkit.errors import Overloaded

__all__ = ["Stash", "StashFull"]


class StashFull(Overloaded):
    """The actor has put aside as many messages as it may; this one was not handled.

    Let it pass out of the handler: the asker gets it, a told message becomes a dead letter, and the actor goes on.
    """


class Stash:
    """In order of arrival, at most ``limit``."""

    __slots__ = ("_items", "_limit", "_owner")

    def __init__(self, limit: int, owner: str) -> None:
        self._items: deque[Any] = deque()
        self._limit = limit
        self._owner = owner

    def add(self, item: Any) -> None:
        """Raises ``StashFull``."""
        if len(self._items) >= self._limit:
            raise StashFull(f"the stash of {self._owner}", limit=self._limit)
        self._items.append(item)

    def take_all(self) -> deque[Any]:
        """Everything, oldest first; the stash is empty then."""
        items, self._items = self._items, deque()
        return items

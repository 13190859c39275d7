"""Every command acts once: what an entity remembers of the commands it has executed.

Two kinds of repetition are recognised. The callers' idempotency **keys** are remembered for a time (24 h and a
margin): the newest in memory, here, and all in the store's index. **Command ids** are given by regions, for commands
that the framework itself sends again; those are looked up among the answers that wait and the newest events of the
stream, because such a retry ends with the call's deadline.

Pure: the entity does the reading.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

__all__ = ["KeyMemory", "Remembered"]


class Remembered(NamedTuple):
    """The outcome of a command that had a key."""

    outcome: bytes
    time_us: int


class KeyMemory:
    """The newest keys of one entity. ``complete`` means: a key that is not here is new."""

    def __init__(self, *, in_memory: int, window_us: int) -> None:
        self._in_memory = in_memory
        self._window_us = window_us
        self._newest: OrderedDict[str, Remembered] = OrderedDict()
        self.loaded = False
        self.complete = False
        self.count = 0
        """How many keys within the window the entity has, in memory or not; may be too high, never too low."""

    def load(self, newest: list[tuple[str, Remembered]], count: int) -> None:
        """Takes what the store says: its newest keys, oldest first, and how many there are within the window.

        Keys that were remembered before this may not be stored yet, and stay.
        """
        pending = self._newest
        self._newest = OrderedDict(newest)
        self._newest.update(pending)
        self.count = count + len(pending)
        self.complete = count <= len(newest)
        self.loaded = True

    def forget_all(self) -> None:
        """Back to knowing nothing: the store is asked again."""
        self._newest.clear()
        self.loaded = self.complete = False
        self.count = 0

    def find(self, key: str, now_us: int) -> Remembered | None:
        known = self._newest.get(key)
        if known is None or known.time_us < now_us - self._window_us:
            return None
        return known

    def remember(self, key: str, outcome: bytes, time_us: int, *, pending: int) -> None:
        """Adds the newest key, after dropping what is too old, or too much for memory.

        Of the newest, ``pending`` may not be stored yet, so that the store cannot stand in for them: they stay.
        """
        newest = self._newest
        oldest_us = time_us - self._window_us
        while newest:
            first = next(iter(newest))
            if newest[first].time_us >= oldest_us:
                break
            del newest[first]
            self.count -= 1
        self.count += 1
        newest[key] = Remembered(outcome, time_us)
        newest.move_to_end(key)
        while len(newest) > self._in_memory + pending:
            newest.popitem(last=False)
            self.complete = False

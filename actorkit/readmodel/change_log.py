"""The order in which the keys of a map have changed last: a log of which only the newest record of each key is kept.

So it is as long as there are keys, however many changes there are, and however slow those are who read it; what a
change costs does not depend on how many they are.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["ChangeLog"]


class ChangeLog:
    """Numbers the changes of one map, from 1 on."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        """By key the number of its last change, the newest last."""
        self.newest = 0
        self.closed = False
        self._sleepers: set[Callable[[], None]] = set()

    def note(self, key: str) -> None:
        """The key has changed."""
        self.newest += 1
        self._numbers.pop(key, None)
        self._numbers[key] = self.newest
        if self._sleepers:
            self._wake()

    def number(self, key: str) -> int:
        """Of the key's last change; 0: none."""
        return self._numbers.get(key, 0)

    def since(self, number: int) -> list[str]:
        """The keys that have changed after this change, in the order of their last changes."""
        keys: list[str] = []
        for key in reversed(self._numbers):
            if self._numbers[key] <= number:
                break
            keys.append(key)
        keys.reverse()
        return keys

    def when_changed(self, wake: Callable[[], None]) -> None:
        """Calls ``wake`` once, with the next change, or when the log is closed; at once if it is already."""
        if self.closed:
            wake()
        else:
            self._sleepers.add(wake)

    def forget(self, wake: Callable[[], None]) -> None:
        """Whoever slept does not any more."""
        self._sleepers.discard(wake)

    def close(self) -> None:
        """There will be no more changes."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        sleepers, self._sleepers = self._sleepers, set()
        for wake in sleepers:
            wake()

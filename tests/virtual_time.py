"""Virtual time for models in pure Python: what is to happen stands in a heap by when, and time jumps to the next of it.

There is no loop, no task and no real time in it, so that a thousand nodes are affordable.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

__all__ = ["VirtualTime"]


class VirtualTime:
    """The time of one model; what is due at the same moment happens in the order in which it was asked for."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._heap: list[tuple[float, int, Callable[[], object]]] = []
        self._number = 0

    def later(self, delay_s: float, action: Callable[[], object]) -> None:
        self._number += 1
        heappush(self._heap, (self.now_s + delay_s, self._number, action))

    def run(self, for_s: float, *, until: Callable[[], bool] | None = None) -> float:
        """Lets time pass; returns how much of it."""
        began_s, ends_s = self.now_s, self.now_s + for_s
        heap = self._heap
        while heap and heap[0][0] <= ends_s:
            self.now_s, _, action = heappop(heap)
            action()
            if until is not None and until():
                return self.now_s - began_s
        self.now_s = ends_s
        assert until is None, f"it has not come about within {for_s:g} s"
        return for_s

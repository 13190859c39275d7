"""Backoff: how long to wait before the next attempt, exponentially longer and never in step with others.

The wait before attempt n + 1 is ``min(max, min * 2**n)``, less a random part of up to a half ("equal jitter"; Brooker,
"Exponential backoff and jitter", 2015).
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Backoff"]


class Backoff:
    """One peer's failures in a row."""

    __slots__ = ("_failures", "_max_s", "_min_s", "_uniform")

    def __init__(self, min_s: float, max_s: float, uniform: Callable[[], float]) -> None:
        """``uniform`` draws from [0, 1)."""
        self._min_s = min_s
        self._max_s = max_s
        self._uniform = uniform
        self._failures = 0

    def failed(self) -> float:
        """One more failure: the seconds until the next attempt."""
        # 2**30 times the shortest wait is beyond any maximum.
        longest_s = min(self._max_s, self._min_s * (1 << min(self._failures, 30)))
        self._failures += 1
        return longest_s * (1.0 - self._uniform() / 2)

    def succeeded(self) -> None:
        """The next failure is the first one again."""
        self._failures = 0

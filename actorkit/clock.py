"""The seams for time and randomness, and the system's own behind them.

Nothing else in actorkit reads a clock or draws a random number, so that a simulator can replace both. Waiting and
scheduling go through the running asyncio loop, which a simulator replaces as a whole.
"""

from __future__ import annotations

import os
import time
from typing import Protocol

__all__ = ["Clock", "Randomness", "SystemClock", "SystemRandomness"]


class Clock(Protocol):
    """What time it is."""

    def wall_us(self) -> int:
        """Microseconds since 1970-01-01 UTC. May jump; used for the times of events, never for a decision on safety."""
        ...

    def lease_s(self) -> float:
        """Seconds on a clock that never goes back and that counts suspend time. Only its rate is trusted."""
        ...


class Randomness(Protocol):
    """Where random numbers come from."""

    def token(self, size_bytes: int) -> bytes:
        """Unpredictable bytes, for ids and secrets."""
        ...

    def uniform(self) -> float:
        """A number in [0, 1), for jitter."""
        ...


_BLOCK_BYTES = 4096
_LEASE_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Linux counts suspend time only in CLOCK_BOOTTIME; macOS does so in CLOCK_MONOTONIC."""


class SystemClock:
    """The operating system's clocks."""

    def wall_us(self) -> int:
        return time.time_ns() // 1000

    def lease_s(self) -> float:
        return time.clock_gettime(_LEASE_CLOCK)


class SystemRandomness:
    """The operating system's random source, read in blocks: each read of it lets go of the interpreter's lock."""

    def __init__(self) -> None:
        self._block = b""
        self._used = 0
        if hasattr(os, "register_at_fork"):
            # Or both processes would go on with the same numbers.
            os.register_at_fork(after_in_child=self._forget)

    def token(self, size_bytes: int) -> bytes:
        begin = self._used
        end = self._used = begin + size_bytes
        if end > len(self._block):
            self._block = os.urandom(max(_BLOCK_BYTES, size_bytes))
            begin, end = 0, size_bytes
            self._used = end
        return self._block[begin:end]

    def uniform(self) -> float:
        return int.from_bytes(self.token(7), "big") / (1 << 56)

    def _forget(self) -> None:
        self._block = b""

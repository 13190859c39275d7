"""One shard as its owner sees it: the epoch it was activated under, and how long the lease holds.

Writes are safe by the epoch alone, which every append carries. The lease says how long answers may rest on memory. It
is counted from before its renewal was sent, and shortened by the greatest error of the clock's rate: only that rate is
trusted (Gray and Cheriton, "Leases", 1989).

Pure: time comes in, nothing goes out.
"""

from __future__ import annotations

from typing import Final

__all__ = ["STINTS", "Lease"]

STINTS: Final = 1 << 20
"""How often a node may begin to take calls of a shard within one unbroken ownership; once a second it lasts 12 days.
A tenure is ``unbroken_since`` times this, plus how often it has begun since."""


class Lease:
    """What this process holds of one shard."""

    __slots__ = ("_left_behind", "_rate_error", "active", "epoch", "unbroken_since", "valid_until_s")

    def __init__(self, clock_rate_error: float) -> None:
        self._rate_error = clock_rate_error
        self._left_behind = False
        self.active = False
        """Whether the shard is owned under ``epoch``, and calls are delivered. Else it is to be acquired, and calls
        wait."""
        self.epoch = 0
        self.unbroken_since = 0
        """The epoch of the last acquisition before which somebody else may have owned the shard."""
        self.valid_until_s = float("-inf")

    def acquired(self, epoch: int, asked_at_s: float, duration_s: float) -> bool:
        """The store has given us the shard. Returns whether nobody else can have owned it since we last did.

        That is so where the epoch is the one after our own; whatever memory there is of the shard's entities then
        counts. What was left behind meanwhile counts as somebody else.
        """
        unbroken = self.epoch != 0 and epoch == self.epoch + 1 and not self._left_behind
        self._left_behind = False
        self.epoch = epoch
        if not unbroken:
            self.unbroken_since = epoch
        self.active = True
        self.renewed(asked_at_s, duration_s)
        return unbroken

    def renewed(self, asked_at_s: float, duration_s: float) -> None:
        """The lease was extended by a request that was sent at ``asked_at_s``."""
        self.valid_until_s = asked_at_s + duration_s * (1 - self._rate_error)

    def left_behind(self) -> None:
        """Entities of this process were left alone while they had appends on their way: these may be stored, and nobody
        here will know."""
        self._left_behind = True

    def lost(self) -> None:
        """Another owner has the shard, or the epoch is to be raised: nothing rests on memory any more."""
        self.active = False
        self.valid_until_s = float("-inf")

    def is_valid(self, now_s: float) -> bool:
        return self.active and now_s < self.valid_until_s

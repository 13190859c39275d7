"""A phi accrual failure detector: not "dead or alive", but how surprising a silence is by now.

Intuition: keep the times that answers have taken lately. When one is outstanding, ask how likely it would be for an
answer to take even longer than this; phi is minus the decimal logarithm of that chance. At phi 1 one answer in ten is
this late, at phi 5 one in a hundred thousand. So one threshold suits a quiet network and a slow one.

Hayashibara, Défago, Yared, Katayama: "The φ accrual failure detector", 2004. There the times are those between
heartbeats of one node; here they are round trips of this node's probes, because members probe each other too rarely
for a history of each pair. As there, they are taken as normally distributed.
"""

from __future__ import annotations

from collections import deque
from math import erfc, inf, log10, sqrt
from statistics import NormalDist
from typing import Final

__all__ = ["FailureDetector"]

_STANDARD: Final = NormalDist()


class FailureDetector:
    """Learns from round trips, and says how long to wait for the next."""

    def __init__(self, *, window: int, deviation_min_s: float) -> None:
        """It remembers the last ``window`` round trips, and never takes them as less scattered than
        ``deviation_min_s``."""
        self._samples: deque[float] = deque(maxlen=window)
        self._deviation_min_s = deviation_min_s
        self._sum = 0.0
        self._squares = 0.0

    def heard(self, took_s: float) -> None:
        """An answer has come after so many seconds."""
        samples = self._samples
        if len(samples) == samples.maxlen:
            oldest = samples[0]
            self._sum -= oldest
            self._squares -= oldest * oldest
        samples.append(took_s)
        self._sum += took_s
        self._squares += took_s * took_s

    @property
    def mean_s(self) -> float:
        """Of the answers that are remembered; 0 before the first."""
        return self._sum / len(self._samples) if self._samples else 0.0

    @property
    def deviation_s(self) -> float:
        """Their standard deviation, or the least that is assumed."""
        if not self._samples:
            return self._deviation_min_s
        # Rounding can leave a variance just below nothing.
        variance = max(0.0, self._squares / len(self._samples) - self.mean_s**2)
        return max(self._deviation_min_s, sqrt(variance))

    def phi(self, silent_s: float) -> float:
        """How surprising it is that an answer has not come after so long. Grows with the silence."""
        later = 0.5 * erfc((silent_s - self.mean_s) / (self.deviation_s * sqrt(2)))
        return -log10(later) if later > 0.0 else inf

    def timeout_s(self, threshold: float) -> float:
        """The silence for which ``phi`` is ``threshold``."""
        return self.mean_s - self.deviation_s * _STANDARD.inv_cdf(10.0**-threshold)

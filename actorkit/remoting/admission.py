"""Admission: how many new connections one host may make, as token buckets (Turner, 1986), one for each host."""

from __future__ import annotations

from collections import OrderedDict

__all__ = ["Admission"]

_HOSTS_MAX = 1_000


class Admission:
    """Bounded in memory: hosts that were not heard of for longest are forgotten."""

    def __init__(self, *, rate_per_s: float, burst: int) -> None:
        self._rate_per_s = rate_per_s
        self._burst = float(burst)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def admit(self, now_s: float, host: str) -> bool:
        """Whether one more connection from that host may be made now."""
        tokens, then_s = self._buckets.pop(host, (self._burst, now_s))
        tokens = min(self._burst, tokens + (now_s - then_s) * self._rate_per_s)
        admitted = tokens >= 1.0
        self._buckets[host] = (tokens - 1.0 if admitted else tokens, now_s)
        if len(self._buckets) > _HOSTS_MAX:
            self._buckets.popitem(last=False)
        return admitted

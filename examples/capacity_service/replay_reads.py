"""Availability asked all the while: what each node's read model shows is held against what it has promised.

After each command some questions are asked, of all nodes in turn, about the pool that was just written and some that
were before. Three things must hold of every answer, whatever fails meanwhile:

- what was answered longer ago than ``as_of.oldest_source_ms`` before the question is shown, or something newer;
- a pool never goes back at a node, as long as that runs;
- what is shown at a version is what the write with this version has answered.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from examples.capacity_service.replay_client import ServiceClient, ShownAnswer

__all__ = ["AvailabilityBody", "Reads", "Unanswered"]

POOLS_PER_READ = 8
POOLS_REMEMBERED = 1_000
VERSIONS_REMEMBERED = 64


class AvailabilityBody(msgspec.Struct, frozen=True):
    """The body of ``POST /rpc/availability``."""

    pool_ids: list[str]


class Unanswered(NamedTuple):
    """A question without an answer: the node could not be reached, or could not serve, at the moment."""

    url: str
    began_s: float
    ended_s: float


class _Written:
    """What is known of one pool by the answers to its writes."""

    __slots__ = ("answered_s", "remaining", "version")

    def __init__(self) -> None:
        self.version = 0
        self.answered_s = 0.0
        self.remaining: OrderedDict[int, int] = OrderedDict()
        """By version, of the last ones."""


class Reads:
    """So many questions for each command."""

    def __init__(
        self, client: ServiceClient, urls: Sequence[str], *, per_command: int, differs: Callable[[str], None]
    ) -> None:
        self.asked = 0
        self.unanswered: list[Unanswered] = []
        self.latencies_s: list[float] = []
        self.oldest_ms: list[int] = []
        """What the answers said of their age."""
        self._client = client
        self._urls = list(urls)
        self._per_command = per_command
        self._differs = differs
        self._turn = 0
        self._written: OrderedDict[str, _Written] = OrderedDict()
        self._shown: dict[str, dict[str, int]] = {url: {} for url in self._urls}

    def note(self, pool_id: str, version: int, remaining: int) -> None:
        """A write was answered just now."""
        written = self._written.get(pool_id)
        if written is None:
            written = self._written[pool_id] = _Written()
            if len(self._written) > POOLS_REMEMBERED:
                self._written.popitem(last=False)
        self._written.move_to_end(pool_id)
        written.remaining[version] = remaining
        if len(written.remaining) > VERSIONS_REMEMBERED:
            written.remaining.popitem(last=False)
        if version > written.version:
            written.version, written.answered_s = version, time.perf_counter()

    async def ask(self) -> None:
        """Asks what is due for one command."""
        for _ in range(self._per_command):
            self._turn = (self._turn + 1) % len(self._urls)
            await self._ask_one(self._urls[self._turn])

    async def _ask_one(self, url: str) -> None:
        newest = [pool_id for pool_id, _ in zip(reversed(self._written), range(POOLS_PER_READ), strict=False)]
        known = {pool_id: (self._written[pool_id].version, self._written[pool_id].answered_s) for pool_id in newest}
        before = {pool_id: self._shown[url].get(pool_id, 0) for pool_id in newest}
        began_s = time.perf_counter()
        answer = await self._client.ask_once(url, "/rpc/availability", AvailabilityBody(newest))
        self.asked += 1
        if answer is None or not answer.ok:
            self.unanswered.append(Unanswered(url, began_s, time.perf_counter()))
            # It may be another process that answers there next.
            self._shown[url] = {}
            return
        self.latencies_s.append(time.perf_counter() - began_s)
        read = msgspec.json.decode(answer.body, type=ShownAnswer)
        age_ms = read.as_of.oldest_source_ms
        self.oldest_ms.append(age_ms)
        shown = {pool.pool_id: (pool.version, pool.remaining) for pool in read.pools}
        for pool_id, (version, answered_s) in known.items():
            here, remaining = shown.get(pool_id, (0, 0))
            if here < version and answered_s <= began_s - age_ms / 1000:
                late_ms = (began_s - answered_s) * 1000
                self._differs(
                    f"{url} shows {pool_id} at {here}, {late_ms:.0f} ms after {version} was answered, and says that it "
                    f"is {age_ms} ms old at most"
                )
            if here < before[pool_id]:
                self._differs(f"{url} shows {pool_id} at {here} after {before[pool_id]}")
            expected = self._written[pool_id].remaining.get(here) if pool_id in self._written else None
            if expected is not None and expected != remaining:
                self._differs(f"{url} shows {remaining} remaining of {pool_id} at {here}; its write said {expected}")
        seen = self._shown[url]
        for pool_id, (version, _) in shown.items():
            seen[pool_id] = max(version, seen.get(pool_id, 0))

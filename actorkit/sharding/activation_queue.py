"""Activation queue: which entities come into memory next, when more are asked for than can be recovered at once.

After a crash the next owner of a shard has nothing of it in memory, and everybody asks at once. In one line a fresh
call would wait behind 50,000 recoveries; and once the deadlines of those at its head pass, what is recovered is of no
use to anybody any more. So the shards take turns, however many wait in each. Of one shard the entities that were asked
for first and last come alternately: a fresh call waits for two rounds of the shards at most, as long as no fresher ones
come, and nobody is overtaken for ever. (Maurer, "Fail at scale", 2015, has the newest alone go first.) Those in the
middle whose turn will not come in the time that they have left, at the best rate of late, are told so at once.

Calls of one entity stay in their order; entities of which all calls have ended are passed over.

Pure: time comes in, nothing goes out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import accumulate
from typing import Final

from actorkit.ids import PersistenceId
from actorkit.persistence.calls import EntityCall, Progress

__all__ = ["ActivationQueue"]

_INTERVALS: Final = 30
"""How many intervals between ticks are remembered."""
_HORIZON: Final = 2
"""How many times as long as they have lasted they say something of what is to come."""


class _Line:
    """The entities of one shard, in the order in which they were asked for: the older ones, then the newer ones."""

    __slots__ = ("calls", "count", "newer", "newest_next", "older")

    def __init__(self) -> None:
        self.older: deque[PersistenceId] = deque()
        self.newer: deque[PersistenceId] = deque()
        self.calls: dict[PersistenceId, list[EntityCall]] = {}
        self.count = 0
        """How many calls there are."""
        self.newest_next = True

    def take(self) -> list[EntityCall]:
        """The calls that have not ended of the entity whose turn it is."""
        if self.newest_next:
            pid = self.newer.pop() if self.newer else self.older.pop()
        else:
            pid = self.older.popleft() if self.older else self.newer.popleft()
        return self.forget(pid)

    def halve(self) -> None:
        """Puts the middle between older and newer ones."""
        while len(self.older) < len(self.newer):
            self.older.append(self.newer.popleft())
        while len(self.older) > len(self.newer) + 1:
            self.newer.appendleft(self.older.pop())

    def forget(self, pid: PersistenceId) -> list[EntityCall]:
        calls = self.calls.pop(pid)
        self.count -= len(calls)
        return _living(calls)


class ActivationQueue:
    """Entities that are not in memory yet, by shard, with the calls that wait for them."""

    def __init__(self, *, calls_max: int, entity_calls_max: int) -> None:
        """``calls_max``: calls of one shard that wait; ``entity_calls_max``: calls of one entity."""
        self._calls_max = calls_max
        self._entity_calls_max = entity_calls_max
        self._lines: OrderedDict[int, _Line] = OrderedDict()
        """By shard; the one whose turn is next stands first."""
        self._done = 0
        self._tick_at_s: float | None = None
        self._intervals: deque[tuple[float, int]] = deque(maxlen=_INTERVALS)
        """Between one tick and the next, while some had to wait: how long it lasted, and how many came into memory."""

    def __len__(self) -> int:
        """How many entities wait."""
        return sum(len(line.calls) for line in self._lines.values())

    def __bool__(self) -> bool:
        return bool(self._lines)

    def has(self, shard: int, pid: PersistenceId) -> bool:
        """Whether that entity of the shard waits."""
        line = self._lines.get(shard)
        return line is not None and pid in line.calls

    def of(self, shard: int) -> list[PersistenceId]:
        """The entities of a shard that wait."""
        line = self._lines.get(shard)
        return [] if line is None else list(line.calls)

    def add(self, shard: int, call: EntityCall) -> list[EntityCall]:
        """A call for an entity that is not in memory. Returns what does not wait (any more), because it is too much.

        Where too many wait for the shard, that is the entity in the middle, which would have to wait longest.
        """
        line = self._lines.get(shard)
        if line is None:
            line = self._lines[shard] = _Line()
        calls = line.calls.get(call.pid)
        if calls is None:
            calls = line.calls[call.pid] = []
            line.newer.append(call.pid)
        elif len(calls) >= self._entity_calls_max:
            return [call]
        calls.append(call)
        line.count += 1
        if line.count <= self._calls_max:
            return []
        line.halve()
        return self._drop(shard, line, line.older.pop())

    def next(self, ready: Callable[[int], bool]) -> tuple[int, PersistenceId, list[EntityCall]] | None:
        """The entity that comes into memory now, taken out, of a shard that is ready."""
        for shard in list(self._lines):
            if not ready(shard):
                continue
            line = self._lines[shard]
            calls: list[EntityCall] = []
            while line.calls and not calls:
                calls = line.take()
            if line.calls:
                self._lines.move_to_end(shard)
            else:
                del self._lines[shard]
            if calls:
                line.newest_next = not line.newest_next
                self._done += 1
                return shard, calls[0].pid, calls
        return None

    def take(self, shard: int) -> list[EntityCall]:
        """All calls of a shard, taken out."""
        line = self._lines.pop(shard, None)
        return [] if line is None else [call for calls in line.calls.values() for call in _living(calls)]

    def clear(self) -> None:
        self._lines.clear()

    def tick(self, now: float) -> list[EntityCall]:
        """Called now and then while some wait: measures the rate, and gives calls whose turn will not come in time."""
        if self._tick_at_s is not None and now > self._tick_at_s:
            self._intervals.append((now - self._tick_at_s, self._done))
        self._tick_at_s, self._done = now, 0
        if not self._lines:
            # An interval in which nobody waits says nothing of how many could have come.
            self._tick_at_s = None
            self._intervals.clear()
            return []
        rate = max((done / lasted_s for lasted_s, done in self._intervals), default=0.0)
        horizon_s = now + _HORIZON * sum(lasted_s for lasted_s, _ in self._intervals)
        # Where nothing has come at all, something else is the matter: that is no overload.
        return self._hopeless(now, rate, horizon_s) if rate else []

    def _hopeless(self, now: float, rate: float, horizon_s: float) -> list[EntityCall]:
        """An entity's turn comes when those older or those newer than it have had theirs, with as many of the other."""
        sizes = sorted(len(line.calls) for line in self._lines.values())
        sums = [0, *accumulate(sizes)]
        hopeless: list[EntityCall] = []
        for shard, line in list(self._lines.items()):
            line.halve()
            while line.older:
                pid = line.older[-1]
                turns = 2 * min(len(line.older) - 1, len(line.newer))
                smaller = bisect_right(sizes, turns)
                before = sums[smaller] + turns * (len(sizes) - smaller)
                until_s = max((call.deadline for call in _living(line.calls[pid])), default=now)
                if until_s > horizon_s or (until_s > now and before <= rate * (until_s - now)):
                    break
                hopeless += self._drop(shard, line, line.older.pop())
                line.halve()
        return hopeless

    def _drop(self, shard: int, line: _Line, pid: PersistenceId) -> list[EntityCall]:
        calls = line.forget(pid)
        if not line.calls:
            del self._lines[shard]
        return calls


def _living(calls: list[EntityCall]) -> list[EntityCall]:
    return [call for call in calls if call.progress is Progress.QUEUED]

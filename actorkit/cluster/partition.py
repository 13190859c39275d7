"""PartitionWatch: when to decide about unreachable members.

Intuition: right after a link has broken every node sees something else. So a decision waits until nothing has changed
for a while: then both sides have heard all that they will hear. A cluster that never comes to rest is decided on as it
is, after four times as long; strategies that count majorities are safe in that too: two majorities share a member.
"""

from __future__ import annotations

from math import inf
from typing import Final

from actorkit.cluster.downing import Decision, Downing, Facts, Verdict
from actorkit.cluster.settings import DowningSettings
from actorkit.ids import NodeId

__all__ = ["PartitionWatch", "lease_duration_s"]

_RESTLESS_FACTOR: Final = 4.0

_Picture = tuple[frozenset[NodeId], frozenset[NodeId], frozenset[NodeId]]


def lease_duration_s(settings: DowningSettings) -> float:
    """For how long the side that got the lease has to keep it: as long as the other one may ask for it.

    That one may see the partition ``stable_after_s`` later, never come to rest, wait for being the smaller one, and
    then take its time to ask.
    """
    decided_s = (1 + _RESTLESS_FACTOR) * settings.stable_after_s
    return decided_s + settings.lease_delay_s + settings.lease_timeout_s


class PartitionWatch:
    """The facts over time, and what the strategy makes of them."""

    def __init__(self, downing: Downing, *, stable_after_s: float) -> None:
        self.downing = downing
        self._stable_after_s = stable_after_s
        self._facts: Facts | None = None
        self._picture: _Picture | None = None
        self._changed_s = 0.0
        self._since_s = 0.0
        """Since when anybody has been unreachable."""
        self._decision: Decision | None = None
        self._asked = 0
        self.lease_wanted: int | None = None
        """The number of the question whether this side has the lease, while it is to be asked."""

    @property
    def due_s(self) -> float:
        """When there is something to decide; ``inf`` where everybody can be reached, or where it is decided."""
        if self._picture is None or not self._picture[2]:
            return inf
        if self._decision is not None:
            if self._decision.verdict is Verdict.ASK_LEASE and self.lease_wanted is None and self._decision.delay_s:
                return self._changed_s + self._stable_after_s + self._decision.delay_s
            return inf
        stable_s, restless_s = self._stable_after_s, _RESTLESS_FACTOR * self._stable_after_s
        return min(self._changed_s + stable_s, self._since_s + restless_s)

    def observe(self, now_s: float, facts: Facts) -> None:
        """The facts as they are now."""
        if facts is self._facts:
            return
        self._facts = facts
        picture = (facts.voters, facts.visible, facts.unreachable)
        if picture == self._picture:
            return
        before, self._picture = self._picture, picture
        if before is None or not before[2]:
            self._since_s = now_s
        # That some are gone is no new doubt: else each that stops on the losing side would keep the rest waiting.
        if before is None or not before[2] or any(now - then for now, then in zip(picture, before, strict=True)):
            self._changed_s = now_s
        self._decision = None
        self.lease_wanted = None

    def decide(self, now_s: float) -> Decision | None:
        """What is to be done now, if anything. ``ASK_LEASE`` is never returned, but sets ``lease_wanted``."""
        if now_s < self.due_s or self._facts is None:
            return None
        if self._decision is None:
            self._decision = self.downing.decide(self._facts)
            if self._decision.verdict is Verdict.ASK_LEASE and now_s < self.due_s < inf:
                return None
        if self._decision.verdict is Verdict.ASK_LEASE:
            self._decision = Decision(Verdict.ASK_LEASE, self._decision.why)
            self._asked += 1
            self.lease_wanted = self._asked
            return None
        return None if self._decision.verdict is Verdict.WAIT else self._decision

    def lease_answered(self, number: int, *, granted: bool) -> Decision | None:
        """Whether this side has the lease. An answer to a question of other facts is of no use."""
        if number != self.lease_wanted:
            return None
        self.lease_wanted = None
        if granted:
            return Decision(Verdict.DOWN_UNREACHABLE, "this side has the lease")
        return Decision(Verdict.DOWN_MY_SIDE, "this side could not get the lease: the other side goes on")

    def postpone(self, by_s: float) -> None:
        """This node itself has stood still for so long."""
        self._changed_s += by_s
        self._since_s += by_s

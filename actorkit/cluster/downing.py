"""Downing: who goes on when members cannot be reached and nobody knows whether they have crashed or are cut off.

Intuition: both sides of a partition have to come to opposite decisions without talking. They can where each decides by
a rule from facts that both know: who the members were, and which of them it sees. Crashed members are decided on by the
same rule, since they look the same.

**Voters** are members that others may have counted on: up or leaving ones, and joining ones that cannot be reached, for
these may have come up on the other side. **Visible** are the up and leaving ones that this side reaches. A node comes
up only when a majority of the voters has admitted it, so that the smaller side of a partition cannot outgrow the other.

The strategies are those of Akka's split brain resolver. They decide about availability only: that nothing is written
twice rests on the fence in the store.
"""

from __future__ import annotations

from enum import Enum
from functools import cached_property
from typing import Protocol

from actorkit.cluster.member import Member, Status
from actorkit.cluster.settings import DowningSettings
from actorkit.errors import ConfigurationError
from actorkit.ids import NodeId

__all__ = [
    "Decision",
    "Downing",
    "Facts",
    "KeepMajority",
    "LeaseMajority",
    "StaticQuorum",
    "Verdict",
    "downing_of",
    "is_majority",
]


class Facts:
    """Who is a member, and whom this node reaches."""

    def __init__(self, node: NodeId, members: tuple[Member, ...]) -> None:
        """``members`` are those that are not gone."""
        self.node = node
        self.members = members

    @cached_property
    def voters(self) -> frozenset[NodeId]:
        """See above."""
        joining = Status.JOINING
        return frozenset(each.node for each in self.members if each.status is not joining or not each.reachable)

    @cached_property
    def visible(self) -> frozenset[NodeId]:
        """See above."""
        joining = Status.JOINING
        return frozenset(each.node for each in self.members if each.status is not joining and each.reachable)

    @cached_property
    def unreachable(self) -> frozenset[NodeId]:
        """All that cannot be reached, in whatever status."""
        return frozenset(each.node for each in self.members if not each.reachable)


def is_majority(some: frozenset[NodeId], voters: frozenset[NodeId]) -> bool:
    """More than half of the voters; of exactly half, the one with the lowest node. Two disjoint sets are never both."""
    counted = len(some & voters)
    return 2 * counted > len(voters) or (2 * counted == len(voters) > 0 and min(voters) in some)


class Verdict(Enum):
    """What is to become of the two sides."""

    WAIT = "wait"
    """Somebody else on this side decides."""
    DOWN_UNREACHABLE = "down the unreachable"
    DOWN_MYSELF = "down myself"
    DOWN_MY_SIDE = "down my side"
    ASK_LEASE = "ask for the lease"


class Decision:
    """A verdict, why, and how long to wait with it."""

    __slots__ = ("delay_s", "verdict", "why")

    def __init__(self, verdict: Verdict, why: str, *, delay_s: float = 0.0) -> None:
        self.verdict = verdict
        self.why = why
        self.delay_s = delay_s


class Downing(Protocol):
    """A strategy. Both methods are functions of the facts alone."""

    def has_majority(self, facts: Facts) -> bool:
        """Whether this side may be sure, right now, of going on."""
        ...

    def decide(self, facts: Facts) -> Decision:
        """What to do about the unreachable members, of which there are some."""
        ...


class KeepMajority:
    """The side that sees most voters goes on."""

    def has_majority(self, facts: Facts) -> bool:
        return is_majority(facts.visible, facts.voters)

    def decide(self, facts: Facts) -> Decision:
        seen = f"{len(facts.visible & facts.voters)} of {len(facts.voters)} members are reachable"
        if self.has_majority(facts):
            return Decision(Verdict.DOWN_UNREACHABLE, seen)
        return Decision(Verdict.DOWN_MYSELF, f"only {seen}: the other side goes on, if there is one")


class StaticQuorum:
    """A side that has so many members goes on, however many there were."""

    def __init__(self, quorum: int) -> None:
        self._quorum = quorum

    def has_majority(self, facts: Facts) -> bool:
        return len(facts.visible) >= self._quorum

    def decide(self, facts: Facts) -> Decision:
        seen = f"{len(facts.visible)} members are reachable, the quorum is {self._quorum}"
        return Decision(Verdict.DOWN_UNREACHABLE if self.has_majority(facts) else Verdict.DOWN_MYSELF, seen)


class LeaseMajority:
    """The side that gets the lease goes on; the smaller one asks later. One node of each side asks: its lowest."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s

    def has_majority(self, facts: Facts) -> bool:
        return is_majority(facts.visible, facts.voters)

    def decide(self, facts: Facts) -> Decision:
        if not facts.visible:
            return Decision(Verdict.DOWN_MYSELF, "none of the members is reachable")
        if facts.node != min(facts.visible):
            return Decision(Verdict.WAIT, "the lowest member of this side asks for the lease")
        delay_s = 0.0 if self.has_majority(facts) else self._delay_s
        return Decision(Verdict.ASK_LEASE, "the lease decides which side goes on", delay_s=delay_s)


def downing_of(settings: DowningSettings) -> Downing:
    """The strategy that the settings name. Raises ``ConfigurationError`` for a quorum that is none."""
    if settings.strategy == "static-quorum":
        if settings.quorum < 1:
            raise ConfigurationError(
                f"the strategy static-quorum needs a quorum of at least 1, not {settings.quorum}: more than half of "
                "the members that there will ever be"
            )
        return StaticQuorum(settings.quorum)
    if settings.strategy == "lease-majority":
        return LeaseMajority(settings.lease_delay_s)
    return KeepMajority()

"""What happens in a cluster, as this node sees it. Each node sees the same in the end, not always in the same order.

Events of one member come in the order in which it lives: joined, up, leaving, then left or down, with unreachable and
reachable between. A member that one node sees only for a moment another may never see.
"""

from __future__ import annotations

import msgspec

from actorkit.cluster.member import Member, Status

__all__ = [
    "ClusterEvent",
    "ClusterFormed",
    "Downed",
    "EventsDropped",
    "JoinRefused",
    "MajorityGained",
    "MajorityLost",
    "MemberDown",
    "MemberJoined",
    "MemberLeaving",
    "MemberLeft",
    "MemberReachable",
    "MemberUnreachable",
    "MemberUp",
    "events_of",
]


class ClusterEvent(msgspec.Struct, frozen=True):
    """Something that has happened."""


class _OfMember(ClusterEvent, frozen=True):
    member: Member


class MemberJoined(_OfMember, frozen=True):
    """It is known now, and owns nothing yet."""


class MemberUp(_OfMember, frozen=True):
    """It may own shards."""


class MemberUnreachable(_OfMember, frozen=True):
    """It is counted as lost: it owns nothing any more as far as placement goes. It may come back until it is down."""


class MemberReachable(_OfMember, frozen=True):
    """It was unreachable, and has come back."""


class MemberLeaving(_OfMember, frozen=True):
    """It gives its shards away and will stop."""


class MemberLeft(_OfMember, frozen=True):
    """It has stopped of its own accord."""


class MemberDown(_OfMember, frozen=True):
    """It was declared gone, or another incarnation has taken its place. This incarnation never comes back."""


class ClusterFormed(ClusterEvent, frozen=True):
    """This node has found no cluster and has begun one."""

    seeds_heard: int
    seeds: int


class JoinRefused(ClusterEvent, frozen=True):
    """A member refuses this node; it goes on trying. Or two clusters with different journals have met, which stay
    apart; said once."""

    by: str
    why: str


class MajorityLost(ClusterEvent, frozen=True):
    """This node sees too few of the members that it knows: it must not renew leases."""

    visible: int
    voters: int


class MajorityGained(ClusterEvent, frozen=True):
    """It sees enough of them, again or for the first time."""

    visible: int
    voters: int


class Downed(ClusterEvent, frozen=True):
    """This incarnation is no member any more and never will be: whoever runs it has to stop, or to join as another."""

    why: str


class EventsDropped(ClusterEvent, frozen=True):
    """A reader was too slow, and so many events were left out here. What follows happened after this state."""

    count: int
    members: tuple[Member, ...]
    """All that are not gone, at the moment at which this is read, by name: in place of what was left out."""


def events_of(before: Member | None, record: Member) -> list[ClusterEvent]:
    """What has happened to a member whose record has changed. One that was gone when first heard of is none."""
    if record.gone:
        if before is None or before.gone:
            return []
        # The record of a gone member keeps little; whoever hears of it may want to know what it was.
        member = msgspec.structs.replace(before, status=record.status)
        return [MemberDown(member) if record.status is Status.DOWN else MemberLeft(member)]
    status = -1 if before is None else before.status
    events: list[ClusterEvent] = []
    if before is None:
        events.append(MemberJoined(record))
    if status < Status.UP <= record.status:
        events.append(MemberUp(record))
    if status < Status.LEAVING <= record.status:
        events.append(MemberLeaving(record))
    if (before is None or before.reachable) and not record.reachable:
        # Whoever hears of it wants to know who says so; the record has no more use for that.
        accusers = record.accusers if before is None else before.accusers
        events.append(MemberUnreachable(msgspec.structs.replace(record, accusers=accusers)))
    if before is not None and not before.reachable and record.reachable:
        events.append(MemberReachable(record))
    return events

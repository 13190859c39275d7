"""Membership: who is in the cluster, who is lost, and which side goes on when it is cut in two.

``Cluster`` is what the rest of actorkit uses. Behind it is ``Membership``, a core without I/O: ``Prober`` watches,
``Suspicions`` give time to object, ``Dissemination`` spreads news, ``Joining`` finds the cluster, ``Downing`` decides
what a partition leaves. docs/architecture.md tells how they fit together.
"""

from actorkit.cluster.cluster import Cluster
from actorkit.cluster.downing_lease import JournalDowningLease
from actorkit.cluster.events import (
    ClusterEvent,
    ClusterFormed,
    Downed,
    EventsDropped,
    JoinRefused,
    MajorityGained,
    MajorityLost,
    MemberDown,
    MemberJoined,
    MemberLeaving,
    MemberLeft,
    MemberReachable,
    MemberUnreachable,
    MemberUp,
)
from actorkit.cluster.member import Member, Reachability, Status
from actorkit.cluster.messages import MESSAGES
from actorkit.cluster.messenger import DowningLease, Messenger, Sender
from actorkit.cluster.settings import ClusterSettings

__all__ = [
    "MESSAGES",
    "Cluster",
    "ClusterEvent",
    "ClusterFormed",
    "ClusterSettings",
    "Downed",
    "DowningLease",
    "EventsDropped",
    "JoinRefused",
    "JournalDowningLease",
    "MajorityGained",
    "MajorityLost",
    "Member",
    "MemberDown",
    "MemberJoined",
    "MemberLeaving",
    "MemberLeft",
    "MemberReachable",
    "MemberUnreachable",
    "MemberUp",
    "Messenger",
    "Reachability",
    "Sender",
    "Status",
]

"""What a node of a cluster tells of remoting, membership and sharding, as metrics.

All of it is kept by those parts anyway, and read when somebody asks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping

from actorkit.cluster.cluster import Cluster
from actorkit.cluster.events import (
    ClusterFormed,
    Downed,
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
from actorkit.cluster.member import Reachability, Status
from actorkit.gateway.metrics import Reading, readings_of
from actorkit.remoting.remoting import Remoting
from actorkit.sharding.cluster_sharding import ClusterSharding
from actorkit.sharding.handoff import Phase
from actorkit.sharding.region import Region
from actorkit.sharding.singletons import Singletons

__all__ = ["cluster_readings", "membership_readings", "remoting_readings", "sharding_readings"]

_PRESENT = (Status.JOINING, Status.UP, Status.LEAVING)
_EVENTS = [
    kind.__name__
    for kind in (
        *(ClusterFormed, Downed, JoinRefused, MajorityGained, MajorityLost, MemberDown, MemberJoined, MemberLeaving),
        *(MemberLeft, MemberReachable, MemberUnreachable, MemberUp),
    )
]
_WORDS = re.compile(r"(?<!^)(?=[A-Z])")


def cluster_readings(
    remoting: Remoting, cluster: Cluster, sharding: ClusterSharding, region: Region, singletons: Singletons
) -> list[Reading]:
    """Everything that this module knows of; append it to ``Metrics.readings``."""
    return [
        *remoting_readings(remoting),
        *membership_readings(cluster),
        *sharding_readings(sharding, region, singletons),
    ]


def remoting_readings(remoting: Remoting) -> list[Reading]:
    """Connections, and what went over them."""
    counters = remoting.counters
    counter = readings_of(counters, "actorkit_remoting", "counter")

    def lost() -> Mapping[str, float]:
        return {
            "not accepted": counters.messages_not_accepted,
            "discarded": counters.messages_discarded,
            "not understood": counters.messages_dropped,
        }

    return [
        Reading("actorkit_remoting_connections", "Connections to other nodes.", "gauge", lambda: len(remoting.peers)),
        Reading(
            "actorkit_remoting_queued_messages",
            "Messages that wait for a connection.",
            "gauge",
            lambda: remoting.queued_messages,
        ),
        counter("connects", "Connections that have come about.", "connected"),
        counter("reconnects", "Connections to nodes to which there had been one before.", "reconnected"),
        counter("disconnects", "Connections that have ended or broken.", "disconnected"),
        counter("failed_connects", "Attempts to connect that came to nothing.", "unreachable"),
        counter(
            "refused_handshakes", "Connections of others that did not get past the handshake.", "handshakes_failed"
        ),
        counter("turned_away_connections", "Connections of others beyond the limits.", "connections_turned_away"),
        counter("sent_messages", "Messages that were written to connections.", "messages_sent"),
        counter("received_messages", "Messages that have come.", "messages_received"),
        counter("sent_frames", "Frames that were written to connections.", "frames_sent"),
        counter("received_frames", "Frames that have come.", "frames_received"),
        counter("sent_bytes", "Bytes of frames that were written to connections.", "bytes_sent"),
        counter("received_bytes", "Bytes of frames that have come.", "bytes_received"),
        Reading(
            "actorkit_remoting_lost_messages",
            "Messages that were not accepted for sending, were accepted and never written, or came and were not "
            "understood.",
            "counter",
            lost,
            label="how",
        ),
        counter("failed_receivers", "Exceptions out of receivers of messages: defects.", "receivers_failed"),
    ]


def membership_readings(cluster: Cluster) -> list[Reading]:
    """Who is there, and what has happened."""

    def members() -> Mapping[str, float]:
        found = Counter(member.status for member in cluster.members)
        return {status.name.lower(): found[status] for status in _PRESENT}

    def of(reachability: Reachability) -> Callable[[], float]:
        return lambda: sum(member.reachability is reachability for member in cluster.members)

    def events() -> Mapping[str, float]:
        counts = cluster.event_counts
        return {_WORDS.sub("_", kind).lower(): counts.get(kind, 0) for kind in _EVENTS}

    return [
        Reading("actorkit_cluster_members", "Members, as this node sees them.", "gauge", members, label="status"),
        Reading(
            "actorkit_cluster_suspected_members",
            "Members that somebody could not reach, and that may still object.",
            "gauge",
            of(Reachability.SUSPECT),
        ),
        Reading(
            "actorkit_cluster_unreachable_members",
            "Members that are counted as lost.",
            "gauge",
            of(Reachability.UNREACHABLE),
        ),
        Reading(
            "actorkit_cluster_majority",
            "1 while this node sees enough of the members to own shards, else 0.",
            "gauge",
            lambda: float(cluster.majority),
        ),
        Reading("actorkit_cluster_events", "What has happened to members.", "counter", events, label="event"),
        Reading("actorkit_cluster_sent_messages", "Messages of membership.", "counter", lambda: cluster.sent),
        Reading(
            "actorkit_cluster_unsent_messages",
            "Messages of membership that remoting did not take.",
            "counter",
            lambda: cluster.unsent,
        ),
    ]


def sharding_readings(sharding: ClusterSharding, region: Region, singletons: Singletons) -> list[Reading]:
    """Shards of this node, and calls on their way to others."""
    ownership, router, incoming = sharding.ownership, sharding.router, sharding.incoming

    def shards() -> Mapping[str, float]:
        found = Counter(ownership.phases.values())
        return {phase.value: found[phase] for phase in Phase if phase is not Phase.ELSEWHERE}

    return [
        Reading(
            "actorkit_sharding_shards",
            "Shards with which this node has to do: those that it wants, owns, hands off or has handed off.",
            "gauge",
            shards,
            label="phase",
        ),
        Reading("actorkit_sharding_handoffs", "Shards that were handed to others.", "counter", lambda: ownership.moved),
        Reading(
            "actorkit_sharding_handovers", "Shards that others have handed over.", "counter", lambda: ownership.received
        ),
        Reading(
            "actorkit_sharding_takeovers",
            "Shards that were acquired without having been handed over: nobody had them, or their owner was lost.",
            "counter",
            lambda: ownership.taken_over,
        ),
        Reading("actorkit_sharding_sent_calls", "Calls that were sent to other nodes.", "counter", lambda: router.sent),
        Reading(
            "actorkit_sharding_received_calls",
            "Calls that came from other nodes.",
            "counter",
            lambda: incoming.received,
        ),
        Reading(
            "actorkit_sharding_pending_calls",
            "Calls of this node that wait to hear who owns their shard, or for the answer of that node.",
            "gauge",
            lambda: router.pending,
        ),
        Reading(
            "actorkit_sharding_buffered_calls",
            "Calls that wait for a shard which this node is acquiring.",
            "gauge",
            lambda: region.buffered,
        ),
        Reading("actorkit_sharding_singletons", "Singletons that run here.", "gauge", lambda: singletons.active),
    ]

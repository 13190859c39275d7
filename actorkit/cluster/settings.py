"""Settings of membership. The times are tuned together: tests/cluster/test_bounds.py holds what they reach."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = [
    "ClusterSettings",
    "DowningSettings",
    "GossipSettings",
    "JoiningSettings",
    "ProbeSettings",
    "SuspicionSettings",
]


class ProbeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How members are watched."""

    interval_s: float = 0.2
    """How often a node probes one other member. With n members each is probed once in ``interval_s`` by somebody on
    average, and is missed for a time t with probability ``exp(-t / interval_s)``: 1 % for 4.6 intervals. Shorter: a
    crash is seen earlier, for ``2 / interval_s`` more messages per node and second, however many members there are."""

    phi_threshold: float = 5.0
    """An unanswered probe counts as missed when the chance that its answer is only late, judged by the round trips of
    late, falls below ``10 ** -phi_threshold``. Higher: fewer false suspicions, for later true ones."""

    window: int = 200
    """Round trips that are remembered: 40 s of them by default. Shorter: it adapts faster, and less steadily."""

    deviation_min_s: float = 0.025
    """The least standard deviation that is assumed, so that a quiet network does not make everybody impatient."""

    timeout_min_s: float = 0.15
    """A probe is never missed before this: what a loop may stall under load without being suspected."""

    timeout_max_s: float = 0.6
    """A probe is always missed after this, however slow answers have been."""

    indirect: int = 3
    """How many others are asked to try, after a missed probe. With messages lost at rate p one of them fails with
    ``1 - (1 - p) ** 4``: at 5 %, all three and a second try of one's own fail in 0.06 % of cases."""

    indirect_timeouts: float = 2.0
    """How long their answers are waited for, in timeouts of a probe: there and back again twice."""

    relays_max: int = 1_000
    """Probes on behalf of others that are waited for at a time; more are not begun."""


class SuspicionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How long a suspect may object before it counts as unreachable."""

    timeout_s: float = 0.45
    """With enough confirmations, times ``max(1, log10(members))``: what it takes for the suspicion to reach the suspect
    and for its objection to come back. Shorter: quicker take-over after a crash, for more false alarms."""

    timeout_max_factor: float = 5.0
    """So many times as long while nobody else has confirmed it."""

    confirmations: int = 3
    """So many other nodes, whose own probes fail as well, bring the time down to the least; with few members, as many
    as there are. At most ``ACCUSERS_MAX - 1``."""

    checks: float = 8.0
    """So many members, on average, probe a suspect next when they hear of it. More: confirmations and objections come
    sooner, for a burst of messages at the suspect."""


class GossipSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How news spreads."""

    interval_s: float = 0.1
    """How often news is sent for its own sake, while there is any; apart from that it travels on probes."""

    fanout: int = 2
    """To how many members each time."""

    retransmit_factor: float = 3.0
    """Each node passes a piece of news on ``ceil(factor * ln(members + 1))`` times. Higher: the chance that somebody is
    left out falls by e for each unit; what is left out comes with the next comparison."""

    updates_max: int = 8
    """Pieces of news in one message: about 100 bytes each. Those that were sent least go first."""

    sync_interval_s: float = 1.0
    """How often all that is known is compared with one other member, by a hash."""

    sync_members_max: int = 200
    """Members in one message of a comparison; more go in several."""

    lost_contacts: float = 2.0
    """How many times per ``sync_interval_s`` each unreachable member is tried, by all others together."""

    tombstone_s: float = 3600.0
    """For how long it is remembered that an incarnation is gone. A node that has not run for half this time stops
    itself, so that nobody comes back who has been forgotten."""

    tombstones_max: int = 2_000
    """Gone incarnations that are remembered, about 500 bytes each; beyond that those gone for longest are forgotten."""

    strangers_max: int = 16
    """Addresses of unknown nodes that will be talked to next."""


class JoiningSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a node finds its cluster, or begins one."""

    retry_s: float = 0.25
    """How often seeds are asked."""

    seeds_max: int = 100
    """Seeds that are asked; the rest is ignored."""

    heard_for_s: float = 1.5
    """For how long another node's word counts that it is looking for a cluster too: six tries."""

    form_after_s: float = 2.0
    """When a majority of the seeds looks for a cluster, and the others are silent for so long, the one with the lowest
    address begins one. When all seeds are heard it does so at once. Longer: more patience with slow starters."""

    form_alone_after_s: float = 10.0
    """When the majority of the seeds is silent for so long, a seed begins a cluster without them. It is not safe from
    there being another one behind a partition; then both become one when that ends, and meanwhile the store's leases
    decide who owns what. ``math.inf``: wait for ever."""

    admissions_interval_s: float = 0.1
    """How often members that have not admitted this node yet are asked."""

    admissions_batch: int = 10
    """How many are asked each time: a majority of 100 members takes 0.6 s, of 1,000 takes 6 s."""

    resolve_s: float = 30.0
    """How often DNS names of seeds are looked up again."""

    resolve_timeout_s: float = 5.0
    """How long one look-up may take."""


class DowningSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of unreachable members, and of this side if it is the one that is cut off."""

    strategy: Literal["keep-majority", "static-quorum", "lease-majority"] = "keep-majority"
    """``keep-majority``: the side with more members goes on; of two halves the one with the lowest name. Two nodes
    cannot lose the lower one. ``static-quorum``: a side with ``quorum`` members goes on; all stop if none has. Never
    have ``2 * quorum`` members or more. ``lease-majority``: the side that gets a lease in the store goes on, the larger
    one being allowed to ask first; right for two nodes."""

    quorum: int = 0
    """For ``static-quorum``: how many members a side needs."""

    stable_after_s: float = 5.0
    """How long the view must not have changed before members are declared down for good. It has to be longer than
    suspicions take to reach everybody (3 s), so that both sides decide on the same facts. Longer: short partitions cost
    no restarts. Shards do not wait for this: they move when members are unreachable."""

    lease_delay_s: float = 2.0
    """For ``lease-majority``: how much longer the smaller side waits before it asks."""

    lease_timeout_s: float = 5.0
    """For ``lease-majority``: how long the store may take; then this side stops."""


class ClusterSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Membership as a whole."""

    probes: ProbeSettings = ProbeSettings()
    suspicion: SuspicionSettings = SuspicionSettings()
    gossip: GossipSettings = GossipSettings()
    joining: JoiningSettings = JoiningSettings()
    downing: DowningSettings = DowningSettings()

    stall_s: float = 0.1
    """When this node's own timer is later than this, nobody else is blamed for what went unanswered meanwhile."""

    linger_s: float = 0.5
    """How long a node that stops goes on telling others that it has left."""

    events_max: int = 1_000
    """Events that wait for one reader; one more, and all of them are dropped, and the reader is told how many and who
    the members are instead. About 500 bytes each."""

"""Settings of sharding."""

from __future__ import annotations

import msgspec

__all__ = ["ShardingSettings"]


class ShardingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Leases on shards, and how long entities stay in memory."""

    lease_s: float = 3.0
    """How long a lease on a shard lasts. Shorter: quicker take-over after a crash, for more renewals and less patience
    with a pause of the process. After a crash nobody else can own the shard for up to this time."""

    lease_renew_s: float = 1.0
    """How often leases are renewed; at most a third of ``lease_s``, so that two renewals may fail."""

    lease_renew_timeout_s: float = 1.0
    """How long the store may take to answer a renewal; then it is sent again. At most ``lease_renew_s``, so that one
    that got lost leaves time for another before the lease runs out."""

    lease_acquire_timeout_s: float = 3.0
    """How long the store may take to answer an acquisition; then nothing is taken as acquired, and it is sent again.
    Longer than ``lease_s`` is of no use, since the lease has run out by then; shorter than a slow store takes, and
    nothing is ever owned. It holds for giving leases up at the end, too."""

    clock_rate_error: float = 0.05
    """How much faster or slower than the store's clock ours may run: an owner counts its lease as shorter by this
    part."""

    acquire_retry_s: float = 0.25
    """How often a shard that another owner has is asked for again, at the latest; it may be released early."""

    buffer_max_calls: int = 10_000
    """Calls that wait for one shard which is not ready, or for its entities to come into memory; one more is answered
    ``Overloaded``, or makes another one be that would have to wait longer."""

    calls_max: int = 100_000
    """Calls of one region that wait for other nodes: held back until the owner of their shard is known, or sent to it
    and not yet answered. One more is answered ``Overloaded``. About 1 KiB each."""

    remote_margin_s: float = 0.02
    """How much of a call's remaining time is kept for the way back from the owner, so that its "surely not executed"
    arrives before the deadline. Longer than messages take between nodes, shorter than the shortest deadlines."""

    ask_backoff_min_s: float = 0.01
    ask_backoff_max_s: float = 0.2
    """How long a region waits before it asks again who owns a shard: the first for a start, doubled each time up to the
    second, times a random number between 0.5 and 1. Shorter: what a lost message delays is shorter, for more questions
    while a shard has no owner (one message for each node asked, whatever the number of shards)."""

    handoffs_max: int = 8
    """Shards that a node hands off at the same time, until their next owners have them. More: a node leaves sooner, and
    more shards are without an owner at the same time. A hand-off takes about two commits; leaving with n shards takes
    that n / handoffs_max times."""

    handoff_drain_s: float = 2.0
    """How long a shard that is handed off waits for the calls that it has accepted; what is not done by then is undone
    (handlers are cancelled) and goes back to its caller, who sends it to the next owner. What does not even end then is
    left behind after twice that time more. Longer: slow handlers end in peace, while calls to that shard wait."""

    handoff_confirm_s: float = 1.0
    """How long a hand-off counts as one of ``handoffs_max`` while the next owner does not say that it has the shard."""

    passivate_after_s: float = 120.0
    """An entity that got no call for this long leaves memory. Longer: fewer recoveries, more memory."""

    entities_max: int = 100_000
    """Entities in memory; beyond that those leave that were not used for longest. A small one costs about 5 KiB. Busy
    ones and those with timers stay; at twice this number, calls of further ones are answered ``Overloaded``."""

    singleton_retry_max_s: float = 10.0
    """A singleton whose command ``started`` has failed is started again: after 0.1 s, doubled each time up to this."""

    drain_timeout_s: float = 10.0
    """How long stopping waits for calls in progress."""

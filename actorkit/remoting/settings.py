"""Settings of remoting."""

from __future__ import annotations

import msgspec

from actorkit.wire.settings import WireSettings

__all__ = ["RemotingSettings"]


class RemotingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Connections between nodes: how much they hold, how long they wait, whom they let in."""

    wire: WireSettings = WireSettings()
    """Sizes of messages and frames."""

    heartbeat_s: float = 1.0
    """A connection on which nothing was sent for this long carries a heartbeat. Shorter: a dead one is noticed sooner,
    for one frame of 28 bytes per connection and interval."""

    idle_timeout_s: float = 3.0
    """A connection on which nothing came for this long counts as broken: three heartbeats, and as long as a lease
    lasts by default. Shorter breaks connections of nodes that only paused; a process that is killed closes its
    connections at once, whatever stands here."""

    stalled_max_s: float = 10.0
    """A peer that takes nothing for this long, while something is to be sent to it, is disconnected, even though it is
    heard of: whatever waits for it is of no use any more."""

    connect_timeout_s: float = 3.0
    """How long reaching a listening socket may take."""

    handshake_timeout_s: float = 3.0
    """How long a handshake may take; on the listening side from the first byte, or the lack of one, on."""

    backoff_min_s: float = 0.05
    """How long after the first failure the next attempt begins; each further one doubles it. While waiting, nothing is
    accepted for that peer."""

    backoff_max_s: float = 1.0
    """At most so long between attempts; less a random part of up to a half, so that nodes do not knock in step.
    A connection that has lasted this long makes the next wait the shortest one again."""

    outbox_max_messages: int = 10_000
    """Messages that wait for one peer, because its connection is being made or does not take more. One more is not
    accepted."""

    outbox_max_bytes: int = 16 << 20
    """The same in bytes: what one slow peer may cost in memory."""

    link_buffer_bytes: int = 1 << 18
    """Bytes handed to a connection and not yet taken by the operating system, beyond which further ones stay in the
    outbox. Larger hides a slow peer for longer."""

    peers_max: int = 1_000
    """Addresses that are kept in mind at once; those not connected and with nothing to send are forgotten first."""

    connections_max: int = 2_000
    """Connections that others have made to us, over all; the next one is closed."""

    unauthenticated_max: int = 64
    """Connections whose handshake is not over. One more closes the oldest of them, so that silent strangers cannot
    keep members out, whose handshakes take milliseconds."""

    connect_rate_per_s: float = 50.0
    """New connections per second from one host, in the long run; those beyond are closed at once."""

    connect_burst: int = 200
    """And so many at once."""

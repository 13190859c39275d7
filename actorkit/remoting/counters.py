"""What remoting has done so far, for metrics."""

from __future__ import annotations

import msgspec

__all__ = ["RemotingCounters"]


class RemotingCounters(msgspec.Struct):
    """Each only ever grows."""

    messages_sent: int = 0
    messages_received: int = 0
    frames_sent: int = 0
    frames_received: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    messages_not_accepted: int = 0
    """``send`` said False: the outbox was full, or the peer cannot be reached at the moment."""
    messages_discarded: int = 0
    """Accepted, and never written: the connection broke, or none could be made."""
    messages_dropped: int = 0
    """Received, and of no declared type or not as declared."""
    receivers_failed: int = 0
    """A receiver of messages, or of events, raised an exception: a defect."""
    connected: int = 0
    reconnected: int = 0
    """Of those, to addresses to which there had been a connection before."""
    disconnected: int = 0
    unreachable: int = 0
    handshakes_failed: int = 0
    """Connections that others began and that came to nothing."""
    connections_turned_away: int = 0
    """By the limits on their rate and number."""

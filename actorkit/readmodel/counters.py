"""What the replication of the read model has done, for metrics."""

from __future__ import annotations

import msgspec

__all__ = ["ReadModelCounters"]


class ReadModelCounters(msgspec.Struct):
    """Counts since the start of the node."""

    rounds: int = 0
    """Peers asked to compare what they have."""
    updates_sent: int = 0
    update_bytes_sent: int = 0
    updates_received: int = 0
    update_bytes_received: int = 0
    updates_refused: int = 0
    """Damaged, forged, malformed, or of a document that is not the store's newest: thrown away."""
    gaps: int = 0
    """Updates that built on something that was missed; it was asked for."""
    values_refused: int = 0
    """Values that do not fit the type declared here, or that are too large to travel: nothing is shown instead."""
    rewrites: int = 0
    """Documents written anew because they had grown."""
    adopted: int = 0
    """Shards whose values were read up to the end of their logs after taking them over."""

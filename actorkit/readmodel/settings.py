"""Settings of the read model."""

from __future__ import annotations

import msgspec

__all__ = ["ReadModelSettings"]


class ReadModelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How far the local read model may lag behind."""

    follow_s: float = 0.1
    """In a cluster, how often it is looked in the journal what other nodes have written. Shorter: fresher values, for a
    read of all shards' heads each time, and of what has changed."""

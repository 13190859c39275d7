"""Settings of the wire format."""

from __future__ import annotations

import msgspec

__all__ = ["WireSettings"]


class WireSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How large things may be. The same on every node: what one may send the others must take."""

    message_max_bytes: int = 1 << 20
    """One encoded message. What a peer can make us hold at once is this, plus ``batch_max_bytes``, per connection;
    smaller ones leave less room for states and snapshots that travel whole."""

    batch_max_bytes: int = 1 << 18
    """Once a frame holds this much, further messages go in the next one. Larger: less overhead, and a heartbeat waits
    longer behind it (256 KiB take 2 ms at 1 Gbit/s). A larger single message travels in a frame of its own."""

    depth_max: int = 12
    """How deep the declared types of a message may nest. Deeper data than is declared is never built."""

"""What can be set about a gateway, with units, defaults and costs."""

from __future__ import annotations

import msgspec

__all__ = ["GatewaySettings"]


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """One set per listening address."""

    request_deadline_s: float = 5.0
    """How long a request may take, its body included; what is left of it goes with the calls that it makes."""
    body_max_bytes: int = 64 << 10
    """The largest request body."""
    target_max_bytes: int = 8_190
    """The longest request target (path and query)."""
    header_max_bytes: int = 8_190
    """The longest name or value of a header."""
    headers_max: int = 128
    """The largest number of headers of one request."""
    requests_max: int = 10_000
    """Requests in progress at once; beyond that they get ``overloaded``. Memory: about 20 KiB each, plus the body."""
    keepalive_s: float = 75.0
    """How long a connection may be idle, or take to send the head of a request."""
    lingering_s: float = 2.0
    """How long the rest of a body that was too large is read, so that its sender gets to see the answer."""
    drain_grace_s: float = 0.2
    """When stopping: how long idle connections stay open, each request on them being answered with
    ``Connection: close``, so that clients learn of it by an answer rather than by a broken connection."""
    streams_max: int = 200
    """Streams of events that are open at once; beyond that they get ``overloaded``. Each costs a connection and up to
    some 20 KiB, and what its source keeps for it; each change is encoded once for each of those that want it."""
    stream_heartbeat_s: float = 15.0
    """How often a stream without events sends a comment. Longer than the idle timeout of a proxy between: it cuts the
    connection. A client that has gone without a word is noticed by it."""
    stream_stalled_s: float = 30.0
    """How long a client of a stream may take nothing of what is sent, until it is cut off."""

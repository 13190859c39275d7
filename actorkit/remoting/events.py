"""What remoting tells about peers, in the order in which it happens."""

from __future__ import annotations

import msgspec

from actorkit.ids import NodeId

__all__ = ["Connected", "Disconnected", "Peer", "PeerEvent", "Unreachable"]


class Peer(msgspec.Struct, frozen=True):
    """The node at the other end of a connection, as its handshake proved it."""

    node: NodeId
    address: str
    """Its remoting address: where to send answers."""
    version: int = 1
    """The protocol version that this connection speaks."""


class Connected(msgspec.Struct, frozen=True):
    """There is a connection now. A node that answers at an address proves every other one of that address gone."""

    node: NodeId
    address: str


class Disconnected(msgspec.Struct, frozen=True):
    """The connection is gone. Whatever was sent since ``Connected`` and not answered may have arrived or not.

    Nothing of a later connection arrives before this is told.
    """

    node: NodeId
    address: str
    why: str


class Unreachable(msgspec.Struct, frozen=True):
    """No connection could be made. What was accepted since the address was last connected was surely not sent."""

    address: str
    why: str


PeerEvent = Connected | Disconnected | Unreachable
"""What ``Remoting.subscribe`` tells."""

"""Arbitration: which of two connections between the same two nodes stays.

Both nodes may begin one at the same time, and either may begin a new one before the other has noticed that the old one
is gone. Whoever is connected *to* decides, and both would decide alike:

- of two handshakes that cross, the one begun by the smaller node id stays;
- an open connection gives way to a new one where the peer itself knows that the old one is over: it says so by naming
  the session, or by having begun both (it makes its attempts one after the other and numbers them);
- another incarnation at an address ends whatever there was with the one before.
"""

from __future__ import annotations

import msgspec

from actorkit.ids import NodeId

__all__ = ["Existing", "Incoming", "admits"]


class Incoming(msgspec.Struct, frozen=True):
    """A peer that has proved itself and wants to be connected."""

    node: NodeId
    attempt: int
    last_session: bytes


class Existing(msgspec.Struct, frozen=True):
    """The open connection to the same address."""

    node: NodeId
    session: bytes
    attempt: int | None
    """The peer's attempt that made it. None: we made it."""


def admits(local: NodeId, incoming: Incoming, existing: Existing | None, *, greeting: bool) -> bool:
    """Whether the incoming connection becomes the one there is.

    ``greeting``: a handshake that we have begun with that address is under way.
    """
    if existing is not None and existing.node == incoming.node:
        if existing.attempt is None:
            return incoming.last_session == existing.session
        return incoming.attempt > existing.attempt
    return existing is not None or not greeting or incoming.node < local

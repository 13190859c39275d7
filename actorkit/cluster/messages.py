"""What members send each other. Each message may be lost, repeated or late; none is ever answered more than once.

``updates`` are records of members that are news, of which a message carries a few on its back.
"""

from __future__ import annotations

from typing import Final

import msgspec

from actorkit.cluster.member import Member
from actorkit.ids import NodeId

__all__ = [
    "MESSAGES",
    "Ack",
    "Digest",
    "Gossip",
    "Join",
    "Message",
    "Ping",
    "PingRequest",
    "Refused",
    "Sync",
    "Waiting",
    "Welcome",
]


class Ping(msgspec.Struct, frozen=True, array_like=True, tag="cluster.ping"):
    """Are you there? Answered by ``Ack``, whatever incarnation reads it: that proves that an expected other one is
    gone."""

    sequence: int
    updates: tuple[Member, ...] = ()


class PingRequest(msgspec.Struct, frozen=True, array_like=True, tag="cluster.ping-request"):
    """I hear nothing from this member: ping it for me, and tell me if it answers."""

    sequence: int
    target: NodeId
    address: str
    updates: tuple[Member, ...] = ()


class Ack(msgspec.Struct, frozen=True, array_like=True, tag="cluster.ack"):
    """The answer to ``Ping``, or what somebody has heard on behalf of a ``PingRequest``."""

    sequence: int
    node: NodeId
    """Who is alive: the sender, or the one that it was asked to ping."""
    updates: tuple[Member, ...] = ()


class Gossip(msgspec.Struct, frozen=True, array_like=True, tag="cluster.gossip"):
    """News alone."""

    updates: tuple[Member, ...]


class Digest(msgspec.Struct, frozen=True, array_like=True, tag="cluster.digest"):
    """A hash of all that the sender knows. Who knows the same keeps silent; others answer with ``Sync``."""

    digest: int


class Sync(msgspec.Struct, frozen=True, array_like=True, tag="cluster.sync"):
    """All that the sender knows, or a part of it: parts are merged one by one."""

    members: tuple[Member, ...]
    digest: int
    """Of all that the sender knows."""
    answer: bool
    """Whether the receiver is asked for the same, if it knows anything else after having merged this."""


class Join(msgspec.Struct, frozen=True, array_like=True, tag="cluster.join"):
    """I want to be a member. Answered by ``Welcome``, ``Waiting`` or ``Refused``."""

    member: Member
    seed: str
    """The address to which this was sent, which need not be the one by which the receiver calls itself."""
    founder: bool
    """Whether the sender may begin a cluster if it finds none."""
    members: bool
    """Whether it wants to be told who the members are, by ``Sync``."""


class Waiting(msgspec.Struct, frozen=True, array_like=True, tag="cluster.waiting"):
    """I am looking for a cluster myself."""

    seed: str
    founder: bool
    founders: tuple[str, ...] = ()
    """Addresses of others that may begin one, and from which the sender has heard lately."""


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag="cluster.welcome"):
    """You are known here, and will be to all."""

    seed: str
    members: int
    """How many members there are, of which ``Sync`` tells if that was asked for."""


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="cluster.refused"):
    """You cannot join as you are."""

    seed: str
    why: str


Message = Ping | PingRequest | Ack | Gossip | Digest | Sync | Join | Waiting | Welcome | Refused

MESSAGES: Final[tuple[type[Message], ...]] = (
    Ping,
    PingRequest,
    Ack,
    Gossip,
    Digest,
    Sync,
    Join,
    Waiting,
    Welcome,
    Refused,
)
"""Every type that a member may receive."""

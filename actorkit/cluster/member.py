"""Members: what a cluster knows of each node, and how two reports of one node become one.

A record belongs to one incarnation of a node. It is the product of two things that only ever grow:

* its **status**, from joining to gone, which never goes back: a node that was declared down stays so, and comes back
  only as another incarnation, which is another record;
* its **reachability** as ``(version, reachability)``: others may say of a version that it is suspect and then that it
  is unreachable, and only the member itself may raise the version, and be reachable again by that.

So merging takes the greater of each. It is commutative, associative and idempotent: in whatever order, and however
often, reports arrive, all nodes come to the same record.

The version is what SWIM calls an incarnation number (Das, Gupta, Motivala: "SWIM: scalable weakly-consistent
infection-style process group membership protocol", 2002, section 4.2).
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Final

import msgspec

from actorkit.ids import NodeId

__all__ = [
    "ACCUSERS_MAX",
    "TRANSITIONS",
    "Change",
    "Member",
    "Reachability",
    "Status",
    "after",
    "merge",
    "objection",
    "of_another_store",
]

ACCUSERS_MAX: Final = 4
"""How many accusers of a suspect are kept: as many as can shorten a suspicion, see ``SuspicionSettings``."""


class Status(IntEnum):
    """Where a member stands in its life. Later ones are greater, and win when reports are merged."""

    JOINING = 0
    """Known to some members, and owns nothing yet."""
    UP = 1
    LEAVING = 2
    """Gives away what it owns, and will stop."""
    LEFT = 3
    """Has stopped of its own accord."""
    DOWN = 4
    """Was declared gone. This incarnation never comes back."""

    @property
    def gone(self) -> bool:
        """It is no member any more."""
        return self >= Status.LEFT


class Reachability(IntEnum):
    """What others say of a version of a member."""

    REACHABLE = 0
    SUSPECT = 1
    """Somebody could not reach it; it may still object."""
    UNREACHABLE = 2
    """It has not objected in time. It is counted as lost, but until it is down it may come back."""


class Change(Enum):
    """What moves a member from one status to the next."""

    ADMITTED = "admitted"
    """A majority of the members knows it."""
    LEAVES = "leaves"
    STOPPED = "stopped"
    """It has said good-bye."""
    DECLARED_DOWN = "declared down"


TRANSITIONS: Final[dict[tuple[Status, Change], Status]] = {
    (Status.JOINING, Change.ADMITTED): Status.UP,
    (Status.JOINING, Change.STOPPED): Status.LEFT,
    (Status.JOINING, Change.DECLARED_DOWN): Status.DOWN,
    (Status.UP, Change.LEAVES): Status.LEAVING,
    (Status.UP, Change.STOPPED): Status.LEFT,
    (Status.UP, Change.DECLARED_DOWN): Status.DOWN,
    (Status.LEAVING, Change.STOPPED): Status.LEFT,
    (Status.LEAVING, Change.DECLARED_DOWN): Status.DOWN,
}
"""Every step that a member may take. A missing key is a defect of whoever looks it up."""


def after(status: Status, change: Change) -> Status:
    """The status that follows. Raises ``KeyError`` on a step that does not exist."""
    return TRANSITIONS[status, change]


class Member(msgspec.Struct, frozen=True, array_like=True):
    """One incarnation of a node, as it is known here."""

    node: NodeId
    address: str
    """Where remoting reaches it: ``host:port``."""
    roles: tuple[str, ...] = ()
    weight: float = 1.0
    """How large its part of the shards is, compared with other members'."""
    labels: dict[str, str] = {}
    """Anything else that others want to know, such as its HTTP address. Fixed for the incarnation."""
    status: Status = Status.JOINING
    version: int = 0
    """Raised by the member itself, and nobody else, to object to a suspicion."""
    reachability: Reachability = Reachability.REACHABLE
    accusers: tuple[str, ...] = ()
    """Names of nodes that could not reach a suspect, each by its own probe; sorted, the first ``ACCUSERS_MAX``."""
    gone_s: float = 0.0
    """For how long it has been gone, as the sender of the record reckons. After a time such records are forgotten."""
    store: str = ""
    """Which journal store it has, where that has a name: all members have the same."""

    @property
    def gone(self) -> bool:
        """It has left, or is down."""
        return self.status.gone

    @property
    def reachable(self) -> bool:
        """Counted as reachable: a suspect still is."""
        return self.reachability is not Reachability.UNREACHABLE

    def __str__(self) -> str:
        state = self.status.name.lower()
        if self.reachability is not Reachability.REACHABLE and not self.gone:
            state += f", {self.reachability.name.lower()}"
        return f"{self.node} at {self.address} ({state})"


def objection(member: Member, newcomer: Member) -> str:
    """Why a member does not let a newcomer in; empty: it does."""
    if member.node.name == newcomer.node.name:
        return f"the name {newcomer.node.name} is that of {member}, which is alive"
    return of_another_store(member, newcomer)


def of_another_store(member: Member, other: Member) -> str:
    """Why two nodes can never be in one cluster, where that is so because of their journals; else empty."""
    if member.store and other.store not in ("", member.store):
        return f"its journal is another one than that of {member}: all nodes of a cluster have the same journal"
    return ""


def merge(one: Member, other: Member) -> Member:
    """What follows from two records of one incarnation. Returns ``one`` itself where ``other`` adds nothing."""
    status = max(one.status, other.status)
    version, reachability, accusers = one.version, one.reachability, one.accusers
    theirs, ours = (other.version, other.reachability), (version, reachability)
    if theirs > ours:
        version, reachability, accusers = other.version, other.reachability, other.accusers
    elif theirs == ours and other.accusers != accusers:
        # The first few of a union are again a semilattice: nothing depends on the order of merging.
        accusers = tuple(sorted({*accusers, *other.accusers})[:ACCUSERS_MAX])
    gone_s = max(one.gone_s, other.gone_s)
    if (status, version, reachability, accusers, gone_s) == (one.status, *ours, one.accusers, one.gone_s):
        return one
    return msgspec.structs.replace(
        one, status=status, version=version, reachability=reachability, accusers=accusers, gone_s=gone_s
    )

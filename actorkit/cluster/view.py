"""View: the records of all nodes that one node knows of, and what follows from them.

It keeps the gone ones for a time, so that late news does not bring them back. For how long each has been gone travels
with its record, so that all forget it at about the same time, instead of teaching it to each other again and again.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from heapq import nsmallest

import msgspec

from actorkit.cluster.downing import Facts
from actorkit.cluster.member import Member, Reachability, merge
from actorkit.cluster.settings import GossipSettings
from actorkit.ids import NodeId

__all__ = ["View"]

_encode = msgspec.msgpack.Encoder().encode


class View:
    """All records; the node's own among them."""

    def __init__(self, myself: Member, settings: GossipSettings) -> None:
        self._settings = settings
        self._records: dict[NodeId, Member] = {myself.node: myself}
        """Of members that are present: joining, up, leaving."""
        self._gone: dict[NodeId, Member] = {}
        self._gone_at_s: dict[NodeId, float] = {}
        self._digest = _hash(myself)
        self.node = myself.node
        self._facts: Facts | None = None
        self._reachable_others: tuple[Member, ...] | None = None

    # --------------------------------------------------------------------------------------------------------- reading

    @property
    def myself(self) -> Member:
        """This node's own record."""
        return self._records.get(self.node) or self._gone[self.node]

    @property
    def present(self) -> int:
        """How many members are not gone."""
        return len(self._records)

    @property
    def digest(self) -> int:
        """The same on all nodes that know the same."""
        return self._digest

    def __iter__(self) -> Iterator[Member]:
        """Members that are not gone."""
        return iter(self._records.values())

    def get(self, node: NodeId) -> Member | None:
        """The record of a node that is not gone."""
        return self._records.get(node)

    def is_gone(self, node: NodeId) -> bool:
        """It was a member, and is none any more."""
        return node in self._gone

    def rivals(self, claimant: Member) -> list[Member]:
        """Other incarnations of its name, and other nodes at its address."""
        name, address = claimant.node.name, claimant.address
        others = (each for each in self if each.node not in (claimant.node, self.node))
        return [each for each in others if each.node.name == name or each.address == address]

    def accused(self, node: NodeId) -> bool:
        """Others say that it cannot be reached, or is gone."""
        record = self._records.get(node)
        return node in self._gone if record is None else record.reachability is not Reachability.REACHABLE

    def record(self, now_s: float, node: NodeId) -> Member | None:
        """What to tell others of a node, gone or not."""
        record = self._records.get(node)
        if record is not None or (record := self._gone.get(node)) is None:
            return record
        return msgspec.structs.replace(record, gone_s=max(0.0, now_s - self._gone_at_s[node]))

    def all(self, now_s: float) -> Iterator[Member]:
        """Everything that is known, the gone ones too."""
        yield from self._records.values()
        for node in self._gone:
            record = self.record(now_s, node)
            assert record is not None
            yield record

    @property
    def facts(self) -> Facts:
        """What a decision on a partition rests on. The same object as long as nothing has changed."""
        if self._facts is None:
            self._facts = Facts(self.node, tuple(self._records.values()))
        return self._facts

    @property
    def reachable_others(self) -> tuple[Member, ...]:
        """Members that can be talked to, without this node."""
        if self._reachable_others is None:
            self._reachable_others = tuple(each for each in self if each.reachable and each.node != self.node)
        return self._reachable_others

    # -------------------------------------------------------------------------------------------------------- changing

    def put(self, now_s: float, report: Member) -> tuple[Member | None, Member] | None:
        """Merges a report. Returns the record before and after, or ``None`` if nothing has changed."""
        node = report.node
        before = self._records.get(node) or self._gone.get(node)
        if before is None:
            if report.gone_s >= self._settings.tombstone_s:
                return None
            record = report
        else:
            record = merge(before, report)
            if record is before:
                return None
        if record.gone:
            gone_at_s = now_s - report.gone_s
            self._gone_at_s[node] = min(gone_at_s, self._gone_at_s.get(node, gone_at_s))
            # Of no more use, and different from node to node: by this one order of events has made it suspect first.
            record = Member(node, record.address, status=record.status)
            self._gone[node] = record
            self._records.pop(node, None)
        else:
            self._records[node] = record
        if before is not None and record == before:
            return None
        self._digest ^= _hash(record) ^ (_hash(before) if before is not None else 0)
        self._facts = self._reachable_others = None
        self._forget_excess()
        return before, record

    def forget(self, now_s: float) -> None:
        """Forgets those that have been gone for long enough."""
        limit_s = now_s - self._settings.tombstone_s
        for node in [node for node, gone_at_s in self._gone_at_s.items() if gone_at_s <= limit_s]:
            self._drop(node)

    def _forget_excess(self) -> None:
        excess = len(self._gone) - self._settings.tombstones_max
        if excess > 0:
            for node in nsmallest(excess, self._gone_at_s, key=lambda node: (self._gone_at_s[node], node)):
                self._drop(node)

    def _drop(self, node: NodeId) -> None:
        if node != self.node:
            self._digest ^= _hash(self._gone.pop(node))
            del self._gone_at_s[node]


def _hash(record: Member) -> int:
    key = (record.node, record.status, record.version, record.reachability, record.accusers)
    return int.from_bytes(blake2b(_encode(key), digest_size=8).digest(), "big")

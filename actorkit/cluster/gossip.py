"""Dissemination: news travels on the back of messages that are sent anyway.

Intuition: each node passes each piece of news on a few times, to whomever it talks to; that is how an infection
spreads. About ``ln(members)`` times are enough for nearly everybody, and a comparison now and then finds the rest. What
was passed on least goes first, so that fresh news is not held up by old.

SWIM (see ``member``), section 4.1.
"""

from __future__ import annotations

from heapq import nsmallest
from math import ceil, log

from actorkit.cluster.member import Member
from actorkit.cluster.settings import GossipSettings
from actorkit.cluster.view import View
from actorkit.ids import NodeId

__all__ = ["Dissemination", "transmissions"]


def transmissions(members: int, settings: GossipSettings) -> int:
    """How many times a piece of news is passed on by each of so many members."""
    return ceil(settings.retransmit_factor * log(members + 1))


class Dissemination:
    """Which records are news, and how often each was passed on. At most one piece of news for each known node."""

    def __init__(self, view: View, settings: GossipSettings) -> None:
        self._view = view
        self._settings = settings
        self._sent: dict[NodeId, int] = {}

    def __len__(self) -> int:
        return len(self._sent)

    def add(self, node: NodeId) -> None:
        """Its record is news from now on, whatever it was before."""
        self._sent[node] = 0

    def take(self, now_s: float, receiver: NodeId | None = None, *, first: NodeId | None = None) -> tuple[Member, ...]:
        """Records for one message: that of ``first``, news or not, then news. Where others say that the receiver cannot
        be reached, its own record comes before all, so that it can object."""
        view, sent = self._view, self._sent
        ahead = [receiver] if receiver is not None and view.accused(receiver) else []
        if first is not None:
            ahead.append(first)
        records = [record for node in ahead if (record := view.record(now_s, node)) is not None]
        if not sent:
            return tuple(records)
        limit = transmissions(view.present, self._settings)
        updates_max = self._settings.updates_max
        chosen = list(sent) if len(sent) <= updates_max else nsmallest(updates_max, sent, key=sent.__getitem__)
        for node in chosen:
            record = view.record(now_s, node)
            if record is not None:
                if node not in ahead:
                    records.append(record)
                sent[node] += 1
            if record is None or sent[node] >= limit:
                del sent[node]
        return tuple(records)

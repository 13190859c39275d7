"""Knowledge: what one node knows of all, and what follows when it hears more.

Intuition: whatever is heard or concluded is a report on one member, and all reports go one way: they are merged into
the view; what changed is news for others, may open or close a suspicion, and is an event. Only reports on this node
itself are different: it objects to what is said of its reachability, by raising its version.
"""

from __future__ import annotations

import msgspec

from actorkit.clock import Randomness
from actorkit.cluster.events import ClusterEvent, JoinRefused, events_of
from actorkit.cluster.gossip import Dissemination
from actorkit.cluster.member import ACCUSERS_MAX, Change, Member, Reachability, Status, after, of_another_store
from actorkit.cluster.settings import ClusterSettings
from actorkit.cluster.suspicion import Suspicions
from actorkit.cluster.view import View
from actorkit.ids import NodeId

__all__ = ["Knowledge"]


class Knowledge:
    """The view of one node, its news and its suspicions."""

    def __init__(self, myself: Member, settings: ClusterSettings, rng: Randomness) -> None:
        self.view = View(myself, settings.gossip)
        self.news = Dissemination(self.view, settings.gossip)
        self.events: list[ClusterEvent] = []
        self.checks: list[NodeId] = []
        """Suspects that this node is to probe next."""
        self.declared_down = False
        """Whether others say that this node is gone for good."""
        self._separate = False
        """Whether it has been said that somebody is there who has another journal."""
        self._suspicions = Suspicions(settings.suspicion)
        self._checks = settings.suspicion.checks
        self._rng = rng

    # ---------------------------------------------------------------------------------------------------- from others

    def learn(self, now_s: float, report: Member, *, news: bool = True) -> None:
        """Somebody says this of a member. ``news``: others are to be told, if it is new here."""
        me = self.view.myself
        if why := of_another_store(me, report):
            # Two clusters that hear of each other become one; these must not.
            if not self._separate:
                self._separate = True
                self.events.append(JoinRefused(report.address, why))
        elif report.node != me.node:
            self._put(now_s, report, news=news)
        elif me.gone:
            return
        elif report.status is Status.DOWN:
            self.declared_down = True
        elif (report.version, report.reachability) > (me.version, Reachability.REACHABLE):
            self._put(now_s, msgspec.structs.replace(me, version=report.version + 1))

    def stale(self, now_s: float, report: Member) -> Member | None:
        """What to answer to a report that has been overtaken: its member is gone."""
        if report.gone or not self.view.is_gone(report.node):
            return None
        return self.view.record(now_s, report.node)

    # ---------------------------------------------------------------------------------------------------- conclusions

    def step(self, now_s: float, node: NodeId, change: Change) -> None:
        """That member takes a step in its life. One that is gone already takes none."""
        member = self.view.get(node)
        if member is not None:
            self._put(now_s, msgspec.structs.replace(member, status=after(member.status, change)))

    def suspect(self, now_s: float, node: NodeId) -> None:
        """A probe of this node has failed: a suspicion, or the confirmation of one."""
        member = self.view.get(node)
        if member is not None and member.reachable:
            accusers = tuple(sorted({*member.accusers, self.view.node.name})[:ACCUSERS_MAX])
            self._put(now_s, msgspec.structs.replace(member, reachability=Reachability.SUSPECT, accusers=accusers))

    def judge(self, now_s: float) -> None:
        """Suspects that have not objected in time are unreachable."""
        for suspect in list(self._suspicions.over(now_s, self._peers)):
            self._put(now_s, msgspec.structs.replace(suspect, reachability=Reachability.UNREACHABLE, accusers=()))

    @property
    def due_s(self) -> float:
        """When there is something to judge."""
        return self._suspicions.due_s(self._peers)

    @property
    def _peers(self) -> int:
        return len(self.view.reachable_others) + 1

    def postpone(self, by_s: float) -> None:
        """This node itself has stood still for so long."""
        self._suspicions.postpone(by_s)

    def _put(self, now_s: float, report: Member, *, news: bool = True) -> None:
        change = self.view.put(now_s, report)
        if change is None:
            return
        before, record = change
        if news:
            self.news.add(record.node)
        self._suspicions.observe(now_s, record)
        self.events.extend(events_of(before, record))
        fresh = before is None or before.reachability is Reachability.REACHABLE or before.version != record.version
        suspect = fresh and record.reachability is Reachability.SUSPECT
        # Some of those who hear of it find out for themselves, which confirms it or lets the suspect object.
        if suspect and self._rng.uniform() * self.view.present < self._checks:
            self.checks.append(record.node)

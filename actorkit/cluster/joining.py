"""Joining: how a node finds its cluster, or begins one.

Intuition: it asks all seeds who is there. Whoever is in a cluster welcomes it. Those that look for one themselves say
so, and of them the one with the lowest address, if it is a seed itself, begins the cluster; the others hear of it the
next time they ask. All know the same candidates, because each says of whom it has heard, so one begins and no other.
What delay and loss can do against that is little and ends well: two clusters that hear of each other become one.

Once welcomed, a node is joining, and comes up when a majority of the members has admitted it. On the smaller side of a
partition it therefore waits until the partition is over.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import NamedTuple

from actorkit.clock import Randomness
from actorkit.cluster.member import Status
from actorkit.cluster.messages import Join, Waiting, Welcome
from actorkit.cluster.settings import JoiningSettings
from actorkit.cluster.view import View
from actorkit.ids import NodeId

__all__ = ["Formed", "Joining"]

_FOUNDERS_MAX = 1_000


class Formed(NamedTuple):
    """Why this node begins a cluster."""

    seeds_heard: int
    seeds: int


class _Heard(NamedTuple):
    at_s: float
    address: str


class Joining:
    """The search for a cluster, and then for a majority that admits this node. It ends when the node is up."""

    def __init__(self, view: View, settings: JoiningSettings, rng: Randomness) -> None:
        self._view = view
        self._settings = settings
        self._rng = rng
        self._seeds: tuple[str, ...] = ()
        self._own = {view.myself.address}
        """Addresses that turned out to be this node itself."""
        self._known_as: dict[str, str] = {}
        """By which address the node behind a seed calls itself."""
        self._waiting: dict[str, _Heard] = {}
        """Seeds that look for a cluster themselves."""
        self._founders: dict[str, tuple[float, bool]] = {}
        """Other nodes that may begin a cluster: when they were last heard of, and whether from themselves."""
        self._admitted: set[NodeId] = set()
        self._asked: list[NodeId] = []
        self._started_s = 0.0
        self._found_s = 0.0
        self._expected = 0
        """How many members there are, by the word of the first that has welcomed this node."""
        self.found = False
        """Whether there is a cluster that this node belongs, or is to belong, to."""
        self.next_s = inf
        """When something is to be asked again."""
        self._abandoned = False

    def start(self, now_s: float, seeds: Iterable[str]) -> None:
        self._started_s = now_s
        self.next_s = now_s
        self.seeds_found(seeds)

    def seeds_found(self, seeds: Iterable[str]) -> None:
        self._seeds = tuple(dict.fromkeys(seeds))[: self._settings.seeds_max]

    @property
    def founder(self) -> bool:
        """Whether this node may begin a cluster: it is a seed, or has none, and does not leave before that."""
        return not self._abandoned and (not self._seeds or any(seed in self._own for seed in self._seeds))

    @property
    def others(self) -> list[str]:
        """Seeds that are not this node."""
        return [seed for seed in self._seeds if seed not in self._own]

    def missing(self) -> list[str]:
        """Seeds behind which, as far as is known, no member is."""
        present = {member.address for member in self._view if member.reachable}
        return [seed for seed in self.others if self._known_as.get(seed, seed) not in present]

    def state(self) -> str:
        """For people: what is waited for."""
        if not self.found:
            seeds, looking = ", ".join(self.others) or "(none)", ", ".join(sorted(self._waiting)) or "none"
            return f"no cluster found yet: of the seeds {seeds} these answer, and are looking for one too: {looking}"
        others = self._view.present - 1
        return f"waiting to be admitted: {len(self._admitted)} of {others} members have done so, more than half have to"

    # ------------------------------------------------------------------------------------------------------ searching

    def asks(self, now_s: float) -> list[tuple[str, Join]]:
        """What to ask whom now, if it is time."""
        if now_s < self.next_s:
            return []
        if not self.found:
            # Not all in step: those who start together would else collide for ever.
            self.next_s = now_s + self._settings.retry_s * (0.75 + 0.5 * self._rng.uniform())
            return [(seed, self._join(seed)) for seed in self.others]
        self.next_s = now_s + self._settings.admissions_interval_s
        if not self._asked:
            known = {*self._admitted, self._view.node}
            wanted = [each for each in self._view if each.node not in known]
            self._asked = [each.node for each in sorted(wanted, key=lambda each: (each.reachable, each.node))]
        asks: list[tuple[str, Join]] = []
        while self._asked and len(asks) < self._settings.admissions_batch:
            member = self._view.get(self._asked.pop())
            if member is not None and member.node not in self._admitted:
                asks.append((member.address, self._join(member.address)))
        return asks

    def _join(self, seed: str) -> Join:
        return Join(self._view.myself, seed, self.founder, not self.found)

    def is_myself(self, seed: str) -> None:
        """This node has read what it sent to that seed."""
        self._own.add(seed)
        self._waiting.pop(seed, None)

    def heard_seeking(self, now_s: float, address: str, *, founder: bool) -> None:
        """A node at that address looks for a cluster."""
        if founder and (address in self._founders or len(self._founders) < _FOUNDERS_MAX):
            self._founders[address] = (now_s, True)

    def answer(self, now_s: float, address: str, join: Join) -> Waiting:
        """To another node that looks for a cluster, as long as this one does."""
        self.heard_seeking(now_s, address, founder=join.founder)
        return Waiting(join.seed, self.founder, self.founders(now_s))

    def waiting(self, now_s: float, address: str, answer: Waiting) -> None:
        """A seed looks for a cluster too, and has heard of others that do."""
        if answer.seed in self._seeds:
            self._known_as[answer.seed] = address
            self._waiting[answer.seed] = _Heard(now_s, address)
        self.heard_seeking(now_s, address, founder=answer.founder)
        for other in answer.founders[: self._settings.seeds_max]:
            if other not in self._own and other not in self._founders and len(self._founders) < _FOUNDERS_MAX:
                self._founders[other] = (now_s, False)

    def invited(self, address: str) -> None:
        """A member at that address has spoken to this node, which looks for a cluster: it is as good as a seed."""
        if not self.found and address not in self._seeds and len(self._seeds) < self._settings.seeds_max:
            self._seeds = (*self._seeds, address)

    def founders(self, now_s: float) -> tuple[str, ...]:
        """From whom this node itself has heard lately."""
        self._expire(now_s)
        return tuple(sorted(address for address, (_, itself) in self._founders.items() if itself))

    def forms(self, now_s: float) -> Formed | None:
        """Whether this node begins a cluster now."""
        if self.found or not self.founder:
            return None
        self._expire(now_s)
        others, settings = self.others, self._settings
        heard, silent_s = len(self._waiting), now_s - self._started_s
        reason = Formed(heard, len(others))
        mine = self._view.myself.address
        if any(address < mine for address in self._founders):
            # One that is lower but never begins must not keep the others waiting for ever.
            return reason if silent_s >= 2 * settings.form_alone_after_s else None
        most = 2 * (heard + 1) > len(others) + 1
        patient = silent_s >= settings.form_alone_after_s or (most and silent_s >= settings.form_after_s)
        return reason if patient or heard == len(others) else None

    def _expire(self, now_s: float) -> None:
        limit_s = now_s - self._settings.heard_for_s
        self._waiting = {seed: heard for seed, heard in self._waiting.items() if heard.at_s > limit_s}
        self._founders = {address: heard for address, heard in self._founders.items() if heard[0] > limit_s}

    # ------------------------------------------------------------------------------------------------------- admission

    def welcomed(self, now_s: float, by: NodeId, address: str, welcome: Welcome) -> None:
        """A member has admitted this node."""
        if welcome.seed in self._seeds:
            self._known_as[welcome.seed] = address
        self._admitted.add(by)
        if not self.found:
            self.found = True
            self._found_s = now_s
            self._expected = welcome.members
            if not self._abandoned:
                self.next_s = now_s

    def admitted(self, now_s: float) -> bool:
        """Whether more than half of the members have admitted this node: of those that have been admitted themselves,
        and of all, since others that are joining may already count elsewhere."""
        if self._abandoned or not self.found or (self._view.present < self._expected and not self._late(now_s)):
            return False
        others = {member.node: member.status for member in self._view if member.node != self._view.node}
        settled = [node for node, status in others.items() if status is not Status.JOINING]
        return all(2 * len(self._admitted.intersection(some)) > len(some) for some in (settled, others))

    @property
    def settled(self) -> bool:
        """Whether any member that is known here is more than joining."""
        return any(member.status is not Status.JOINING for member in self._view)

    def stranded(self, now_s: float) -> bool:
        """Whether this node was welcomed by a cluster that is no more: nobody is left who could admit it."""
        return self.found and not self._abandoned and not self.settled and self._late(now_s)

    def _late(self, now_s: float) -> bool:
        """Whether who the members are must have been told by now, if it will be."""
        return now_s > self._found_s + self._settings.heard_for_s

    def search_again(self, now_s: float) -> None:
        """As if this node had just started."""
        self.found = False
        self._started_s = self.next_s = now_s
        self._admitted.clear()
        self._asked.clear()

    def abandon(self) -> None:
        """This node leaves. One that was not up yet never will be: nobody has counted on it, and nobody is to."""
        self._abandoned = True
        self.next_s = inf

    def ended(self) -> None:
        """This node is up: nothing more is to be asked."""
        self.found = True
        self.next_s = inf
        self._admitted.clear()
        self._waiting.clear()
        self._founders.clear()

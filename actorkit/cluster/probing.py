"""Prober: whom to ask next whether it is there, and what to make of silence.

Intuition: each node asks one other at a time, in an order that it shuffles anew each round, so that everybody is asked
by somebody about once an interval, however many there are, and by everybody within a round. Whoever does not answer in
time is asked once more, directly and through a few others, since it may be only this one way that is broken. Only if
all of that fails is it suspect.

SWIM (see ``member``), sections 3.1 and 4.3. When to give up waiting is for the failure detector to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from actorkit.clock import Randomness
from actorkit.cluster.failure_detector import FailureDetector
from actorkit.cluster.member import Member
from actorkit.cluster.settings import ProbeSettings
from actorkit.cluster.view import View
from actorkit.ids import NodeId

__all__ = ["Probe", "Prober", "choose"]


def choose(rng: Randomness, some: Sequence[Member], count: int) -> list[Member]:
    """So many of them at random, in a random order; all if there are no more."""
    if 4 * count < len(some):
        places: dict[int, None] = {}
        while len(places) < count:
            places[int(rng.uniform() * len(some))] = None
        return [some[place] for place in places]
    shuffled = list(some)
    for place in range(min(count, len(shuffled))):
        other = place + int(rng.uniform() * (len(shuffled) - place))
        shuffled[place], shuffled[other] = shuffled[other], shuffled[place]
    return shuffled[:count]


class Probe:
    """A question that is out."""

    __slots__ = ("asked_s", "ends_s", "member", "second_s", "sequence")

    def __init__(self, sequence: int, member: Member, asked_s: float, timeout_s: float, ends_s: float) -> None:
        self.sequence = sequence
        self.member = member
        self.asked_s = asked_s
        self.second_s: float | None = asked_s + timeout_s
        """When others are asked to try; ``None`` once they are."""
        self.ends_s = ends_s


class Prober:
    """Probes of one node that are out, and whose turn it is next."""

    def __init__(self, view: View, settings: ProbeSettings, rng: Randomness) -> None:
        self._view = view
        self._settings = settings
        self._rng = rng
        self._round: list[NodeId] = []
        self._urgent: dict[NodeId, None] = {}
        """To be asked before the others; members only."""
        self._out: dict[int, Probe] = {}
        self._relayed: dict[int, tuple[str, int, float]] = {}
        """Probes on behalf of others: who wants to know, under which number, and until when."""
        self._sequence = 0
        self.next_s = inf
        """When the next probe is due."""
        self.detector = FailureDetector(window=settings.window, deviation_min_s=settings.deviation_min_s)

    def start(self, now_s: float) -> None:
        # Else nodes that start together would all ask at the same moment for ever.
        self.next_s = now_s + self._rng.uniform() * self._settings.interval_s

    # -------------------------------------------------------------------------------------------------------- asking

    def urge(self, node: NodeId) -> None:
        """There is reason to ask this one next."""
        self._urgent[node] = None

    def next(self, now_s: float) -> Probe | None:
        """Begins the next probe if it is due and there is anybody to ask."""
        if now_s < self.next_s:
            return None
        self.next_s = max(self.next_s + self._settings.interval_s, now_s)
        member = self._next_member()
        return None if member is None else self.begin(now_s, member)

    def begin(self, now_s: float, member: Member) -> Probe:
        """A probe of this member."""
        settings = self._settings
        timeout_s = self.detector.timeout_s(settings.phi_threshold)
        timeout_s = max(settings.timeout_min_s, min(timeout_s, settings.timeout_max_s))
        ends_s = now_s + timeout_s * (1 + settings.indirect_timeouts)
        probe = Probe(self.number(), member, now_s, timeout_s, ends_s)
        self._out[probe.sequence] = probe
        return probe

    def number(self) -> int:
        """A number that no other probe of this node has."""
        self._sequence += 1
        return self._sequence

    def _next_member(self) -> Member | None:
        out = {probe.member.node for probe in self._out.values()}
        while self._urgent:
            node = next(iter(self._urgent))
            del self._urgent[node]
            if (member := self._view.get(node)) is not None and node not in out:
                return member
        for _ in range(2):
            while self._round:
                node = self._round.pop()
                member = self._view.get(node)
                if member is not None and member.reachable and node not in out and node != self._view.node:
                    return member
            self._round = [each.node for each in choose(self._rng, list(self._view), self._view.present)]
        return None

    # ------------------------------------------------------------------------------------------------------- answers

    def answered(self, now_s: float, sequence: int) -> Probe | None:
        """Somebody answers at the address of that probe, or says that its member has. ``None`` for one that is not
        out."""
        probe = self._out.pop(sequence, None)
        # An answer to the second question would count as one to the first, and a slow one as quick were it left out.
        if probe is not None and probe.second_s is not None:
            self.detector.heard(now_s - probe.asked_s)
        elif probe is not None:
            self.detector.heard(min(now_s - probe.asked_s, self._settings.timeout_max_s))
        return probe

    def failing(self, address: str) -> None:
        """No connection can be made to the address: nothing is to be waited for before others are asked."""
        for probe in self._out.values():
            if probe.member.address == address and probe.second_s is not None:
                probe.second_s = -inf

    def second_tries(self, now_s: float) -> list[Probe]:
        """Probes for which others are to be asked now."""
        due = [probe for probe in self._out.values() if probe.second_s is not None and probe.second_s <= now_s]
        for probe in due:
            probe.second_s = None
        return due

    def failed(self, now_s: float) -> list[Probe]:
        """Probes that have ended without an answer."""
        failed = [probe for probe in self._out.values() if probe.ends_s <= now_s]
        for probe in failed:
            del self._out[probe.sequence]
        return failed

    def helpers(self, probe: Probe) -> list[Member]:
        """Who is to be asked to try instead."""
        chosen = choose(self._rng, self._view.reachable_others, self._settings.indirect + 1)
        return [each for each in chosen if each.node != probe.member.node][: self._settings.indirect]

    # -------------------------------------------------------------------------------------------- on behalf of others

    def relay(self, now_s: float, address: str, sequence: int) -> int | None:
        """Somebody wants a member probed: the number to do so under. ``None`` if there are too many already."""
        if len(self._relayed) >= self._settings.relays_max:
            return None
        number = self.number()
        self._relayed[number] = (address, sequence, now_s + 2 * self._settings.timeout_max_s)
        return number

    def relayed(self, sequence: int) -> tuple[str, int] | None:
        """Who wants to know of this answer, and under which number."""
        relay = self._relayed.pop(sequence, None)
        return None if relay is None else relay[:2]

    # ---------------------------------------------------------------------------------------------------------- time

    @property
    def due_s(self) -> float:
        """When there is something to do."""
        due_s = self.next_s
        for probe in self._out.values():
            due_s = min(due_s, probe.ends_s if probe.second_s is None else probe.second_s)
        return due_s

    def forget_late_relays(self, now_s: float) -> None:
        """Those whose answer nobody waits for any more."""
        for sequence in [sequence for sequence, (_, _, ends_s) in self._relayed.items() if ends_s <= now_s]:
            del self._relayed[sequence]

    def postpone(self, by_s: float) -> None:
        """This node itself has stood still for so long: answers may lie unread."""
        self.next_s += by_s
        for probe in self._out.values():
            probe.asked_s += by_s
            probe.ends_s += by_s
            if probe.second_s is not None:
                probe.second_s += by_s

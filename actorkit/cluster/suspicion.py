"""Suspicions: how long a suspect may object before it counts as unreachable.

Intuition: the accuser itself may be the one who is slow or cut off. So a suspicion that nobody else confirms is given
much time, and each independent confirmation shortens it; when several have failed to reach the suspect, each by its own
probe, the least time is enough. Time falls with the logarithm of the confirmations, since the first says most.

Dadgar, Phillips, Currey: "Lifeguard: local health awareness for more accurate failure detection", 2018, section IV-B.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf, log, log10

from actorkit.cluster.member import ACCUSERS_MAX, Member, Reachability
from actorkit.cluster.settings import SuspicionSettings
from actorkit.errors import ConfigurationError
from actorkit.ids import NodeId

__all__ = ["Suspicions", "timeout_s"]


def timeout_s(confirmations: int, *, members: int, settings: SuspicionSettings) -> float:
    """How long a suspicion lasts that so many have confirmed, in a cluster of so many reachable members."""
    least_s = settings.timeout_s * max(1.0, log10(max(1, members)))
    # Neither the accuser nor the suspect can confirm it.
    wanted = min(settings.confirmations, max(0, members - 2))
    if confirmations >= wanted:
        return least_s
    most_s = least_s * settings.timeout_max_factor
    return most_s - (most_s - least_s) * log(confirmations + 1) / log(wanted + 1)


class Suspicions:
    """Which members are suspect, and since when it is known here."""

    def __init__(self, settings: SuspicionSettings) -> None:
        """Raises ``ConfigurationError`` where more confirmations are wanted than are kept."""
        if not 0 <= settings.confirmations < ACCUSERS_MAX:
            raise ConfigurationError(
                f"a suspicion has 0 to {ACCUSERS_MAX - 1} confirmations, not {settings.confirmations}: no more are kept"
            )
        self._settings = settings
        self._open: dict[NodeId, tuple[Member, float]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def observe(self, now_s: float, member: Member) -> None:
        """The record of a member has changed."""
        node = member.node
        if member.reachability is not Reachability.SUSPECT or member.gone:
            self._open.pop(node, None)
            return
        known = self._open.get(node)
        since_s = known[1] if known is not None and known[0].version == member.version else now_s
        self._open[node] = (member, since_s)

    def due_s(self, members: int) -> float:
        """When the next one is over, with so many reachable members; ``inf`` where there is none."""
        return min((self._ends_s(member, since_s, members) for member, since_s in self._open.values()), default=inf)

    def over(self, now_s: float, members: int) -> Iterator[Member]:
        """Suspects that have not objected in time."""
        for member, since_s in list(self._open.values()):
            if self._ends_s(member, since_s, members) <= now_s:
                yield member

    def postpone(self, by_s: float) -> None:
        """This node itself has stood still for so long, and may not have heard what was said."""
        self._open = {node: (member, since_s + by_s) for node, (member, since_s) in self._open.items()}

    def _ends_s(self, member: Member, since_s: float, members: int) -> float:
        return since_s + timeout_s(len(member.accusers) - 1, members=members, settings=self._settings)

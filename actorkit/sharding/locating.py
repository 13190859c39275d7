"""Locating: finding out which node owns a shard, by asking.

A node is believed to own a shard when it says so itself, until it says otherwise, its connection is lost, or another
one says so for a later tenure: what is said for an earlier tenure never counts (see ``messages``). While no owner is
known and somebody wants to know, those who are likely to know are asked: whoever was pointed to, the node that the
placement names, and the former owner. Nobody is asked without end at full speed: unless calls have been answered since
the last time, each further search waits longer before it begins, up to a limit.

Pure: time and randomness come in; the questions that are to be sent are fetched.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from actorkit.clock import Randomness
from actorkit.sharding.messages import ShardAnswer, Standing
from actorkit.sharding.settings import ShardingSettings

__all__ = ["Location", "Locator"]

_HOPS_MAX: Final = 3
"""How often one asks on at once where one is pointed to; nodes that point to each other are asked again later."""


class Location:
    """What is known of one shard."""

    __slots__ = ("asked", "backoff_s", "former", "holder", "hops", "next_s", "owner", "placed", "rounds",
                 "searched", "tenure")  # fmt: skip

    def __init__(self) -> None:
        self.owner: str | None = None
        """The node that says that it owns the shard, under ``tenure``."""
        self.tenure = 0
        """The newest of which an owner has told."""
        self.placed: str | None = None
        self.former: str | None = None
        """The owner until lately, which is asked too: it may own the shard still."""
        self.holder: str | None = None
        """Who has the lease, by the store's account, while it should be ours."""
        self.searched = False
        """The owner is being found out."""
        self.asked: str | None = None
        self.next_s = 0.0
        """When somebody is asked (again)."""
        self.backoff_s = 0.0
        """0 once an owner has answered a call: then the next search begins at once."""
        self.hops = 0
        self.rounds = 0


class Locator:
    """The owners of all shards, as one node knows them."""

    def __init__(self, node: str, shards: int, settings: ShardingSettings, randomness: Randomness) -> None:
        self._node = node
        self._settings = settings
        self._randomness = randomness
        self._members: Collection[str] = ()
        self._searched: dict[int, Location] = {}
        self.pending: dict[str, list[int]] = {}
        """Shards to be asked for, by whom to ask."""
        self.locations = [Location() for _ in range(shards)]

    @property
    def wake_s(self) -> float | None:
        if not self._searched:
            return None
        return min(location.next_s for location in self._searched.values())

    def questions(self) -> list[tuple[str, tuple[int, ...]]]:
        """What is to be asked now, and of whom."""
        questions, self.pending = self.pending, {}
        return [(node, tuple(dict.fromkeys(shards))) for node, shards in questions.items()]

    def due(self, now: float) -> list[int]:
        """The shards for which ``ask_again`` (or ``stop``) is due."""
        return sorted(shard for shard, location in self._searched.items() if location.next_s <= now)

    # --------------------------------------------------------------------------------------------------------- inputs

    def told(self, now: float, node: str, answer: ShardAnswer) -> bool:
        """A node has said what it knows of a shard. Returns whether it is found to be the owner.

        As long as we own it ourselves that is of no interest: the lease will tell, and calls are in progress here.
        """
        shard, location = answer.shard, self.locations[answer.shard]
        if location.owner == self._node:
            return False
        waits_for_it = location.searched and location.asked == node
        if answer.standing is Standing.OWNED:
            newer = answer.tenure > location.tenure
            if newer or (answer.tenure == location.tenure and location.owner in (None, node)):
                self.found(shard, node, answer.tenure)
                return True
            if waits_for_it:
                # It has been overtaken, and does not know yet.
                self._back_off(now, location)
        elif location.owner == node:
            self.search(now, shard, answer.ask)
        elif waits_for_it:
            hint = answer.ask if answer.tenure >= location.tenure and answer.ask != node else ""
            if answer.standing is Standing.AWAITED:
                self._wait(now, location)
            elif self._may_ask(hint) and location.hops < _HOPS_MAX:
                location.hops += 1
                self._ask(now, shard, hint)
            else:
                self._back_off(now, location)
        return False

    def found(self, shard: int, node: str, tenure: int) -> None:
        """The node owns the shard; ourselves included."""
        location = self.locations[shard]
        location.owner, location.tenure = node, max(tenure, location.tenure)
        location.holder = None
        self.stop(shard)

    def hinted(self, now: float, shard: int, node: str) -> None:
        """The store says that this node has the lease of a shard which we want; empty: that nobody has whom one knows.

        Until we have it, that node is the one to ask.
        """
        location = self.locations[shard]
        location.holder = node
        if location.searched and location.asked in (None, self._node) and self._may_ask(node):
            self._ask(now, shard, node)

    def disconnected(self, node: str) -> None:
        """What the node has said does not count any more."""
        for location in self.locations:
            if location.owner == node:
                location.owner, location.former = None, node

    def placed(self, now: float, owners: Sequence[str | None], members: Collection[str]) -> None:
        """The placement and the living members, by address."""
        self._members = members
        for shard, location in enumerate(self.locations):
            if location.placed != owners[shard]:
                location.placed = owners[shard]
                if location.searched:
                    location.backoff_s = 0.0
                    self.search(now, shard)

    # -------------------------------------------------------------------------------------------------------- searches

    def search(self, now: float, shard: int, hint: str = "", *, patient: bool = False) -> None:
        """The owner is not known (any more), and somebody wants to know. ``patient``: asking at once is of no use."""
        location = self.locations[shard]
        if location.owner is not None:
            location.former, location.owner = location.owner, None
        location.searched, location.hops, location.rounds = True, 0, 0
        self._searched[shard] = location
        if patient or location.backoff_s:
            self._back_off(now, location)
        else:
            self._ask(now, shard, hint)
        self._grow(location)

    def ask_again(self, now: float, shard: int) -> None:
        """No answer has come, or none that helped."""
        location = self.locations[shard]
        location.hops = 0
        location.rounds += 1
        self._grow(location)
        self._ask(now, shard, "")

    def stop(self, shard: int) -> None:
        """It is known, or nobody wants to know any more."""
        location = self.locations[shard]
        location.searched, location.asked = False, None
        self._searched.pop(shard, None)

    def _grow(self, location: Location) -> None:
        settings = self._settings
        location.backoff_s = min(max(settings.ask_backoff_min_s, 2 * location.backoff_s), settings.ask_backoff_max_s)

    def _back_off(self, now: float, location: Location) -> None:
        location.asked = None
        location.next_s = now + self._jittered(location.backoff_s or self._settings.ask_backoff_min_s)

    def _wait(self, now: float, location: Location) -> None:
        """Whoever is asked answers at once, or once it has acquired the shard: this is for what gets lost."""
        location.next_s = now + self._jittered(self._settings.ask_backoff_max_s)

    def _jittered(self, wait_s: float) -> float:
        return wait_s * (0.5 + 0.5 * self._randomness.uniform())

    def _may_ask(self, node: str | None) -> bool:
        return bool(node) and (node == self._node or node in self._members)

    def _ask(self, now: float, shard: int, hint: str) -> None:
        """Asks whoever is pointed to, or else those in turn that are likely to know."""
        location = self.locations[shard]
        placed = location.placed
        if placed == self._node and self._may_ask(location.holder):
            placed = location.holder
        likely = [node for node in (placed, location.former) if self._may_ask(node)]
        node = hint if self._may_ask(hint) else likely[location.rounds % len(likely)] if likely else None
        location.asked = node
        self._wait(now, location)
        # We ourselves need not be asked: ``found`` says so when we have acquired it.
        if node is not None and node != self._node:
            self.pending.setdefault(node, []).append(shard)

"""A village: many memberships on a network of one's own making, in pure Python, from one seed.

The network knows nothing of connections: every message may be lost, late, repeated or overtaken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import reduce
from operator import xor
from random import Random

import msgspec

from actorkit.cluster.events import ClusterEvent, Downed
from actorkit.cluster.member import Member, Status
from actorkit.cluster.membership import Membership
from actorkit.cluster.messages import Message
from actorkit.cluster.settings import ClusterSettings
from actorkit.cluster.view import _hash
from actorkit.ids import NodeId
from actorkit.testing.simulation.randomness import SeededRandomness
from tests.virtual_time import VirtualTime

__all__ = ["Life", "Village"]


class Life:
    """One incarnation of a node."""

    def __init__(self, core: Membership, address: str, seeds: tuple[str, ...]) -> None:
        self.core = core
        self.node = core.myself.node
        self.address = address
        self.seeds = seeds
        self.alive = True
        self.paused = False
        self.deaf = False
        self.held: list[tuple[NodeId, str, Message]] = []
        self.wakes_s = float("inf")
        self.log: list[tuple[float, ClusterEvent]] = []
        self.sent = 0

    @property
    def downed(self) -> bool:
        return any(isinstance(event, Downed) for _, event in self.log)

    @property
    def up(self) -> bool:
        return self.alive and self.core.myself.status is Status.UP

    def seen(self, kind: type[ClusterEvent], node: NodeId | None = None) -> list[float]:
        """When it has seen such events."""
        return [
            at_s
            for at_s, event in self.log
            if isinstance(event, kind) and (node is None or getattr(event, "member").node == node)  # noqa: B009
        ]

    def __repr__(self) -> str:
        return f"<{self.node} {self.core.myself.status.name}: {[str(each) for each in self.core.members]}>"


class Village(VirtualTime):
    """All nodes that there ever were, and the network."""

    def __init__(self, seed: int, *, settings: ClusterSettings = ClusterSettings()) -> None:  # noqa: B008 - frozen
        super().__init__()
        print(f"village of seed {seed}")
        self.random = Random(seed)
        self.settings = settings
        self.delay_s = (0.000_2, 0.003)
        self.loss = 0.0
        self.duplicates = 0.0
        self.blocked: set[tuple[str, str]] = set()
        """Pairs (from, to) of addresses between which nothing passes."""
        self.lives: list[Life] = []
        self.at: dict[str, Life] = {}
        """The latest life at each address."""
        self.on_event: Callable[[Life, ClusterEvent], None] = lambda life, event: None

    # ----------------------------------------------------------------------------------------------------------- lives

    def new(self, name: str, seeds: Iterable[str] = (), *, address: str | None = None, store: str = "") -> Life:
        """A node that has not started yet."""
        address = address or f"{name}:9080"
        node = NodeId(name, self.random.randbytes(4).hex())
        core = Membership(
            Member(node, address, store=store),
            settings=self.settings,
            rng=SeededRandomness(Random(self.random.getrandbits(64))),
        )
        life = Life(core, address, tuple(seeds))
        self.lives.append(life)
        return life

    def start(self, name: str, seeds: Iterable[str] = (), *, address: str | None = None, store: str = "") -> Life:
        """A new incarnation; whoever was at its address has to be dead."""
        life = self.new(name, seeds, address=address, store=store)
        old = self.at.get(life.address)
        assert old is None or not old.alive, "two processes at one address"
        self.at[life.address] = life
        life.core.start(self.now_s, life.seeds)
        self._drain(life)
        return life

    def grown(self, count: int, *, seeds: int = 3, settles_s: float = 3.0) -> list[Life]:
        """A cluster that has been up for long: all know all. It takes no time."""
        names = [f"n{number:04}" for number in range(count)]
        addresses = [f"{name}:9080" for name in names]
        lives = [self.new(name, addresses[:seeds]) for name in names]
        records = {life.node: msgspec.structs.replace(life.core.myself, status=Status.UP) for life in lives}
        digest = reduce(xor, map(_hash, records.values()))
        for life in lives:
            self.at[life.address] = life
            # As a node that finds nobody would, each begins a cluster; that they know each other is put in by hand.
            life.core.start(self.now_s, ())
            life.core.seeds_found(life.seeds)
            life.core._view._records = dict(records)
            life.core._view._digest = digest
            life.core._view._facts = life.core._view._reachable_others = None
            self._drain(life)
        self.run(settles_s)
        for life in lives:
            life.log.clear()
        return lives

    def crash(self, life: Life) -> None:
        life.alive = False

    def pause(self, life: Life, for_s: float, *, deaf: bool = False) -> None:
        """It does nothing; what arrives waits, or is lost if it is ``deaf``."""
        life.paused, life.deaf = True, deaf
        self.later(for_s, lambda: self._resume(life))

    def _resume(self, life: Life) -> None:
        life.paused = False
        held, life.held = life.held, []
        for node, address, message in held:
            if life.alive:
                life.core.handle(self.now_s, node, address, message)
                self._drain(life)
        self._tick(life)

    @property
    def living(self) -> list[Life]:
        """Nodes that run and have not been told to stop."""
        return [life for life in self.lives if life.alive and not life.downed]

    # --------------------------------------------------------------------------------------------------------- network

    def partition(self, *sides: Iterable[Life]) -> None:
        """Nothing passes between different sides."""
        groups = [{life.address for life in side} for side in sides]
        for one in groups:
            for other in groups:
                if one is not other:
                    self.blocked.update((a, b) for a in one for b in other)

    def heal(self) -> None:
        self.blocked.clear()
        self.loss = self.duplicates = 0.0
        self.delay_s = (0.000_2, 0.003)

    def _send(self, life: Life, address: str, message: Message) -> None:
        life.sent += 1
        if address == life.address:
            self._travel(life, address, message, 0.0)
            return
        copies = 2 if self.duplicates and self.random.random() < self.duplicates else 1
        for _ in range(copies):
            if self.loss and self.random.random() < self.loss:
                continue
            low_s, high_s = self.delay_s
            self._travel(life, address, message, low_s + (high_s - low_s) * self.random.random())

    def _travel(self, sender: Life, address: str, message: Message, delay_s: float) -> None:
        def arrive() -> None:
            life = self.at.get(address)
            if life is None or not life.alive or (sender.address, address) in self.blocked:
                return
            if life.paused and life.deaf:
                return
            if life.paused:
                life.held.append((sender.node, sender.address, message))
                return
            life.core.handle(self.now_s, sender.node, sender.address, message)
            self._drain(life)

        self.later(delay_s, arrive)

    # --------------------------------------------------------------------------------------------------------- driving

    def act(self, life: Life, input: Callable[[Membership], None]) -> None:
        """An input of another kind."""
        input(life.core)
        self._drain(life)

    def _drain(self, life: Life) -> None:
        for address, message in life.core.take_messages():
            self._send(life, address, message)
        for event in life.core.take_events():
            life.log.append((self.now_s, event))
            self.on_event(life, event)
        self._wake(life)

    def _wake(self, life: Life) -> None:
        wakes_s = life.core.wakeup_s
        if wakes_s < life.wakes_s and wakes_s != float("inf"):
            life.wakes_s = wakes_s
            self.later(max(0.0, wakes_s - self.now_s), lambda: self._due(life, wakes_s))

    def _due(self, life: Life, at_s: float) -> None:
        if life.wakes_s == at_s:
            self._tick(life)

    def _tick(self, life: Life) -> None:
        life.wakes_s = float("inf")
        if life.alive and not life.paused:
            if self.now_s >= life.core.wakeup_s:
                life.core.tick(self.now_s)
            self._drain(life)

    # ---------------------------------------------------------------------------------------------------------- checks

    def one_cluster(self) -> bool:
        """All living nodes are up, see each other and nobody else, and have a majority."""
        living = self.living
        expected = {life.node for life in living}
        return all(life.up and life.core.majority and {m.node for m in life.core.up} == expected for life in living)

    def converges(self, within_s: float) -> float:
        """Lets time pass until there is one cluster; returns how long it took."""
        began_s = self.now_s
        while not self.one_cluster():
            assert self.now_s < began_s + within_s, "no single cluster:\n" + "\n".join(map(repr, self.living))
            self.run(0.05)
        return self.now_s - began_s

    def majorities(self) -> Iterator[Life]:
        """Nodes that believe to see a majority."""
        return (life for life in self.living if life.core.majority)

"""A village: the read models of many nodes on a network and a store of one's own making, from one seed.

Messages between two nodes keep their order, as on a connection, and are lost only with it, which both are told;
besides, the network may swallow or repeat any of them without telling.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

from actorkit.readmodel.anti_entropy import AntiEntropy, AskStore, Changed, Effect, Refused, Send
from actorkit.readmodel.catalog import Catalog
from actorkit.readmodel.counters import ReadModelCounters
from actorkit.readmodel.documents import Document
from actorkit.readmodel.messages import Digest, Heard, Updates
from actorkit.readmodel.settings import ReadModelSettings
from actorkit.readmodel.stamp import decode_value, encode_value, sequence_of, stamp_of
from actorkit.testing.simulation.randomness import SeededRandomness
from tests.virtual_time import VirtualTime

__all__ = ["GENERATION", "Node", "Village"]

GENERATION = 1


class Node:
    """One incarnation of a node."""

    def __init__(self, village: Village, address: str) -> None:
        self.village = village
        self.address = address
        self.alive = True
        self.counters = ReadModelCounters()
        self.owned: dict[int, int] = {}
        """The epoch under which it believes to own each shard."""
        self.catalog = Catalog(village.shards, owned_since=lambda shard: self.owned.get(shard, 0))
        self.core = AntiEntropy(
            self.catalog,
            generation=GENERATION,
            settings=village.settings,
            rng=SeededRandomness(Random(village.random.getrandbits(64))),
            counters=self.counters,
        )
        self.shown: dict[str, int] = {}
        """The stamp of each key, as the application sees it."""
        self.keys: dict[int, set[str]] = {}
        self.refused: list[str] = []
        self.flushing = False
        self.to_check: set[int] = set()
        self.sent = 0
        self.sent_bytes = 0

    def show(self, shard: int, key: str, stamp: int) -> None:
        self.keys.setdefault(shard, set()).add(key)
        self.shown[key] = max(stamp, self.shown.get(key, 0))

    def do(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self.village.send(self, effect.address, effect.message)
            elif isinstance(effect, Changed):
                for key, data in effect.entries.items():
                    if key:
                        self.show(effect.shard, key, decode_value(data).stamp)
                self.flush_later()
            elif isinstance(effect, AskStore):
                if not self.to_check:
                    self.village.later(0.003, self.check)
                self.to_check |= effect.shards
            elif isinstance(effect, Refused):
                self.refused.append(effect.why)

    def check(self) -> None:
        village = self.village
        shards, self.to_check = self.to_check, set()
        if self.alive:
            self.do(self.core.verified({shard: village.epochs[shard] for shard in shards}, village.now_s))

    def flush_later(self) -> None:
        if not self.flushing:
            self.flushing = True
            self.village.later(self.village.settings.flush_s, self.flush)

    def flush(self) -> None:
        self.flushing = False
        if self.alive:
            self.do(self.core.flush(self.village.now_s))

    def publish(self, shard: int, key: str, stamp: int) -> None:
        """What this node has committed is known to its entities."""
        if not self.alive:
            return
        self.show(shard, key, stamp)
        document = self.catalog.written_here(shard)
        if document is not None:
            document.put({key: encode_value(self.shown[key], b"")})
            self.core.changed(shard)
            self.flush_later()

    def adopt(self, shard: int, epoch: int, head: int) -> None:
        """It has read the log up to there."""
        if not self.alive:
            return
        for key, stamp in self.village.committed[shard].items():
            self.show(shard, key, stamp)
        entries = {key: encode_value(self.shown[key], b"") for key in self.keys.get(shard, ())}
        if self.catalog.begin(Document(shard, epoch, entries, position=head)):
            self.core.changed(shard)
            self.flush_later()


class Village(VirtualTime):
    """All nodes, the store, and the network."""

    def __init__(
        self,
        seed: int,
        nodes: int,
        shards: int,
        *,
        settings: ReadModelSettings = ReadModelSettings(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        print(f"village of seed {seed}")
        self.random = Random(seed)
        self.settings = settings
        self.shards = shards
        self.delay_s = (0.000_2, 0.002)
        self.publish_s = (0.0, 0.02)
        """How long after a commit its entity publishes it."""
        self.adopt_s = (0.005, 0.3)
        self.loss = 0.0
        self.repeats = 0.0
        self.breaks = 0.0
        """How likely a message breaks the connection instead of arriving."""
        self.blocked: set[frozenset[str]] = set()
        self.epochs = dict.fromkeys(range(shards), 0)
        self.owners: dict[int, Node | None] = dict.fromkeys(range(shards))
        self.committed: dict[int, dict[str, int]] = {shard: {} for shard in range(shards)}
        self.commits: dict[int, list[tuple[float, str, int]]] = {shard: [] for shard in range(shards)}
        """Of each shard, in order: when, which key, and its stamp."""
        self.sent: dict[type[Any], int] = {}
        self._links: dict[tuple[str, str], tuple[int, float]] = {}
        """For each pair (from, to) the number of the connection, and when its last message arrives."""
        self.nodes: list[Node] = []
        self._born = 0
        for _ in range(nodes):
            self.join()

    # ----------------------------------------------------------------------------------------------------------- nodes

    @property
    def living(self) -> list[Node]:
        return [node for node in self.nodes if node.alive]

    def join(self) -> Node:
        self._born += 1
        node = Node(self, f"n{self._born}")
        self.nodes.append(node)
        self._tell_peers()
        self.later(self.random.random() * self.settings.round_s, lambda: self._round(node))
        return node

    def crash(self, node: Node) -> None:
        """It is gone; the others learn so after a moment."""
        node.alive = False
        self.later(0.2, self._tell_peers)

    def _tell_peers(self) -> None:
        for node in self.living:
            others = [other.address for other in self.living if other is not node]
            node.do(node.core.peers_are(others, self.now_s))

    def _round(self, node: Node) -> None:
        if node.alive:
            node.do(node.core.round(self.now_s))
            self.later(self.settings.round_s, lambda: self._round(node))

    # ----------------------------------------------------------------------------------------------------------- store

    def take_over(self, shard: int, node: Node) -> None:
        """The node owns the shard from now on. Who owned it before has no valid lease any more, but may yet publish."""
        self.epochs[shard] += 1
        epoch, head = self.epochs[shard], len(self.commits[shard])
        before = self.owners[shard]
        self.owners[shard] = node
        if before is not None:
            before.owned.pop(shard, None)
        node.owned[shard] = epoch
        self.later(self.random.uniform(*self.adopt_s), lambda: node.adopt(shard, epoch, head))

    def commit(self, shard: int, key: str, *, deleted: bool = False) -> int:
        """The shard's owner commits a change of the key, if it lives. Returns the stamp, or 0."""
        node = self.owners[shard]
        if node is None or not node.alive:
            return 0
        stamp = stamp_of(sequence_of(self.committed[shard].get(key, 0)) + 1, 1)
        self.committed[shard][key] = stamp
        self.commits[shard].append((self.now_s, key, stamp))
        self.later(self.random.uniform(*self.publish_s), lambda: node.publish(shard, key, stamp))
        return stamp

    # ---------------------------------------------------------------------------------------------------------- checks

    def differences(self) -> list[str]:
        """Where nodes do not show what is committed."""
        found: list[str] = []
        for committed in self.committed.values():
            for key, stamp in committed.items():
                found += [
                    f"{node.address} shows {key} at {node.shown.get(key, 0)} instead of {stamp}"
                    for node in self.living
                    if node.shown.get(key, 0) != stamp
                ]
        return found

    def lies(self, node: Node, shard: int) -> list[str]:
        """What the node does not show though it says that it would."""
        fresh_s = self.now_s - node.catalog.age_s(shard, self.now_s)
        newest = {key: stamp for at_s, key, stamp in self.commits[shard] if at_s + self.publish_s[1] < fresh_s}
        return [
            f"{node.address} shows {key} at {node.shown.get(key, 0)}, not {stamp}, fresh as of {fresh_s}"
            for key, stamp in newest.items()
            if node.shown.get(key, 0) < stamp
        ]

    # --------------------------------------------------------------------------------------------------------- network

    def heal(self) -> None:
        self.blocked.clear()
        self.loss = self.repeats = self.breaks = 0.0

    def send(self, node: Node, address: str, message: Digest | Updates | Heard) -> None:
        node.sent += 1
        self.sent[type(message)] = self.sent.get(type(message), 0) + 1
        if isinstance(message, Updates):
            node.sent_bytes += sum(len(update.data) for update in message.updates)
        if frozenset((node.address, address)) in self.blocked or self.random.random() < self.breaks:
            self._break(node.address, address)
            return
        if self.random.random() < self.loss:
            return
        copies = 2 if self.random.random() < self.repeats else 1
        for _ in range(copies):
            self._travel(node.address, address, message)

    def _travel(self, source: str, target: str, message: Digest | Updates | Heard) -> None:
        number, busy_until_s = self._links.get((source, target), (0, 0.0))
        arrives_s = max(busy_until_s, self.now_s + self.random.uniform(*self.delay_s))
        self._links[source, target] = number, arrives_s
        self.later(arrives_s - self.now_s, lambda: self._arrive(source, target, number, message))

    def _break(self, one: str, other: str) -> None:
        for pair in ((one, other), (other, one)):
            number, busy_until_s = self._links.get(pair, (0, 0.0))
            self._links[pair] = number + 1, busy_until_s
        self.later(0.001, lambda: self._told(one, other))
        self.later(0.001, lambda: self._told(other, one))

    def _told(self, one: str, other: str) -> None:
        for node in self.living:
            if node.address == one:
                node.core.lost_contact(other)

    def _arrive(self, source: str, target: str, number: int, message: Digest | Updates | Heard) -> None:
        if self._links.get((source, target), (0, 0.0))[0] != number:
            return
        for node in self.living:
            if node.address != target:
                continue
            if isinstance(message, Digest):
                node.do(node.core.take_digest(source, message, self.now_s))
            elif isinstance(message, Updates):
                node.do(node.core.take_updates(source, message, self.now_s))
            else:
                node.do(node.core.take_heard(source, message, self.now_s))

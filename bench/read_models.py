"""The read models of several nodes in one process, without a journal: what replication itself does is measured.

Messages are written and read as between processes, and travel over links that may be slow. The store says what it is
asked: who owns which shard, and that its log is long.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import msgspec

from actorkit.clock import SystemClock, SystemRandomness
from actorkit.ids import shard_of
from actorkit.journal.protocols import ShardStatus, Store
from actorkit.persistence.actor import entity_type_of
from actorkit.readmodel.read_model import ReadModel
from actorkit.readmodel.settings import ReadModelSettings
from actorkit.readmodel.view import View
from actorkit.wire.codec import Codec
from bench.shown import CAPACITY, Availability, Shown

__all__ = ["Messenger", "Network", "Node", "document_bytes", "nodes_of", "rss_bytes"]

HEAD = 1 << 40
"""Of every log: longer than anything that is published here."""
DEFAULT_SHARDS = 256


class Network:
    """Links between all nodes, each of them as slow as all."""

    def __init__(self) -> None:
        self.bytes_per_s = float("inf")
        """Of each link, each way."""
        self.delay_s = 0.0
        self.sent_bytes = 0
        self.queued_bytes = 0
        self.queued_bytes_max = 0
        """How much was on its way at most, over all links."""
        self._codec = Codec()
        self._receive: dict[tuple[str, type], Callable[[Any, Any], None]] = {}
        self._free_s: dict[tuple[str, str], float] = {}
        self._loop = asyncio.get_running_loop()

    def register(self, address: str, message_type: type[msgspec.Struct], receive: Callable[[Any, Any], None]) -> None:
        """For one node."""
        if message_type not in self._codec.declared.values():
            self._codec.declare(message_type)
        self._receive[address, message_type] = receive

    def send(self, sender: Messenger, address: str, message: msgspec.Struct) -> bool:
        """Arrives in order, after all that was sent before it over the link."""
        data = self._codec.encode(message)
        self.sent_bytes += len(data)
        self.queued_bytes += len(data)
        self.queued_bytes_max = max(self.queued_bytes_max, self.queued_bytes)
        link = sender.address, address
        now_s = self._loop.time()
        free_s = self._free_s[link] = max(now_s, self._free_s.get(link, 0.0)) + len(data) / self.bytes_per_s
        wait_s = free_s + self.delay_s - now_s
        if wait_s > 0:
            self._loop.call_later(wait_s, self._arrive, sender, address, data)
        else:
            self._loop.call_soon(self._arrive, sender, address, data)
        return True

    def backlog_s(self, sender: str, address: str) -> float:
        """How long what is sent now waits before the link takes it."""
        return max(0.0, self._free_s.get((sender, address), 0.0) - self._loop.time())

    def _arrive(self, sender: Messenger, address: str, data: bytes) -> None:
        self.queued_bytes -= len(data)
        message = self._codec.decode(data)
        receive = self._receive.get((address, type(message)))
        if receive is not None:
            receive(sender, message)


class Messenger:
    """One node's end of it."""

    def __init__(self, network: Network, address: str) -> None:
        self._network = network
        self.address = address

    def register(self, message_type: type[Any], receive: Callable[[Any, Any], None]) -> None:
        self._network.register(self.address, message_type, receive)

    def send(self, address: str, message: msgspec.Struct) -> bool:
        return self._network.send(self, address, message)


class _Records:
    """What replication needs of a store."""

    def __init__(self, owners: Mapping[int, str]) -> None:
        self.shards = len(owners)
        self.generation = 1
        self._owners = owners

    async def status(self, shards: Sequence[int] | None = None) -> list[ShardStatus]:
        chosen = range(self.shards) if shards is None else shards
        return [ShardStatus(shard, self._owners[shard], 1, HEAD, 5.0) for shard in chosen]


class Node:
    """One read model, whose own pools are changed by ``change``."""

    def __init__(self, network: Network, name: str, owners: Mapping[int, str], settings: ReadModelSettings) -> None:
        self.name = name
        self._owners = owners
        self.model = ReadModel(
            cast(Store, _Records(owners)),
            owner=name,
            page_events=1_000,
            settings=settings,
            clock=SystemClock(),
            randomness=SystemRandomness(),
            fatal=_raise,
        )
        entity_type = entity_type_of(Shown)
        self.model.add(entity_type)
        self.model.replicate(Messenger(network, name), self)
        self.view: View[Availability] = self.model.view(entity_type, Shown.availability)
        self.replicator = self.model.replicator
        assert self.replicator is not None

    def owned_since(self, shard: int) -> int:
        return int(self._owners[shard] == self.name)

    def idle(self, shard: int) -> bool:
        return False

    async def begin(self) -> None:
        """Takes its shards over, which nobody has written before."""
        for shard, owner in self._owners.items():
            if owner == self.name:
                self.model.taken_over(shard, 1, 0)
        assert self.replicator is not None
        mine = [shard for shard, owner in self._owners.items() if owner == self.name]
        while any(self.replicator.catalog.written_here(shard) is None for shard in mine):
            await asyncio.sleep(0)

    def version(self, id: str) -> int:
        """What it shows of a pool; 0: nothing."""
        entry = self.view.get(id)
        return 0 if entry is None else entry.version

    def owns(self, id: str) -> bool:
        """Whether a pool is in one of its shards."""
        return self._owners[self._shard(id)] == self.name

    def _shard(self, id: str) -> int:
        return shard_of(f"{Shown.__name__}/{id}", len(self._owners))

    def change(self, id: str, version: int) -> None:
        """A pool of one of its shards has committed."""
        value = Availability(id, CAPACITY, CAPACITY - version, version, "eu-west", {"tier": "standard"})
        self.model.publish(self._shard(id), Shown.__name__, "availability", id, version, value)


def _raise(error: Exception) -> None:
    raise error


async def nodes_of(
    network: Network, count: int, *, shards: int = DEFAULT_SHARDS, settings: ReadModelSettings | None = None
) -> list[Node]:
    """So many nodes that know each other, each with its share of the shards."""
    names = [f"n{number}" for number in range(count)]
    owners = {shard: names[shard % count] for shard in range(shards)}
    nodes = [Node(network, name, owners, settings or ReadModelSettings()) for name in names]
    for node in nodes:
        assert node.replicator is not None
        node.replicator.peers_are(name for name in names if name != node.name)
    for node in nodes:
        await node.begin()
    return nodes


def document_bytes(node: Node) -> int:
    """All documents of a node, as they would be sent to somebody who has nothing."""
    assert node.replicator is not None
    catalog = node.replicator.catalog
    total = 0
    for shard in range(catalog.shards):
        document = catalog.document(shard)
        clock = 0
        while document is not None and (update := document.missing(document.rotation, clock)) is not None:
            total += len(update.data)
            clock = update.last
    return total


def rss_bytes() -> int:
    """Memory of this process that is in use now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

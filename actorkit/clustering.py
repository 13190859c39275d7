"""Clustering: what makes one system a node of a cluster, wired together: remoting, membership, sharding."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from actorkit.clock import Clock, Randomness
from actorkit.cluster.cluster import Cluster
from actorkit.cluster.downing_lease import JournalDowningLease
from actorkit.cluster.events import ClusterEvent, Downed
from actorkit.cluster.seeds import resolve
from actorkit.config import ClusterNode, SystemSettings
from actorkit.ids import NodeId
from actorkit.journal.protocols import Store
from actorkit.readmodel.read_model import ReadModel
from actorkit.readmodel.replicator import Replicator
from actorkit.remoting.aiohttp_transport import AiohttpTransport
from actorkit.remoting.events import Connected, PeerEvent
from actorkit.remoting.remoting import Remoting
from actorkit.remoting.transport import Transport
from actorkit.sharding.cluster_sharding import ClusterSharding
from actorkit.sharding.region import Region

__all__ = ["Clustering"]

_log = structlog.get_logger("actorkit.clustering")
_LAST_WORDS_S = 0.1
"""How long a node that was downed stays, so that those whom it has told to stop, too, hear of it, and those who wait
for answers get them."""


class Clustering:
    """One node's part in its cluster."""

    def __init__(
        self,
        options: ClusterNode,
        *,
        node: NodeId,
        store: Store,
        settings: SystemSettings,
        clock: Clock,
        randomness: Randomness,
        transport: Transport | None,
        downed: Callable[[str], None],
    ) -> None:
        """``downed(why)`` is called when this incarnation is no member any more and never will be, and has said so.

        Raises ``ConfigurationError``.
        """
        self._options = options
        self._settings = settings
        self._node = node
        self._store = store
        self._clock = clock
        self._randomness = randomness
        self._downed = downed
        self._names_are_looked_up = transport is None
        self.remoting = Remoting(
            node=node,
            address=options.advertise or options.remoting,
            cluster=options.cluster,
            transport=transport or AiohttpTransport(settings.remoting, tls=options.tls),
            randomness=randomness,
            secret=options.secret,
            listen=options.remoting,
            settings=settings.remoting,
        )
        self.cluster: Cluster
        self.sharding: ClusterSharding
        self._read_model: ReadModel
        self.started = False
        self._ending: asyncio.TimerHandle | None = None

    def may_hold_leases(self) -> bool:
        """Whether this node sees a majority of the members that it knows."""
        return self.started and self.cluster.majority

    async def listen(self) -> None:
        """Raises ``OSError`` where the address cannot be had."""
        await self.remoting.start()

    async def start(self, region: Region, shards: int, read_model: ReadModel) -> None:
        """Begins to look for the cluster, with a region that has been started and a read model that has all types."""
        options, remoting = self._options, self.remoting
        read_model.replicate(remoting, region)
        self._read_model = read_model
        self.cluster = Cluster(
            remoting,
            node=self._node,
            clock=self._clock,
            randomness=self._randomness,
            seeds=options.seeds,
            roles=options.roles,
            weight=options.weight,
            labels=options.labels,
            store=self._store.identity,
            settings=self._settings.cluster,
            lease=self._downing_lease(),
            resolve=resolve if self._names_are_looked_up else _as_given,
        )
        self.sharding = ClusterSharding(
            region,
            remoting,
            self.cluster,
            shards=shards,
            settings=self._settings.sharding,
            randomness=self._randomness,
        )
        self._give_up = region.give_up
        self.cluster.subscribe(self._changed)
        remoting.subscribe(self._peer_changed)
        self.started = True
        await self.cluster.start()

    def _downing_lease(self) -> JournalDowningLease | None:
        downing = self._settings.cluster.downing
        if downing.strategy != "lease-majority":
            return None
        return JournalDowningLease(self._store, cluster=self._options.cluster, node=self._node, settings=downing)

    async def served(self) -> None:
        """Returns when this node is a member and serves the shards that it should. Raises ``NotJoined`` if it never
        will be one."""
        await self.cluster.join()
        await self.sharding.served()

    async def leave(self) -> None:
        """From now on others take over; returns when they have all, within bounds."""
        if self.cluster.downed is None:
            self.cluster.leave()
            await self.sharding.hand_over()

    async def stop(self) -> None:
        """Says good-bye. The region has stopped."""
        self.sharding.close()
        await self.cluster.stop()
        self.started = False

    async def close(self) -> None:
        """Closes all connections."""
        if self._ending is not None:
            self._ending.cancel()
        await self.remoting.stop()

    @property
    def not_ready(self) -> str | None:
        """``None`` once this node is a member; else why it is not."""
        if self.cluster.downed is not None:
            return f"it is no member of the cluster any more: {self.cluster.downed}"
        state = self.cluster.joining_state
        return f"it is joining the cluster: {state}" if state else None

    def _peer_changed(self, event: PeerEvent) -> None:
        if isinstance(event, Connected):
            self.cluster.peer_connected(event.node, event.address)
            self._replicator.connected(event.address)
        else:
            self.sharding.lost_contact(event.address)
            self.cluster.peer_lost(event.address)
            self._replicator.lost_contact(event.address)

    @property
    def _replicator(self) -> Replicator:
        replicator = self._read_model.replicator
        assert replicator is not None
        return replicator

    def _changed(self, event: ClusterEvent) -> None:
        others = (member for member in self.cluster.members if member.node != self._node and member.reachable)
        self._replicator.peers_are(member.address for member in others)
        if isinstance(event, Downed):
            _log.warning("clustering.downed", node=str(self._node), why=event.why)
            self._give_up("its node is no member of the cluster any more")
            self._ending = asyncio.get_running_loop().call_later(_LAST_WORDS_S, self._downed, event.why)


async def _as_given(seed: str) -> Sequence[str]:
    """The addresses of a transport of one's own mean nothing to the system's resolver."""
    return (seed,)

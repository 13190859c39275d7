"""Sharding over the nodes of a cluster (a shell): feeds routing and hand-offs with who is there, and what they say.

The placement follows the members that are up; the leases in the store say who owns what. While this node does not see a
majority, it neither takes nor gives shards away, since what it sees is likely wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import msgspec

from actorkit.clock import Randomness
from actorkit.cluster.cluster import Cluster
from actorkit.cluster.events import ClusterEvent
from actorkit.ids import NodeId
from actorkit.sharding.handoff import Handoffs, Phase
from actorkit.sharding.incoming import Incoming
from actorkit.sharding.messages import (
    RemoteCall,
    RemoteReply,
    RemoteReturn,
    ShardAnswer,
    ShardQuestion,
    ShardReleased,
)
from actorkit.sharding.ownership import Ownership
from actorkit.sharding.placement import PlacedMember, place
from actorkit.sharding.region import Region
from actorkit.sharding.router import Router, has_ended
from actorkit.sharding.routing import Routing
from actorkit.sharding.settings import ShardingSettings

__all__ = ["ClusterSharding"]

M = TypeVar("M", bound=msgspec.Struct)

_POLL_S = 0.01
"""How often leaving looks whether it is done."""


class Sender(Protocol):
    """Who has sent a message."""

    @property
    def node(self) -> NodeId: ...

    @property
    def address(self) -> str: ...


class Messenger(Protocol):
    """What sharding needs of remoting."""

    @property
    def address(self) -> str: ...

    def register(self, message_type: type[M], receive: Callable[[Any, M], None]) -> None: ...

    def send(self, address: str, message: msgspec.Struct) -> bool: ...

    def disconnect(self, address: str, why: str) -> None: ...


class ClusterSharding:
    """The shards of one node of a cluster."""

    def __init__(
        self,
        region: Region,
        messenger: Messenger,
        cluster: Cluster,
        *,
        shards: int,
        settings: ShardingSettings,
        randomness: Randomness,
    ) -> None:
        address = messenger.address
        self._cluster = cluster
        self._shards = shards
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._placing: asyncio.Handle | None = None
        routing = Routing(address, shards, settings=settings, randomness=randomness, ended=has_ended)
        self.router = Router(routing, send=messenger.send, deliver=region.enter, margin_s=settings.remote_margin_s)
        self.ownership = Ownership(
            Handoffs(address, shards, settings=settings, load=region.load, believed=routing.owner),
            router=self.router,
            region=region,
            send=messenger.send,
            drain_s=settings.handoff_drain_s,
        )
        self.incoming = Incoming(
            region,
            shards=shards,
            answer=self.ownership.answer,
            send=messenger.send,
            disconnect=messenger.disconnect,
        )
        region.share(self.router, self.ownership, self._address_of)
        messenger.register(RemoteCall, lambda peer, call: self.incoming.call(peer.address, call))
        messenger.register(RemoteReply, lambda peer, reply: self.router.answered(peer.address, reply))
        messenger.register(RemoteReturn, self._returned)
        messenger.register(ShardAnswer, self._told)
        messenger.register(ShardQuestion, self._asked)
        messenger.register(ShardReleased, self._released)
        self._unsubscribe = cluster.subscribe(self._changed)

    def close(self) -> None:
        self._unsubscribe()
        if self._placing is not None:
            self._placing.cancel()
        self.ownership.close()
        self.router.close()

    async def hand_over(self) -> None:
        """Returns when no shard is owned here any more, or nobody is there to take any; at the latest after
        ``ShardingSettings.drain_timeout_s``. The node is leaving, so the placement gives it nothing."""
        until_s = self._loop.time() + self._settings.drain_timeout_s
        self._place()
        while self.ownership.owned and self._loop.time() < until_s and self._others_are_up:
            await asyncio.sleep(_POLL_S)
        # What others have sent to the shards that they took for ours is on its way back to them.
        await asyncio.sleep(_POLL_S)

    @property
    def _others_are_up(self) -> bool:
        me = self._cluster.myself.node
        return any(member.node != me for member in self._cluster.up)

    async def served(self) -> None:
        """Returns when every shard that should be owned here is."""
        self._place()
        while Phase.WANTED in self.ownership.phases.values():
            await asyncio.sleep(_POLL_S)

    def lost_contact(self, address: str) -> None:
        """The connection to a node has broken, or none can be made."""
        self.incoming.disconnected(address)
        self.router.disconnected(address)

    def _address_of(self, owner: str) -> str:
        return next((member.address for member in self._cluster.members if str(member.node) == owner), "")

    # --------------------------------------------------------------------------------------------------------- inputs

    def _returned(self, peer: Sender, message: RemoteReturn) -> None:
        if message.answer.shard < self._shards:
            self.router.returned(peer.address, message)

    def _told(self, peer: Sender, message: ShardAnswer) -> None:
        if message.shard < self._shards:
            self.ownership.told(peer.address, message)
            self.router.told(peer.address, message)

    def _asked(self, peer: Sender, message: ShardQuestion) -> None:
        self.ownership.asked(peer.address, [shard for shard in message.shards if shard < self._shards])

    def _released(self, peer: Sender, message: ShardReleased) -> None:
        if message.shard < self._shards:
            self.ownership.offered(peer.address, message)

    def _changed(self, event: ClusterEvent) -> None:
        """Members have changed. Several changes that come together are one."""
        if self._placing is None:
            self._placing = self._loop.call_soon(self._place)

    def _place(self) -> None:
        if self._placing is not None:
            self._placing.cancel()
            self._placing = None
        cluster = self._cluster
        up = {member.node.name: member for member in cluster.up}
        placement = place(self._shards, [PlacedMember(name, member.weight) for name, member in up.items()])
        owners = [None if name is None else up[name].address for name in placement]
        living = {member.address for member in cluster.members}
        self.ownership.members(living)
        self.router.placed(owners, living)
        if cluster.majority:
            self.ownership.placed(owners)

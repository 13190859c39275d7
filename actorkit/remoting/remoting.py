"""Remoting: messages of declared types between nodes, over one connection for each pair of them.

::

    remoting = Remoting(node=NodeId("n1", token), address="127.0.0.1:9080", cluster="shop", transport=transport)
    remoting.register(Ping, lambda peer, ping: remoting.send(peer.address, Pong(ping.number)))
    remoting.subscribe(print)
    await remoting.start()

What is promised: a message arrives at most once, and messages from one life of a node to another arrive in the order in
which they were sent. Where a connection breaks, what was under way may be lost; ``Disconnected`` is told before
anything of a later connection arrives. There are no replies here: those are messages of the layers above.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import structlog

from actorkit.clock import Randomness
from actorkit.errors import ConfigurationError, DeclarationError
from actorkit.ids import NodeId
from actorkit.remoting.counters import RemotingCounters
from actorkit.remoting.events import Peer, PeerEvent
from actorkit.remoting.handshake import PROTOCOL_VERSIONS, Local
from actorkit.remoting.peering import Peering
from actorkit.remoting.security import checked_secret, is_loopback
from actorkit.remoting.settings import RemotingSettings
from actorkit.remoting.transport import Transport
from actorkit.wire.codec import Codec

__all__ = ["Remoting"]

M = TypeVar("M", bound=msgspec.Struct)

_log = structlog.get_logger("actorkit.remoting")


class Remoting:
    """What one node says to and hears from the others. Everything happens on the loop; no call here blocks."""

    def __init__(
        self,
        *,
        node: NodeId,
        address: str,
        cluster: str,
        transport: Transport,
        randomness: Randomness,
        secret: str | bytes | None = None,
        listen: str | None = None,
        settings: RemotingSettings = RemotingSettings(),  # noqa: B008 - frozen
        versions: tuple[int, int] = PROTOCOL_VERSIONS,
    ) -> None:
        """``address`` is where the others reach this node, ``host:port``; ``listen`` where it listens, if that differs.

        Port 0 is replaced by a free one on start. ``secret`` is the same on all nodes of the cluster; without one (or
        mutual TLS in the transport) only loopback may be listened on. Raises ``ConfigurationError``.
        """
        self.node = node
        self.address = address
        self.settings = settings
        self._listen = listen if listen is not None else address
        local = Local(node=node, address=address, cluster=cluster, secret=checked_secret(secret), versions=versions)
        if not (local.secret or transport.private or is_loopback(self._listen)):
            raise ConfigurationError(
                f"remoting does not listen on {self._listen} without authentication, since anybody there could be a "
                "node: set a secret (the same on all nodes) or mutual TLS, or listen on 127.0.0.1"
            )
        self._codec = Codec(settings.wire)
        self.receivers: dict[type[msgspec.Struct], Callable[[Peer, Any], None]] = {}
        """Who takes messages of each type; ``register`` adds to it."""
        self._peering = Peering(local, transport, self._codec, randomness, settings, self)
        self._subscribers: list[Callable[[PeerEvent], None]] = []

    def register(self, message_type: type[M], receive: Callable[[Peer, M], None]) -> None:
        """Messages of this type may be sent, and those that come are given to ``receive``, which must not block.

        Raises ``DeclarationError`` where it is no message type (see ``actorkit.wire.codec``) or has a receiver.
        """
        self._codec.declare(message_type)
        if message_type in self.receivers:
            raise DeclarationError(f"messages of the type {message_type.__qualname__} have a receiver already")
        self.receivers[message_type] = receive

    def subscribe(self, changed: Callable[[PeerEvent], None]) -> None:
        """``changed`` is told what becomes of peers, in order with the messages that come from them."""
        self._subscribers.append(changed)

    def send(self, address: str, message: msgspec.Struct) -> bool:
        """Queues a message for the node at an address; it leaves at the end of this turn of the loop, or once there is
        a connection, which is made where there is none.

        False: it was surely not sent, because the outbox is full or the node could not be reached a moment ago. True:
        it arrives, or ``Disconnected`` or ``Unreachable`` is told. Raises ``UnknownMessage`` for a type that is not
        registered, ``MessageTooLarge`` and ``UndecodableMessage`` for what cannot travel.
        """
        return self._peering.send(address, self._codec.encode(message))

    def disconnect(self, address: str, why: str) -> None:
        """Ends the connection to an address, if there is one, after this turn of the loop; ``Disconnected`` is told.

        For whoever could not send what the other end would wait for as long as the connection lives.
        """
        self._peering.disconnect(address, why)

    def connected(self, address: str) -> Peer | None:
        """Who is at the other end of the connection to an address, if there is one."""
        return self._peering.at(address)

    @property
    def peers(self) -> list[Peer]:
        """All nodes that are connected."""
        return [peer for peer in map(self._peering.at, list(self._peering.open)) if peer is not None]

    @property
    def counters(self) -> RemotingCounters:
        """What has been done so far."""
        return self._peering.counters

    @property
    def queued_messages(self) -> int:
        """Messages that wait for their peers, all told."""
        return sum(len(route.outbox) for route in self._peering.routes.values())

    async def start(self) -> None:
        """Listens. Raises ``OSError`` where the address cannot be had."""
        self.address = await self._peering.start(self._listen)

    async def stop(self) -> None:
        """Sends what is queued where there is a connection, says farewell, and closes everything."""
        await self._peering.stop()

    def receiver_failed(self, message: msgspec.Struct, error: Exception) -> None:
        """A receiver has raised: a defect, which stays its own."""
        self.counters.receivers_failed += 1
        _log.error("remoting.receiver_failed", message=type(message).__qualname__, exc_info=error)

    def tell(self, event: PeerEvent) -> None:
        """Tells all subscribers what has become of a peer."""
        for changed in self._subscribers:
            try:
                changed(event)
            except Exception as error:  # noqa: BLE001 - the others are told too
                self.counters.receivers_failed += 1
                _log.error("remoting.subscriber_failed", told=repr(event), exc_info=error)

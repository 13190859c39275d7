"""Peering (a shell): one connection for each pair of nodes, made when there is something to send, and made again.

What may be done about an address stands in ``route``, what a connection goes through in ``association``, which of two
connections stays in ``arbitration``. Here they meet the transport and the loop's timers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import msgspec
import structlog

from actorkit.clock import Randomness
from actorkit.errors import ConnectionFailed, WireError
from actorkit.remoting.admission import Admission
from actorkit.remoting.arbitration import Existing, admits
from actorkit.remoting.association import Association, State
from actorkit.remoting.connection import Connection
from actorkit.remoting.counters import RemotingCounters
from actorkit.remoting.events import Connected, Disconnected, Peer, PeerEvent, Unreachable
from actorkit.remoting.handshake import NONCE_BYTES, Local, Reason
from actorkit.remoting.route import Route, RouteInput, RouteState
from actorkit.remoting.settings import RemotingSettings
from actorkit.remoting.transport import Link, LinkHandler, Transport
from actorkit.wire.codec import Codec

__all__ = ["Peering", "Upper"]

_OPEN = State.OPEN
_BACKOFF = RouteState.BACKOFF

_log = structlog.get_logger("actorkit.remoting")


class Upper(Protocol):
    """Whom peering tells what comes."""

    @property
    def receivers(self) -> Mapping[type[msgspec.Struct], Callable[[Peer, Any], None]]:
        """Who takes messages of each declared type."""
        ...

    def receiver_failed(self, message: msgspec.Struct, error: Exception) -> None:
        """A receiver has raised."""
        ...

    def tell(self, event: PeerEvent) -> None:
        """Something has become of a peer. Does not raise."""
        ...


class _Dial:
    """An attempt of ours to connect to an address."""

    __slots__ = ("connection", "number", "task")

    def __init__(self, number: int) -> None:
        self.number = number
        self.task: asyncio.Task[None] | None = None
        self.connection: Connection | None = None


class Peering:
    """All connections of one node. Implements ``Acceptor`` and ``Owner``."""

    def __init__(
        self,
        local: Local,
        transport: Transport,
        codec: Codec,
        randomness: Randomness,
        settings: RemotingSettings,
        upper: Upper,
    ) -> None:
        self.counters = RemotingCounters()
        self.routes: dict[str, Route] = {}
        self.open: dict[str, Connection] = {}
        self._local = local
        self._transport = transport
        self._codec = codec
        self._randomness = randomness
        self._settings = settings
        self._upper = upper
        self._receivers = upper.receivers
        self._admission = Admission(rate_per_s=settings.connect_rate_per_s, burst=settings.connect_burst)
        self._aliases: dict[str, str] = {}
        self._dials: dict[str, _Dial] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._strangers: dict[Connection, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._dirty: list[Route] = []
        self._attempts = 0
        self._running = False
        self._loop: asyncio.AbstractEventLoop

    async def start(self, listen: str) -> str:
        """Listens; returns this node's address, which has the port that was given for port 0."""
        self._loop = asyncio.get_running_loop()
        bound = await self._transport.listen(listen, self)
        address = self._local.address
        if address.endswith(":0"):
            address = f"{address[:-2]}:{bound.rpartition(':')[2]}"
            self._local = msgspec.structs.replace(self._local, address=address)
        self._running = True
        return address

    async def stop(self) -> None:
        """Sends what is queued where there is a connection, says farewell, and closes everything."""
        if not self._running:
            return
        self._flush()
        self._running = False
        for address in list(self._dials):
            self._abandon(address, "this node stops")
        for connection in [*self._strangers, *self.open.values()]:
            connection.association.bid_farewell()
            connection.finish()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for route in self.routes.values():
            if route.outbox:
                self._discard(route)
                self._upper.tell(Unreachable(route.address, "this node stops"))
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._transport.close()

    def send(self, address: str, payload: bytes) -> bool:
        """Queues an encoded message. False: it was surely not sent."""
        route = self.routes.get(address) or self._route(address)
        if route is None or not self._running:
            accepted = False
        elif route.state is _BACKOFF:
            # Nothing is accepted now, but once the wait is over it is tried again.
            route.wanted = True
            accepted = False
        elif not route.outbox.size_bytes and self._sent_promptly(route, payload):
            return True
        else:
            accepted = route.outbox.offer(payload)
        if route is None or not accepted:
            self.counters.messages_not_accepted += 1
            return False
        if route.outbox.size_bytes == len(payload):
            if not self._dirty:
                self._loop.call_soon(self._flush)
            self._dirty.append(route)
        return True

    def _sent_promptly(self, route: Route, payload: bytes) -> bool:
        """Where calls come and go one at a time, a message does not wait for others that could go with it."""
        connection = self.open.get(route.address)
        if connection is None or not connection.prompt or not connection.writable_now:
            return False
        connection.send_batch((payload,))
        return True

    def disconnect(self, address: str, why: str) -> None:
        connection = self.open.get(address)
        if connection is not None:
            # Not at once: whoever asks may be in the middle of a message that has come over it.
            self._loop.call_soon(connection.end, why)

    def at(self, address: str) -> Peer | None:
        """Who is at the other end of the connection to that address, if there is one."""
        connection = self.open.get(self._aliases.get(address, address))
        return None if connection is None else connection.association.peer

    # --------------------------------------------------------------------------------------------------------- routes

    def _route(self, address: str) -> Route | None:
        """None: too many addresses are in use."""
        address = self._aliases.get(address, address)
        route = self.routes.get(address)
        if route is None:
            if len(self.routes) >= self._settings.peers_max and not self._forget_one():
                return None
            route = self.routes[address] = Route(address, self._settings, self._randomness.uniform)
        return route

    def _forget_one(self) -> bool:
        for address, route in self.routes.items():
            if route.forgettable:
                del self.routes[address]
                return True
        return False

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for route in dirty:
            connection = self.open.get(route.address)
            if connection is not None:
                self.drain(connection)
            elif route.outbox and route.state is RouteState.IDLE:
                self._dial(route)

    def drain(self, connection: Connection) -> None:
        """Sends what waits for this peer, as far as it takes it."""
        peer = connection.association.peer
        if peer is None or self.open.get(peer.address) is not connection:
            return
        outbox = self.routes[peer.address].outbox
        while outbox.size_bytes and connection.writable_now:
            connection.send_batch(outbox.take_batch())

    def _discard(self, route: Route) -> None:
        self.counters.messages_discarded += route.outbox.clear()

    # -------------------------------------------------------------------------------------------------------- dialing

    def _dial(self, route: Route) -> None:
        route.step(RouteInput.DIAL)
        self._attempts += 1
        dial = self._dials[route.address] = _Dial(self._attempts)
        task = self._loop.create_task(self._connect(route, dial))
        dial.task = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, route: Route, dial: _Dial) -> None:
        limit_s = self._settings.connect_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                await self._transport.connect(route.address, partial(self._dialed, route, dial))
        except TimeoutError:
            self._failed(route, dial, f"it could not be reached within {limit_s:g} s")
        except ConnectionFailed as error:
            self._failed(route, dial, error.why)

    def _dialed(self, route: Route, dial: _Dial, link: Link) -> LinkHandler:
        connection = dial.connection = self._connection(link)
        connection.association.initiate(attempt=dial.number, last_session=route.last_session)
        # The link does not know yet whom to tell.
        self._loop.call_soon(connection.settle)
        return connection

    def _connection(self, link: Link) -> Connection:
        association = Association(
            self._local, self._codec, self._settings, self._loop.time(), self._randomness.token(NONCE_BYTES)
        )
        return Connection(link, association, self, self.counters, stalled_max_s=self._settings.stalled_max_s)

    def _failed(self, route: Route, dial: _Dial, why: str) -> None:
        if self._dials.get(route.address) is not dial:
            return
        del self._dials[route.address]
        if dial.connection is not None:
            dial.connection.end(why)
        self._give_up(route, why)

    def _give_up(self, route: Route, why: str) -> None:
        route.step(RouteInput.FAILED)
        self._back_off(route)
        self._discard(route)
        self.counters.unreachable += 1
        _log.info("remoting.unreachable", address=route.address, why=why)
        self._upper.tell(Unreachable(route.address, why))

    def _back_off(self, route: Route) -> None:
        self._wait(route, route.backoff.failed(), self._try_again)

    def _wait(self, route: Route, delay_s: float, then: Callable[[Route], None]) -> None:
        self._stop_waiting(route)
        self._timers[route.address] = self._loop.call_later(delay_s, then, route)

    def _stop_waiting(self, route: Route) -> None:
        timer = self._timers.pop(route.address, None)
        if timer is not None:
            timer.cancel()

    def _try_again(self, route: Route) -> None:
        del self._timers[route.address]
        route.step(RouteInput.EXPIRED)
        if route.wanted:
            route.wanted = False
            self._dial(route)

    def _waited_in_vain(self, route: Route) -> None:
        del self._timers[route.address]
        self._give_up(route, "it refused our connection in favour of its own, which did not come")

    def _abandon(self, address: str, why: str) -> None:
        """Ends an attempt of ours, if there is one, without telling anybody."""
        dial = self._dials.pop(address, None)
        if dial is None:
            return
        if dial.connection is not None:
            dial.connection.end(why)
        elif dial.task is not None:
            dial.task.cancel()

    def met(self, connection: Connection) -> None:
        """A node has answered our attempt."""
        address, dial = next((each for each in self._dials.items() if each[1].connection is connection), ("", None))
        peer = connection.association.peer
        assert peer is not None
        if dial is None:
            connection.association.end("it is no longer wanted")
        elif peer.address == address:
            connection.association.prove()
        else:
            self._rename(self.routes[address], peer.address)

    def _rename(self, route: Route, address: str) -> None:
        """The node calls itself by another address: what waits for it goes there."""
        old = route.address
        self._abandon(old, f"it is known as {address}")
        del self.routes[old]
        other = self._route(address) if address != self._local.address else None
        if other is None or other.state is RouteState.BACKOFF:
            self._discard(route)
            self._upper.tell(Unreachable(old, f"it calls itself {address}, which is not reachable"))
            return
        if len(self._aliases) >= self._settings.peers_max:
            self._aliases.clear()
        self._aliases[old] = other.address
        self.counters.messages_discarded += route.outbox.move_to(other.outbox)
        self._dirty.append(other)
        self._flush()

    # ------------------------------------------------------------------------------------------------------- acceptor

    def admit(self, source: str) -> bool:
        """Whether one more connection from that host may be made."""
        full = len(self._strangers) + len(self.open) >= self._settings.connections_max
        admitted = self._running and not full and self._admission.admit(self._loop.time(), source)
        if not admitted:
            self.counters.connections_turned_away += 1
        return admitted

    def opened(self, connection: Connection) -> None:
        """The handshake is over: there is a connection."""
        peer = connection.association.peer
        assert peer is not None
        self._strangers.pop(connection, None)
        dial = self._dials.get(peer.address)
        if dial is not None and dial.connection is connection:
            del self._dials[peer.address]
        route = self.routes[peer.address]
        self._stop_waiting(route)
        route.step(RouteInput.OPENED)
        route.wanted = False
        self.counters.reconnected += bool(route.last_session)
        route.last_session = connection.association.session
        self.open[peer.address] = connection
        self.counters.connected += 1
        _log.info("remoting.connected", peer=str(peer.node), address=peer.address, protocol=peer.version)
        self._upper.tell(Connected(peer.node, peer.address))
        self.drain(connection)

    def judge(self, connection: Connection) -> None:
        """A peer has proved itself: whether its connection becomes the one there is."""
        association = connection.association
        peer, incoming = association.peer, association.incoming
        assert peer is not None
        assert incoming is not None
        self._aliases.pop(peer.address, None)
        route = self._route(peer.address) if self._running and peer.address != self._local.address else None
        if route is None:
            association.refuse(Reason.BUSY, f"there is no room for a peer at {peer.address}")
            return
        current = self.open.get(peer.address)
        existing = None
        if current is not None and current.association.peer is not None:
            theirs = current.association.incoming
            attempt = None if theirs is None else theirs.attempt
            existing = Existing(current.association.peer.node, current.association.session, attempt)
        dial = self._dials.get(peer.address)
        greeting = dial is not None and dial.connection is not None
        rivals = [each for each in self._strangers if each is not connection and _comes_from(each, peer.address)]
        begun = [each.association.incoming for each in rivals]
        late = any(each and each.node == incoming.node and each.attempt > incoming.attempt for each in begun)
        if late or not admits(self._local.node, incoming, existing, greeting=greeting):
            association.refuse(Reason.DUPLICATE, "there is another connection between these two nodes")
            return
        self._abandon(peer.address, "the peer's own connection came first")
        for rival in rivals:
            rival.end("a newer connection of that peer is there")
        if current is not None:
            current.end("it has made a new connection")
        association.accept()

    def accept(self, link: Link) -> Connection:
        """Somebody has connected, and has to say who that is."""
        if len(self._strangers) >= self._settings.unauthenticated_max:
            self.counters.connections_turned_away += 1
            next(iter(self._strangers)).end("others want to come in, and this handshake was not over")
        connection = self._connection(link)
        self._strangers[connection] = None
        return connection

    # ----------------------------------------------------------------------------------------------------- connections

    def arrived(self, connection: Connection, messages: Sequence[msgspec.Struct]) -> None:
        """Gives messages to their receivers."""
        peer = connection.association.peer
        assert peer is not None
        association, receivers = connection.association, self._receivers
        for message in messages:
            try:
                receivers[type(message)](peer, message)
            except Exception as error:  # noqa: BLE001 - its defect; the connection goes on
                self._upper.receiver_failed(message, error)
            if association.state is not _OPEN:
                return

    def dropped(self, connection: Connection, errors: Sequence[WireError]) -> None:
        """Messages have come that cannot be used."""
        self.counters.messages_dropped += len(errors)
        peer = connection.association.peer
        _log.warning("remoting.message_dropped", peer=str(peer and peer.node), count=len(errors), error=str(errors[0]))

    def ended(self, connection: Connection) -> None:
        """A connection, or an attempt at one, is over."""
        association = connection.association
        peer, why = association.peer, association.why
        if connection in self._strangers:
            del self._strangers[connection]
            self.counters.handshakes_failed += 1
            _log.info("remoting.handshake_failed", source=connection.link.source, why=why)
            return
        if peer is not None and self.open.get(peer.address) is connection:
            self._broken(connection, peer, why)
            return
        address = next((address for address, dial in self._dials.items() if dial.connection is connection), None)
        if address is not None:
            route, dial = self.routes[address], self._dials[address]
            if association.reason == Reason.DUPLICATE:
                del self._dials[address]
                route.step(RouteInput.YIELDED)
                self._wait(route, self._settings.handshake_timeout_s, self._waited_in_vain)
            else:
                self._failed(route, dial, why)

    def _broken(self, connection: Connection, peer: Peer, why: str) -> None:
        del self.open[peer.address]
        route = self.routes[peer.address]
        lasted_s = self._loop.time() - (connection.opened_at_s or 0.0)
        if lasted_s >= self._settings.backoff_max_s:
            route.backoff.succeeded()
            route.step(RouteInput.BROKEN)
        else:
            route.step(RouteInput.BROKEN_SOON)
            self._back_off(route)
        self._discard(route)
        for alias in [alias for alias, address in self._aliases.items() if address == peer.address]:
            del self._aliases[alias]
        self.counters.disconnected += 1
        _log.info("remoting.disconnected", peer=str(peer.node), address=peer.address, why=why)
        self._upper.tell(Disconnected(peer.node, peer.address, why))


def _comes_from(connection: Connection, address: str) -> bool:
    peer = connection.association.peer
    return peer is not None and peer.address == address

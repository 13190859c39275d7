"""SimulatedTransport: remoting's connections over the simulated network, with what TCP makes of its faults.

A link delivers frames in order and without a hole. What the network loses is sent again after a while, so that a link
stalls where frames are lost or the way is cut, and breaks once the system has tried for too long. Where nobody listens
a connection is refused; where the process at the other end is gone, or is another one by now, the next segment breaks
the link. A node that has died says nothing by itself: until something is sent to it, its links are half open.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from actorkit.errors import ConnectionFailed
from actorkit.remoting.transport import Acceptor, Link, LinkHandler

if TYPE_CHECKING:
    import asyncio

    from actorkit.testing.simulation.loop import SimulatedLoop
    from actorkit.testing.simulation.network import Network

__all__ = ["SimulatedTransport", "TcpSettings"]


class TcpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the simulated operating systems do."""

    resend_min_s: float = 0.2
    """How long the first segment that is not acknowledged waits; each further time is twice as long."""
    give_up_s: float = 15.0
    """How long a segment is tried before the connection counts as broken."""
    buffer_bytes: int = 1 << 18
    """Sent and not acknowledged, beyond which the sender is to wait."""
    connections: int = 64
    """So many links of one node overtake each other; beyond, some share their order."""


class _Segment(msgspec.Struct, frozen=True, array_like=True):
    kind: str
    """``connect``, ``accept``, ``data``, ``ack``, ``end`` (nothing follows) or ``reset``."""
    connection: str
    number: int = 0
    frame: bytes = b""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Segment).decode


class SimulatedTransport:
    """The connections of one process at one address. Implements ``actorkit.remoting.transport.Transport``."""

    def __init__(
        self,
        loop: SimulatedLoop,
        network: Network,
        address: str,
        *,
        settings: TcpSettings = TcpSettings(),  # noqa: B008 - frozen
    ) -> None:
        """Made within the process that is to own it: what it is sent belongs to that one."""
        self.loop = loop
        self.settings = settings
        self.private = True
        self._network = network
        self._address = address
        self._acceptor: Acceptor | None = None
        self._links: dict[str, _Link] = {}
        self._seen: deque[str] = deque(maxlen=1000)
        self._life = f"{address}/{loop.now_s!r}"
        self._made = 0
        network.listen(address, self._receive, process=loop.current, refused=self._refused)

    async def listen(self, address: str, acceptor: Acceptor) -> str:
        """The address is the transport's own."""
        if address != self._address:
            raise OSError(f"{address} is no address of this machine, which has {self._address}")
        self._acceptor = acceptor
        return address

    async def connect(self, address: str, opened: Callable[[Link], LinkHandler]) -> None:
        """Raises ``ConnectionFailed``."""
        self._made += 1
        order = 1 + self._made % self.settings.connections
        link = _Link(self, address, f"{self._life}/{self._made}", order=order, expected=0)
        link.connecting = self.loop.create_future()
        link.opened = opened
        self._links[link.connection] = link
        link.transmit("connect")
        try:
            await link.connecting
        except BaseException:
            link.close(abort=True)
            raise

    async def close(self) -> None:
        self._acceptor = None
        for link in list(self._links.values()):
            link.close()

    # ------------------------------------------------------------------------------------------------------- segments

    def put(self, target: str, segment: _Segment, order: int) -> None:
        """Sends a segment on its way; whether it arrives nobody knows."""
        self._network.send(self._address, target, _encode(segment), connection=order)

    def forget(self, link: _Link) -> None:
        """It is over; later segments of it are answered with a reset."""
        self._links.pop(link.connection, None)

    def _receive(self, source: str, data: bytes) -> None:
        segment = _decode(data)
        link = self._links.get(segment.connection)
        if link is None and segment.kind == "connect":
            self._take(source, segment)
        elif link is not None:
            link.take(segment)
        elif segment.kind != "reset":
            self.put(source, _Segment("reset", segment.connection), 0)

    def _take(self, source: str, segment: _Segment) -> None:
        acceptor = self._acceptor
        if acceptor is None or segment.connection in self._seen or not acceptor.admit(_host(source)):
            self.put(source, _Segment("reset", segment.connection), 0)
            return
        self._seen.append(segment.connection)
        self._made += 1
        order = 1 + self._made % self.settings.connections
        link = _Link(self, source, segment.connection, order=order, expected=1)
        self._links[segment.connection] = link
        self.put(source, _Segment("accept", segment.connection), link.order)
        link.handler = acceptor.accept(link)

    def _refused(self, target: str, data: bytes) -> None:
        link = self._links.get(_decode(data).connection)
        if link is not None:
            link.broke(f"nobody listens at {target}")


class _Link:
    """One end of one connection. What is not acknowledged stays in ``_unacknowledged`` and is sent again."""

    def __init__(
        self, transport: SimulatedTransport, target: str, connection: str, *, order: int, expected: int
    ) -> None:
        """``expected`` is the number of the first segment from the other end. (Connecting is one, accepting none.)"""
        self.source = _host(target)
        self.connection = connection
        self.order = order
        self.connecting: asyncio.Future[None] | None = None
        self.opened: Callable[[Link], LinkHandler] | None = None
        self.handler: LinkHandler | None = None
        self._transport = transport
        self._target = target
        self._unacknowledged: deque[_Segment] = deque()
        self._unacknowledged_bytes = 0
        self._waits_for_room = False
        self._sent = 0
        self._expected = expected
        self._early: dict[int, _Segment] = {}
        self._closing = False
        self._forgotten = False
        self._timer: asyncio.TimerHandle | None = None
        self._resend_s = transport.settings.resend_min_s
        self._progress_s = 0.0

    def send(self, frame: bytes) -> bool:
        if not self._closing:
            self.transmit("data", frame)
        if self._unacknowledged_bytes > self._transport.settings.buffer_bytes:
            # Until there is room again and that has been said: a heartbeat in between must not pass for it.
            self._waits_for_room = True
        return not self._waits_for_room

    def trust(self) -> None:
        """Nothing is limited here."""

    def close(self, *, abort: bool = False) -> None:
        if self._forgotten or (self._closing and not abort):
            return
        self.handler = None
        if not abort and not self._closing:
            self._closing = True
            self.transmit("end")
            return
        self._closing = True
        self._transport.put(self._target, _Segment("reset", self.connection), self.order)
        self._forget()

    def transmit(self, kind: str, frame: bytes = b"") -> None:
        """Sends it, until it is acknowledged."""
        segment = _Segment(kind, self.connection, self._sent, frame)
        self._sent += 1
        if not self._unacknowledged:
            self._progress_s = self._transport.loop.time()
            self._resend_s = self._transport.settings.resend_min_s
        self._unacknowledged.append(segment)
        self._unacknowledged_bytes += len(frame)
        self._transport.put(self._target, segment, self.order)
        if self._timer is None:
            self._timer = self._transport.loop.call_later(self._resend_s, self._resend)

    def _resend(self) -> None:
        self._timer = None
        if not self._unacknowledged:
            return
        settings, loop = self._transport.settings, self._transport.loop
        if loop.time() - self._progress_s > settings.give_up_s:
            self.broke("it has timed out")
            return
        for segment in self._unacknowledged:
            self._transport.put(self._target, segment, self.order)
        self._resend_s = min(2 * self._resend_s, settings.give_up_s / 4)
        self._timer = loop.call_later(self._resend_s, self._resend)

    def take(self, segment: _Segment) -> None:
        """What has come for this connection."""
        if segment.kind == "reset":
            self.broke("it was reset by the other end")
        elif segment.kind == "ack":
            self._acknowledged(segment.number)
        elif segment.kind == "connect":
            # It was sent again, because the answer got lost.
            self._transport.put(self._target, _Segment("accept", self.connection), self.order)
        elif segment.kind == "accept":
            self._accepted()
        else:
            self._early.setdefault(segment.number, segment)
            self._deliver()

    def _accepted(self) -> None:
        self._acknowledged(1)
        if self.connecting is not None and not self.connecting.done() and self.opened is not None:
            self.handler = self.opened(self)
            self.connecting.set_result(None)
            self._deliver()

    def _acknowledged(self, number: int) -> None:
        waiting = self._unacknowledged
        while waiting and waiting[0].number < number:
            self._unacknowledged_bytes -= len(waiting.popleft().frame)
            self._progress_s = self._transport.loop.time()
            self._resend_s = self._transport.settings.resend_min_s
        if self._closing and not waiting:
            self._forget()
        elif self._waits_for_room and self._unacknowledged_bytes <= self._transport.settings.buffer_bytes // 2:
            self._waits_for_room = False
            if self.handler is not None:
                self.handler.writable()

    def _deliver(self) -> None:
        if self.connecting is not None and not self.connecting.done():
            return
        while (segment := self._early.pop(self._expected, None)) is not None:
            self._expected += 1
            if segment.kind == "end":
                self._acknowledge()
                self.broke("it was closed by the other end")
                return
            if self.handler is not None:
                self.handler.received(segment.frame)
        for number in [number for number in self._early if number < self._expected]:
            del self._early[number]
        self._acknowledge()

    def _acknowledge(self) -> None:
        if not self._forgotten:
            self._transport.put(self._target, _Segment("ack", self.connection, self._expected), self.order)

    def broke(self, why: str) -> None:
        """The system says that it is over."""
        handler, self.handler = self.handler, None
        self._forget()
        if self.connecting is not None and not self.connecting.done():
            self.connecting.set_exception(ConnectionFailed(self._target, why))
        elif handler is not None:
            handler.closed(why)

    def _forget(self) -> None:
        self._forgotten = True
        self._transport.forget(self)
        self._unacknowledged.clear()
        self._unacknowledged_bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _host(address: str) -> str:
    return address.rpartition(":")[0] or address

"""Streams of events: answers that go on until the client has had enough, as server-sent events.

See the WHATWG's HTML standard, "Server-sent events". Each part is sent as it comes, with a comment now and then where
none does, so that whoever is between sees that the connection lives. A client that takes nothing for long is cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Final, cast

from aiohttp import web

from actorkit.gateway.problems import OVERLOADED, Problem
from actorkit.gateway.settings import GatewaySettings

__all__ = ["EventStream", "EventStreams", "event"]

_HEARTBEAT: Final = b":\n\n"
_END_MAX_S: Final = 1.0
"""How long the last bytes of a stream that is ended may take."""


def event(name: str, data: bytes, *, id: str | None = None) -> bytes:
    """One event. ``data`` is one line; ``id`` is what the client sends as ``Last-Event-ID`` when it comes back."""
    identified = b"" if id is None else b"id: %b\n" % id.encode()
    return b"%bevent: %b\ndata: %b\n\n" % (identified, name.encode(), data)


class EventStreams:
    """The streams of one gateway, of which there are only so many at once."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._open: set[EventStream] = set()
        self._ended = False

    def __len__(self) -> int:
        return len(self._open)

    def admit(self) -> None:
        """Raises ``Problem`` where there are too many already."""
        most = self._settings.streams_max
        if len(self._open) >= most:
            detail = f"{most} streams are open already: this one was not begun"
            raise Problem(OVERLOADED, detail, headers={"Retry-After": "5"})

    def open(self, produce: Callable[[], Awaitable[bytes]], close: Callable[[], None]) -> EventStream:
        """An answer with what ``produce`` gives, until that is empty. Raises as ``admit``.

        ``produce`` is cancelled and called again where it takes long, and must lose nothing by that. ``close`` is
        called at the end, however that comes.
        """
        self.admit()
        stream = EventStream(produce, close, self._settings, self._open.discard)
        self._open.add(stream)
        if self._ended:
            stream.end()
        return stream

    def end(self) -> None:
        """Ends all of them, and each that is opened later."""
        self._ended = True
        for stream in tuple(self._open):
            stream.end()


class EventStream:
    """An answer that goes on. It has the few members that aiohttp's server touches, as ``Response`` has."""

    def __init__(
        self,
        produce: Callable[[], Awaitable[bytes]],
        close: Callable[[], None],
        settings: GatewaySettings,
        closed: Callable[[EventStream], None],
    ) -> None:
        self._produce = produce
        self._close = close
        self._closed = closed
        self._settings = settings
        self._ended = False
        self._sending = False
        self._waiting: asyncio.Timeout | None = None
        self.keep_alive = False
        """Read by aiohttp at the end: a connection serves one stream."""

    def force_close(self) -> None:
        self.keep_alive = False

    def end(self) -> None:
        """Ends the stream, between two events."""
        self._ended = True
        if self._waiting is not None and not self._waiting.expired():
            # A client that reads is sent the rest of the last event, and the end.
            self._waiting.reschedule(asyncio.get_running_loop().time() + (_END_MAX_S if self._sending else 0.0))

    async def prepare(self, http: web.BaseRequest) -> None:
        """Sends everything, until one side ends it."""
        chunked = http.version.minor > 0
        lost = getattr(http.protocol, "when_lost", None)
        if lost is not None:
            lost(self.end)
        try:
            await self._send(http, _head(chunked=chunked))
            while not self._ended:
                part = await self._next()
                if not part:
                    break
                await self._send(http, b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
            if chunked:
                await self._send(http, b"0\r\n\r\n")
        finally:
            self._closed(self)
            self._close()

    async def _next(self) -> bytes:
        try:
            async with asyncio.timeout(self._settings.stream_heartbeat_s) as self._waiting:
                return await self._produce()
        except TimeoutError:
            return b"" if self._ended else _HEARTBEAT
        finally:
            self._waiting = None

    async def _send(self, http: web.BaseRequest, data: bytes) -> None:
        """Raises ``ConnectionError`` where the client has gone, or takes nothing."""
        stalled_s = min(_END_MAX_S, self._settings.stream_stalled_s) if self._ended else self._settings.stream_stalled_s
        self._sending = True
        try:
            async with asyncio.timeout(stalled_s) as self._waiting:
                await http.writer.write(data)
                await http.writer.drain()
        except TimeoutError:
            if http.transport is not None:
                http.transport.abort()
            raise ConnectionResetError("the client took nothing for too long") from None
        finally:
            self._sending = False
            self._waiting = None

    async def write_eof(self) -> None:
        """Nothing is left to send."""

    def for_aiohttp(self) -> web.StreamResponse:
        """This, as what aiohttp's server takes it for."""
        return cast("web.StreamResponse", self)


def _head(*, chunked: bool) -> bytes:
    encoding = "Transfer-Encoding: chunked\r\n" if chunked else ""
    return (
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\nX-Accel-Buffering: no\r\n"
        f"Date: {formatdate(usegmt=True)}\r\n{encoding}Connection: close\r\n\r\n"
    ).encode()

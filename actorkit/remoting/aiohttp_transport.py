"""AiohttpTransport (a shell): links as WebSockets, one frame for each binary message, without compression.

The listening side is bounded before anybody is known: in how many connections are half made, in how long they may take,
and in how many bytes they may send until the handshake is over. Browsers, which always say from which page they come,
are turned away: a page must not talk to a node on the machine of whoever looks at it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

import aiohttp
import structlog
from aiohttp import web

from actorkit.errors import ConnectionFailed
from actorkit.remoting.security import host_and_port
from actorkit.remoting.settings import RemotingSettings
from actorkit.remoting.tls import TlsContexts
from actorkit.remoting.transport import Acceptor, Link, LinkHandler
from actorkit.remoting.websocket_link import WebSocketLink
from actorkit.wire.frames import frame_max_bytes

__all__ = ["NOT_FOR_STRANGERS", "PATH", "AiohttpTransport"]

PATH: Final = "/actorkit/remoting"
"""Where a node takes WebSockets of its peers."""
NOT_FOR_STRANGERS: Final = "This port is for the nodes of a cluster.\n"
"""The answer to requests that are no peer's; the command line knows a remoting port by it."""

_log = structlog.get_logger("actorkit.remoting")

_UNTRUSTED_MAX_BYTES: Final = 16 << 10
_CLOSE_S: Final = 2.0


class _Protocol(web.RequestHandler):
    """One connection to the listening socket, from its first byte on."""

    __slots__ = ("_admitted", "_bytes_left", "_deadline", "_server", "socket")

    def __init__(self, server: _Server, **options: Any) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **options)
        self._server = server
        self._admitted = False
        self._bytes_left: int | None = _UNTRUSTED_MAX_BYTES
        self._deadline: asyncio.TimerHandle | None = None
        self.socket: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # uvloop's transports do not derive from asyncio's.
        self.socket = cast("asyncio.Transport", transport)
        self._admitted = self._server.begin(self, _host_of(self.socket))
        if not self._admitted:
            self.socket.abort()
            return
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(self._server.settings.handshake_timeout_s, self.socket.abort)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.upgraded()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._admitted:
            return
        if self._bytes_left is not None:
            self._bytes_left -= len(data)
            if self._bytes_left < 0:
                self.socket.abort()
                return
        super().data_received(data)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        # aiohttp would write a traceback for each stranger who talks nonsense, which fills the disk.
        if status >= 500:
            _log.error("remoting.connection_failed", error=repr(exc), exc_info=exc)
        answer = web.Response(status=status)
        answer.force_close()
        return answer

    def upgraded(self) -> None:
        """It has become a link, whose handshake has a deadline of its own; or it is gone."""
        self._server.end(self)
        if self._deadline is not None:
            self._deadline.cancel()

    def trust(self) -> None:
        """The handshake is over: no limit but that on frames."""
        self._bytes_left = None


class _Server(web.Server):
    """Counts connections that have not said yet what they want."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Any],
        admit: Callable[[str], bool],
        settings: RemotingSettings,
    ) -> None:
        super().__init__(handler)
        self.settings = settings
        self._admit = admit
        self._begun: dict[_Protocol, None] = {}

    def __call__(self) -> web.RequestHandler:
        return _Protocol(self, access_log=None, keepalive_timeout=0, max_line_size=1024, max_field_size=1024)

    def begin(self, protocol: _Protocol, source: str) -> bool:
        if not self._admit(source):
            return False
        if len(self._begun) >= self.settings.unauthenticated_max:
            oldest = next(iter(self._begun))
            # At once, and not when the loop gets to say that it is lost: more may come until then.
            del self._begun[oldest]
            oldest.socket.abort()
        self._begun[protocol] = None
        return True

    def end(self, protocol: _Protocol) -> None:
        self._begun.pop(protocol, None)


class _ClientWebSocket(aiohttp.ClientWebSocketResponse):
    """Keeps the connection's transport, which is needed to break it off."""

    def __init__(self, reader: Any, writer: Any, protocol: Any, response: Any, *args: Any, **options: Any) -> None:
        super().__init__(reader, writer, protocol, response, *args, **options)
        self.socket: asyncio.Transport = response.connection.transport


class AiohttpTransport:
    """WebSockets over TCP, or over TLS. Implements ``Transport``."""

    def __init__(
        self,
        settings: RemotingSettings = RemotingSettings(),  # noqa: B008 - frozen
        *,
        tls: TlsContexts | None = None,
    ) -> None:
        """``tls`` encrypts, and with certificates demanded of both sides also authenticates. See ``mutual_tls``."""
        self._settings = settings
        self._tls = tls
        self._frame_max_bytes = frame_max_bytes(settings.wire)
        self._acceptor: Acceptor | None = None
        self._runner: web.ServerRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._links: set[WebSocketLink] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    @property
    def private(self) -> bool:
        """Whether TLS demands certificates of both sides."""
        return self._tls is not None and self._tls.mutual

    async def listen(self, address: str, acceptor: Acceptor) -> str:
        """Raises ``OSError`` where the address cannot be had."""
        host, port = host_and_port(address)
        self._acceptor = acceptor
        server = _Server(self._handle, self._admit, self._settings)
        runner = self._runner = web.ServerRunner(server, shutdown_timeout=_CLOSE_S)
        await runner.setup()
        context = None if self._tls is None else self._tls.server
        await web.TCPSite(runner, host, port, backlog=256, ssl_context=context).start()
        bound_host, bound_port = runner.addresses[0][:2]
        return f"[{bound_host}]:{bound_port}" if ":" in bound_host else f"{bound_host}:{bound_port}"

    def _admit(self, source: str) -> bool:
        return self._acceptor is not None and self._acceptor.admit(source)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        protocol, acceptor = request.protocol, self._acceptor
        assert isinstance(protocol, _Protocol)
        upgrade = request.headers.get("Upgrade", "").lower() == "websocket"
        if acceptor is None or request.path != PATH or not upgrade or "Origin" in request.headers:
            answer = web.Response(status=403 if upgrade else 404, text=NOT_FOR_STRANGERS)
            answer.force_close()
            return answer
        websocket = web.WebSocketResponse(timeout=_CLOSE_S, compress=False, max_msg_size=self._frame_max_bytes)
        await websocket.prepare(request)
        protocol.upgraded()
        link = self._link(websocket, protocol.socket, trusted=protocol.trust)
        await link.run(acceptor.accept(link))
        return websocket

    def _link(self, websocket: Any, socket: asyncio.Transport, *, trusted: Callable[[], None]) -> WebSocketLink:
        limit = self._settings.link_buffer_bytes
        link = WebSocketLink(
            websocket, socket, source=_host_of(socket), buffer_bytes=limit, close_s=_CLOSE_S, trusted=trusted
        )
        self._links.add(link)
        link.done = self._links.discard
        return link

    async def connect(self, address: str, opened: Callable[[Link], LinkHandler]) -> None:
        """Raises ``ConnectionFailed``."""
        if self._closing:
            raise ConnectionFailed(address, "this node stops")
        session = self._session
        if session is None:
            session = self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, force_close=True),
                timeout=aiohttp.ClientTimeout(total=None),
                ws_response_class=_ClientWebSocket,
            )
        scheme, contexts = ("https", self._tls.client) if self._tls else ("http", True)
        try:
            websocket = await session.ws_connect(
                f"{scheme}://{address}{PATH}",
                max_msg_size=self._frame_max_bytes,
                compress=0,
                timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_S),  # pyright: ignore[reportCallIssue] - attrs
                ssl=contexts,
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ConnectionFailed(address, str(error) or type(error).__name__) from error
        assert isinstance(websocket, _ClientWebSocket)
        link = self._link(websocket, websocket.socket, trusted=_nothing)
        task = asyncio.get_running_loop().create_task(link.run(opened(link)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Takes no more connections and closes all links, after what was sent has left, or after two seconds."""
        self._closing = True
        self._acceptor = None
        links = list(self._links)
        for link in links:
            link.close()
        await asyncio.gather(*(link.closed() for link in links))
        if self._runner is not None:
            await self._runner.cleanup()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._session is not None:
            await self._session.close()


def _host_of(transport: asyncio.BaseTransport) -> str:
    name = transport.get_extra_info("peername")
    return str(name[0]) if name else ""


def _nothing() -> None:
    """Whoever was connected to is limited by the size of frames alone."""

"""WebSocketLink (a shell): one WebSocket as a link, whichever side began it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import aiohttp

from actorkit.remoting.transport import LinkHandler

__all__ = ["WebSocketLink"]

_AT_ONCE_MAX_BYTES: Final = 32 << 10
"""Half of what asyncio's transports buffer before they ask to wait."""


class WebSocketLink:
    """Implements ``Link``."""

    def __init__(
        self,
        websocket: Any,
        socket: asyncio.Transport,
        *,
        source: str,
        buffer_bytes: int,
        close_s: float,
        trusted: Callable[[], None],
    ) -> None:
        """``websocket`` is aiohttp's, of either side, and ``socket`` the transport below it."""
        self.source = source
        self.done: Callable[[WebSocketLink], None] = lambda link: None
        """Called when nothing is left of it."""
        self._websocket = websocket
        self._socket = socket
        self._buffer_bytes = buffer_bytes
        self._close_s = close_s
        self._trusted = trusted
        self._handler: LinkHandler | None = None
        self._frames: deque[bytes] = deque()
        self._frames_bytes = 0
        self._waited_for = False
        self._writer: asyncio.Task[None] | None = None
        self._closer: asyncio.Task[None] | None = None
        self._over = False
        self._loop = asyncio.get_running_loop()

    def send(self, frame: bytes) -> bool:
        if self._over or self._closer is not None:
            return True
        if self._writer is None and len(frame) <= _AT_ONCE_MAX_BYTES and not self._socket.get_write_buffer_size():
            # Without a task: with nothing buffered and a small frame there is nothing that aiohttp would wait for.
            try:
                self._websocket.send_bytes(frame).send(None)
            except (StopIteration, ConnectionError, RuntimeError):
                # It is sent; or the connection is closing, and whoever reads will say so.
                return True
            raise AssertionError("an empty transport wanted to be waited for")
        self._frames.append(frame)
        self._frames_bytes += len(frame)
        if self._writer is None:
            self._writer = self._loop.create_task(self._write())
        if self._frames_bytes > self._buffer_bytes:
            # Until there is room again and that has been said: a heartbeat in between must not pass for it.
            self._waited_for = True
        return not self._waited_for

    async def _write(self) -> None:
        frames = self._frames
        try:
            while frames:
                frame = frames.popleft()
                await self._websocket.send_bytes(frame)
                self._frames_bytes -= len(frame)
                if self._waited_for and self._frames_bytes <= self._buffer_bytes // 2:
                    self._waited_for = False
                    if self._handler is not None:
                        self._handler.writable()
        except (ConnectionError, RuntimeError):
            # It is closing, as above.
            frames.clear()
        finally:
            self._writer = None

    def trust(self) -> None:
        self._trusted()

    async def run(self, handler: LinkHandler) -> None:
        """Reads until it is over."""
        self._handler = handler
        receive = self._websocket.receive
        why = "it was closed by the other end"
        try:
            while True:
                message = await receive()
                if message.type is aiohttp.WSMsgType.BINARY:
                    self._received(message.data)
                elif message.type is aiohttp.WSMsgType.ERROR:
                    why = f"it broke: {message.data}"
                    break
                else:
                    break
        finally:
            self._finish(why)

    def _received(self, frame: bytes) -> None:
        if self._handler is not None:
            self._handler.received(frame)

    def _finish(self, why: str) -> None:
        self._over = True
        self._frames.clear()
        if self._closer is None:
            self._socket.abort()
        self.done(self)
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.closed(why)

    def close(self, *, abort: bool = False) -> None:
        self._handler = None
        if abort:
            self._over = True
            self._frames.clear()
            self._socket.abort()
        elif not self._over and self._closer is None:
            self._closer = self._loop.create_task(self._close())

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(self._close_s):
                if self._writer is not None:
                    await self._writer
                await self._websocket.close()
        except (TimeoutError, ConnectionError, RuntimeError):
            # Whoever does not take its last frames in time goes without them.
            pass
        finally:
            self._over = True
            self._socket.abort()

    async def closed(self) -> None:
        """Waits until ``close`` has done what it does."""
        if self._closer is not None:
            await asyncio.wait([self._closer])

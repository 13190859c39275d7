"""Listening: the socket, and stopping without a loss.

aiohttp's low-level server is used, without its application, router, signals and middlewares: they would cost more per
request than everything that the gateway does.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from actorkit.gateway.connection import Connection
from actorkit.gateway.handlers import Gateway

__all__ = ["HttpServer"]


class _Server(web.Server):
    def __init__(self, gateway: Gateway) -> None:
        settings = gateway.settings
        super().__init__(gateway)
        self._gateway = gateway
        self._options: dict[str, Any] = {
            "access_log": None,
            "keepalive_timeout": settings.keepalive_s,
            "lingering_time": settings.lingering_s,
            "auto_decompress": False,
            "max_line_size": settings.target_max_bytes,
            "max_field_size": settings.header_max_bytes,
            "max_headers": settings.headers_max,
        }

    def __call__(self) -> web.RequestHandler:
        return Connection(self, self._gateway, loop=asyncio.get_running_loop(), **self._options)


class HttpServer:
    """A gateway that listens. ``start`` raises ``OSError`` where the address cannot be had."""

    def __init__(self, gateway: Gateway, *, host: str, port: int) -> None:
        self._gateway = gateway
        self._host = host
        self._port = port
        # Answers leave within the request's deadline; what is left after that is a defect, and is cut off.
        self._runner = web.ServerRunner(_Server(gateway), shutdown_timeout=gateway.settings.request_deadline_s + 1.0)
        self._site: web.TCPSite | None = None
        self.address = ""
        """Where it listens, as ``host:port``, once it has been started."""

    async def start(self) -> None:
        await self._runner.setup()
        self._site = web.TCPSite(self._runner, self._host, self._port, backlog=1024)
        await self._site.start()
        bound_host, bound_port = self._runner.addresses[0][:2]
        self.address = f"[{bound_host}]:{bound_port}" if ":" in bound_host else f"{bound_host}:{bound_port}"

    async def stop(self) -> None:
        """Takes no new connection, ends streams, finishes the requests in progress, then closes the connections."""
        self._gateway.drain()
        if self._site is not None:
            await self._site.stop()
            self._site = None
            await asyncio.sleep(self._gateway.settings.drain_grace_s)
        await self._runner.cleanup()

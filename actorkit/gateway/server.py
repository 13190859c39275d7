"""Listening: the socket, aiohttp's protocol with problems for what is not even HTTP, and stopping without a loss.

aiohttp's low-level server is used, without its application, router, signals and middlewares: they would cost more per
request than everything that the gateway does.
"""

from __future__ import annotations

import asyncio
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong

from actorkit.gateway.handlers import Gateway
from actorkit.gateway.problems import INTERNAL_ERROR, INVALID_REQUEST, Problem
from actorkit.gateway.responses import problem_response

__all__ = ["HttpServer"]

_log = structlog.get_logger("actorkit.gateway")


class _Protocol(web.RequestHandler):
    """One connection. What aiohttp itself finds wrong with a request is answered as a problem too."""

    __slots__ = ()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has been begun already")
        if self.transport is None:
            raise ConnectionError("the client has hung up") from exc
        if status >= 500:
            _log.error("http.connection_failed", error=repr(exc), exc_info=exc)
            problem = Problem(INTERNAL_ERROR, "the request ran into a defect of the service")
        else:
            # Not worth a line each: whoever scans ports would fill the disk.
            _log.debug("http.malformed", peer=str(request.remote), error=repr(exc))
            problem = Problem(INVALID_REQUEST, self._why_malformed(exc))
        response = problem_response(problem)
        response.force_close()
        return response.for_aiohttp()

    def _why_malformed(self, error: BaseException | None) -> str:
        if isinstance(error, LineTooLong):
            return (
                f"the request target (its URL) has at most {self.max_line_size} bytes, and the name and the value of "
                f"a header at most {self.max_field_size} each"
            )
        if isinstance(error, BadHttpMessage) and error.message.startswith("Too many headers"):
            return f"a request has at most {self.max_headers} headers"
        return "this is not a well-formed HTTP request"


class _Server(web.Server):
    def __init__(self, gateway: Gateway) -> None:
        settings = gateway.settings
        super().__init__(gateway)
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
        return _Protocol(self, loop=asyncio.get_running_loop(), **self._options)


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
        """Takes no new connection, finishes the requests in progress, then closes the connections."""
        self._gateway.draining = True
        if self._site is not None:
            await self._site.stop()
            self._site = None
            await asyncio.sleep(self._gateway.settings.drain_grace_s)
        await self._runner.cleanup()

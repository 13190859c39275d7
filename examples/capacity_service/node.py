"""A node as a process: its parts wired together, from the first signal to the last."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable

import msgspec
import structlog

from actorkit import ActorSystem, SystemSettings
from actorkit.errors import ConfigurationError, JournalError
from actorkit.gateway.handlers import Gateway
from actorkit.gateway.health import health_endpoints
from actorkit.gateway.inputs import BearerTokens
from actorkit.gateway.server import HttpServer
from actorkit.gateway.settings import GatewaySettings
from examples.capacity_service.api import CapacityApi
from examples.capacity_service.entity import Pool, PoolSettings
from examples.capacity_service.openapi import document_json
from examples.capacity_service.operations import Member, add_readings, operation_endpoints
from examples.capacity_service.problems import REFUSALS
from examples.capacity_service.settings import NodeSettings

__all__ = ["CannotStart", "Node", "run_until_signal"]

_log = structlog.get_logger("capacity_service")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class CannotStart(Exception):
    """Why a node cannot start, in one line."""


class Node:
    """One node: the actor system and the HTTP server in front of it."""

    def __init__(self, settings: NodeSettings) -> None:
        self.settings = settings
        self.http_address = ""
        self._stage: str | None = "it is starting"
        self._leaving = False
        self._owning: asyncio.Task[None]
        self._system: ActorSystem
        self._server: HttpServer

    async def start(self) -> None:
        """Raises ``CannotStart``; then nothing is left running."""
        settings = self.settings
        Pool.settings = PoolSettings(released_memory_s=settings.released_memory_s)
        self._system = system = _system(settings)
        tokens = _tokens(settings)
        gateway = Gateway(
            refusals=REFUSALS,
            not_ready=lambda: self._stage,
            tokens=tokens,
            settings=GatewaySettings(request_deadline_s=settings.request_deadline_s),
        )
        gateway.add(*health_endpoints(self.not_ready), *CapacityApi(system, behind=self.behind).endpoints())
        openapi = document_json(secured=tokens is not None)
        gateway.add(*operation_endpoints(system, gateway, member=self.member, openapi=openapi))
        # The port first: a second node on the same address must not touch the journal.
        self._server = HttpServer(gateway, host=settings.http.host, port=settings.http.port)
        try:
            await self._server.start()
        except (OSError, OverflowError) as error:
            await self._server.stop()
            raise CannotStart(f"{settings.http} cannot be listened on: {_reason(error)}") from error
        self.http_address = self._server.address
        try:
            await system.start()
        except (JournalError, ConfigurationError, OSError) as error:
            await self._server.stop()
            raise CannotStart(_reason(error)) from error
        add_readings(gateway, system)
        # Before the first call asks for them: after a crash their leases may have to run out.
        self._owning = asyncio.create_task(system.own_all_shards())
        self._stage = None

    async def stop(self) -> None:
        """Takes no new connections, finishes what is in progress, gives up the shards, closes the journal."""
        self._leaving = True
        await self._server.stop()
        self._stage = "it is leaving"
        self._owning.cancel()
        await self._system.stop()

    def not_ready(self) -> str | None:
        """``None`` if the node is a full member, else why not. What it can serve it serves also before and after."""
        if self._stage is not None:
            return self._stage
        if self._leaving:
            return "it is leaving"
        return self.behind()

    def behind(self) -> str | None:
        """``None`` if the read model shows all that is committed, else why it may not: so far each node has its own."""
        if not self._owning.done():
            others = self._system.region.waiting_for
            owners = ", ".join(sorted(set(others.values()))) or "another node"
            return f"it waits for {len(others) or 'the'} shards that {owners} has; GET /cluster/shards shows them"
        return self._system.ready

    def member(self) -> Member:
        """This node, as a member of its own cluster of one."""
        reason = self.not_ready()
        node = self._system.node
        status = "up" if reason is None else "leaving" if self._leaving else "joining"
        return Member(node.name, node.incarnation, self.http_address, str(self.settings.remoting), status)


def _system(settings: NodeSettings) -> ActorSystem:
    defaults = SystemSettings()
    persistence = msgspec.structs.replace(defaults.persistence, keys_max=settings.keys_max)
    try:
        return ActorSystem(
            journal=settings.journal,
            name=settings.name,
            shards=settings.shards,
            entities=(Pool,),
            settings=msgspec.structs.replace(defaults, persistence=persistence),
        )
    except (JournalError, ConfigurationError) as error:
        raise CannotStart(_reason(error)) from error


def _tokens(settings: NodeSettings) -> BearerTokens | None:
    file = settings.http_tokens
    if file is None:
        return None
    try:
        return BearerTokens.parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CannotStart(f"the tokens file {file} is of no use: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    return " ".join(str(error).split()) or type(error).__name__


async def run_until_signal(settings: NodeSettings, announce: Callable[[Node], None]) -> None:
    """Runs a node until SIGTERM or SIGINT; a second one ends the process at once. Raises ``CannotStart``."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    node = Node(settings)
    starting = asyncio.create_task(node.start())
    stopping = asyncio.create_task(stop.wait())
    try:
        await starting
        announce(node)
        if settings.http_tokens is None and settings.http.host not in _LOOPBACK:
            _log.warning("http.open_to_all", http=node.http_address, advice="set --http-tokens")
        await stopping
        _log.info("node.stopping", name=settings.name)
        await node.stop()
        _log.info("node.stopped", name=settings.name)
    finally:
        stopping.cancel()

"""A node as a process: its parts wired together, from the first signal to the last."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from actorkit import ActorSystem, ClusterNode, SystemSettings
from actorkit.errors import ConfigurationError, JournalError, NotJoined
from actorkit.gateway.handlers import Gateway
from actorkit.gateway.health import health_endpoints
from actorkit.gateway.inputs import BearerTokens
from actorkit.gateway.server import HttpServer
from actorkit.gateway.settings import GatewaySettings
from examples.capacity_service.api import CapacityApi
from examples.capacity_service.entity import Pool, PoolSettings
from examples.capacity_service.openapi import document_json
from examples.capacity_service.operations import Access, add_readings, operation_endpoints
from examples.capacity_service.problems import REFUSALS
from examples.capacity_service.settings import Address, NodeSettings

__all__ = ["CannotStart", "Node", "run_until_signal"]

_log = structlog.get_logger("capacity_service")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_EXIT_STATUS_WHEN_DOWNED = 71


class CannotStart(Exception):
    """Why a node cannot start, in one line."""


class Node:
    """One node: the actor system and the HTTP server in front of it."""

    def __init__(self, settings: NodeSettings) -> None:
        self.settings = settings
        self.http_address = ""
        self.leave_requested = asyncio.Event()
        """Set when an operator has told it to leave; whoever runs the node then stops it."""
        self._stage: str | None = "it is starting"
        self._leaving = False
        self._labels: dict[str, str] = {}
        self._owning: asyncio.Task[None]
        self._system: ActorSystem
        self._server: HttpServer

    async def start(self) -> None:
        """Raises ``CannotStart``; then nothing is left running. The node need not be a member yet when it returns."""
        settings = self.settings
        Pool.settings = PoolSettings(released_memory_s=settings.released_memory_s)
        self._system = system = _system(settings, self._labels)
        access = Access(
            clients=_tokens("tokens", settings.http_tokens),
            operators=_tokens("operators' tokens", settings.operator_tokens),
        )
        gateway = Gateway(
            refusals=REFUSALS,
            not_ready=lambda: self._stage,
            tokens=access.anybody,
            settings=GatewaySettings(request_deadline_s=settings.request_deadline_s),
        )
        gateway.add(
            *health_endpoints(self.not_ready),
            *CapacityApi(system, behind=self.behind, streams=gateway.streams).endpoints(),
        )
        leave = self.leave_requested.set
        openapi = document_json(secured=access.clients is not None, drainable=access.operators is not None)
        gateway.add(*operation_endpoints(system, gateway, access=access, leave=leave, openapi=openapi))
        # The port first: a second node on the same address must not touch the journal.
        self._server = HttpServer(gateway, host=settings.http.host, port=settings.http.port)
        try:
            await self._server.start()
        except (OSError, OverflowError) as error:
            await self._server.stop()
            raise CannotStart(f"{settings.http} cannot be listened on: {_reason(error)}") from error
        self.http_address = self._server.address
        # Others are told when the system starts; which port it is was not known when the system was made.
        self._labels["http"] = _reachable(self.http_address, settings)
        try:
            await system.start()
        except (JournalError, ConfigurationError) as error:
            await self._server.stop()
            raise CannotStart(_reason(error)) from error
        except OSError as error:
            await self._server.stop()
            raise CannotStart(f"{settings.remoting} cannot be listened on for other nodes: {_reason(error)}") from error
        add_readings(gateway, system)
        # Before the first call asks for them: after a crash their leases may have to run out.
        self._owning = asyncio.create_task(self._serve_shards())
        self._stage = None

    async def _serve_shards(self) -> None:
        try:
            await self._system.own_all_shards()
        except NotJoined as error:
            _log.critical("node.not_joined", why=str(error))

    async def stop(self) -> None:
        """Leaves the cluster in order: each phase has a time limit, and only the next one takes anything away.

        1. Not ready any more, for ``leave_delay_s``: balancers look elsewhere. Everything is served.
        2. The shards go to other nodes. Requests are served, those of shards that have gone by their new owners.
        3. No new connections; the requests in progress end.
        4. What is left is given up, the others are told good-bye, the journal is closed.
        """
        self._leaving = True
        await asyncio.sleep(self.settings.leave_delay_s)
        _log.info("node.leaving", phase="handing over shards")
        await self._system.leave()
        _log.info("node.leaving", phase="ending requests")
        await self._server.stop()
        self._stage = "it is leaving"
        self._owning.cancel()
        _log.info("node.leaving", phase="closing")
        await self._system.stop()

    def not_ready(self) -> str | None:
        """``None`` if the node is a full member that sees a majority, else why not. What it can serve it serves also
        before and after."""
        if self._stage is not None:
            return self._stage
        if self._leaving:
            return "it is leaving"
        others = {} if self._owning.done() else self._system.region.waiting_for
        if others:
            owners = ", ".join(sorted(set(others.values())))
            return f"it waits for {len(others)} shards that {owners} has; GET /cluster/shards shows them"
        if (reason := self._system.ready) is not None:
            return reason
        clustering = self._system.clustering
        if clustering is not None and not clustering.may_hold_leases():
            return "it sees no majority of its cluster's members, and keeps no shards; GET /cluster/members shows them"
        return None if self._owning.done() else "it waits for its shards"

    def behind(self) -> str | None:
        """``None`` if the read model shows all that was committed a moment ago, else why it may not."""
        return self._system.ready


def _system(settings: NodeSettings, labels: dict[str, str]) -> ActorSystem:
    if settings.remoting.is_wildcard and settings.advertise is None:
        raise CannotStart(f"--remoting {settings.remoting} needs --advertise: where do the other nodes reach this one?")
    defaults = SystemSettings()
    persistence = msgspec.structs.replace(defaults.persistence, keys_max=settings.keys_max)
    cluster = ClusterNode(
        remoting=str(settings.remoting),
        advertise=None if settings.advertise is None else str(settings.advertise),
        seeds=tuple(str(seed) for seed in settings.seeds),
        cluster="capacity-service",
        secret=_secret(settings.secret_file),
        labels=labels,
    )

    def downed(why: str) -> None:
        line = f"capacity_service: {settings.name} is no member of its cluster any more: {why}; start it again\n"
        sys.stderr.write(line)
        sys.stderr.flush()
        os._exit(_EXIT_STATUS_WHEN_DOWNED)

    try:
        return ActorSystem(
            journal=settings.journal,
            name=settings.name,
            shards=settings.shards,
            entities=(Pool,),
            cluster=cluster,
            settings=msgspec.structs.replace(defaults, persistence=persistence),
            on_downed=downed,
        )
    except (JournalError, ConfigurationError) as error:
        raise CannotStart(_reason(error)) from error


def _secret(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        secret = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise CannotStart(f"the secret file {file} is of no use: {_reason(error)}") from error
    if not secret:
        raise CannotStart(f"the secret file {file} is of no use: there is nothing in it")
    return secret


def _tokens(what: str, file: Path | None) -> BearerTokens | None:
    if file is None:
        return None
    try:
        return BearerTokens.parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CannotStart(f"the {what} file {file} is of no use: {_reason(error)}") from error


def _reachable(http: str, settings: NodeSettings) -> str:
    """Where clients reach the node: on all addresses of the machine means on the one by which its peers know it."""
    address = Address.parse(http)
    if not address.is_wildcard:
        return http
    return str(Address((settings.advertise or settings.remoting).host, address.port))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    return " ".join(str(error).split()) or type(error).__name__


async def run_until_signal(settings: NodeSettings, announce: Callable[[Node], None]) -> None:
    """Runs a node until SIGTERM or SIGINT, or until an operator tells it to leave; a second signal ends the process at
    once. Raises ``CannotStart``."""
    loop = asyncio.get_running_loop()
    node = Node(settings)
    signalled = False

    def on_signal(number: int) -> None:
        nonlocal signalled
        if signalled:
            os._exit(128 + number)
        signalled = True
        node.leave_requested.set()

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    await node.start()
    announce(node)
    if settings.http_tokens is None and settings.http.host not in _LOOPBACK:
        _log.warning("http.open_to_all", http=node.http_address, advice="set --http-tokens")
    await node.leave_requested.wait()
    _log.info("node.stopping", name=settings.name)
    await node.stop()
    _log.info("node.stopped", name=settings.name)

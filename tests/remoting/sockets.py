"""Nodes on real sockets, and strangers who knock at them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from actorkit.clock import SystemRandomness
from actorkit.ids import NodeId
from actorkit.remoting import AiohttpTransport, Peer, PeerEvent, Remoting, RemotingSettings, TlsContexts
from actorkit.remoting.aiohttp_transport import PATH
from actorkit.remoting.handshake import PROTOCOL_VERSIONS
from tests.remoting.nodes import SECRET, Note


class SocketNode:
    """One node at a free port of the loopback interface."""

    def __init__(
        self,
        name: str,
        *,
        address: str = "127.0.0.1:0",
        listen: str | None = None,
        cluster: str = "tests",
        secret: str | None = SECRET,
        settings: RemotingSettings = RemotingSettings(),  # noqa: B008 - frozen
        versions: tuple[int, int] = PROTOCOL_VERSIONS,
        tls: TlsContexts | None = None,
        echo: bool = False,
    ) -> None:
        randomness = SystemRandomness()
        self.node = NodeId(name, randomness.token(8).hex())
        self.heard: list[tuple[Peer, Note]] = []
        self.told: list[PeerEvent] = []
        self.story: list[PeerEvent | Note] = []
        self.echo = echo
        self.remoting = Remoting(
            node=self.node,
            address=address,
            cluster=cluster,
            transport=AiohttpTransport(settings, tls=tls),
            randomness=randomness,
            secret=secret,
            listen=listen,
            settings=settings,
            versions=versions,
        )
        self.remoting.register(Note, self._hear)
        self.remoting.subscribe(self._learn)

    def _hear(self, peer: Peer, note: Note) -> None:
        self.heard.append((peer, note))
        self.story.append(note)
        if self.echo:
            self.remoting.send(peer.address, note)

    def _learn(self, event: PeerEvent) -> None:
        self.told.append(event)
        self.story.append(event)

    def say(self, target: SocketNode, number: int, text: str = "") -> bool:
        return self.remoting.send(target.remoting.address, Note(number, text))

    def numbers(self) -> list[int]:
        return [note.number for _, note in self.heard]


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def started(*nodes: SocketNode) -> AsyncGenerator[None]:
    """Within, they listen."""
    try:
        for node in nodes:
            await node.remoting.start()
        yield
    finally:
        for node in nodes:
            await node.remoting.stop()


async def until(condition: Callable[[], Any], *, within_s: float = 10.0) -> None:
    """Waits for something that is to happen; the limit is for defects."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.002)


@asynccontextmanager
async def knocking(address: str, **options: Any) -> AsyncGenerator[aiohttp.ClientWebSocketResponse]:
    """A WebSocket of a stranger."""
    async with aiohttp.ClientSession() as session, session.ws_connect(f"http://{address}{PATH}", **options) as knock:
        yield knock

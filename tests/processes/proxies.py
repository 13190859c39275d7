"""Links through proxies of this process: one before each node, which its peers connect to in its place.

Who connects is read from the first frame of remoting, in which a node says who it is; up to there everything passes.
From then on a connection has two ways, each of which may be held up (nothing arrives, and the sender is not told until
its buffers are full), slow, or broken at one end only.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random

from actorkit.remoting.handshake import Hello, decode
from actorkit.wire.frames import open_handshake
from tests.processes.links import Fault, Place, Way, ended, faults_of_cuts
from tests.processes.ports import free_port

__all__ = ["Proxies"]

SLOW_S = (0.1, 1.0)
"""How much later everything arrives on slow ways."""
BREAK_EVERY_S = (0.2, 2.0)
"""How often the connections of a node are broken."""

_CHUNK_BYTES = 1 << 16
_AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER: closing resets the connection, so that the other end is told of it, and not that all was sent."""


class _End:
    """One end of a connection: that of the node called ``name``, once it is known."""

    def __init__(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.name = name
        self.reader = reader
        self.writer = writer
        self.broken = False

    def break_off(self) -> None:
        """The node is told that the connection is no more."""
        if not self.broken:
            self.broken = True
            if not self.writer.is_closing():
                self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            self.writer.transport.abort()


class Proxies:
    """Implements ``Links``."""

    def __init__(self) -> None:
        self.faults: Mapping[str, Fault] = {
            **faults_of_cuts(self),
            "slow": self._slow,
            "breaking": self._breaking,
            "half-open": self._half_open,
        }
        self.did: Counter[str] = Counter()
        """How often something was held up, came late, or was broken."""
        self._cut: Counter[Way] = Counter()
        self._changed = asyncio.Condition()
        self._delays_s: dict[Way, float] = {}
        self._places: dict[str, Place] = {}
        self._connections: dict[tuple[_End, _End], None] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def opened(self, directory: Path, names: Sequence[str]) -> AsyncIterator[dict[str, Place]]:
        servers: list[asyncio.Server] = []
        for name in names:
            http, remoting, advertised = (f"127.0.0.1:{free_port()}" for _ in range(3))
            self._places[name] = Place(http, remoting, advertised, arguments=("--advertise", advertised))
            port = int(advertised.partition(":")[2])
            servers.append(await asyncio.start_server(partial(self._accept, name), "127.0.0.1", port))
        try:
            yield self._places
        finally:
            for server in servers:
                server.close()
            for task in list(self._tasks):
                await ended(task)

    # ------------------------------------------------------------------------------------------------------- passing on

    async def _accept(self, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        near, far = _End("", reader, writer), None
        try:
            port = int(self._places[target].remoting.partition(":")[2])
            far = _End(target, *await asyncio.open_connection("127.0.0.1", port))
            self._connections[near, far] = None
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._pass_on(far, near))
                await self._introduce(near, far)
                ways.create_task(self._pass_on(near, far))
        except* (OSError, asyncio.IncompleteReadError):
            # Whoever is at the other end is told the same.
            pass
        finally:
            near.break_off()
            if far is not None:
                far.break_off()
                del self._connections[near, far]
            self._tasks.discard(task)

    async def _introduce(self, near: _End, far: _End) -> None:
        """Reads up to the first frame of a WebSocket of a client (RFC 6455), which is masked."""
        head = await near.reader.readuntil(b"\r\n\r\n")
        far.writer.write(head)
        start = await near.reader.readexactly(2)
        length = start[1] & 0x7F
        if length == 126:
            start += await near.reader.readexactly(2)
            length = int.from_bytes(start[2:], "big")
        mask = await near.reader.readexactly(4)
        masked = await near.reader.readexactly(length)
        frame = bytes(byte ^ mask[index % 4] for index, byte in enumerate(masked))
        near.name = decode(Hello, open_handshake(frame)[1]).name
        await self._until_passable(near, far)
        far.writer.write(start + mask + masked)

    async def _pass_on(self, source: _End, target: _End) -> None:
        while chunk := await source.reader.read(_CHUNK_BYTES):
            if delay_s := self._delays_s.get((source.name, target.name), 0.0):
                self.did["delays"] += 1
                await asyncio.sleep(delay_s)
            await self._until_passable(source, target)
            # Of a half-open connection one end sends on, and nothing comes of it.
            if not target.broken:
                target.writer.write(chunk)
                await target.writer.drain()
        await self._until_passable(source, target)
        if not source.broken and not target.broken:
            target.writer.write_eof()

    async def _until_passable(self, source: _End, target: _End) -> None:
        way = (source.name, target.name)
        if self._cut[way]:
            self.did["held"] += 1
            async with self._changed:
                await self._changed.wait_for(lambda: not self._cut[way])

    # ----------------------------------------------------------------------------------------------------------- faults

    async def cut(self, way: Way) -> None:
        self._cut[way] += 1

    async def mend(self, way: Way) -> None:
        self._cut[way] -= 1
        async with self._changed:
            self._changed.notify_all()

    @asynccontextmanager
    async def _slow(self, node: str, others: Sequence[str], random: Random) -> AsyncIterator[None]:
        """Whatever the node sends or is sent comes late."""
        ways = [way for other in others for way in ((node, other), (other, node))]
        self._delays_s |= {way: random.uniform(*SLOW_S) for way in ways}
        try:
            yield
        finally:
            for way in ways:
                del self._delays_s[way]

    @asynccontextmanager
    async def _breaking(self, node: str, others: Sequence[str], random: Random) -> AsyncIterator[None]:
        """The node's connections are reset, again and again."""

        async def go_on() -> None:
            while True:
                for near, far in self._of(node):
                    near.break_off()
                    far.break_off()
                    self.did["broken"] += 1
                await asyncio.sleep(random.uniform(*BREAK_EVERY_S))

        task = asyncio.create_task(go_on())
        try:
            yield
        finally:
            await ended(task)

    @asynccontextmanager
    async def _half_open(self, node: str, others: Sequence[str], random: Random) -> AsyncIterator[None]:
        """Of each of the node's connections one end is told that it is no more, and the other one never."""
        for ends in self._of(node):
            random.choice(ends).break_off()
            self.did["broken at one end"] += 1
        yield

    def _of(self, node: str) -> list[tuple[_End, _End]]:
        return [ends for ends in self._connections if node in (ends[0].name, ends[1].name)]

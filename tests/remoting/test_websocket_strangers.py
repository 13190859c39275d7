"""Fault 40 on real sockets: strangers of all kinds get nowhere, cost little, and do not keep members out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from actorkit.ids import NodeId
from actorkit.remoting import Connected, RemotingSettings, Unreachable
from actorkit.remoting.aiohttp_transport import PATH
from actorkit.remoting.association import Association, State
from actorkit.remoting.handshake import Hello, Local, encode
from actorkit.testing.simulation import stream
from actorkit.wire import Codec, FrameKind, Sealer
from actorkit.wire.frames import handshake_frame
from tests.remoting.nodes import SECRET, Note
from tests.remoting.sockets import SocketNode, knocking, started, until

IMPATIENT = RemotingSettings(handshake_timeout_s=0.3)


async def talks(first: SocketNode, second: SocketNode, *, within_s: float = 5.0) -> None:
    """Both directions work."""
    before = len(first.heard), len(second.heard)
    await until(lambda: first.say(second, 1), within_s=within_s)
    await until(lambda: len(second.heard) > before[1], within_s=within_s)
    await until(lambda: second.say(first, 2), within_s=within_s)
    await until(lambda: len(first.heard) > before[0], within_s=within_s)


@pytest.mark.parametrize(
    "wrong",
    [{"secret": "another secret, just as long"}, {"secret": None}, {"cluster": "others"}, {"versions": (2, 3)}],
)
async def test_a_peer_that_does_not_belong_gets_nothing_in_either_direction(wrong: dict[str, Any]) -> None:
    victim, member, stranger = SocketNode("victim"), SocketNode("member"), SocketNode("stranger", **wrong)
    async with started(victim, member, stranger):
        await talks(member, victim)
        stranger.say(victim, 66)
        await until(lambda: stranger.told)
        assert isinstance(stranger.told[0], Unreachable)
        victim.say(stranger, 67)
        await until(lambda: len(victim.told) == 2)
        assert isinstance(victim.told[1], Unreachable)
        await talks(member, victim)
        assert 66 not in victim.numbers()
        assert stranger.heard == []
        assert victim.remoting.counters.handshakes_failed == 1


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What comes until the other end hangs up."""
    data = b""
    try:
        while chunk := await reader.read(65536):
            data += chunk
    except ConnectionError:
        pass
    return data


@asynccontextmanager
async def raw(node: SocketNode, **options: Any) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = node.remoting.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), **options)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x00" * 100,
        bytes(range(256)) * 20,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 5000 + b"\r\n\r\n",
        b"POST " + PATH.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"x" * 100_000,
    ],
)
async def test_what_is_no_websocket_is_hung_up_on(nonsense: bytes) -> None:
    victim, member = SocketNode("victim"), SocketNode("member")
    async with started(victim, member), raw(victim) as (reader, writer):
        writer.write(nonsense)
        answer = await asyncio.wait_for(ended(reader), 5.0)
        assert answer == b"" or answer.split(b" ")[1] in {b"400", b"404"}
        await talks(member, victim)


async def test_a_page_in_a_browser_is_turned_away() -> None:
    victim = SocketNode("victim", secret=None)
    async with started(victim):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with knocking(victim.remoting.address, origin="http://evil.example"):
                pass
        assert refused.value.status == 403


@pytest.mark.parametrize("seed", range(20))
async def test_random_websocket_messages_are_hung_up_on(seed: int) -> None:
    random = stream(seed, "junk")
    victim = SocketNode("victim")
    async with started(victim), knocking(victim.remoting.address) as socket:
        junk = random.randbytes(int(random.random() * 300))
        kind = list(FrameKind)[int(random.random() * len(FrameKind))]
        choices = (junk, handshake_frame(kind, junk), Sealer(1, b"").seal(kind, junk))
        if seed % 5 == 0:
            await socket.send_str("text")
        else:
            await socket.send_bytes(choices[seed % 3])
        async with asyncio.timeout(5):
            while (await socket.receive()).type not in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSE):
                pass
        assert victim.remoting.counters.handshakes_failed == 1
        assert victim.told == []


async def test_an_oversized_frame_of_a_stranger_is_not_even_received() -> None:
    victim = SocketNode("victim")
    async with started(victim), raw(victim) as (reader, writer):
        writer.write(
            f"GET {PATH} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        await reader.readuntil(b"\r\n\r\n")
        # A megabyte is announced, within what members may send.
        writer.write(b"\x82\xff" + (1_000_000).to_bytes(8, "big") + bytes(4))
        try:
            for _ in range(1000):
                writer.write(bytes(1000))
                await writer.drain()
        except ConnectionError:
            pass
        await asyncio.wait_for(ended(reader), 5.0)
        assert victim.remoting.counters.bytes_received == 0


async def test_slow_strangers_are_given_as_long_as_a_handshake_may_take() -> None:
    victim = SocketNode("victim", settings=IMPATIENT)
    node = victim.remoting
    async with started(victim):
        began_s = time.monotonic()
        async with raw(victim) as silent, raw(victim) as slow, knocking(node.address) as upgraded:
            slow[1].write(f"GET {PATH} HT".encode())
            hello = encode(Hello(1, 1, "tests", "x", "y", "127.0.0.1:1", True, bytes(32)))
            await upgraded.send_bytes(handshake_frame(FrameKind.HELLO, hello))
            await upgraded.receive()
            assert await asyncio.wait_for(ended(silent[0]), 5.0) == b""
            await asyncio.wait_for(ended(slow[0]), 5.0)
            await asyncio.wait_for(upgraded.receive(), 5.0)
        assert 0.25 < time.monotonic() - began_s < 3.0


async def test_a_thousand_idle_connections_keep_no_member_out() -> None:
    settings = RemotingSettings(connect_rate_per_s=10_000.0, connect_burst=10_000)
    victim, member, newcomer = SocketNode("victim", settings=settings), SocketNode("member"), SocketNode("newcomer")
    async with started(victim, member, newcomer):
        await talks(member, victim)
        host, _, port = victim.remoting.address.rpartition(":")
        writers: list[asyncio.StreamWriter] = []
        for _ in range(50):
            opened = await asyncio.gather(
                *(asyncio.open_connection(host, int(port)) for _ in range(20)), return_exceptions=True
            )
            writers += [each[1] for each in opened if not isinstance(each, BaseException)]
            await talks(member, victim)
        assert len(writers) == 1000
        transport: Any = victim.remoting._peering._transport
        await until(lambda: len(transport._runner.server.connections) <= 1 + settings.unauthenticated_max)
        await talks(newcomer, victim, within_s=2.0)
        for writer in writers:
            writer.transport.abort()


async def test_a_host_that_knocks_too_often_is_turned_away_and_others_are_not() -> None:
    settings = RemotingSettings(connect_rate_per_s=1.0, connect_burst=10)
    victim, member = SocketNode("victim", settings=settings), SocketNode("member")
    async with started(victim, member):
        for _ in range(50):
            try:
                async with raw(victim, local_addr=("127.0.0.2", 0)):
                    pass
            except OSError as error:
                pytest.skip(f"this machine's loopback has one address only: {error}")
        await talks(member, victim)
        assert victim.remoting.counters.connections_turned_away == 40


class Recorder:
    """A man in the middle, who notes what the client says and may say something himself."""

    def __init__(self, target: SocketNode) -> None:
        self.target = target
        self.said = b""
        self.to_server: asyncio.StreamWriter
        self.to_client: asyncio.StreamWriter
        self.port = 0

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self.target.remoting.address.rpartition(":")
        back, self.to_server = await asyncio.open_connection(host, int(port))
        self.to_client = writer

        async def forth() -> None:
            while data := await reader.read(65536):
                self.said += data
                self.to_server.write(data)
            self.to_server.close()

        async def answer() -> None:
            while data := await back.read(65536):
                writer.write(data)
            writer.close()

        await asyncio.gather(forth(), answer(), return_exceptions=True)


async def through(recorder: Recorder, client: SocketNode) -> None:
    await recorder.start()
    # The node behind it says another address than was dialled: it is looked for there, but the handshake went this way.
    async with aiohttp.ClientSession() as session, session.ws_connect(f"http://127.0.0.1:{recorder.port}{PATH}") as ws:
        local = Local(node=client.node, address=client.remoting.address, cluster="tests", secret=SECRET.encode())
        codec = Codec()
        codec.declare(Note)
        association = Association(local, codec, RemotingSettings(), 0.0, stream(1, "n").randbytes(32))
        association.initiate(attempt=1, last_session=b"")
        while association.state is not State.OPEN:
            if association.state is State.MEETING:
                association.prove()
            for frame in association.outgoing:
                await ws.send_bytes(frame)
            association.outgoing.clear()
            association.receive(0.0, await ws.receive_bytes(timeout=5))
        await ws.send_bytes(association.seal_batch(0.0, [codec.encode(Note(1))]))
        await until(lambda: recorder.target.numbers() == [1])
        recorder.to_server.write(
            websocket_frame(Sealer(1, b"").seal(FrameKind.BATCH, b"\x91" + codec.encode(Note(66))))
        )
        await ws.receive(timeout=5)
    recorder.server.close()


def websocket_frame(payload: bytes) -> bytes:
    """As a client sends it; masked with zeros."""
    assert len(payload) < 126
    return bytes((0x82, 0x80 | len(payload))) + bytes(4) + payload


async def test_frames_injected_after_the_handshake_and_a_replay_of_it_all_do_nothing() -> None:
    victim = SocketNode("victim")
    client = SocketNode("client")
    async with started(victim):
        recorder = Recorder(victim)
        await through(recorder, client)
        await until(lambda: len(victim.told) == 2)
        assert victim.told[0] == Connected(client.node, client.remoting.address)
        assert "MAC" in str(victim.told[1])
        async with raw(victim) as (reader, writer):
            writer.write(recorder.said)
            await asyncio.wait_for(ended(reader), 5.0)
        assert victim.numbers() == [1]
        assert len(victim.told) == 2
        assert victim.remoting.counters.handshakes_failed == 1


BOMBS = [
    b"\xdd\xff\xff\xff\xff",
    b"\x91" * 100_000,
    b"\x91\x93\xa4note\x01" + b"\x91" * 900 + b"\x90",
    b"\x91\x93\xa4note\x01\xdb\xff\xff\xff\xff",
    b"",
]


@pytest.mark.parametrize("bomb", BOMBS)
async def test_a_peer_gone_mad_loses_its_connection_and_nobody_else_does(bomb: bytes) -> None:
    victim, member = SocketNode("victim", secret=None), SocketNode("member", secret=None)
    async with started(victim, member):
        await talks(member, victim)
        async with knocking(victim.remoting.address) as socket:
            mad = NodeId("mad", "1")
            hello = Hello(1, 1, "tests", mad.name, mad.incarnation, "127.0.0.1:1", False, bytes(32))
            await socket.send_bytes(handshake_frame(FrameKind.HELLO, encode(hello)))
            await socket.receive_bytes()
            await socket.send_bytes(handshake_frame(FrameKind.PROOF, b"\x91\xc4\x00"))
            await socket.receive_bytes()
            sealer = Sealer(1, b"")
            codec = Codec()
            codec.declare(Note)
            await socket.send_bytes(sealer.seal(FrameKind.BATCH, b"\x91" + codec.encode(Note(5))))
            await until(lambda: 5 in victim.numbers())
            await socket.send_bytes(sealer.seal(FrameKind.BATCH, bomb))
            await until(lambda: len(victim.told) == 3 or victim.remoting.counters.messages_dropped)
            await talks(member, victim)


async def test_a_frame_beyond_the_limit_ends_the_connection() -> None:
    victim = SocketNode("victim", secret=None)
    async with started(victim), knocking(victim.remoting.address) as socket:
        hello = Hello(1, 1, "tests", "big", "1", "127.0.0.1:1", False, bytes(32))
        await socket.send_bytes(handshake_frame(FrameKind.HELLO, encode(hello)))
        await socket.receive_bytes()
        await socket.send_bytes(handshake_frame(FrameKind.PROOF, b"\x91\xc4\x00"))
        await socket.receive_bytes()
        await until(lambda: len(victim.told) == 1)
        await socket.send_bytes(Sealer(1, b"").seal(FrameKind.BATCH, bytes(2_000_000)))
        await until(lambda: len(victim.told) == 2)
        assert victim.heard == []

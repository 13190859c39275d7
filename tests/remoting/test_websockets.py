"""Remoting over real sockets: what works, and what a broken network does to it."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from actorkit.errors import ConfigurationError
from actorkit.remoting import Connected, Disconnected, RemotingSettings, Unreachable, mutual_tls
from actorkit.remoting.handshake import Hello, encode
from actorkit.wire import FrameKind, Sealer
from actorkit.wire.frames import handshake_frame
from tests.remoting.nodes import SECRET, Note
from tests.remoting.sockets import SocketNode, free_port, knocking, started, until

QUICK = RemotingSettings(heartbeat_s=0.05, idle_timeout_s=0.3, backoff_max_s=0.1)


@pytest.mark.parametrize("secret", [None, SECRET])
async def test_messages_arrive_in_order_in_both_directions(secret: str | None) -> None:
    a, b = SocketNode("a", secret=secret), SocketNode("b", secret=secret, echo=True)
    async with started(a, b):
        for number in range(5000):
            assert a.say(b, number)
        await until(lambda: len(a.heard) == 5000)
        assert b.numbers() == a.numbers() == list(range(5000))
        assert a.told == [Connected(b.node, b.remoting.address)]
        assert b.told == [Connected(a.node, a.remoting.address)]
        assert a.remoting.counters.frames_sent < 20
    assert isinstance(b.told[-1], Disconnected)


async def test_large_messages_and_many_of_them_arrive() -> None:
    a, b = SocketNode("a"), SocketNode("b")
    async with started(a, b):
        sent = 0
        while sent < 100:
            if a.say(b, sent, "x" * 900_000):
                sent += 1
            else:
                await asyncio.sleep(0)
        await until(lambda: len(b.heard) == 100)
        assert b.numbers() == list(range(100))
        assert a.remoting.counters.messages_not_accepted > 0


async def test_simultaneous_connections_of_many_nodes_leave_one_for_each_pair() -> None:
    nodes = [SocketNode(f"n{number}") for number in range(6)]
    async with started(*nodes):
        for first in nodes:
            for second in nodes:
                if first is not second:
                    assert first.say(second, 1)
        await until(lambda: all(len(node.heard) == 5 for node in nodes))
        assert all(len(node.told) == 5 for node in nodes)
        assert all(isinstance(event, Connected) for node in nodes for event in node.told)


async def test_nobody_there_is_told_and_sending_is_refused_until_the_next_attempt() -> None:
    # So long that a busy machine does not let the wait pass before anybody looks.
    patient = RemotingSettings(heartbeat_s=0.05, backoff_min_s=2.0, backoff_max_s=2.0)
    a, b = SocketNode("a", settings=patient), SocketNode("b")
    async with started(a):
        async with started(b):
            pass
        assert a.say(b, 1)
        await until(lambda: a.told)
        assert isinstance(a.told[0], Unreachable)
        assert not a.say(b, 2)
        again = SocketNode("b", address=b.remoting.address)
        async with started(again):
            await until(lambda: a.say(b, 3))
            await until(lambda: again.heard)
            assert again.numbers()[0] == 3


async def test_a_peer_in_its_next_life_is_told_apart() -> None:
    a, b = SocketNode("a", settings=QUICK), SocketNode("b")
    async with started(a):
        async with started(b):
            a.say(b, 1)
            await until(lambda: b.heard)
        await until(lambda: len(a.told) == 2)
        again = SocketNode("b", address=b.remoting.address)
        async with started(again):
            again.say(a, 2)
            await until(lambda: a.heard)
        assert [type(event) for event in a.told[:3]] == [Connected, Disconnected, Connected]
        assert a.told[2] == Connected(again.node, b.remoting.address)


class Proxy:
    """Passes bytes on between a node and whoever connects, until it is told otherwise."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self.target = (host, int(port))
        self.passing = asyncio.Event()
        self.passing.set()
        self.writers: list[asyncio.StreamWriter] = []
        self.server: asyncio.Server
        self.port = 0

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self.target)
        self.writers += [writer, back]
        await asyncio.gather(self._pass(reader, back), self._pass(there, writer), return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self.passing.wait()
            writer.write(data)
            await writer.drain()
        writer.close()

    def break_all(self) -> None:
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    async def stop(self) -> None:
        self.server.close()
        self.break_all()
        self.passing.set()
        await self.server.wait_closed()


async def test_a_half_open_connection_is_noticed_by_both_and_made_again() -> None:
    port = free_port()
    proxy = Proxy(f"127.0.0.1:{port}")
    await proxy.start()
    a = SocketNode("a", settings=QUICK)
    b = SocketNode("b", settings=QUICK, address=f"127.0.0.1:{proxy.port}", listen=f"127.0.0.1:{port}")
    async with started(a, b):
        assert a.say(b, 1)
        await until(lambda: b.heard)
        proxy.passing.clear()
        await until(lambda: len(a.told) == 2 and len(b.told) == 2)
        assert "nothing was heard" in str(a.told[1])
        proxy.passing.set()
        await until(lambda: a.say(b, 2))
        await until(lambda: b.numbers()[-1] == 2)
        proxy.break_all()
        await until(lambda: isinstance(a.told[-1], Disconnected) and isinstance(b.told[-1], Disconnected))
        await until(lambda: a.say(b, 3))
        await until(lambda: b.numbers()[-1] == 3)
        assert len(b.heard) == 3
    await proxy.stop()


async def test_a_node_that_is_dialled_by_another_name_is_one_peer() -> None:
    a, b = SocketNode("a"), SocketNode("b", echo=True)
    async with started(a, b):
        alias = f"localhost:{b.remoting.address.rpartition(':')[2]}"
        for number in range(3):
            assert a.remoting.send(alias, Note(number))
        await until(lambda: len(a.heard) == 3)
        assert a.remoting.send(alias, Note(3))
        assert a.say(b, 4)
        await until(lambda: len(a.heard) == 5)
        assert b.numbers() == a.numbers() == [0, 1, 2, 3, 4]
        assert a.told == [Connected(b.node, b.remoting.address)]
        assert a.remoting.connected(alias) == a.remoting.connected(b.remoting.address)
        assert len(b.remoting.peers) == 1


async def test_a_node_does_not_connect_to_itself() -> None:
    a = SocketNode("a")
    async with started(a):
        for address in (a.remoting.address, a.remoting.address.replace("127.0.0.1", "localhost")):
            a.remoting.send(address, Note(1))
        await until(lambda: len(a.told) == 2)
        assert all(isinstance(event, Unreachable) and "the same node" in event.why for event in a.told)
        assert a.heard == []


async def test_a_peer_that_takes_nothing_costs_no_more_than_its_outbox_and_is_disconnected() -> None:
    settings = RemotingSettings(stalled_max_s=0.5, outbox_max_bytes=4 << 20, heartbeat_s=0.1)
    victim = SocketNode("victim", secret=None, settings=settings)
    async with started(victim), knocking(victim.remoting.address) as socket:
        hello = Hello(1, 1, "tests", "deaf", "1", "127.0.0.1:1", False, bytes(32))
        await socket.send_bytes(handshake_frame(FrameKind.HELLO, encode(hello)))
        await socket.receive_bytes()
        await socket.send_bytes(handshake_frame(FrameKind.PROOF, b"\x91\xc4\x00"))
        await until(lambda: victim.told)
        sealer = Sealer(1, b"")
        taken = 0
        async with asyncio.timeout(10):
            while len(victim.told) == 1:
                while victim.remoting.send("127.0.0.1:1", Note(taken, "x" * 100_000)):
                    taken += 1
                    await asyncio.sleep(0)
                    if len(victim.told) > 1:
                        break
                # It is heard of all the time; it only never reads.
                await socket.send_bytes(sealer.seal(FrameKind.HEARTBEAT))
                await asyncio.sleep(0.02)
        assert "it has taken nothing for 0.5 s" in str(victim.told[1])
        assert victim.remoting.queued_messages == 0


def test_it_does_not_listen_to_strangers_without_authentication() -> None:
    for address in ("0.0.0.0:0", "192.0.2.1:9080", "node.example:9080", "[::]:9080"):
        with pytest.raises(ConfigurationError, match="secret"):
            SocketNode("a", address=address, secret=None)
        SocketNode("a", address=address)
    for address in ("127.0.0.1:0", "localhost:0", "[::1]:0", "127.9.9.9:0"):
        SocketNode("a", address=address, secret=None)
    with pytest.raises(ConfigurationError, match="16 bytes"):
        SocketNode("a", secret="short")


async def test_a_port_that_is_taken_is_an_error() -> None:
    a = SocketNode("a")
    async with started(a):
        with pytest.raises(OSError, match="address already in use"):
            await SocketNode("b", address=a.remoting.address).remoting.start()


def _certificates(directory: Path, authority: str) -> dict[str, Path]:
    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", f"/CN={authority}", "-days", "2")
    openssl("req", *key, "-keyout", "node.key", "-out", "node.csr", "-subj", "/CN=node")
    (directory / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    sign = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
    openssl("x509", "-req", "-in", "node.csr", "-out", "node.crt", *sign)
    return {"certificate": directory / "node.crt", "key": directory / "node.key", "authority": directory / "ca.crt"}


async def test_mutual_tls_lets_in_whom_the_authority_has_signed_and_nobody_else(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "theirs").mkdir()
    try:
        ours = mutual_tls(**_certificates(tmp_path / "ours", "ours"))
        theirs = mutual_tls(**_certificates(tmp_path / "theirs", "theirs"))
    except FileNotFoundError:
        pytest.skip("there is no openssl to make certificates with")
    a, b = SocketNode("a", secret=None, tls=ours), SocketNode("b", secret=None, tls=ours)
    stranger, plain = SocketNode("c", secret=None, tls=theirs), SocketNode("d", secret=None)
    SocketNode("e", address="0.0.0.0:0", secret=None, tls=ours)
    async with started(a, b, stranger, plain):
        a.say(b, 1)
        stranger.say(b, 2)
        plain.say(b, 3)
        a.say(stranger, 4)
        await until(lambda: b.heard and stranger.told and plain.told and len(a.told) == 2)
        assert b.numbers() == [1]
        assert isinstance(stranger.told[0], Unreachable)
        assert isinstance(plain.told[0], Unreachable)
        assert stranger.heard == []

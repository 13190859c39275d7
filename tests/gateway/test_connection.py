"""The short cut: most requests take it, nothing unusual does, and no client can tell the difference."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from actorkit.gateway.connection import Connection
from actorkit.gateway.handlers import Answer, Endpoint, Incoming
from actorkit.gateway.settings import GatewaySettings
from tests.gateway.test_http import Echo, Service, request, until


class Quick(Service):
    """With a handler that answers at once."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.gateway.add(
            Endpoint("POST", "/quick", self.quick, body=Echo), Endpoint("POST", "/quick-defect", self.broken, body=Echo)
        )

    def quick(self, incoming: Incoming[Echo]) -> Answer:
        return Answer((b'{"text":"', incoming.body.text.encode(), b'"}'))

    def broken(self, incoming: Incoming[Echo]) -> Answer:
        raise ZeroDivisionError

    @property
    def short_cuts(self) -> int:
        return sum(connection.short_cuts for connection in self.connections if isinstance(connection, Connection))


@pytest.fixture
async def service() -> AsyncIterator[Quick]:
    async with Quick(settings=GatewaySettings(drain_grace_s=0.05)) as service:
        yield service


async def test_plain_requests_take_the_short_cut_whether_they_wait_or_not(service: Quick) -> None:
    client = await service.connect()
    await until(lambda: len(service.connections) == 1 and service.connections[0]._waiter is not None)
    for number in range(3):
        client.send(request('{"text":"a"}', path="/quick"))
        assert (await client.reply()).body == b'{"text":"a"}'
        client.send(request('{"text":"b"}'))
        assert (await client.reply()).body == b'{"text":"b","key":null}'
        client.send(request("", path="/health/live", method="GET"))
        assert (await client.reply()).status == 200
        assert service.short_cuts == 3 * (number + 1)
    assert service.gateway.in_progress == 0


async def test_problems_are_problems_on_the_short_cut_too(service: Quick) -> None:
    client = await service.connect()
    await until(lambda: len(service.connections) == 1 and service.connections[0]._waiter is not None)
    for raw, status in (
        (request("{", path="/quick"), 400),
        (request(path="/quick-defect"), 500),
        (request(path="/defect"), 500),
        (request("x", path="/health/live", method="GET"), 400),
        (request("{}", path="/quick"), 200),
    ):
        client.send(raw)
        reply = await client.reply()
        assert reply.status == status
        assert status == 200 or reply.problem
    service.reason = "it is resting"
    client.send(request(path="/quick"))
    assert (await client.reply()).problem == "unavailable"
    assert service.short_cuts == 6
    assert service.gateway.in_progress == 0


@pytest.mark.parametrize(
    "raw",
    [
        request(path="/quick").replace(b"HTTP/1.1", b"HTTP/1.0"),
        request(path="/quick", headers="Connection: close\r\n"),
        request(path="/quick", headers="Expect: 100-continue\r\n"),
        request(path="/quick?x=1"),
        request("", path="/echo/a", method="GET"),
        request("", path="/quick", method="DELETE"),
        b"no HTTP\r\n\r\n",
    ],
)
async def test_what_is_unusual_does_not_take_it(service: Quick, raw: bytes) -> None:
    client = await service.connect()
    client.send(raw)
    async with asyncio.timeout(10):
        assert (await client.reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 ")
    assert service.short_cuts == 0


@pytest.mark.parametrize("path", ["/quick", "/echo"])
@pytest.mark.parametrize(
    ("change", "status", "problem"),
    [
        ((b" HTTP/1.1", b"#x HTTP/1.1"), 400, "invalid-request"),
        ((b" HTTP/1.1", b" HTTP/2.0"), 400, "invalid-request"),
        ((b"Content-Length: 2\r\n\r\n{}", b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"), 415, ""),
    ],
)
async def test_what_is_not_as_written_is_refused_on_every_way(
    service: Quick, path: str, change: tuple[bytes, bytes], status: int, problem: str
) -> None:
    reply = await service.one(request(path=path).replace(*change))
    assert reply.status == status
    assert reply.problem == (problem or "unsupported-media-type")


@pytest.mark.parametrize("path", ["/quick", "/echo"])
@pytest.mark.parametrize("cut", [10, 60, 118, 130])
async def test_a_request_in_pieces_is_answered_whichever_way_it_takes(service: Quick, path: str, cut: int) -> None:
    raw = request('{"text":"in pieces"}', path=path)
    client = await service.connect()
    for _ in range(3):
        client.send(raw[:cut])
        await asyncio.sleep(0.01)
        client.send(raw[cut:])
        assert b"in pieces" in (await client.reply()).body


@pytest.mark.parametrize("sizes", [[8], [1, 7], [3, 3, 2], [1] * 8])
@pytest.mark.parametrize("first", ["/wait", "/quick"])
async def test_pipelined_requests_are_answered_in_order_however_they_arrive(
    service: Quick, first: str, sizes: list[int]
) -> None:
    paths = [first, "/quick", "/echo", "/quick", "/quick", "/echo", "/echo", "/quick"]
    requests = [request(f'{{"text":"{number}"}}', path=path) for number, path in enumerate(paths)]
    client = await service.connect()
    await until(lambda: len(service.connections) == 1 and service.connections[0]._waiter is not None)
    for size in sizes:
        client.send(b"".join(requests[:size]))
        del requests[:size]
        await asyncio.sleep(0.01)
    service.go.set()
    if first == "/wait":
        assert (await client.reply()).body == b"{}"
        paths.pop(0)
    for number, _ in enumerate(paths, 8 - len(paths)):
        assert f'"{number}"'.encode() in (await client.reply()).body


async def test_what_arrives_while_a_request_waits_is_bounded(service: Quick) -> None:
    client = await service.connect()
    await until(lambda: len(service.connections) == 1 and service.connections[0]._waiter is not None)
    connection = service.connections[0]
    client.send(request(path="/wait"))
    await service.entered.wait()
    for _ in range(200):
        client.send(request('{"text":"' + "x" * 60_000 + '"}', path="/quick"))
    await until(lambda: connection._held != b"")
    await asyncio.sleep(0.05)
    assert len(connection._held) <= 1 << 19
    service.go.set()
    for _ in range(201):
        assert (await client.reply()).status == 200


async def test_a_client_that_hangs_up_cancels_nothing_on_the_short_cut(service: Quick) -> None:
    client = await service.connect()
    await until(lambda: len(service.connections) == 1 and service.connections[0]._waiter is not None)
    client.send(request(path="/wait"))
    await service.entered.wait()
    client.writer.close()
    await until(lambda: not service.connections)
    service.go.set()
    await until(lambda: service.finished == 1 and service.gateway.in_progress == 0)


async def test_a_client_that_hangs_up_before_what_it_has_pipelined_is_looked_at(service: Quick) -> None:
    client = await service.connect()
    await until(lambda: len(service.connections) == 1 and service.connections[0]._waiter is not None)
    client.send(request(path="/wait"))
    await service.entered.wait()
    client.send(request(path="/quick"))
    client.writer.close()
    await until(lambda: service.connections[0]._held != b"")
    service.go.set()
    await until(lambda: service.finished == 1 and service.gateway.in_progress == 0 and not service.connections)


async def test_stopping_waits_for_a_request_on_the_short_cut(service: Quick) -> None:
    client = await service.connect()
    await until(lambda: len(service.connections) == 1 and service.connections[0]._waiter is not None)
    client.send(request(path="/wait"))
    await service.entered.wait()
    assert service.short_cuts == 1
    stopping = asyncio.create_task(service.server.stop())
    await until(lambda: service.gateway.draining)
    await asyncio.sleep(0.1)
    assert not stopping.done()
    service.go.set()
    reply = await client.reply()
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    assert await client.closed()
    async with asyncio.timeout(3):
        await stopping


async def test_a_connection_that_takes_the_short_cut_is_closed_when_it_is_idle() -> None:
    async with Quick(settings=GatewaySettings(keepalive_s=0.3, drain_grace_s=0.05)) as service:
        client = await service.connect()
        await until(lambda: len(service.connections) == 1 and service.connections[0]._waiter is not None)
        begin = asyncio.get_running_loop().time()
        for _ in range(6):
            client.send(request(path="/quick"))
            assert (await client.reply()).status == 200
            await asyncio.sleep(0.1)
        assert await client.closed()
        assert asyncio.get_running_loop().time() - begin > 0.6


async def test_a_request_that_waits_when_its_connection_would_be_closed_for_idleness_is_answered() -> None:
    async with Quick(settings=GatewaySettings(keepalive_s=0.2, drain_grace_s=0.05)) as service:
        client = await service.connect()
        await until(lambda: len(service.connections) == 1 and service.connections[0]._waiter is not None)
        client.send(request(path="/quick"))
        assert (await client.reply()).status == 200
        client.send(request(path="/wait"))
        await service.entered.wait()
        assert service.short_cuts == 2
        (connection,) = service.connections
        closes_s = connection._next_keepalive_close_time
        await until(lambda: connection._next_keepalive_close_time > closes_s)
        service.go.set()
        assert (await client.reply()).status == 200
        assert await client.closed()

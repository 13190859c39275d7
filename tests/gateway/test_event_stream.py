"""Streams of events over real sockets: they live, end cleanly from either side, and are bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from actorkit.gateway.event_stream import EventStream, event
from actorkit.gateway.handlers import Endpoint, Incoming
from actorkit.gateway.settings import GatewaySettings
from tests.gateway.test_http import Client, Service, request, until


class Streaming(Service):
    """A service with a stream, whose events are put into a queue; an empty one ends it."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(settings=GatewaySettings(drain_grace_s=0.05, **settings))
        self.events: asyncio.Queue[bytes] = asyncio.Queue()
        self.closed = 0
        self.gateway.add(Endpoint("GET", "/stream", self.stream, streams=True))

    async def stream(self, incoming: Incoming[None]) -> EventStream:
        return self.gateway.streams.open(self.events.get, self.close)

    def close(self) -> None:
        self.closed += 1

    async def follow(self, *, version: str = "1.1") -> Client:
        client = await self.connect()
        client.send(f"GET /stream HTTP/{version}\r\nHost: x\r\n\r\n")
        return client


@pytest.fixture
async def service() -> AsyncIterator[Streaming]:
    async with Streaming() as service:
        yield service


async def head(client: Client) -> bytes:
    async with asyncio.timeout(10):
        return await client.reader.readuntil(b"\r\n\r\n")


async def chunk(client: Client) -> bytes:
    async with asyncio.timeout(10):
        size = int(await client.reader.readuntil(b"\r\n"), 16)
        data = await client.reader.readexactly(size + 2)
        return data[:-2]


def test_an_event_has_a_name_data_and_perhaps_an_id() -> None:
    assert event("pool", b"{}") == b"event: pool\ndata: {}\n\n"
    assert event("pool", b"{}", id="n/5") == b"id: n/5\nevent: pool\ndata: {}\n\n"


async def test_events_are_sent_as_they_come_until_there_are_no_more(service: Streaming) -> None:
    client = await service.follow()
    first = await head(client)
    assert first.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
    for data in (b"one", b"two"):
        service.events.put_nowait(event("e", data))
        assert await chunk(client) == event("e", data)
    assert len(service.gateway.streams) == 1
    assert b"http_streams 1.0" in service.gateway.metrics.text()[0]
    service.events.put_nowait(b"")
    assert await chunk(client) == b""
    assert await client.closed()
    assert (len(service.gateway.streams), service.closed) == (0, 1)


async def test_a_client_of_http_1_0_gets_them_without_chunks(service: Streaming) -> None:
    client = await service.follow(version="1.0")
    assert b"chunked" not in await head(client)
    service.events.put_nowait(b"one")
    service.events.put_nowait(b"")
    async with asyncio.timeout(10):
        assert await client.reader.read() == b"one"


async def test_a_stream_without_events_says_that_it_lives_and_loses_nothing_by_that() -> None:
    async with Streaming(stream_heartbeat_s=0.02) as service:
        client = await service.follow()
        await head(client)
        assert [await chunk(client) for _ in range(3)] == [b":\n\n"] * 3
        service.events.put_nowait(b"one")
        while (data := await chunk(client)) == b":\n\n":
            pass
        assert data == b"one"


async def test_stopping_ends_streams_at_once(service: Streaming) -> None:
    client = await service.follow()
    await head(client)
    async with asyncio.timeout(3):
        await service.server.stop()
    assert await chunk(client) == b""
    assert await client.closed()
    assert service.closed == 1


async def test_stopping_does_not_wait_for_a_client_that_does_not_read(service: Streaming) -> None:
    client = await service.follow()
    await head(client)
    for _ in range(2_000):
        service.events.put_nowait(b"x" * 65_536)
    await until(lambda: service.events.qsize() < 1_990)
    await asyncio.sleep(0.05)
    async with asyncio.timeout(5):
        await service.server.stop()
    assert service.closed == 1
    assert service.events.qsize() > 0
    client.writer.transport.abort()


async def test_a_client_that_takes_nothing_is_cut_off() -> None:
    async with Streaming(stream_stalled_s=0.2) as service:
        client = await service.follow()
        await head(client)
        for _ in range(2_000):
            service.events.put_nowait(b"x" * 65_536)
        await until(lambda: service.closed == 1)
        assert service.events.qsize() > 0
        client.writer.transport.abort()


async def test_a_client_that_leaves_makes_room_at_once(service: Streaming) -> None:
    client = await service.follow()
    await head(client)
    client.writer.close()
    await until(lambda: service.closed == 1)
    assert len(service.gateway.streams) == 0


async def test_streams_are_bounded_and_other_requests_are_served_meanwhile() -> None:
    async with Streaming(streams_max=2) as service:
        clients = [await service.follow() for _ in range(2)]
        for client in clients:
            await head(client)
        refused = await service.one(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (refused.status, refused.problem, refused.headers["retry-after"]) == (429, "overloaded", "5")
        assert (await service.one(request())).status == 200
        clients[0].writer.close()
        await until(lambda: service.closed == 1)
        await head(await service.follow())


async def test_a_stream_that_is_begun_while_the_server_stops_ends_at_once(service: Streaming) -> None:
    service.gateway.drain()
    client = await service.follow()
    await head(client)
    assert await chunk(client) == b""
    assert await client.closed()

"""Availability as a stream of server-sent events, on a real node."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest

from examples.capacity_service.requests import parse_changes_query
from tests.capacity_service.service import Client, serving, settings

PATH = "/rpc/availability/changes"


class Event(NamedTuple):
    name: str
    data: dict[str, Any]
    id: str | None


class Stream:
    """What a client has been sent."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.pools: dict[str, Any] = {}
        self.last_id: str | None = None

    async def next(self) -> Event | None:
        members: dict[str, str] = {}
        async with asyncio.timeout(10):
            while line := await self.response.content.readline():
                name, colon, value = line.decode().rstrip("\n").partition(": ")
                if colon:
                    members[name] = value
                elif members:
                    event = Event(members["event"], json.loads(members["data"]), members.get("id"))
                    self.last_id = event.id or self.last_id
                    if event.name == "pool":
                        self.pools[event.data["pool_id"]] = event.data
                    if event.name == "gone":
                        del self.pools[event.data["pool_id"]]
                    return event
        return None

    async def current(self) -> None:
        """Reads until all is told that there was."""
        while (event := await self.next()) is not None and event.name != "current":
            pass


async def follow(session: aiohttp.ClientSession, client: Client, query: str = "", **headers: str) -> Stream:
    response = await session.get(client.base + PATH + query, headers={**headers})
    assert response.status == 200
    assert response.content_type == "text/event-stream"
    return Stream(response)


async def test_a_stream_tells_what_there_is_and_then_what_changes(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as client, aiohttp.ClientSession() as session:
        await client.pool("b", 5, region="eu")
        await client.pool("a", 5)
        stream = await follow(session, client)
        assert await stream.next() == ("begin", {"resumed": False}, None)
        assert [(await stream.next()).data["pool_id"] for _ in range(2)] == ["a", "b"]  # type: ignore[union-attr]
        current = await stream.next()
        assert current is not None
        assert current.name == "current"
        await client.reserve("b", 2)
        changed = await stream.next()
        assert changed is not None
        assert (changed.name, changed.data["remaining"], changed.data["version"]) == ("pool", 3, 2)
        assert changed.id is not None
        shown = await client.post("availability", {})
        assert {pool["pool_id"]: pool for pool in shown.body["pools"]} == stream.pools


async def test_what_does_not_match_any_more_has_gone(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as client, aiohttp.ClientSession() as session:
        await client.pool("a", 5, region="eu", labels={"kind": "x"})
        await client.pool("b", 5, region="us")
        stream = await follow(
            session, client, "?region=eu&min_remaining=2&labels=%7B%22kind%22:%22x%22%7D&pool_ids=a,c"
        )
        await stream.current()
        assert list(stream.pools) == ["a"]
        await client.reserve("a", 4)
        assert await stream.next() is not None
        assert stream.pools == {}
        await client.reserve("b", 1)
        await client.pool("c", 9, region="eu", labels={"kind": "x"})
        assert await stream.next() is not None
        assert list(stream.pools) == ["c"]


async def test_a_client_that_comes_back_goes_on_where_it_was(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as client, aiohttp.ClientSession() as session:
        await client.pool("a", 5)
        await client.pool("b", 5)
        stream = await follow(session, client)
        await stream.current()
        stream.response.close()
        await client.reserve("b", 1)
        assert stream.last_id is not None
        again = await follow(session, client, **{"Last-Event-ID": stream.last_id})
        assert await again.next() == ("begin", {"resumed": True}, None)
        changed = await again.next()
        assert changed is not None
        assert (changed.name, changed.data["pool_id"], changed.data["remaining"]) == ("pool", "b", 4)
        for unknown in ("", "another#node/5", "nonsense", stream.last_id + "999"):
            anew = await follow(session, client, **{"Last-Event-ID": unknown})
            assert await anew.next() == ("begin", {"resumed": False}, None)


@pytest.mark.parametrize(
    "query", ["?colour=red", "?region=", "?min_remaining=x", "?labels=x", "?starts_before=noon", "?pool_ids=a,,b"]
)
async def test_a_query_that_is_not_as_it_must_be_is_a_problem(tmp_path: Path, query: str) -> None:
    async with (
        serving(settings(tmp_path)) as client,
        aiohttp.ClientSession() as session,
        session.get(client.base + PATH + query) as response,
    ):
        assert response.content_type == "application/problem+json"
        assert (response.status, (await response.json())["type"]) == (400, "/problems/invalid-request")


async def test_a_node_that_stops_ends_its_streams(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as client, aiohttp.ClientSession() as session:
        stream = await follow(session, client)
        await stream.current()
        async with asyncio.timeout(10):
            await asyncio.gather(client.node.stop(), stream.next())
        assert await stream.next() is None


def test_the_query_says_the_same_as_the_body() -> None:
    query = {"region": "eu", "starts_before": "2026-01-01T00:00:00Z", "min_remaining": "2", "pool_ids": "a,b"}
    request = parse_changes_query({**query, "labels": '{"kind":"x"}'})
    assert (request.region, request.min_remaining, request.pool_ids) == ("eu", 2, ["a", "b"])
    assert request.labels == {"kind": "x"}

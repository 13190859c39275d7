"""Availability as a stream of server-sent events, on a real node."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorkit.gateway.bodies import BodyDecoder
from actorkit.gateway.problems import Problem
from examples.capacity_service.ids import ID_WORDS
from examples.capacity_service.requests import CHANGES_QUERY, AvailabilityRequest, parse_changes_query
from examples.capacity_service.times import TIME_WORDS
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


async def test_a_client_that_comes_back_with_another_filter_begins_anew(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as client, aiohttp.ClientSession() as session:
        await client.pool("a", 5, region="eu", labels={"x": "1", "y": "2"})
        await client.pool("b", 5, region="us")
        query = "?region=eu&pool_ids=a,b&labels=%7B%22x%22:%221%22,%22y%22:%222%22%7D"
        stream = await follow(session, client, query)
        await stream.current()
        assert list(stream.pools) == ["a"]
        assert stream.last_id is not None
        came_from = {"Last-Event-ID": stream.last_id}
        same = "?labels=%7B%22y%22:%222%22,%22x%22:%221%22%7D&pool_ids=b,a,b&min_remaining=0&region=eu"
        for written in (query, same):
            again = await follow(session, client, written, **came_from)
            assert await again.next() == ("begin", {"resumed": True}, None)
        others = {"": ["a", "b"], "?region=us": ["b"], "?region=eu": ["a"], query + "&min_remaining=6": []}
        for other, pools in others.items():
            anew = await follow(session, client, other, **came_from)
            assert await anew.next() == ("begin", {"resumed": False}, None)
            await anew.current()
            assert list(anew.pools) == pools


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("?colour=red", "colour"),
        ("?limit=5", "limit"),
        ("?region=eu&region=us", "region"),
        ("?region=", "region"),
        ("?min_remaining=x", "min_remaining"),
        ("?labels=x", "labels"),
        ("?starts_before=noon", "starts_before"),
        ("?pool_ids=a,,b", "pool_ids"),
    ],
)
async def test_a_query_that_is_not_as_it_must_be_is_a_problem_that_names_the_parameter(
    tmp_path: Path, query: str, named: str
) -> None:
    async with (
        serving(settings(tmp_path)) as client,
        aiohttp.ClientSession() as session,
        session.get(client.base + PATH + query) as response,
    ):
        assert response.content_type == "application/problem+json"
        problem = await response.json()
        assert (response.status, problem["type"]) == (400, "/problems/invalid-request")
        assert named in problem["detail"]


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


def body_of(query: dict[str, str]) -> bytes:
    """A body that asks for the same."""
    members = {name: json.dumps(text) for name, text in query.items()}
    if "pool_ids" in query:
        members["pool_ids"] = json.dumps(query["pool_ids"].split(","))
    members |= {name: query[name] for name in ("labels", "min_remaining") if name in query}
    if query.get("labels") == '{},"limit":5':
        members["labels"] = "no JSON by itself"
    return "{{{}}}".format(",".join(f'"{name}":{text}' for name, text in members.items())).encode()


LABELS = [
    *('{"kind":"x"}', "{}", '{"a":"1","b":"2"}', '{"a":"1","a":"1"}', '{"a":"1","\\u0061":"2"}', '{"a b":"x"}'),
    *('{"a":1}', '{"a":""}', '{"a":null}', "[]", "", "null", '"kind"', '{"a":"b"', '{"a":{"b":"c"}}', "{}}"),
    *('{},"limit":5', '{"a":"\\ud800"}', "[" * 5000, json.dumps({"a": "x" * 257})),
    json.dumps({f"l{number}": "x" for number in range(33)}),
]
NUMBERS = [
    *("0", "12", "9223372036854775807", "9223372036854775808", "1" * 5000, "-1", "1e3", "1.0", "01", "1_0", "+1"),
    *("", "null", '"1"', "NaN", "0x1", "\u0661", "true"),
]
TIMES = ["2026-01-01T00:00:00Z", "2026-01-01", "2026-02-30T00:00:00Z", "now", "2026-01-01T00:00:00+00:00", ""]
TEXTS = st.sampled_from(["eu", "", "x" * 256, "x" * 257, "é" * 256, "\x00", "a,b", '"']) | st.text(
    'aé~, ."\\\n', max_size=5
)
QUERIES = st.fixed_dictionaries(
    {},
    optional={
        "pool_ids": st.sampled_from(["a", "a,b", "a,a", "", "a,", ",", "a b", "..", "a~b", "x" * 129]) | TEXTS,
        "region": TEXTS,
        "starts_before": st.sampled_from(TIMES),
        "ends_after": st.sampled_from(TIMES),
        "labels": st.sampled_from(LABELS),
        "min_remaining": st.sampled_from(NUMBERS) | st.integers(-5, 1 << 64).map(str),
    },
)


@given(QUERIES)
def test_a_query_is_taken_exactly_when_the_body_would_be(query: dict[str, str]) -> None:
    for each in (query, *({name: text} for name, text in query.items())):
        try:
            body = BodyDecoder(AvailabilityRequest).decode(body_of(each))
        except Problem:
            with pytest.raises(ValueError, match=rf"^({'|'.join(each)}): expected ") as refused:
                parse_changes_query(each)
            assert "regex" not in str(refused.value)
        else:
            assert parse_changes_query(each) == body


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("pool_ids", "a,b c", f"expected ids separated by commas, but number 2 is not {ID_WORDS}"),
        ("region", "x" * 257, "expected 1 to 256 characters, not 257"),
        ("starts_before", "noon", f"expected {TIME_WORDS}"),
        ("ends_after", "2026-02-30T00:00:00Z", "expected the time of a day that exists"),
        ("min_remaining", "1e3", "expected a whole number from 0 to 9223372036854775807, as in 0 or 12"),
        ("labels", "", 'expected a JSON object of texts, as in {"kind":"large"}: it is empty, not JSON'),
        (
            "labels",
            '{"a":"1","a":"2"}',
            """expected a JSON object of texts, as in {"kind":"large"}: the member 'a' is given twice in one object""",
        ),
        (
            "labels",
            '{"a b":"1"}',
            f'expected a JSON object of texts, as in {{"kind":"large"}}: expected {ID_WORDS} - at `key` in `$`',
        ),
    ],
)
def test_what_is_expected_of_a_parameter_is_said_in_words(name: str, text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"^\w+: expected ") as refused:
        parse_changes_query({name: text})
    assert str(refused.value) == f"{name}: {says}"


def test_each_parameter_is_a_member_of_the_body() -> None:
    assert set(CHANGES_QUERY) == set(AvailabilityRequest.__struct_fields__) - {"limit"}

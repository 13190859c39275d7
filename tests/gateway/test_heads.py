"""Heads that have come before are not parsed again, and nobody but the processor notices."""

from __future__ import annotations

import asyncio
import gc
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from actorkit.errors import Rejected
from actorkit.gateway.connection import Connection
from actorkit.gateway.handlers import Answer, Endpoint, Incoming, Pending, Turn
from actorkit.gateway.heads import Head, Heads
from actorkit.gateway.inputs import BearerTokens
from actorkit.gateway.problems import OVERLOADED, Problem
from actorkit.gateway.settings import GatewaySettings
from tests.gateway.test_connection import Quick
from tests.gateway.test_http import Echo, request

_PLAIN: Final = request('{"text":"a"}', path="/quick")
_REQUESTS: Final = [
    _PLAIN,
    request('{"text":"b"}', path="/quick"),
    request('{"text":"long"}', path="/quick"),
    request('{"text":"a"}'),
    request('{"text":"a"}', headers="Idempotency-Key: k\r\n"),
    request("{", path="/quick"),
    request("\r\n\r\n{}", path="/quick"),
    request("", path="/health/live", method="GET"),
    request("", path="/echo/value", method="GET"),
    request("", path="/quick", method="PUT"),
    request('{"text":"a"}', path="/quick", headers="Content-Type: text/plain\r\n"),
    request('{"text":"a"}', path="/quick", headers="Content-Encoding: gzip\r\n"),
    request('{"text":"a"}', path="/quick", headers="Content-Length: 12\r\n"),
    request('{"text":"a"}', path="/quick", headers="Expect: 100-continue\r\n"),
    b"\r\n" + _PLAIN,
    _PLAIN.replace(b"\r\n", b"\n"),
    _PLAIN.replace(b"Content-Length: 12", b"Transfer-Encoding: chunked").replace(b'{"t', b'c\r\n{"t')
    + b"\r\n0\r\n\r\n",
    _PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Host: x", b"Connection: keep-alive"),
    # What is a head to one reader and a body to another.
    request(_PLAIN, path="/quick"),
    request(_PLAIN[:40], path="/quick"),
    b"POST /quick HTTP/1.1\nHost: x\nContent-Length: 2\n\n{}" + _PLAIN,
]
_VOLATILE: Final = re.compile(rb"Date: [^\r]*\r\n")


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.on_write: Callable[[], object] | None = None
        """Called once."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data
        if self.on_write is not None:
            on_write, self.on_write = self.on_write, None
            on_write()

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def _answered(_: None, reply: str) -> Answer:
    return Answer(reply.encode())


def _refused(_: None, refusal: Rejected) -> Problem:
    return Problem(OVERLOADED, str(refusal))


class Gone(Quick):
    """Also with handlers that wait for one call only."""

    def __init__(self, **options: Any) -> None:
        super().__init__(settings=GatewaySettings(drain_grace_s=0.001), **options)
        self.calls: list[asyncio.Future[str]] = []
        self.gateway.add(Endpoint("POST", "/call", self.call, body=Echo), Endpoint("POST", "/calls", self.called))

    def call(self, incoming: Incoming[Echo]) -> Pending[None, str]:
        return self._pending()

    async def called(self, incoming: Incoming[None]) -> Answer:
        return await self._pending()

    def _pending(self) -> Pending[None, str]:
        call: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.calls.append(call)
        return Pending(call, None, _answered, _refused)

    def connection(self) -> tuple[Connection, Transport]:
        """One without a socket."""
        server, transport = self.server._runner.server, Transport()
        assert server is not None
        connection = server()
        assert isinstance(connection, Connection)
        connection.connection_made(transport)
        return connection, transport


async def settled(transport: Transport) -> bytes:
    """All that has been answered, once nothing follows any more."""
    quiet, before = 0, b""
    while quiet < 12:
        await asyncio.sleep(0)
        quiet = 0 if transport.written != before else quiet + 1
        before = transport.written
    return _VOLATILE.sub(b"", before)


async def answers(service: Gone, pieces: list[bytes]) -> tuple[bytes, bool]:
    connection, transport = service.connection()
    await asyncio.sleep(0)
    for piece in pieces:
        if not transport.closed:
            connection.data_received(piece)
            await settled(transport)
    answered = await settled(transport), transport.closed
    connection.connection_lost(None)
    return answered


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


def pieces_of(sent: list[tuple[bytes, list[int], bool]]) -> list[bytes]:
    """As they arrive: each request cut at these places, and its first piece with the last one before it or not."""
    pieces: list[bytes] = []
    for raw, cuts, joins in sent:
        ends = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
        first, *others = (raw[start:end] for start, end in pairwise(ends) if start < end)
        if pieces and joins:
            first = pieces.pop() + first
        pieces += [first, *others]
    return pieces


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(_REQUESTS), st.lists(st.integers(0, 150), max_size=2), st.booleans()), max_size=6
    )
)
def test_a_client_is_answered_the_same_whether_its_heads_are_known_or_not(
    runner: asyncio.Runner, sent: list[tuple[bytes, list[int], bool]]
) -> None:
    async def compare() -> None:
        async with Gone() as service:
            pieces = pieces_of(sent)
            expected = await answers(service, pieces)
            for raw in _REQUESTS:
                await answers(service, [_PLAIN, raw, _PLAIN])
            assert await answers(service, pieces) == expected

    runner.run(compare())


async def test_a_head_that_comes_again_is_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Gone() as service:
        connection, transport = service.connection()
        await asyncio.sleep(0)
        connection.data_received(_PLAIN)
        await settled(transport)
        parsed: list[bytes] = []
        monkeypatch.setattr(Connection, "feed", lambda _, parse, data: parsed.append(data))
        for _ in range(3):
            connection.data_received(_PLAIN)
        assert parsed == []
        assert (await settled(transport)).count(b'{"text":"a"}') == 4
        other, transport = service.connection()
        await asyncio.sleep(0)
        other.data_received(_PLAIN)
        assert parsed == []
        assert (await settled(transport)).count(b'{"text":"a"}') == 1


async def test_a_client_that_is_quicker_than_aiohttp_gets_the_short_cut_too() -> None:
    async with Gone() as service:
        connection, transport = service.connection()
        connection.data_received(_PLAIN)  # aiohttp does not wait for it yet
        await settled(transport)
        assert connection.short_cuts == 1
        for number in range(3):
            # aiohttp's way: and what follows is there before aiohttp has come back from it.
            connection.data_received(request("", path="/echo/value", method="GET"))
            transport.on_write = partial(asyncio.get_running_loop().call_soon, connection.data_received, _PLAIN)
            await settled(transport)
            assert connection.short_cuts == 2 + number
        assert transport.written.count(b"HTTP/1.1 200") == 7


async def test_what_comes_in_pieces_while_aiohttp_comes_back_is_put_together() -> None:
    async with Gone() as service:
        connection, transport = service.connection()
        for byte in _PLAIN + _PLAIN:
            connection.data_received(bytes([byte]))
        assert (await settled(transport)).count(b'{"text":"a"}') == 2
        connection, transport = service.connection()
        connection.data_received(_PLAIN)
        connection.connection_lost(None)
        assert await settled(transport) == b""


async def test_what_is_malformed_takes_nothing_with_it_that_came_before() -> None:
    async with Gone() as service:
        connection, transport = service.connection()
        connection.data_received(_PLAIN)  # held until aiohttp waits
        connection.data_received(b"no HTTP\r\n\r\n")
        answered = await settled(transport)
        assert re.findall(rb"HTTP/1.1 (\d+)", answered) == [b"200", b"400"]


async def test_an_idle_connection_keeps_nothing_of_its_last_request() -> None:
    async with Gone() as service:
        connection, transport = service.connection()
        await asyncio.sleep(0)
        connection.data_received(request('{"text":"a"}', path="/call", headers="X-Whose: tidy\r\n"))
        service.calls.pop().set_result("it is")
        assert (await settled(transport)).endswith(b"it is")
        gc.collect()
        turns = [each for each in gc.get_objects() if isinstance(each, Turn)]
        assert [turn for turn in turns if turn.headers.get("X-Whose") == "tidy"] == []


@pytest.mark.parametrize(
    "headers", ["Idempotency-Key: k\r\n", "Content-Encoding: gzip\r\n", f"X-Long: {'x' * 3000}\r\n", "Expect: x\r\n"]
)
async def test_heads_that_are_wrong_or_will_hardly_come_again_are_not_kept(headers: str) -> None:
    async with Gone() as service:
        await answers(service, [request(headers=headers)] * 3)
        assert service.gateway.heads._recent == {}


async def test_a_wrong_token_is_wrong_each_time_and_a_right_one_right() -> None:
    async with Gone(tokens=BearerTokens(["right"])) as service:
        for _ in range(3):
            for token, status in (("wrong", b"401"), ("right", b"200")):
                raw = request(path="/quick", headers=f"Authorization: Bearer {token}\r\n")
                assert (await answers(service, [raw, raw]))[0].count(b"HTTP/1.1 " + status) == 2


async def test_a_node_that_is_not_ready_or_drains_says_so_to_known_heads_too() -> None:
    async with Gone() as service:
        await answers(service, [_PLAIN, _PLAIN])
        service.reason = "it is resting"
        assert (await answers(service, [_PLAIN]))[0].startswith(b"HTTP/1.1 503")
        service.reason = None
        connection, transport = service.connection()
        await asyncio.sleep(0)
        service.gateway.drain()
        connection.data_received(_PLAIN)
        assert b"Connection: close\r\n" in await settled(transport)


async def test_nothing_is_executed_after_an_answer_that_closes_the_connection() -> None:
    async with Gone() as service:
        connection, transport = service.connection()
        await asyncio.sleep(0)
        connection.data_received(request(path="/call"))
        connection.data_received(request(path="/call"))
        service.gateway.drain()
        service.calls[0].set_result("it is")
        assert (await settled(transport)).count(b"Connection: close\r\n") == 1
        assert transport.closed
        assert len(service.calls) == 1
        assert service.gateway.in_progress == 0
        connection.connection_lost(None)


def test_heads_are_bounded_and_those_that_come_again_stay() -> None:
    heads: Heads[int] = Heads()
    for number in range(10_000):
        head = Head("GET", "/", CIMultiDictProxy(CIMultiDict[str]()), number, 0)
        heads.keep(str(number).encode(), head)
        assert number == 0 or heads.get(b"0") is not None
    assert len(heads._recent) + len(heads._before) <= 1024
    assert heads.get(b"1") is None


_ENDS: Final[list[tuple[Callable[[asyncio.Future[str]], object], bytes]]] = [
    (lambda call: call.set_result("it is"), b"200"),
    (lambda call: call.set_exception(Rejected("no")), b"429"),
    (lambda call: call.set_exception(ZeroDivisionError()), b"500"),
    (lambda call: call.cancel(), b"500"),
]


@pytest.mark.parametrize("path", ["/call", "/calls"])
async def test_an_answer_that_waits_for_one_call_needs_no_task_and_ends_as_the_call_does(path: str) -> None:
    async with Gone() as service:
        connection, transport = service.connection()
        await asyncio.sleep(0)
        raw = request("" if path == "/calls" else "{}", path=path)
        tasks = len(asyncio.all_tasks())
        for number, (end, status) in enumerate(_ENDS):
            transport.written = b""
            connection.data_received(raw)
            connection.data_received(raw)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert len(service.calls) == 2 * number + 1, "the second one waits for the end of the first"
            assert service.gateway.in_progress == 1
            if path == "/call" and number:
                assert len(asyncio.all_tasks()) == tasks
            end(service.calls[-1])
            while len(service.calls) != 2 * number + 2:
                await asyncio.sleep(0)
            service.calls[-1].set_result("it is")
            answered = await settled(transport)
            assert answered.startswith(b"HTTP/1.1 " + status)
            assert answered.endswith(b"\r\n\r\nit is")
            assert service.gateway.in_progress == 0
        connection.connection_lost(None)

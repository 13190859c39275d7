"""The gateway over real sockets: what arrives in odd pieces, too large, too late, or is no HTTP at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple, Self

import msgspec
import pytest

from actorkit.gateway.handlers import Answer, Endpoint, Gateway, Incoming
from actorkit.gateway.health import health_endpoints
from actorkit.gateway.inputs import BearerTokens
from actorkit.gateway.server import HttpServer
from actorkit.gateway.settings import GatewaySettings


class Echo(msgspec.Struct, forbid_unknown_fields=True):
    """A body of these tests."""

    text: str = ""


class Reply(NamedTuple):
    """An answer, taken apart."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> str:
        assert self.headers["content-type"] == "application/problem+json"
        problem = msgspec.json.decode(self.body)
        assert problem["status"] == self.status
        assert isinstance(problem["retryable"], bool)
        assert problem["title"]
        assert problem["detail"]
        return str(problem["type"].rsplit("/", 1)[-1])


class Client:
    """One connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, text: str | bytes) -> None:
        self.writer.write(text.encode() if isinstance(text, str) else text)

    async def reply(self, *, head_only: bool = False) -> Reply:
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            length = 0 if head_only else int(headers.get("content-length", "0"))
            return Reply(int(first.split()[1]), headers, await self.reader.readexactly(length))

    async def closed(self) -> bool:
        async with asyncio.timeout(10):
            return await self.reader.read(1) == b""


def request(body: str | bytes = "{}", *, path: str = "/echo", method: str = "POST", headers: str = "") -> bytes:
    raw = body.encode() if isinstance(body, str) else body
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n"
    return f"{head}{headers}\r\n".encode() + raw


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0)


class Service:
    """A gateway with an echo, on a port of its own."""

    def __init__(self, **options: Any) -> None:
        self.reason: str | None = None
        self.go = asyncio.Event()
        self.entered = asyncio.Event()
        self.finished = 0
        self.gateway = Gateway(refusals={}, not_ready=lambda: self.reason, **options)
        self.gateway.add(
            Endpoint("POST", "/echo", self.echo, body=Echo, keyed=True),
            Endpoint("GET", "/echo/{text}", self.value),
            Endpoint("POST", "/wait", self.wait, body=Echo),
            Endpoint("POST", "/defect", self.defect, body=Echo),
            *health_endpoints(lambda: self.reason),
        )
        self.server = HttpServer(self.gateway, host="127.0.0.1", port=0)
        self.clients: list[Client] = []

    async def echo(self, incoming: Incoming[Echo]) -> Answer:
        return Answer(msgspec.json.encode({"text": incoming.body.text, "key": incoming.key}))

    async def value(self, incoming: Incoming[None]) -> Answer:
        return Answer(incoming.value.encode(), (("X-More", "1"),), "text/plain")

    async def wait(self, incoming: Incoming[Echo]) -> Answer:
        self.entered.set()
        await self.go.wait()
        self.finished += 1
        return Answer(b"{}")

    async def defect(self, incoming: Incoming[Echo]) -> Answer:
        raise ZeroDivisionError("secret")

    @property
    def connections(self) -> list[Any]:
        server = self.server._runner.server
        assert server is not None
        return list(server.connections)

    async def connect(self) -> Client:
        host, port = self.server.address.split(":")
        client = Client(*await asyncio.open_connection(host, int(port)))
        self.clients.append(client)
        return client

    async def one(self, raw: str | bytes) -> Reply:
        client = await self.connect()
        client.send(raw)
        return await client.reply()

    async def __aenter__(self) -> Self:
        await self.server.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        self.go.set()
        await self.server.stop()
        for client in self.clients:
            client.writer.close()


FAST = GatewaySettings(request_deadline_s=0.2, drain_grace_s=0.01, lingering_s=0.2)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with Service(settings=GatewaySettings(drain_grace_s=0.01)) as service:
        yield service


async def test_an_answer(service: Service) -> None:
    client = await service.connect()
    for text in ("a", "b"):
        client.send(request(f'{{"text":"{text}"}}', headers="Idempotency-Key: k 1\r\n"))
        reply = await client.reply()
        assert (reply.status, msgspec.json.decode(reply.body)) == (200, {"text": text, "key": "k 1"})
        assert reply.headers["content-type"] == "application/json"
        assert reply.headers["date"].endswith("GMT")
        assert "connection" not in reply.headers


async def test_a_value_in_the_path_and_further_headers(service: Service) -> None:
    reply = await service.one(request("", path="/echo/a%20b", method="GET"))
    assert (reply.body, reply.headers["x-more"], reply.headers["content-type"]) == (b"a b", "1", "text/plain")


async def test_a_target_in_absolute_form(service: Service) -> None:
    assert (await service.one(request(path="http://x/echo"))).status == 200


async def test_requests_that_come_at_once_are_answered_in_order(service: Service) -> None:
    client = await service.connect()
    client.send(b"".join(request(f'{{"text":"{n}"}}') for n in range(20)))
    for n in range(20):
        assert msgspec.json.decode((await client.reply()).body)["text"] == str(n)


async def test_a_body_in_pieces(service: Service) -> None:
    client = await service.connect()
    raw = request('{"text":"slow"}')
    for at in range(len(raw)):
        client.send(raw[at : at + 1])
        await client.writer.drain()
        await asyncio.sleep(0)
    assert (await client.reply()).status == 200


async def test_a_chunked_body(service: Service) -> None:
    head = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert (await service.one(head + '5\r\n{"tex\r\n7\r\nt":"a"}\r\n0\r\n\r\n')).status == 200
    assert (await service.one(head + "zz\r\n{}\r\n0\r\n\r\n")).problem == "invalid-request"
    big = "8000\r\n" + " " * 0x8000 + "\r\n"
    assert (await service.one(head + big * 3 + "0\r\n\r\n")).problem == "request-too-large"


@pytest.mark.parametrize("size", [64 * 1024, 64 * 1024 + 1, 300_000])
async def test_the_size_of_a_body(service: Service, size: int) -> None:
    body = b'{"text":"' + b"x" * (size - 11) + b'"}'
    reply = await service.one(request(body))
    if size <= 64 * 1024:
        assert reply.status == 200
    else:
        assert reply.problem == "request-too-large"
        assert reply.headers["connection"] == "close"


async def test_a_body_that_only_claims_to_be_too_large_is_not_waited_for(service: Service) -> None:
    head = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\n\r\n"
    assert (await service.one(head)).problem == "request-too-large"


async def test_a_client_that_waits_for_100_continue(service: Service) -> None:
    client = await service.connect()
    raw = request('{"text":"a"}', headers="Expect: 100-continue\r\n")
    head, body = raw.split(b"\r\n\r\n")
    client.send(head + b"\r\n\r\n")
    assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(body)
    assert (await client.reply()).status == 200


async def test_a_client_that_waits_is_not_told_to_send_what_is_too_large(service: Service) -> None:
    head = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n"
    assert (await service.one(head)).problem == "request-too-large"


async def test_another_expectation(service: Service) -> None:
    assert (await service.one(request(headers="Expect: wonders\r\n"))).problem == "invalid-request"


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (request(path="/nowhere"), "not-found"),
        (request(path="*", method="OPTIONS"), "not-found"),
        (request("", method="GET"), "method-not-allowed"),
        (request("", method="PROPFIND"), "method-not-allowed"),
        (request(path="/echo?x=1"), "invalid-request"),
        (request(path="/echo/a", method="GET"), "invalid-request"),
        (request("nonsense"), "invalid-request"),
        (request('{"other":1}'), "invalid-request"),
        (request(headers="Content-Type: application/json\r\n"), "invalid-request"),
        (request(headers="Idempotency-Key: a\r\nIdempotency-Key: a\r\n"), "invalid-request"),
        (request(headers="Idempotency-Key: \xff\r\n"), "invalid-request"),
        (request(headers="Content-Encoding: gzip\r\n"), "unsupported-media-type"),
        (request().replace(b"application/json", b"text/plain"), "unsupported-media-type"),
        (request().replace(b"Content-Type: application/json\r\n", b""), "unsupported-media-type"),
        (b"nonsense\r\n\r\n", "invalid-request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "invalid-request"),
        (b"GET / HTTP/9.9\r\n\r\n", "invalid-request"),
        (request(headers="Content-Length: 7\r\n"), "invalid-request"),
        (request(headers="Transfer-Encoding: chunked\r\n"), "invalid-request"),
        (request(headers="X: " + "y" * 100_000 + "\r\n"), "invalid-request"),
        (request(path="/" + "y" * 100_000), "invalid-request"),
        (request(headers="".join(f"X{n}: y\r\n" for n in range(1000))), "invalid-request"),
        (request(headers="bad header\r\n"), "invalid-request"),
        (b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", "not-found"),
    ],
)
async def test_what_is_wrong_with_a_request_is_a_problem(service: Service, raw: bytes, problem: str) -> None:
    reply = await service.one(raw)
    assert reply.problem == problem
    # Whatever it was, the next one is served.
    assert (await service.one(request())).status == 200


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (request(path="/" + "y" * 10_000), "the request target (its URL) has at most 8190 bytes"),
        (request(headers="X: " + "y" * 10_000 + "\r\n"), "the value of a header at most 8190"),
        (request(headers="".join(f"X{n}: y\r\n" for n in range(200))), "a request has at most 128 headers"),
        (request(headers="Content-Encoding: gzip\r\n"), "the body must not be compressed"),
    ],
)
async def test_a_limit_that_a_request_is_beyond_is_named(service: Service, raw: bytes, words: str) -> None:
    assert words in msgspec.json.decode((await service.one(raw)).body)["detail"]


async def test_limits_of_heads_can_be_set() -> None:
    settings = GatewaySettings(target_max_bytes=20_000, header_max_bytes=100, headers_max=3, drain_grace_s=0.01)
    async with Service(settings=settings) as service:
        assert (await service.one(request(path="/echo?" + "y" * 10_000))).problem == "invalid-request"
        detail = msgspec.json.decode((await service.one(request(headers="X: " + "y" * 200 + "\r\n"))).body)["detail"]
        assert "at most 100" in detail
        detail = msgspec.json.decode((await service.one(request(headers="A: 1\r\nB: 2\r\n"))).body)["detail"]
        assert detail == "a request has at most 3 headers"


async def test_a_method_that_is_not_allowed_says_which_are(service: Service) -> None:
    assert (await service.one(request("", method="GET"))).headers["allow"] == "POST"


async def test_an_answer_to_head_has_no_body(service: Service) -> None:
    client = await service.connect()
    client.send(request("", path="/health/live", method="HEAD"))
    reply = await client.reply(head_only=True)
    assert (reply.status, reply.headers["allow"]) == (405, "GET")
    client.send(request())
    assert (await client.reply()).status == 200


async def test_http_1_0(service: Service) -> None:
    client = await service.connect()
    client.send(request().replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert (await client.reply()).status == 200
    assert await client.closed()
    client = await service.connect()
    client.send(request(headers="Connection: keep-alive\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert (await client.reply()).headers["connection"] == "keep-alive"


async def test_a_defect_is_an_internal_error_that_shows_nothing(service: Service) -> None:
    client = await service.connect()
    client.send(request(path="/defect"))
    reply = await client.reply()
    assert reply.problem == "internal-error"
    assert b"secret" not in reply.body
    client.send(request())
    assert (await client.reply()).status == 200


async def test_a_client_that_hangs_up_cancels_nothing(service: Service) -> None:
    client = await service.connect()
    client.send(request(path="/wait"))
    await service.entered.wait()
    connection = service.connections[0]
    client.writer.transport.abort()
    await until(lambda: connection.transport is None)
    service.go.set()
    await until(lambda: service.finished == 1 and service.gateway.in_progress == 0)


async def test_a_client_that_hangs_up_while_it_sends_is_no_defect(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    client = await service.connect()
    client.send(request('{"text":"aaaaaaaa"}')[:-5])
    await client.writer.drain()
    client.writer.transport.abort()
    assert (await service.one(request())).status == 200
    assert "internal_error" not in "".join(capsys.readouterr())


async def test_a_body_that_does_not_arrive() -> None:
    async with Service(settings=FAST) as service:
        client = await service.connect()
        client.send(request('{"text":"aaaaaaaa"}')[:-5])
        assert (await client.reply()).problem == "invalid-request"
        assert await client.closed()


async def test_while_the_node_cannot_serve_only_health_answers(service: Service) -> None:
    service.reason = "it is joining"
    refused = await service.one(request())
    assert (refused.status, refused.problem) == (503, "unavailable")
    assert (await service.one(request("", path="/health/live", method="GET"))).status == 200
    ready = await service.one(request("", path="/health/ready", method="GET"))
    assert ready.problem == "unavailable"
    assert "it is joining" in ready.body.decode()
    service.reason = None
    assert (await service.one(request("", path="/health/ready", method="GET"))).status == 200


async def test_too_many_requests_at_once() -> None:
    async with Service(settings=GatewaySettings(requests_max=1, drain_grace_s=0.01)) as service:
        client = await service.connect()
        client.send(request(path="/wait"))
        await service.entered.wait()
        refused = await service.one(request())
        assert (refused.status, refused.problem, refused.headers["retry-after"]) == (429, "overloaded", "1")
        assert (await service.one(request("", path="/health/live", method="GET"))).status == 200
        service.go.set()
        assert (await client.reply()).status == 200
        assert (await service.one(request())).status == 200


async def test_tokens_guard_everything_but_health() -> None:
    async with Service(tokens=BearerTokens(["s3cret"]), settings=FAST) as service:
        for raw in (request(), request(path="/nowhere"), request("", method="GET")):
            reply = await service.one(raw)
            assert (reply.status, reply.problem) == (401, "unauthenticated")
            assert reply.headers["www-authenticate"] == "Bearer"
        assert (await service.one(request(headers="Authorization: Bearer wrong\r\n"))).status == 401
        assert (await service.one(request(headers="Authorization: Bearer s3cret\r\n"))).status == 200
        assert (await service.one(request("", path="/health/live", method="GET"))).status == 200


async def test_stopping_finishes_what_is_in_progress_and_closes_what_is_idle() -> None:
    async with Service(settings=GatewaySettings(drain_grace_s=0.05)) as service:
        busy, idle = await service.connect(), await service.connect()
        idle.send(request())
        assert (await idle.reply()).status == 200
        busy.send(request(path="/wait"))
        await service.entered.wait()
        stopping = asyncio.create_task(service.server.stop())
        await until(lambda: service.gateway.draining)
        idle.send(request())
        last = await idle.reply()
        assert (last.status, last.headers["connection"]) == (200, "close")
        assert await idle.closed()
        service.go.set()
        assert (await busy.reply()).status == 200
        await stopping
        with pytest.raises(OSError, match=r"Connect|refused"):
            await service.connect()


async def test_a_taken_port_is_an_os_error(service: Service) -> None:
    other = HttpServer(service.gateway, host="127.0.0.1", port=int(service.server.address.split(":")[1]))
    with pytest.raises(OSError, match="in use"):
        await other.start()


async def test_requests_are_counted(service: Service) -> None:
    await service.one(request())
    await service.one(request("x"))
    await service.one(request(path="/nowhere"))
    await service.one("what is that\r\n\r\n")
    text = service.gateway.metrics.text()[0].decode()
    assert 'problem="invalid-request",route="/echo",status="400"} 1.0' in text
    assert 'problem="",route="/echo",status="200"} 1.0' in text
    assert 'problem="not-found",route="",status="404"} 1.0' in text
    assert 'problem="invalid-request",route="",status="400"} 1.0' in text

"""The way of a request: from aiohttp's form to a handler that gets only well-formed input, and back.

Everything that every request needs is done here, by plain calls in one order: authentication, the path, the query, the
body's size, type and content, the deadline; an error of whatever origin becomes a problem; how it ended is counted. A
handler is a function from an ``Incoming`` to an ``Answer``, ``async`` where it has to wait.

A client that hangs up cancels nothing: a handler runs to its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping
from typing import Any, Final, Generic, TypeVar

import msgspec
import structlog
from aiohttp import web
from multidict import CIMultiDictProxy

from actorkit.errors import Rejected
from actorkit.gateway.bodies import BodyDecoder
from actorkit.gateway.event_stream import EventStream, EventStreams
from actorkit.gateway.heads import Heads
from actorkit.gateway.inputs import BearerTokens, check_json_content_type, parse_idempotency_key, single
from actorkit.gateway.metrics import Metrics, Reading
from actorkit.gateway.problems import (
    INVALID_REQUEST,
    OVERLOADED,
    REQUEST_TOO_LARGE,
    UNAVAILABLE,
    UNSUPPORTED_MEDIA_TYPE,
    Problem,
    ProblemType,
    problem_of,
)
from actorkit.gateway.responses import Response, problem_response
from actorkit.gateway.routes import Router, parse_query
from actorkit.gateway.settings import GatewaySettings

__all__ = ["Answer", "Endpoint", "Gateway", "Incoming", "Pending", "Route", "Turn"]

B = TypeVar("B")
R = TypeVar("R")
S = TypeVar("S")

OPEN_PREFIX: Final = "/health/"
"""What needs no token: whoever restarts or balances nodes has none."""

_NO_METHODS: Final[dict[str, Any]] = {}
_VERSIONS: Final = ((1, 0), (1, 1))

_log = structlog.get_logger("actorkit.gateway")


class Incoming(Generic[B]):
    """A request whose form has been checked."""

    __slots__ = ("_loop", "body", "deadline", "headers", "key", "query", "value")

    def __init__(self, loop: asyncio.AbstractEventLoop, headers: CIMultiDictProxy[str], deadline: float) -> None:
        self._loop = loop
        self.headers = headers
        self.deadline = deadline
        self.value = ""
        self.query: dict[str, str] = {}
        self.key: str | None = None
        self.body: B

    def remaining_s(self) -> float:
        """What is left of the request's deadline. Never quite 0, so that it can be the deadline of a call."""
        return max(0.001, self.deadline - self._loop.time())

    def header(self, name: str) -> str | None:
        """Raises ``Problem`` if the header is there twice."""
        return single(name, self.headers.getall(name, []))


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What a handler answers with. A body in parts is put together once, with the head."""

    body: bytes | tuple[bytes, ...]
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"


class Pending(Generic[S, R]):
    """The answer of a handler that waits for one call only: it can be given without a task that waits."""

    __slots__ = ("_answered", "_refused", "_subject", "call")

    def __init__(
        self,
        call: asyncio.Future[R],
        subject: S,
        answered: Callable[[S, R], Answer],
        refused: Callable[[S, Rejected], Problem],
    ) -> None:
        """``call``: as ``Call.begin`` returns it. What it replies is ``answered``, where it is rejected ``refused``;
        both are told what the request is about."""
        self.call: asyncio.Future[Any] = call
        self._subject = subject
        self._answered = answered
        self._refused = refused

    def answer(self) -> Answer:
        """Once the call has ended. Raises what it has ended in."""
        if self.call.cancelled():
            raise RuntimeError("the call was given up by somebody other than the client")
        try:
            reply = self.call.result()
        except Rejected as refusal:
            raise self._refused(self._subject, refusal) from None
        return self._answered(self._subject, reply)

    def __await__(self) -> Generator[Any, None, Answer]:
        try:
            yield from asyncio.wait((self.call,)).__await__()
        except asyncio.CancelledError:
            # Nobody waits any more, and how the call ends is nobody's defect.
            self.call.add_done_callback(_look)
            raise
        return self.answer()


def _look(call: asyncio.Future[Any]) -> None:
    if not call.cancelled():
        call.exception()


class Endpoint(Generic[B]):
    """One method of one path."""

    def __init__(
        self,
        method: str,
        path: str,
        handle: Callable[[Incoming[B]], Answer | Awaitable[Answer | EventStream]],
        *,
        body: type[B] | None = None,
        query: tuple[str, ...] = (),
        keyed: bool = False,
        always: bool = False,
        streams: bool = False,
    ) -> None:
        """``handle`` may answer at once, return a ``Pending``, or be ``async``. ``keyed``: takes an
        ``Idempotency-Key``; ``always``: answers also while the node cannot serve; ``streams``: answers with an
        ``EventStream``."""
        self.method = method
        self.path = path
        self.handle = handle
        self.decoder = None if body is None else BodyDecoder(body)
        self.query = frozenset(query)
        self.keyed = keyed
        self.always = always
        self.streams = streams


class Route:
    """An endpoint with what the gateway keeps about it."""

    __slots__ = ("count", "endpoint")

    def __init__(self, endpoint: Endpoint[Any], metrics: Metrics) -> None:
        self.endpoint = endpoint
        self.count = metrics.route(endpoint.method, endpoint.path).count


class Turn(Incoming[Any]):
    """One request, from its head to its answer."""

    __slots__ = ("_gateway", "_method", "_started", "_target", "count")

    def __init__(self, gateway: Gateway, method: str, target: str, headers: CIMultiDictProxy[str]) -> None:
        loop = gateway.loop
        self._gateway = gateway
        self._method = method
        self._target = target
        self._started = started = loop.time()
        super().__init__(loop, headers, started + gateway.settings.request_deadline_s)
        self.count = gateway.count_unrouted

    def answered(self, answer: Answer | EventStream) -> Response | EventStream:
        """The answer, ready to be sent."""
        self.count(200, "", self._gateway.loop.time() - self._started)
        if isinstance(answer, EventStream):
            return answer
        return Response(answer.body, answer.content_type, answer.headers)

    def failed(self, error: Exception) -> Response:
        """Whatever it is, the client gets a problem."""
        gateway = self._gateway
        problem = problem_of(error, refusals=gateway.refusals, keyed=self.key is not None)
        if problem.type.status == 500:
            _log.error("http.internal_error", method=self._method, path=self._target, error=repr(error), exc_info=error)
        self.count(problem.type.status, problem.type.name, gateway.loop.time() - self._started)
        return problem_response(problem)


class Gateway:
    """Answers aiohttp's requests from a set of endpoints. An instance is aiohttp's low-level handler."""

    def __init__(
        self,
        *,
        refusals: Mapping[str, ProblemType],
        not_ready: Callable[[], str | None],
        tokens: BearerTokens | None = None,
        settings: GatewaySettings = GatewaySettings(),  # noqa: B008 - frozen
    ) -> None:
        self.settings = settings
        self.in_progress = 0
        self.draining = False
        self.metrics = Metrics(in_progress=lambda: self.in_progress)
        self.streams = EventStreams(settings)
        self.metrics.readings.append(
            Reading("http_streams", "Streams of events that are open.", "gauge", lambda: len(self.streams))
        )
        self.refusals = refusals
        self.count_unrouted = self.metrics.route("", "").count
        self.loop = asyncio.get_running_loop()
        self.heads: Heads[Route] = Heads()
        """Of requests that were as they must be."""
        self._not_ready = not_ready
        self._tokens = tokens
        self._router: Router[Route] = Router()

    def add(self, *endpoints: Endpoint[Any]) -> None:
        for endpoint in endpoints:
            self._router.add(endpoint.method, endpoint.path, Route(endpoint, self.metrics))

    def drain(self) -> None:
        """From now on every answer closes its connection, and streams end."""
        self.draining = True
        self.streams.end()

    async def __call__(self, http: web.BaseRequest) -> web.StreamResponse:
        turn = Turn(self, http.method, http.raw_path, http.headers)
        self.in_progress += 1
        response: Response | EventStream
        try:
            route = self._route(http, turn)
            body = await self._read(http, route.endpoint, turn)
            handled = self.handle(route.endpoint, turn, body)
            response = turn.answered(handled if isinstance(handled, Answer) else await handled)
        except Exception as error:
            if isinstance(error, ConnectionError) and http.transport is None:
                raise  # the client hung up while sending: there is nobody to answer
            response = turn.failed(error)
        finally:
            self.in_progress -= 1
        if self.draining:
            response.force_close()
        return response.for_aiohttp()

    def quick_route(self, method: str, target: str) -> Route | None:
        """The route of a request that needs nothing but its body to be handled, if it is such a one."""
        route = self._router.fixed.get(target, _NO_METHODS).get(method)
        return None if route is None or route.endpoint.streams or self.draining else route

    def is_right(self, route: Route, headers: CIMultiDictProxy[str]) -> bool:
        """Whether a head is as it must be, and likely to come again: then ``handle_known`` need not look at it."""
        endpoint = route.endpoint
        if "Idempotency-Key" in headers or int(headers.get("Content-Length", "0")) > self.settings.body_max_bytes:
            return False
        try:
            self._check_token(endpoint.path, headers)
            if endpoint.decoder is not None:
                _check_content(headers)
        except Problem:
            return False
        return True

    def handle_known(self, route: Route, turn: Turn, body: bytes) -> Answer | Awaitable[Answer | EventStream]:
        """As ``handle_quickly``, for a head that ``is_right``."""
        endpoint = route.endpoint
        turn.count = route.count
        if not endpoint.always:
            self._admit()
        return _hand_over(endpoint, turn, body)

    def handle_quickly(self, route: Route, turn: Turn, body: bytes) -> Answer | Awaitable[Answer | EventStream]:
        """Handles a request that has arrived entirely; its route is from ``quick_route``."""
        turn.count = route.count
        self._check_token(route.endpoint.path, turn.headers)
        if not route.endpoint.always:
            self._admit()
        if len(body) > self.settings.body_max_bytes:
            raise self._too_large()
        return self.handle(route.endpoint, turn, body)

    def handle(
        self, endpoint: Endpoint[Any], incoming: Incoming[Any], body: bytes
    ) -> Answer | Awaitable[Answer | EventStream]:
        """Checks what a request's path has not said, and calls the endpoint's handler."""
        headers = incoming.headers
        if endpoint.decoder is not None:
            _check_content(headers)
        if endpoint.keyed:
            incoming.key = parse_idempotency_key(headers.getall("Idempotency-Key", []))
        return _hand_over(endpoint, incoming, body)

    # ------------------------------------------------------------------------------------------------------- way in

    def _route(self, http: web.BaseRequest, turn: Turn) -> Route:
        raw_path, raw_query = http.raw_path, ""
        if raw_path not in self._router.fixed:
            url = http.rel_url
            raw_path, raw_query = url.raw_path, url.raw_query_string
        self._check_token(raw_path, http.headers)
        if "#" in http.raw_path or http.version not in _VERSIONS:
            raise Problem(INVALID_REQUEST, "a request is HTTP/1.0 or HTTP/1.1, and its target has no fragment")
        route, turn.value = self._router.find(http.method, raw_path)
        turn.count = route.count
        if raw_query:
            turn.query = parse_query(raw_query, route.endpoint.query)
        return route

    async def _read(self, http: web.BaseRequest, endpoint: Endpoint[Any], incoming: Incoming[Any]) -> bytes:
        """The body."""
        if not endpoint.always:
            self._admit()
        length = http.content_length
        if length is not None and length > self.settings.body_max_bytes:
            raise self._too_large()
        if "Expect" in http.headers:
            await _expect(http)
        return await self._body(http, incoming.deadline)

    def _check_token(self, path: str, headers: CIMultiDictProxy[str]) -> None:
        if self._tokens is not None and not path.startswith(OPEN_PREFIX):
            self._tokens.check(headers.getall("Authorization", []))

    def _admit(self) -> None:
        if self.in_progress > self.settings.requests_max:
            detail = f"{self.settings.requests_max} requests are in progress already: this one was not executed"
            raise Problem(OVERLOADED, detail, headers={"Retry-After": "1"})
        reason = self._not_ready()
        if reason is not None:
            raise Problem(UNAVAILABLE, f"this node cannot serve: {reason}")

    async def _body(self, http: web.BaseRequest, deadline: float) -> bytes:
        content = http.content
        try:
            if content.is_eof():
                body = content.read_nowait()
            else:
                body = await self._slow_body(content, deadline)
        except (web.RequestPayloadError, ValueError) as error:
            raise Problem(INVALID_REQUEST, "the body's transfer encoding is malformed") from error
        if len(body) > self.settings.body_max_bytes:
            raise self._too_large()
        return body

    async def _slow_body(self, content: Any, deadline: float) -> bytes:
        """A body that has not arrived entirely yet; read only as far as it is not too large."""
        body = bytearray()
        try:
            async with asyncio.timeout_at(deadline):
                while len(body) <= self.settings.body_max_bytes and (chunk := await content.readany()):
                    body += chunk
        except TimeoutError:
            raise Problem(
                INVALID_REQUEST,
                f"the body did not arrive within {self.settings.request_deadline_s:g} s",
                closes=True,
            ) from None
        return bytes(body)

    def _too_large(self) -> Problem:
        detail = f"a request body has at most {self.settings.body_max_bytes} bytes"
        return Problem(REQUEST_TOO_LARGE, detail, closes=True)


def _check_content(headers: CIMultiDictProxy[str]) -> None:
    """Raises ``Problem`` unless the body is JSON as it is."""
    check_json_content_type(headers.getall("Content-Type", []))
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem(UNSUPPORTED_MEDIA_TYPE, "the body must not be compressed: send it without a Content-Encoding")
    if headers.get("Transfer-Encoding", "chunked").lower() != "chunked":
        raise Problem(UNSUPPORTED_MEDIA_TYPE, "the body must not be compressed: the only Transfer-Encoding is chunked")


def _hand_over(
    endpoint: Endpoint[Any], incoming: Incoming[Any], body: bytes
) -> Answer | Awaitable[Answer | EventStream]:
    if endpoint.decoder is not None:
        incoming.body = endpoint.decoder.decode(body)
    elif body:
        raise Problem(INVALID_REQUEST, "this request takes no body")
    return endpoint.handle(incoming)


async def _expect(http: web.BaseRequest) -> None:
    """A client that waits before it sends its body is told to go ahead."""
    if http.headers.get("Expect", "").lower() != "100-continue":
        raise Problem(INVALID_REQUEST, "the only expectation that can be met is 100-continue")
    await http.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    # aiohttp takes any output for the beginning of an answer.
    http.writer.output_size = 0

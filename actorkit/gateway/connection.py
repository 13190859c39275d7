"""One connection: aiohttp's protocol, with problems for what is not even HTTP, and a short cut for most requests.

aiohttp wakes a task for each request, makes a request and a writer, and runs the handler in a second task. That costs
more than all that the gateway does. So a request that has arrived entirely while the connection is idle (or about to
be), for a fixed path and with nothing unusual about it, is answered without them: at once where its handler answers at
once, else by one task. Where its head has come before, byte by byte, it is not even parsed again. Whatever is not so
(bodies in pieces, pipelined requests, HTTP/1.0, ``Expect``, streams, what is malformed, a client that does not read)
goes aiohttp's way, and so does everything where aiohttp's inside is not as it is known here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import structlog
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD
from multidict import CIMultiDictProxy

from actorkit.gateway.event_stream import EventStream
from actorkit.gateway.handlers import Answer, Gateway, Pending, Route, Turn
from actorkit.gateway.heads import END, Head
from actorkit.gateway.problems import INTERNAL_ERROR, INVALID_REQUEST, Problem
from actorkit.gateway.responses import Response, problem_response

__all__ = ["Connection"]

_log = structlog.get_logger("actorkit.gateway")

_INSIDE: Final = (
    *("_parser", "_messages", "_waiter", "_paused", "_reading_paused", "_keepalive_timeout"),
    *("_next_keepalive_close_time", "_process_keepalive", "_request_in_progress", "_handler_waiter"),
    *("_pause_transport_reading", "_resume_transport_reading", "_force_close"),
)
"""What the short cut needs to know of aiohttp's protocol."""
_KNOWN_INSIDE: Final = all(hasattr(web.RequestHandler, name) for name in _INSIDE)
_NOTHING: Final[tuple[tuple[()], bool, bytes]] = ((), False, b"")
_NO_PARTS: Final = (b"", b"", b"")


class Connection(web.RequestHandler):
    """A client's connection."""

    __slots__ = ("_answering", "_between", "_held", "_looking", "_lost", "_pending", "gateway", "short_cuts")

    def __init__(self, manager: web.Server, gateway: Gateway, **options: Any) -> None:
        super().__init__(manager, **options)
        self.gateway = gateway
        self._answering: asyncio.Future[Any] | None = None
        """What the request waits for that has taken the short cut and has to wait."""
        self._pending: tuple[Turn, Pending[Any, Any]] | None = None
        """That request, if it waits for one call only. An idle connection keeps nothing of its last one."""
        self._looking: asyncio.Handle | None = None
        """Looks at what has arrived while aiohttp was not waiting yet."""
        self._held = b""
        """What has arrived meanwhile, in either case: one piece, since nothing is read, or held, after that."""
        self._lost: Callable[[], None] | None = None
        self.short_cuts = 0
        """Requests that took it."""
        self._between = _KNOWN_INSIDE and hasattr(self._parser, "message_consumed")
        """aiohttp's parser has had nothing but entire requests, each in one piece: the next bytes begin another one."""
        if self._between:
            self._parser = cast("Any", _Parser(self, self._parser))

    def when_lost(self, callback: Callable[[], None]) -> None:
        """Calls it when the client has gone."""
        self._lost = callback

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self._lost is not None:
            self._lost()

    def _process_keepalive(self) -> None:
        if self._answering is not None or self._looking is not None:
            # aiohttp knows nothing of this request, and would take the connection for an idle one.
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

    # -------------------------------------------------------------------------------------------------- the short cut

    def data_received(self, data: bytes) -> None:
        if self._looking is not None and data:
            # Pieces stay apart, since what is malformed takes all of its piece with it.
            self._looking.cancel()
            self._look_again()
        if self._answering is not None:
            if data:
                self._held += data
                self._pause_transport_reading()
            return
        if self._between:
            raw, end, body = data.partition(END)
            head = self.gateway.heads.get(raw) if end else None
            if head is not None and len(body) == head.body_bytes and self._awaits_request and not self.gateway.draining:
                turn = Turn(self.gateway, head.method, head.target, head.headers)
                self._handle(self.gateway.handle_known, head.route, turn, body)
                return
            if data and self._waiter is None and not self._messages and not self._request_in_progress:
                # aiohttp has heard of the client, or has answered it, and waits for a request only a turn of the loop
                # later. A quick client would find it on its way each time, and never get the short cut.
                self._held = data
                self._looking = self._loop.call_soon(self._look_again)
                return
        super().data_received(data)

    def _look_again(self) -> None:
        self._looking = None
        held, self._held = self._held, b""
        if self._awaits_request:
            self.data_received(held)
        else:
            # It does something else, and gets what has arrived.
            super().data_received(held)

    def feed(self, parse: Callable[[bytes], Any], data: bytes) -> Any:
        """What aiohttp gets to see of what ``parse`` finds: messages, whether the connection is upgraded, what is left.

        A request that takes the short cut is none of its business: then it is ``_NOTHING``.
        """
        parsed = parse(data)
        messages = parsed[0]
        if len(messages) != 1 or parsed[1]:
            # (aiohttp asks with nothing at all whether there is more of what has come before.)
            self._between = self._between and not data
            return parsed
        message, payload = messages[0]
        raw, end, body = data.partition(END) if self._between else _NO_PARTS
        self._between = bool(end) and payload.is_eof() and _is_entire(raw, message.headers, len(body))
        route = self._answer(message, payload)
        if route is None:
            return parsed
        if self._between and self.gateway.is_right(route, message.headers):
            self.gateway.heads.keep(raw, Head(message.method, message.path, message.headers, route, len(body)))
        return _NOTHING

    @property
    def _awaits_request(self) -> bool:
        """Whether nothing is in the way of the next one."""
        waiter = self._waiter
        return (
            waiter is not None
            and not waiter.done()
            and not self._messages
            and not self._paused
            and not self._reading_paused
            and not self._force_close
            and self.transport is not None
        )

    def _answer(self, message: Any, payload: Any) -> Route | None:
        """Answers a request, or sees to it. Returns the route of one that takes the short cut."""
        body = _body(payload) if self._awaits_request else None
        if body is None or message.should_close or message.upgrade:
            return None
        headers = message.headers
        if message.version != (1, 1) or "Expect" in headers:
            return None
        gateway = self.gateway
        route = gateway.quick_route(message.method, message.path)
        if route is not None:
            turn = Turn(gateway, message.method, message.path, headers)
            self._handle(gateway.handle_quickly, route, turn, body)
        return route

    def _handle(
        self,
        handle: Callable[[Route, Turn, bytes], Answer | Awaitable[Answer | EventStream]],
        route: Route,
        turn: Turn,
        body: bytes,
    ) -> None:
        self.short_cuts += 1
        gateway = self.gateway
        gateway.in_progress += 1
        try:
            handled = handle(route, turn, body)
            if not isinstance(handled, Answer):
                self._request_in_progress = True
                if isinstance(handled, Pending):
                    self._pending = turn, handled
                    self._answering = handled.call
                    handled.call.add_done_callback(self._replied)
                else:
                    self._answering = self._loop.create_task(self._finish(turn, handled))
                return
            response = turn.answered(handled)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a problem
            response = turn.failed(error)
        gateway.in_progress -= 1
        self._send(response)

    def _replied(self, _: asyncio.Future[Any]) -> None:
        assert self._pending is not None
        turn, pending = self._pending
        self._pending = None
        response: Response | EventStream
        try:
            response = turn.answered(pending.answer())
        except Exception as error:  # noqa: BLE001 - as above
            response = turn.failed(error)
        self._end(response)

    async def _finish(self, turn: Turn, handled: Awaitable[Answer | EventStream]) -> None:
        try:
            response = turn.answered(await handled)
        except Exception as error:  # noqa: BLE001 - as above
            response = turn.failed(error)
        self._end(response)

    def _end(self, response: Response | EventStream) -> None:
        self._answering = None
        self.gateway.in_progress -= 1
        # As aiohttp does: whoever shuts down waits for requests that are in progress.
        self._request_in_progress = False
        try:
            self._send(response)
        finally:
            if self._handler_waiter is not None and not self._handler_waiter.done():
                self._handler_waiter.set_result(None)
            self._go_on()

    def _go_on(self) -> None:
        held, self._held = self._held, b""
        # After an answer that says that it closes the connection, nothing more is to be executed.
        if held and self.transport is not None and not self.transport.is_closing():
            self._resume_transport_reading()
            self.data_received(held)

    def _send(self, response: Response | EventStream) -> None:
        assert isinstance(response, Response)
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if self.gateway.draining:
            response.force_close()
        transport.write(response.encode())
        if response.keep_alive is False:
            transport.close()
        else:
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout

    # ---------------------------------------------------------------------------------------------------- not even HTTP

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has been begun already")
        if self.transport is None:
            raise ConnectionError("the client has hung up") from exc
        if status >= 500:
            _log.error("http.connection_failed", error=repr(exc), exc_info=exc)
            problem = Problem(INTERNAL_ERROR, "the request ran into a defect of the service")
        else:
            # Not worth a line each: whoever scans ports would fill the disk.
            _log.debug("http.malformed", peer=str(request.remote), error=repr(exc))
            problem = Problem(INVALID_REQUEST, self._why_malformed(exc))
        self.gateway.count_unrouted(problem.type.status, problem.type.name, 0.0)
        response = problem_response(problem)
        response.force_close()
        return response.for_aiohttp()

    def _why_malformed(self, error: BaseException | None) -> str:
        settings = self.gateway.settings
        if isinstance(error, LineTooLong):
            return (
                f"the request target (its URL) has at most {settings.target_max_bytes} bytes, and the name and the "
                f"value of a header at most {settings.header_max_bytes} each"
            )
        if isinstance(error, BadHttpMessage) and error.message.startswith("Too many headers"):
            return f"a request has at most {settings.headers_max} headers"
        return "this is not a well-formed HTTP request"


def _body(payload: Any) -> bytes | None:
    """A body that has arrived entirely. (The payload's own methods to read also see to the flow of what is to come.)"""
    if payload is EMPTY_PAYLOAD:
        return b""
    if not payload.is_eof() or payload.exception() is not None:
        return None
    pieces = getattr(payload, "_buffer", None)
    return None if pieces is None else b"".join(pieces)


class _Parser:
    """Stands before aiohttp's parser, so that the connection sees what it finds before aiohttp does."""

    __slots__ = ("_connection", "_parser")

    def __init__(self, connection: Connection, parser: Any) -> None:
        self._connection = connection
        self._parser = parser

    def feed_data(self, data: bytes) -> Any:
        parsed = self._connection.feed(self._parser.feed_data, data)
        if parsed is _NOTHING:
            self._parser.message_consumed()
        return parsed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)


def _is_entire(raw: bytes, headers: CIMultiDictProxy[str], body_bytes: int) -> bool:
    """Whether there is no other way to read it than as one head and a body of so many bytes."""
    lines = raw.count(b"\r\n")
    return (
        raw.count(b"\n") == lines
        and raw.count(b"\r") == lines
        and "Transfer-Encoding" not in headers
        and headers.getall("Content-Length", ["0"]) == [str(body_bytes)]
    )

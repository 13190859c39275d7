"""Answers on their way to the client: head and body in one write.

aiohttp's own response class takes a third of the time of a whole small request, most of it for what an answer in JSON
never uses (cookies, compression, streaming). This one has the few members that aiohttp's server touches.
"""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus
from time import time
from typing import Final, cast

import msgspec
from aiohttp import web

from actorkit.gateway.problems import PROBLEM_JSON, Problem

__all__ = ["Response", "problem_response"]

_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}


class _Heads:
    """The beginnings of heads, which change once a second. Bounded by the statuses and content types that there are."""

    def __init__(self) -> None:
        self._second = -1
        self._heads: dict[tuple[int, str], str] = {}

    def get(self, status: int, content_type: str) -> str:
        second = int(time())
        if second != self._second:
            self._second = second
            self._heads.clear()
        head = self._heads.get((status, content_type))
        if head is None:
            date = formatdate(second, usegmt=True)
            head = f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {content_type}\r\nDate: {date}\r\n"
            self._heads[status, content_type] = head
        return head


_heads: Final = _Heads()


class Response(msgspec.Struct, eq=False):
    """A complete answer. Header values are ours, never a client's, and so need no check."""

    body: bytes | tuple[bytes, ...]
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()
    status: int = 200
    keep_alive: bool | None = None
    """Read by aiohttp after the answer has been sent: whether the connection stays open."""

    def force_close(self) -> None:
        self.keep_alive = False

    def encode(self, *, minor: int = 1, head_only: bool = False) -> bytes:
        """All of it, for HTTP/1.``minor``; unless ``keep_alive`` is false, the connection stays open."""
        body = self.body
        length = len(body) if isinstance(body, bytes) else sum(map(len, body))
        head = f"{_heads.get(self.status, self.content_type)}Content-Length: {length}\r\n"
        for name, value in self.headers:
            head += f"{name}: {value}\r\n"
        if self.keep_alive is False:
            head += "Connection: close\r\n"
        elif minor == 0:
            head += "Connection: keep-alive\r\n"
        encoded_head = f"{head}\r\n".encode("latin-1")
        if head_only:
            return encoded_head
        return encoded_head + body if isinstance(body, bytes) else b"".join((encoded_head, *body))

    async def prepare(self, http: web.BaseRequest) -> None:
        """Sends everything."""
        wanted = http.keep_alive
        if self.keep_alive is None:
            self.keep_alive = wanted
        await http.writer.write(self.encode(minor=http.version.minor, head_only=http.method == "HEAD"))

    async def write_eof(self) -> None:
        """Nothing is left to send."""

    def for_aiohttp(self) -> web.StreamResponse:
        """This, as what aiohttp's server takes it for."""
        return cast("web.StreamResponse", self)


def problem_response(problem: Problem) -> Response:
    headers = tuple(problem.headers.items())
    response = Response(problem.body(), PROBLEM_JSON, headers, problem.type.status)
    if problem.closes:
        response.force_close()
    return response

"""The HTTP client of a replay: one command, sent until it has an answer.

A broken connection, an overload and an unknown outcome are all met in the same way: the same request goes out again,
with the same ``Idempotency-Key``, to the next node, until somebody answers or the patience ends. This is what any
client of the service should do.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple

import aiohttp
import msgspec

__all__ = [
    "Answer",
    "AvailabilityAnswer",
    "GaveUp",
    "PoolAnswer",
    "Problem",
    "ReleaseAnswer",
    "ReserveAnswer",
    "ServiceClient",
    "ShownAnswer",
]

BACKOFF_MIN_S = 0.05
BACKOFF_MAX_S = 2.0
ATTEMPT_TIMEOUT_S = 15.0
"""More than the service's own deadline, so that it is the service who says how a request ended."""


class ReserveAnswer(msgspec.Struct, frozen=True):
    """What a replay reads of the answer to ``POST /rpc/reserve``."""

    reservation_id: str
    remaining: int
    version: int


class ReleaseAnswer(msgspec.Struct, frozen=True):
    """What a replay reads of the answer to ``POST /rpc/release``."""

    released: int
    remaining: int
    version: int


class PoolAnswer(msgspec.Struct, frozen=True):
    """What a replay reads of a pool."""

    capacity: int
    reserved: int
    remaining: int


class AvailablePool(msgspec.Struct, frozen=True):
    """What a replay reads of a pool in an availability answer."""

    pool_id: str
    capacity: int
    remaining: int


class AvailabilityAnswer(msgspec.Struct, frozen=True):
    """What a replay reads of the answer to ``POST /rpc/availability``."""

    pools: list[AvailablePool]


class ShownPool(msgspec.Struct, frozen=True):
    """The same, with the version that is shown."""

    pool_id: str
    remaining: int
    version: int


class AsOf(msgspec.Struct, frozen=True):
    """How old an availability answer may be."""

    oldest_source_ms: int


class ShownAnswer(msgspec.Struct, frozen=True):
    """What a replay reads of an availability answer to check its age."""

    pools: list[ShownPool]
    as_of: AsOf


class Problem(msgspec.Struct, frozen=True):
    """What a replay reads of an error (RFC 9457)."""

    type: str = ""
    detail: str = ""
    retryable: bool = False
    remaining: int = 0

    @property
    def name(self) -> str:
        return self.type.rpartition("/")[2]


class Answer(NamedTuple):
    """A final answer, and what it took to get it. The times are seconds since 1970."""

    status: int
    body: bytes
    attempts: int
    started_s: float
    ended_s: float

    @property
    def ok(self) -> bool:
        return self.status == HTTPStatus.OK

    @property
    def problem(self) -> Problem:
        """The error's description; an empty one where the body is no problem document."""
        return _problem(self.body)


class GaveUp(Exception):
    """Nobody gave a final answer within the patience."""

    def __init__(self, what: str, patience_s: float, last: str) -> None:
        super().__init__(what, patience_s, last)
        self.what = what
        self.patience_s = patience_s
        self.last = last

    def __str__(self) -> str:
        return f"{self.what}: no final answer for {self.patience_s:g} s; the last attempt ended with {self.last}"


class _Unreachable(Exception):
    """Nobody listens where a certain node was to be asked."""


class ServiceClient:
    """Talks to one service through any of its nodes, over kept-alive connections.

    Use it as an async context manager.
    """

    def __init__(self, urls: Sequence[str], *, connections: int, patience_s: float) -> None:
        self._urls = [url.rstrip("/") for url in urls]
        self._next_url = 0
        self._connections = connections
        self._patience_s = patience_s
        self._session: aiohttp.ClientSession | None = None
        self._wall_offset_s = time.time() - time.perf_counter()
        self.retries = 0

    async def __aenter__(self) -> ServiceClient:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=ATTEMPT_TIMEOUT_S),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def post(self, path: str, body: object, *, key: str) -> Answer:
        """Sends a write until it has a final answer. Raises ``GaveUp``."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        return await self._send("POST", path, headers, msgspec.json.encode(body))

    async def get(self, path: str) -> Answer:
        """Asks until there is a final answer. Raises ``GaveUp``."""
        return await self._send("GET", path, {}, None)

    async def ask(self, url: str, path: str, body: object) -> Answer | None:
        """Asks one node, and no other, what only reads. ``None``: it cannot be reached. Raises ``GaveUp``."""
        try:
            return await self._send("POST", path, {"Content-Type": "application/json"}, msgspec.json.encode(body), url)
        except _Unreachable:
            return None

    async def ask_once(self, url: str, path: str, body: object) -> Answer | None:
        """Asks one node, once. ``None``: it gave no answer."""
        started_s = time.perf_counter()
        headers = {"Content-Type": "application/json"}
        try:
            answer = await self._attempt("POST", url + path, headers, msgspec.json.encode(body))
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None
        return Answer(answer.status, answer.body, 1, self._wall(started_s), self._wall())

    async def _send(self, method: str, path: str, headers: dict[str, str], body: bytes | None, url: str = "") -> Answer:
        started_s = time.perf_counter()
        attempts, backoff_s = 0, BACKOFF_MIN_S
        while True:
            attempts += 1
            wait_s = 0.0
            try:
                answer = await self._attempt(method, (url or self._next()) + path, headers, body)
                if answer.status < HTTPStatus.BAD_REQUEST or not _problem(answer.body).retryable:
                    return Answer(answer.status, answer.body, attempts, self._wall(started_s), self._wall())
                failure = f"{answer.status} {_problem(answer.body).name}"
                wait_s = answer.retry_after_s
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if url and isinstance(error, aiohttp.ClientConnectorError):
                    raise _Unreachable from error
                failure = f"{type(error).__name__} {error}".rstrip()
            self.retries += 1
            self._next_url = (self._next_url + 1) % len(self._urls)
            wait_s = min(BACKOFF_MAX_S, max(wait_s, backoff_s * random.uniform(0.5, 1.0)))  # noqa: S311 (jitter)
            backoff_s = min(BACKOFF_MAX_S, backoff_s * 2)
            if time.perf_counter() - started_s + wait_s > self._patience_s:
                raise GaveUp(f"{method} {path}", self._patience_s, failure)
            await asyncio.sleep(wait_s)

    def _next(self) -> str:
        """The nodes take turns, so that all of them have work."""
        self._next_url = (self._next_url + 1) % len(self._urls)
        return self._urls[self._next_url]

    async def _attempt(self, method: str, url: str, headers: dict[str, str], body: bytes | None) -> _RawAnswer:
        assert self._session is not None
        async with self._session.request(method, url, data=body, headers=headers) as response:
            retry_after = response.headers.get("Retry-After", "")
            return _RawAnswer(
                response.status, await response.read(), float(retry_after) if retry_after.isdigit() else 0.0
            )

    def _wall(self, perf_s: float | None = None) -> float:
        return self._wall_offset_s + (time.perf_counter() if perf_s is None else perf_s)


class _RawAnswer(NamedTuple):
    status: int
    body: bytes
    retry_after_s: float


def _problem(body: bytes) -> Problem:
    try:
        return msgspec.json.decode(body, type=Problem)
    except msgspec.DecodeError:
        return Problem()

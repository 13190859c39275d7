"""Clients over HTTP that write down what they ask for and what they are told, and the verdict on all of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import aiohttp

from actorkit.ids import shard_of
from actorkit.journal.sqlite import SqliteJournal
from actorkit.testing.checkers import Recorder, read_contents
from examples.capacity_service.tokens import decode_token
from tests.processes.nodes import NodeProcess, Nodes
from tests.simulation.judging import judge

ATTEMPT_MAX_S = 15.0
"""More than the service's own deadline, so that it is the service that says how a request ended."""
_AGAIN_S = (0.05, 0.2)


def now_us() -> int:
    return time.monotonic_ns() // 1000


def pools_of_all_shards(shards: int, prefix: str = "p") -> list[str]:
    """One pool for each shard, in their order."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < shards:
        pool = f"{prefix}{number}"
        found.setdefault(shard_of(f"pool/{pool}", shards), pool)
        number += 1
    return [found[shard] for shard in range(shards)]


class Told(NamedTuple):
    """An answer: the status, and 0 where there was none."""

    status: int
    body: Any
    took_s: float
    why: str = ""

    @property
    def final(self) -> bool:
        return self.status in (200, 404, 409)


class Caller:
    """One client. It asks one node after the other, and the next one again where it may repeat what it asked for."""

    def __init__(
        self, name: str, nodes: Nodes, recorder: Recorder, random: Random, *, only: NodeProcess | None = None
    ) -> None:
        """``only``: it asks this node and no other, whatever becomes of it."""
        self.name = name
        self._only = only
        self.random = random
        self.failures: list[str] = []
        """What was answered other than in the way that a client expects who knows of no trouble."""
        self.latencies_s: list[float] = []
        self._nodes = nodes
        self._recorder = recorder
        self._turn = random.randrange(len(nodes.all))
        self._keys = 0
        self.parts: dict[str, list[str]] = {}
        """By pool, reservations that it was granted."""

    def next_key(self) -> str:
        self._keys += 1
        return f"{self.name}-{self._keys}"

    async def call(
        self, name: str, pool: str, *arguments: Any, key: str | None = None, patience_s: float = 60.0
    ) -> Told:
        """Repeats it until there is a final answer, if it may be repeated: under a key, or because it only reads."""
        began_s = time.monotonic()
        while True:
            told = await self.attempt(self._next_node(), name, pool, *arguments, key=key)
            if told.final:
                self.latencies_s.append(time.monotonic() - began_s)
                self._remember(name, pool, told)
                return told
            may_repeat = key is not None or name in ("describe", "reservation") or told.status in (429, 503)
            if not may_repeat or time.monotonic() - began_s > patience_s:
                return told
            if self._only is not None:
                # It is the same node that is asked again.
                await asyncio.sleep(self.random.uniform(*_AGAIN_S))

    def _remember(self, name: str, pool: str, told: Told) -> None:
        if name == "reserve" and told.status == 200:
            self.parts.setdefault(pool, []).append(told.body["reservation_id"].partition("~")[2])

    def _next_node(self) -> NodeProcess:
        if self._only is not None:
            return self._only
        serving = self._nodes.serving
        self._turn += 1
        return serving[self._turn % len(serving)]

    async def attempt(self, node: NodeProcess, name: str, pool: str, *arguments: Any, key: str | None = None) -> Told:
        """One request to one node, written down."""
        method, path, body = _request(name, pool, arguments)
        headers = {} if key is None else {"Idempotency-Key": key}
        # The service scopes keys to the call.
        scope = "pools" if name == "change" else name
        number = self._recorder.invoke(
            self.name,
            f"pool/{pool}",
            name,
            arguments,
            at_us=now_us(),
            key=None if key is None else f"{scope}:{key}",
        )
        began_s = time.monotonic()
        timeout = aiohttp.ClientTimeout(total=ATTEMPT_MAX_S)
        try:
            async with self._nodes.session.request(
                method, node.url + path, json=body, headers=headers, timeout=timeout
            ) as response:
                answer = await response.json(content_type=None)
                told = Told(response.status, answer, time.monotonic() - began_s)
                token = response.headers.get("X-Consistency-Token")
        except aiohttp.ClientConnectorError as error:
            # Nobody listens there any more: no request was sent.
            self._recorder.not_executed(number, repr(error), at_us=now_us())
            return Told(503, None, time.monotonic() - began_s, repr(error))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._recorder.unknown(number, repr(error), at_us=now_us())
            self.failures.append(f"{node.name}: {method} {path}: {error!r}")
            return Told(0, None, time.monotonic() - began_s, repr(error))
        self._complete(number, told, token)
        if not told.final:
            self.failures.append(
                f"{node.name}: {method} {path} {pool}: {told.status} {answer['detail']}, after {told.took_s:.3f} s"
            )
        return told

    def _complete(self, number: int, told: Told, token: str | None) -> None:
        recorder, at_us = self._recorder, now_us()
        if told.status == 200:
            recorder.replied(number, told.body, at_us=at_us)
        elif told.status in (404, 409):
            details = {name: told.body[name] for name in ("remaining", "requested") if name in told.body}
            if token is not None:
                details["version"] = decode_token(token).version
            recorder.rejected(number, told.body["type"].rpartition("/")[2], details, at_us=at_us)
        elif told.status in (429, 503):
            recorder.not_executed(number, str(told.body), at_us=at_us)
        else:
            recorder.unknown(number, f"{told.status} {told.body}", at_us=at_us)

    async def work(self, pools: Sequence[str]) -> None:
        """One call, as it comes."""
        random = self.random
        pool = pools[random.randrange(len(pools))]
        known, kind = self.parts.get(pool, []), random.random()
        if kind < 0.45:
            await self.call("reserve", pool, random.randint(1, 4), None, key=self.next_key())
        elif kind < 0.75 and known:
            part = known.pop(random.randrange(len(known)))
            await self.call("release", pool, part, None, key=self.next_key())
        elif kind < 0.85 and known:
            await self.call("reservation", pool, known[-1])
        else:
            await self.call("describe", pool)


def _request(name: str, pool: str, arguments: tuple[Any, ...]) -> tuple[str, str, Any]:
    match name:
        case "change":
            return "POST", "/rpc/pools", {"pool_id": pool, **arguments[0]}
        case "reserve":
            quantity, part = arguments
            body = {"pool_id": pool, "quantity": quantity}
            return "POST", "/rpc/reserve", body if part is None else {**body, "reservation_id": part}
        case "release":
            part, quantity = arguments
            body = {"reservation_id": f"{pool}~{part}"}
            return "POST", "/rpc/release", body if quantity is None else {**body, "quantity": quantity}
        case "describe":
            return "GET", f"/rpc/pools/{pool}", None
        case _:
            return "GET", f"/rpc/reservations/{pool}~{arguments[0]}", None


async def verdict(recorder: Recorder, journal: Path) -> list[str]:
    """Everything that is wrong with what callers were told and what the journal holds. No node runs any more."""
    store = SqliteJournal(journal)
    await store.open(None)
    try:
        contents = await read_contents(store)
    finally:
        await store.close()
    return [f"{finding.kind}: {finding.what}" for finding in judge(recorder.history(), contents)]


def percentile(values: Iterable[float], part: float) -> float:
    """By the nearest rank; 0 where there are none."""
    ordered = sorted(values)
    return ordered[max(0, int(-(-len(ordered) * part // 100)) - 1)] if ordered else 0.0

"""Drives a stream of commands into a service: each pool's in order, the pools side by side, so many in flight.

Every answer is compared with the recomputation on the way, and every pool in the end.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import BinaryIO, NamedTuple

import msgspec

from examples.capacity_service.bookings import Command, Outcome, PoolFigures, Recomputation
from examples.capacity_service.replay_client import (
    Answer,
    AvailabilityAnswer,
    PoolAnswer,
    ReleaseAnswer,
    ReserveAnswer,
    ServiceClient,
)
from examples.capacity_service.replay_reads import AvailabilityBody, Reads

__all__ = ["DIFFERENCES_KEPT", "Driver", "Figures"]

DIFFERENCES_KEPT = 20
"""How many differences are kept as text; all are counted."""

AHEAD_FACTOR = 64
"""How many commands may wait for their pools, for each one in flight: enough to find pools that are free."""

POOLS_PER_REQUEST = 200
"""How many pools are asked for at once: their ids fit into a request, whatever they are."""

READ_MODEL_MAX_S = 10.0
"""How long a node may take to show what others have written; it promises a fraction of that."""
AVAILABILITY_RETRY_S = 0.1


class ReserveBody(msgspec.Struct, frozen=True):
    """The body of ``POST /rpc/reserve``."""

    pool_id: str
    reservation_id: str
    quantity: int = 1


class ReleaseBody(msgspec.Struct, frozen=True):
    """The body of ``POST /rpc/release``."""

    reservation_id: str


class PoolBody(msgspec.Struct, frozen=True):
    """The body of ``POST /rpc/pools``."""

    pool_id: str
    capacity: int


class Line(msgspec.Struct, frozen=True):
    """One line of the report: one command, from when it was sent to its final answer."""

    op: str
    pool_id: str
    booking: int
    reservation_id: str
    start: float
    end: float
    attempts: int
    status: int
    outcome: str
    remaining: int


class Figures:
    """What is counted on the way."""

    def __init__(self) -> None:
        self.done = 0
        self.sent = 0
        self.accepted = 0
        self.rejected = 0
        self.not_sent = 0
        self.differing = 0
        self.differences: list[str] = []
        self.latencies_s: dict[str, list[float]] = {"reserve": [], "release": []}

    def differs(self, what: str) -> None:
        """Counts a difference and keeps the first ones."""
        self.differing += 1
        if len(self.differences) < DIFFERENCES_KEPT:
            self.differences.append(what)


class _Read(NamedTuple):
    """An answer, understood. ``accepted`` is ``None`` for one that nobody expects."""

    accepted: bool | None
    remaining: int
    name: str
    reservation_id: str
    version: int = 0
    """Of the pool; 0 where the answer has none."""


class Driver:
    """One replay of one stream."""

    def __init__(
        self,
        client: ServiceClient,
        stream: Sequence[Command],
        expected: Recomputation,
        *,
        concurrency: int,
        speed: float | None = None,
        report: BinaryIO | None = None,
        pool_name: Callable[[str], str] = str,
        reads: Reads | None = None,
        figures: Figures | None = None,
    ) -> None:
        self.figures = figures or Figures()
        self._client = client
        self._stream = stream
        self._expected = expected
        self._concurrency = concurrency
        self._speed = speed
        self._report = report
        self._pool_name = pool_name
        self._reads = reads
        self._reservation_ids: dict[tuple[int, str], str] = {}
        self._waiting: dict[str, deque[int]] = {}
        self._ahead = asyncio.Semaphore(concurrency * AHEAD_FACTOR)
        self._ready: asyncio.Queue[str] = asyncio.Queue()

    async def create_pools(self, *, key: str) -> None:
        """Creates every pool with its capacity, or sets the capacity of those that exist."""

        async def create(pool: str, figures: PoolFigures) -> None:
            body = PoolBody(self._pool_name(pool), figures.capacity)
            answer = await self._client.post("/rpc/pools", body, key=key)
            if not answer.ok:
                raise RuntimeError(f"pool {pool} was not created: {_described(answer)}")

        await self._each(create, self._expected.pools)

    async def drive(self) -> None:
        """Sends all commands; returns once each has its final answer. Raises ``GaveUp`` in an exception group."""
        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(self._work()) for _ in range(self._concurrency)]
            await self._feed()
            await self._ready.join()
            for worker in workers:
                worker.cancel()

    async def compare_pools(self) -> None:
        """Asks for every pool, strongly consistent, and counts those that are not as recomputed."""

        async def compare(pool: str, expected: PoolFigures) -> None:
            answer = await self._client.get(f"/rpc/pools/{self._pool_name(pool)}")
            if not answer.ok:
                self.figures.differs(f"pool {pool}: {_described(answer)}")
                return
            read = msgspec.json.decode(answer.body, type=PoolAnswer)
            found = PoolFigures(read.capacity, read.reserved, read.remaining)
            if found != expected:
                self.figures.differs(f"pool {pool}: the service has {found}, recomputed {expected}")

        await self._each(compare, self._expected.pools)

    async def compare_availability(self, url: str) -> bool:
        """Asks one node's read model for every pool, until it shows what was recomputed, or has had time enough; counts
        the pools that it then shows otherwise. ``False``: the node cannot be reached."""
        differing = dict(self._expected.pools)
        until_s = time.perf_counter() + READ_MODEL_MAX_S
        while True:
            shown = await self._shown(url, list(differing))
            if shown is None:
                return False
            differing = {
                pool: expected
                for pool, expected in differing.items()
                if shown.get(self._pool_name(pool)) != (expected.capacity, expected.remaining)
            }
            if not differing or time.perf_counter() > until_s:
                break
            await asyncio.sleep(AVAILABILITY_RETRY_S)
        for pool, expected in differing.items():
            found = shown.get(self._pool_name(pool), "nothing")
            wanted = (expected.capacity, expected.remaining)
            self.figures.differs(f"pool {pool}: availability at {url} shows {found}, recomputed {wanted}")
        return True

    async def _shown(self, url: str, pools: list[str]) -> dict[str, tuple[int, int]] | None:
        """Capacity and what remains, by pool."""
        shown: dict[str, tuple[int, int]] = {}
        for first in range(0, len(pools), POOLS_PER_REQUEST):
            ids = [self._pool_name(pool) for pool in pools[first : first + POOLS_PER_REQUEST]]
            answer = await self._client.ask(url, "/rpc/availability", AvailabilityBody(ids))
            if answer is None:
                return None
            if not answer.ok:
                self.figures.differs(f"availability at {url}: {_described(answer)}")
                continue
            read = msgspec.json.decode(answer.body, type=AvailabilityAnswer)
            shown |= {pool.pool_id: (pool.capacity, pool.remaining) for pool in read.pools}
        return shown

    async def _each(self, act: Callable[[str, PoolFigures], Awaitable[None]], pools: Mapping[str, PoolFigures]) -> None:
        remaining = iter(pools.items())

        async def work(items: Iterable[tuple[str, PoolFigures]]) -> None:
            for pool, figures in items:
                await act(pool, figures)

        async with asyncio.TaskGroup() as group:
            for _ in range(self._concurrency):
                group.create_task(work(remaining))

    async def _feed(self) -> None:
        """Hands out the stream in its order; a pool is ready when it has commands and none in flight."""
        started_s = time.perf_counter()
        for index, command in enumerate(self._stream):
            if self._speed is not None:
                due_s = started_s + (command.at_us - self._stream[0].at_us) / 1e6 / self._speed
                await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            await self._ahead.acquire()
            waiting = self._waiting.get(command.pool)
            if waiting is None:
                self._waiting[command.pool] = deque((index,))
                self._ready.put_nowait(command.pool)
            else:
                waiting.append(index)

    async def _work(self) -> None:
        while True:
            pool = await self._ready.get()
            waiting = self._waiting[pool]
            index = waiting[0]
            await self._execute(self._stream[index], self._expected.outcomes[index])
            waiting.popleft()
            self.figures.done += 1
            self._ahead.release()
            if waiting:
                self._ready.put_nowait(pool)
            else:
                del self._waiting[pool]
            self._ready.task_done()

    async def _execute(self, command: Command, expected: Outcome) -> None:
        """Sends one command and compares its outcome with what it should be."""
        place = (command.booking, command.pool)
        full_id = ""
        if command.op == "reserve":
            answer = await self._client.post(
                "/rpc/reserve", ReserveBody(self._pool_name(command.pool), f"b{command.booking}"), key=command.key
            )
        elif place in self._reservation_ids:
            # Taken out: memory holds only what is still held.
            full_id = self._reservation_ids.pop(place)
            answer = await self._client.post("/rpc/release", ReleaseBody(full_id), key=command.key)
        else:
            self.figures.not_sent += 1
            if expected.accepted is not None:
                self.figures.differs(f"{command}: nothing is held, recomputed {expected}")
            return
        read = _read(command, answer, full_id)
        if command.op == "reserve" and read.accepted:
            self._reservation_ids[place] = read.reservation_id
        self._count(command, answer, read, expected)
        if self._reads is not None:
            if read.version:
                self._reads.note(self._pool_name(command.pool), read.version, read.remaining)
            await self._reads.ask()

    def _count(self, command: Command, answer: Answer, read: _Read, expected: Outcome) -> None:
        figures = self.figures
        figures.sent += 1
        figures.accepted += read.accepted is True
        figures.rejected += read.accepted is False
        figures.latencies_s[command.op].append(answer.ended_s - answer.started_s)
        if (read.accepted, read.remaining) != expected:
            figures.differs(f"{command}: {_described(answer)}, recomputed {expected}")
        if self._report is not None:
            line = Line(
                op=command.op,
                pool_id=self._pool_name(command.pool),
                booking=command.booking,
                reservation_id=read.reservation_id,
                start=answer.started_s,
                end=answer.ended_s,
                attempts=answer.attempts,
                status=answer.status,
                outcome=read.name,
                remaining=read.remaining,
            )
            self._report.write(msgspec.json.encode(line) + b"\n")


def _read(command: Command, answer: Answer, full_id: str) -> _Read:
    try:
        if answer.ok and command.op == "reserve":
            reserved = msgspec.json.decode(answer.body, type=ReserveAnswer)
            return _Read(True, reserved.remaining, "reserved", reserved.reservation_id, reserved.version)
        if answer.ok:
            released = msgspec.json.decode(answer.body, type=ReleaseAnswer)
            accepted = True if released.released == 1 else None
            return _Read(accepted, released.remaining, "released", full_id, released.version)
    except msgspec.DecodeError as error:
        return _Read(None, 0, f"undecodable: {error}", full_id)
    problem = answer.problem
    refused = command.op == "reserve" and problem.name == "insufficient-capacity"
    return _Read(False if refused else None, problem.remaining, problem.name, full_id)


def _described(answer: Answer) -> str:
    return f"{answer.status} {answer.body[:200].decode(errors='replace')}"

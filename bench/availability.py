"""What does it cost to ask for availability: within the process, and over HTTP against a bare handler?

Within the process: the call's handler, from checked input to the bytes of the answer, while pools change between two
questions. Over HTTP: 64 kept-alive connections, all 300 pools in each answer, against an aiohttp handler that reads the
body and answers the same bytes; service and floor in turns.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from multidict import CIMultiDict, CIMultiDictProxy

from actorkit import ActorSystem
from actorkit.gateway.event_stream import EventStreams
from actorkit.gateway.handlers import Answer, Incoming
from actorkit.gateway.settings import GatewaySettings
from bench.http_processes import CONNECTIONS, free_port, load, post, process
from bench.measure import result, scratch
from examples.capacity_service.api import CapacityApi
from examples.capacity_service.domain import PoolChange
from examples.capacity_service.entity import Pool
from examples.capacity_service.requests import AvailabilityRequest

POOLS = 300
MANY_POOLS = 10_000
REGIONS = 200
"""So a region of 10,000 pools has 50."""
BOUND_S = 100e-6
QUESTIONS = 200
SECONDS = 3.0
ROUNDS = 5
TARGET = 0.6
BEGIN = datetime(2026, 5, 1, tzinfo=UTC)


def pool(number: int) -> dict[str, Any]:
    """A delivery window of two hours somewhere."""
    start = BEGIN + timedelta(hours=number // REGIONS)
    return {
        "pool_id": f"pool-{number:05}",
        "capacity": 1_000_000,
        "region": f"region-{number % REGIONS}",
        "starts_at": f"{start:%Y-%m-%dT%H:%M:%SZ}",
        "ends_at": f"{start + timedelta(hours=2):%Y-%m-%dT%H:%M:%SZ}",
        "labels": {"kind": "window"},
    }


async def _in_process(pools: int, request: AvailabilityRequest, found: int) -> list[float]:
    """Medians of rounds, in seconds."""
    async with ActorSystem("memory://", entities=[Pool]) as system:
        api = CapacityApi(system, behind=lambda: None, streams=EventStreams(GatewaySettings()))
        incoming: Incoming[AvailabilityRequest] = Incoming(
            asyncio.get_running_loop(), CIMultiDictProxy(CIMultiDict()), asyncio.get_running_loop().time() + 3600
        )
        incoming.body = request
        for first in range(0, pools, 500):
            numbers = range(first, min(first + 500, pools))
            await asyncio.gather(*(system.get(Pool, pool(n)["pool_id"]).change(_change(pool(n))) for n in numbers))
        answer = api.availability(incoming)
        assert isinstance(answer, Answer)
        assert isinstance(answer.body, tuple)
        assert len(json.loads(b"".join(answer.body))["pools"]) == found
        medians: list[float] = []
        for turn in range(ROUNDS):
            taken: list[float] = []
            for number in range(QUESTIONS):
                await system.get(Pool, pool((turn * 37 + number) % pools)["pool_id"]).reserve(1, None)
                begin = time.perf_counter()
                api.availability(incoming)
                taken.append(time.perf_counter() - begin)
            medians.append(statistics.median(taken))
        return medians


def _change(pool: dict[str, Any]) -> PoolChange:
    return PoolChange(
        capacity=pool["capacity"],
        region=pool["region"],
        starts_at=datetime.fromisoformat(pool["starts_at"]),
        ends_at=datetime.fromisoformat(pool["ends_at"]),
        labels=pool["labels"],
    )


def _over_http() -> dict[str, Any]:
    ours_port, floor_port = free_port(), free_port()
    values: list[dict[str, float]] = []
    floors: list[dict[str, float]] = []
    with scratch() as directory:
        node = ["examples.capacity_service", "node", "--http", f"127.0.0.1:{ours_port}"]
        journal = ["--journal", f"sqlite:///{directory / 'bench.db'}"]
        with process(*node, *journal, "--remoting", f"127.0.0.1:{free_port()}", port=ours_port):
            for number in range(POOLS):
                post(ours_port, "/rpc/pools", pool(number))
            answer = directory / "answer.json"
            answer.write_bytes(post(ours_port, "/rpc/availability", {}))
            assert len(json.loads(answer.read_bytes())["pools"]) == POOLS
            with process("bench.http_floor", str(floor_port), str(answer), port=floor_port):
                for number in range(ROUNDS + 1):
                    value = load(ours_port, "/rpc/availability", [{}], SECONDS)
                    floor = load(floor_port, "/rpc/availability", [{}], SECONDS)
                    if number:
                        values.append(value)
                        floors.append(floor)
    return result(
        f"availability of {POOLS} pools over HTTP, {CONNECTIONS} connections, against a bare aiohttp handler",
        "1/s",
        [value["per_second"] for value in values],
        [floor["per_second"] for floor in floors],
        target=TARGET,
        p50_ms=statistics.median(value["p50_ms"] for value in values),
        p99_ms=statistics.median(value["p99_ms"] for value in values),
    )


def run() -> list[dict[str, Any]]:
    """In process against the bound, over HTTP against the floor."""
    everything = asyncio.run(_in_process(POOLS, AvailabilityRequest(), POOLS))
    one_region = asyncio.run(_in_process(MANY_POOLS, AvailabilityRequest(region="region-7"), MANY_POOLS // REGIONS))
    one_window = asyncio.run(
        _in_process(
            MANY_POOLS,
            AvailabilityRequest(
                region="region-7", starts_before="2026-05-02T00:00:00Z", ends_after="2026-05-01T12:00:00Z"
            ),
            13,
        )
    )
    bounds = [BOUND_S] * ROUNDS
    return [
        result(question, "s", values, bounds, target=1.0, at_most=True)
        for question, values in (
            (f"availability of {POOLS} pools in process, against the bound", everything),
            (f"the same of {MANY_POOLS} pools, a region of {MANY_POOLS // REGIONS}", one_region),
            (f"the same of {MANY_POOLS} pools, a region and a window of 12 hours", one_window),
        )
    ] + [_over_http()]


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))

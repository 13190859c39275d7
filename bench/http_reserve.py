"""How many reservations a second does one node serve over HTTP, against a bare aiohttp handler?

64 kept-alive connections over 1,000 pools. Service, floor and load generator are processes of their own; service and
floor are measured in turns.
"""

from __future__ import annotations

import json
import statistics
from typing import Any

from bench.http_processes import CONNECTIONS, free_port, load, post, process
from bench.measure import result, scratch

POOLS = 1_000
SECONDS = 3.0
ROUNDS = 5
TARGET = 0.6


def run() -> dict[str, Any]:
    """The medians of interleaved rounds."""
    ours_port, floor_port = free_port(), free_port()
    pools = [f"pool-{number}" for number in range(POOLS)]
    bodies = [{"pool_id": pool, "quantity": 1} for pool in pools]
    values: list[dict[str, float]] = []
    floors: list[dict[str, float]] = []
    with scratch() as directory:
        node = ["examples.capacity_service", "node", "--http", f"127.0.0.1:{ours_port}"]
        journal = ["--journal", f"sqlite:///{directory / 'bench.db'}"]
        with (
            process(*node, *journal, "--remoting", f"127.0.0.1:{free_port()}", port=ours_port),
            process("bench.http_floor", str(floor_port), port=floor_port),
        ):
            for pool in pools:
                post(ours_port, "/rpc/pools", {"pool_id": pool, "capacity": 1_000_000_000})
            for number in range(ROUNDS + 1):
                value = load(ours_port, "/rpc/reserve", bodies, SECONDS)
                floor = load(floor_port, "/rpc/reserve", bodies, SECONDS)
                if number:
                    values.append(value)
                    floors.append(floor)
    return result(
        f"reservations over HTTP, {CONNECTIONS} connections, against a bare aiohttp handler",
        "1/s",
        [value["per_second"] for value in values],
        [floor["per_second"] for floor in floors],
        target=TARGET,
        p50_ms=statistics.median(value["p50_ms"] for value in values),
        p99_ms=statistics.median(value["p99_ms"] for value in values),
    )


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))

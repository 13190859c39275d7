"""What does a reservation over HTTP cost through a node that does not own the pool, against the node that does?

Two nodes on one SQLite file, 64 kept-alive connections, the same pools, all of them the first node's: asked in turns
through the first node and through the second one, which calls the first.
"""

from __future__ import annotations

import json
import statistics
import time
import urllib.request
from typing import Any

from actorkit.ids import shard_of
from bench.http_processes import CONNECTIONS, free_port, load, post, process
from bench.measure import result, scratch

POOLS = 500
SECONDS = 3.0
ROUNDS = 5
TARGET = 0.6
SPREAD_MAX_S = 30.0


def _shards_of(port: int, name: str) -> tuple[set[int], int]:
    """Those of the node, and how many there are; once it has given away its neighbour's."""
    give_up_s = time.monotonic() + SPREAD_MAX_S
    while time.monotonic() < give_up_s:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/cluster/shards") as response:
            shards = json.load(response)["shards"]
        owned = {each["shard"] for each in shards if each["owner"].partition("#")[0] == name}
        if len(owned) <= 0.6 * len(shards) and all(each["owner"] for each in shards):
            return owned, len(shards)
        time.sleep(0.1)
    raise RuntimeError("the shards were not spread over both nodes")


def run() -> dict[str, Any]:
    """The medians of interleaved rounds."""
    ports = free_port(), free_port()
    remoting = free_port(), free_port()
    seeds = ",".join(f"127.0.0.1:{port}" for port in remoting)
    local: list[dict[str, float]] = []
    remote: list[dict[str, float]] = []
    with scratch() as directory:
        journal = f"sqlite:///{directory / 'bench.db'}"

        def node(number: int) -> Any:
            return process(
                *("examples.capacity_service", "node", "--name", f"n{number}", "--http", f"127.0.0.1:{ports[number]}"),
                *("--remoting", f"127.0.0.1:{remoting[number]}", "--seeds", seeds, "--journal", journal),
                port=ports[number],
            )

        with node(0), node(1):
            owned, shards = _shards_of(ports[0], "n0")
            names = (f"pool-{number}" for number in range(100 * POOLS))
            pools = [name for name in names if shard_of(f"pool/{name}", shards) in owned][:POOLS]
            bodies = [{"pool_id": pool, "quantity": 1} for pool in pools]
            for pool in pools:
                post(ports[0], "/rpc/pools", {"pool_id": pool, "capacity": 1_000_000_000})
            for number in range(ROUNDS + 1):
                figures = [load(port, "/rpc/reserve", bodies, SECONDS) for port in ports]
                if number:
                    local.append(figures[0])
                    remote.append(figures[1])
    return result(
        f"reservations over HTTP, {CONNECTIONS} connections, through another node, against the pools' owner",
        "1/s",
        [value["per_second"] for value in remote],
        [value["per_second"] for value in local],
        target=TARGET,
        p50_ms=statistics.median(value["p50_ms"] for value in remote),
        p99_ms=statistics.median(value["p99_ms"] for value in remote),
    )


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))

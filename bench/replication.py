"""How soon is a committed change visible on the other nodes, and what does replication cost?

Three nodes on one file, in processes of their own, over loopback; 300 pools. Each changes its own pools at a third of
the rate, and notes when each change was acknowledged and when a subscriber of its view has seen each of the others'
(the same clock for all, since it is one machine). A version that was never shown, because a newer one was sent at once,
counts as visible when the newer one is.

The cost: processor time of each node's process at 1,000 changes/s, with replication and without it in turns.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from bisect import bisect_left
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import actorkit
from bench.measure import result, scratch
from bench.processes import Process, free_port, percentiles

NODE = "bench.replication_node"
NODES = 3
SETTLED_AFTER_S = 2.0
SETTLE_MAX_S = 60.0
POOLS = 300
RATES = (500, 1_000, 5_000)
SECONDS = 8.0
CPU_RATE = 1_000
CPU_SECONDS = 6.0
CPU_TURNS = 4
P50_S = 0.020
P99_S = 0.100
CORE_SHARE = 0.10


async def _start(stack: AsyncExitStack, journal: Path, pools: int) -> list[Process]:
    ports = [free_port() for _ in range(NODES)]
    seeds = ",".join(f"127.0.0.1:{port}" for port in ports)
    nodes: list[Process] = []
    for number, port in enumerate(ports):
        node = await Process.start(NODE, f"n{number}", f"sqlite:///{journal}", port, seeds)
        stack.push_async_callback(node.kill)
        nodes.append(node)
    await settled(nodes, pools)
    await asyncio.gather(*(node.tell("fill") for node in nodes))
    await asyncio.gather(*(node.tell("shows", pools=pools) for node in nodes))
    return nodes


async def settled(nodes: list[Process], pools: int) -> list[Any]:
    """Returns when no shard has moved for a while: which shards each has."""
    owned: list[Any] = []
    async with asyncio.timeout(SETTLE_MAX_S):
        while (owns := await asyncio.gather(*(node.tell("own", pools=pools) for node in nodes))) != owned:
            owned = owns
            await asyncio.sleep(SETTLED_AFTER_S)
    return owned


async def _change(nodes: list[Process], rate: float, seconds: float, *, note: bool) -> list[dict[str, Any]]:
    share = rate / len(nodes)
    return list(await asyncio.gather(*(node.tell("change", rate=share, seconds=seconds, note=note) for node in nodes)))


async def _visible(nodes: list[Process], rate: float, seconds: float) -> dict[str, Any]:
    """One rate: how long each change took to be seen on each other node."""
    made = await _change(nodes, rate, seconds, note=True)
    noted = await asyncio.gather(*(node.tell("noted") for node in nodes))
    delays: list[float] = []
    missing = 0
    for writer, written in enumerate(noted):
        for reader, read in enumerate(noted):
            if reader != writer:
                late, never = _delays(written["committed"], read["seen"])
                delays += late
                missing += never
    seconds_taken = max(node["took_s"] for node in made)
    return {
        "rate": rate,
        "made/s": sum(node["made"] for node in made) / seconds_taken,
        "failed": sum(node["failed"] for node in made),
        "missing": missing,
        "visible": percentiles(delays),
        "core share of a node": statistics.mean(node["cpu_s"] / node["took_s"] for node in made),
        "updates/s of a node": statistics.mean(node["updates"] / node["took_s"] for node in made),
        "bytes/s of a node": statistics.mean(node["bytes"] / node["took_s"] for node in made),
        "loop lag": max((node["lag_s"] for node in made), key=lambda lag: float(lag["p99"])),
    }


def _delays(committed: list[Any], seen: list[Any]) -> tuple[list[float], int]:
    by_id: dict[str, tuple[list[int], list[float]]] = {}
    for id, version, at_s in seen:
        versions, times = by_id.setdefault(id, ([], []))
        versions.append(version)
        times.append(at_s)
    delays: list[float] = []
    for id, version, at_s in committed:
        versions, times = by_id.get(id, ([], []))
        index = bisect_left(versions, version)
        if index < len(versions):
            # It may be seen before the caller is told.
            delays.append(max(0.0, times[index] - at_s))
    return delays, len(committed) - len(delays)


async def _cost(nodes: list[Process], rate: float, seconds: float, turns: int) -> tuple[list[float], list[float]]:
    """Shares of a core with replication and without, in turns; the mean of the nodes."""
    shares: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(turns + 1):
        for on in (True, False):
            if not on or turn:
                await asyncio.gather(*(node.tell("replicate", on=on) for node in nodes))
            made = await _change(nodes, rate, seconds if turn else 2.0, note=False)
            if turn:
                shares[on].append(statistics.mean(node["cpu_s"] / node["took_s"] for node in made))
    await asyncio.gather(*(node.tell("replicate", on=True) for node in nodes))
    return shares[True], shares[False]


async def _measure(rates: tuple[int, ...], seconds: float) -> dict[str, Any]:
    with scratch() as directory:
        async with AsyncExitStack() as stack:
            nodes = await _start(stack, directory / "replication.db", POOLS)
            await _change(nodes, 500, 2.0, note=False)
            visible = [await _visible(nodes, rate, seconds) for rate in rates]
            on, off = await _cost(nodes, CPU_RATE, CPU_SECONDS, CPU_TURNS)
    return {
        "visible": visible,
        "with": on,
        "without": off,
        "replication": [a - b for a, b in zip(on, off, strict=True)],
    }


def run() -> list[dict[str, Any]]:
    """The bounds are absolute, so they stand where floors do."""
    measured = actorkit.run(_measure(RATES, SECONDS))
    lines: list[dict[str, Any]] = []
    for visible in measured["visible"]:
        for name, bound_s in (("p50", P50_S), ("p99", P99_S)):
            question = f"a change is visible on other nodes, {visible['rate']:,}/s, {name} (bound as floor)"
            value_ms = visible["visible"][name] * 1000
            lines.append(
                result(question, "ms", [value_ms], [bound_s * 1000], target=1.0, at_most=True, details=visible)
            )
    shares = [100 * share for share in measured["replication"]]
    floors = [100 * CORE_SHARE] * len(shares)
    question = f"replication at {CPU_RATE:,} changes/s, of a core per node (bound as floor)"
    lines.append(result(question, "%", shares, floors, target=1.0, at_most=True, details=measured))
    return lines


if __name__ == "__main__":
    chosen = tuple(map(int, sys.argv[1:])) or RATES
    print(json.dumps(actorkit.run(_measure(chosen, SECONDS)), indent=1))

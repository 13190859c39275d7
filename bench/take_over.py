"""How soon are entities served again that were active on a node which is killed, when everybody asks for all at once?

Three nodes on one file. All entities (100,000, with three events each) are in the shards of the first node, which is
killed. At once the other two ask for all of them, each for a half; besides, each has a caller that makes one call after
another to entities that nobody else asks for. There is no floor: what is promised is that each shard gives its first
answer within 5 s of the kill, and that single calls do not wait for the recovery of all the others.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import actorkit
from bench.measure import scratch
from bench.processes import Process, free_port

ENTITIES = 100_000
EVENTS_EACH = 3
PROBES = 1_000
PROBE_PAUSE_S = 0.02
DEADLINE_S = 5.0
PATIENCE_S = 120.0
ROUNDS = 3
SHARE_MAX = 128
ROUND_MAX_S = 180.0


async def _round(journal: Path, entities: int, herd_deadline_s: float) -> dict[str, Any]:
    """One take-over."""
    ports = [free_port() for _ in range(3)]
    seeds = ",".join(f"127.0.0.1:{port}" for port in ports)
    names = ("n1", "n2", "n3")
    nodes = [
        await Process.start("bench.take_over_node", name, f"sqlite:///{journal}", port, seeds)
        for name, port in zip(names, ports, strict=True)
    ]
    try:
        shards: list[int] = []
        while not 0 < len(shards) < SHARE_MAX:
            # Until all are members, the first ones own more than their share.
            shards = (await asyncio.gather(*(node.tell("own") for node in nodes)))[0]
        await asyncio.gather(*(node.tell("know", shards=shards, count=entities) for node in nodes))
        filled = await nodes[0].tell("fill", events=EVENTS_EACH)
        assert filled["endings"] == {"answered": entities}, filled["endings"]
        lost, *left = nodes
        killed_s = await lost.kill()
        of = len(left)
        herds = [
            node.tell("herd", part=part, of=of, leave_out=PROBES, deadline_s=herd_deadline_s)
            for part, node in enumerate(left)
        ]
        probes = [
            node.tell("probe", part=part, of=of, count=PROBES, deadline_s=DEADLINE_S, pause_s=PROBE_PAUSE_S)
            for part, node in enumerate(left)
        ]
        return _summary(killed_s, shards, await asyncio.gather(*herds), await asyncio.gather(*probes))
    finally:
        for node in nodes:
            await node.kill()


def _summary(killed_s: float, shards: list[int], herds: list[Any], probes: list[Any]) -> dict[str, Any]:
    firsts: dict[str, float] = {}
    for asked in (*herds, *probes):
        for shard, at_s in asked["first_s"].items():
            firsts[shard] = min(firsts.get(shard, float("inf")), at_s - killed_s)
    ordered = sorted(firsts.values())
    return {
        "shards": len(shards),
        "shards answered": len(firsts),
        "first answer of a shard p50": statistics.median(ordered),
        "first answer of a shard max": ordered[-1],
        "all answered after": max(asked["last_s"] for asked in herds) - killed_s,
        "herd": [asked["endings"] for asked in herds],
        "herd took": [asked["took_s"] for asked in herds],
        "recovered": [asked["recovered"] for asked in herds],
        "loop lag": [asked["lag_s"] for asked in herds],
        "probe": [asked["endings"] for asked in probes],
        "probe took": [asked["took_s"] for asked in probes],
    }


async def measure(entities: int, herd_deadline_s: float) -> dict[str, Any]:
    """One take-over, on a file of its own."""
    with scratch() as directory:
        async with asyncio.timeout(ROUND_MAX_S):
            return await _round(directory / "take_over.db", entities, herd_deadline_s)


if __name__ == "__main__":
    chosen = int(sys.argv[1]) if len(sys.argv) > 1 else ENTITIES
    patience = float(sys.argv[2]) if len(sys.argv) > 2 else PATIENCE_S
    print(json.dumps(actorkit.run(measure(chosen, patience)), indent=2))

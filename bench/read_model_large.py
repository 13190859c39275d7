"""What does a map of 100,000 keys cost? Memory, a node that joins, a node that is killed, and how late loops are then.

Three nodes on one file, in processes of their own. All pools are changed once; then a fourth node joins, whose view is
empty, and then the first is killed and the others take its shards over, which means a new document for each of them.
There is no floor: the figures are for the page about operations. That loops are late for other reasons, too, shows in
what they were before.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import AsyncExitStack
from typing import Any

import actorkit
from bench.measure import scratch
from bench.processes import Process, free_port
from bench.replication import NODE, settled

POOLS = 100_000
NODES = 3
WATCH_S = 10.0
WATCH_LONG_S = 25.0
PATIENCE_S = 400.0


async def _measure(pools: int) -> dict[str, Any]:
    with scratch() as directory:
        async with AsyncExitStack() as stack, asyncio.timeout(PATIENCE_S):
            journal = f"sqlite:///{directory / 'large.db'}"
            ports = [free_port() for _ in range(NODES + 1)]
            seeds = ",".join(f"127.0.0.1:{port}" for port in ports[:NODES])

            async def start(number: int) -> Process:
                node = await Process.start(NODE, f"n{number}", journal, ports[number], seeds)
                stack.push_async_callback(node.kill)
                return node

            nodes = [await start(number) for number in range(NODES)]
            shards = sum(map(len, await settled(nodes, pools)))
            empty = await _all(nodes, "memory")
            began_s = time.monotonic()
            await _all(nodes, "fill")
            await _all(nodes, "shows", pools=pools)
            filled_s = time.monotonic() - began_s
            answer: dict[str, Any] = {
                "pools": pools,
                "filled in s": filled_s,
                "memory before": empty,
                "memory filled": await _all(nodes, "memory"),
                "loops late, idle": await _all(nodes, "lags", seconds=WATCH_S),
            }
            new = await start(NODES)
            answer |= await _join(nodes, new, pools)
            return answer | await _kill(nodes[0], [*nodes[1:], new], shards)


async def _all(nodes: list[Process], what: str, **arguments: Any) -> list[Any]:
    return list(await asyncio.gather(*(node.tell(what, **arguments) for node in nodes)))


async def _join(nodes: list[Process], new: Process, pools: int) -> dict[str, Any]:
    late = asyncio.ensure_future(_all(nodes, "lags", seconds=WATCH_LONG_S))
    began_s = await new.tell("shows", pools=0)
    own_late = new.tell("lags", seconds=WATCH_LONG_S)
    shown_s = await new.tell("shows", pools=pools)
    await settled([*nodes, new], 0)
    return {
        "a node that joins shows everything after s": shown_s - began_s,
        "its memory": await new.tell("memory"),
        "it received": (await new.tell("counted"))["update_bytes_received"],
        "loops late, joining": [*await late, await own_late],
    }


async def _kill(lost: Process, left: list[Process], shards: int) -> dict[str, Any]:
    lost_shards = len(await lost.tell("own", pools=0))
    late = asyncio.ensure_future(_all(left, "lags", seconds=WATCH_LONG_S))
    killed_s = await lost.kill()
    owned: list[Any] = []
    while sum(map(len, owned)) < shards:
        owned = await _all(left, "own", pools=0)
        await asyncio.sleep(0.05)
    owned_s = time.monotonic()
    written_s = max(
        await asyncio.gather(*(node.tell("writes_all", shards=len(own)) for node, own in zip(left, owned, strict=True)))
    )
    return {
        "shards lost": lost_shards,
        "all owned again after s": owned_s - killed_s,
        "all documents written by their owners after s": written_s - killed_s,
        "loops late, taking over": await late,
        "memory afterwards": await _all(left, "memory"),
    }


if __name__ == "__main__":
    print(json.dumps(actorkit.run(_measure(int(sys.argv[1]) if len(sys.argv) > 1 else POOLS)), indent=1))

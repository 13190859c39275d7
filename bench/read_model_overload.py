"""What happens when far more is written than the network takes, and afterwards?

Three nodes in one process; every link between them takes so many bytes a second and delays each message. First the
rate that the links just take is found; then all nodes write at ten times of that for a minute. Nothing is refused:
of each pool only what is newest is sent. What is under way, memory, how long it takes after the last write until all
nodes show the same, and how soon single changes are seen then, against before.

``python -m bench.read_model_overload 60`` for the whole minute; less by default.
"""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import sys
import time
from typing import Any

import actorkit
from bench.measure import result
from bench.read_models import Network, Node, nodes_of, rss_bytes
from bench.shown import pools_of

POOLS = 1_500
BYTES_PER_S = 100_000.0
DELAY_S = 0.02
SECONDS = 15.0
TIMES = 10
TICK_S = 0.005
FULL_S = 8.0
"""How long the links are filled to see what they take."""
PROBES = 40
CONVERGED_S = 5.0
SEEN_TIMES = 2.0
GROWTH = 1.25


class _Load:
    """Changes the pools in turn, each on the node that has it."""

    def __init__(self, nodes: list[Node]) -> None:
        self._nodes = nodes
        self.pools = [(id, next(node for node in nodes if node.owns(id))) for id in pools_of(POOLS)]
        self.versions = dict.fromkeys(pools_of(POOLS), 0)
        self._next = 0
        self.made = 0

    def change(self) -> tuple[str, Node]:
        id, node = self.pools[self._next]
        self._next = (self._next + 1) % len(self.pools)
        self.versions[id] += 1
        self.made += 1
        node.change(id, self.versions[id])
        return id, node

    async def write(self, rate: float, seconds: float, look: list[int]) -> float:
        """Returns how many changes a second were made; appends the process's memory to ``look``."""
        began_s, made, looked_s = time.monotonic(), self.made, 0.0
        while (spent_s := time.monotonic() - began_s) < seconds:
            while self.made - made < rate * spent_s:
                self.change()
            if spent_s - looked_s > 0.1:
                looked_s = spent_s
                look.append(rss_bytes())
            await asyncio.sleep(TICK_S)
        return (self.made - made) / (time.monotonic() - began_s)

    async def converge(self) -> float:
        """How long it takes until all nodes show everything."""
        began_s = time.monotonic()
        while not all(node.version(id) == version for id, version in self.versions.items() for node in self._nodes):
            await asyncio.sleep(0.02)
        return time.monotonic() - began_s

    async def seen_after(self) -> list[float]:
        """How long single changes take to be seen by both others."""
        delays: list[float] = []
        for _ in range(PROBES):
            began_s = time.monotonic()
            id, _node = self.change()
            while not all(node.version(id) == self.versions[id] for node in self._nodes):
                await asyncio.sleep(0.001)
            delays.append(time.monotonic() - began_s)
            await asyncio.sleep(0.03)
        return delays


async def _measure(seconds: float) -> dict[str, Any]:
    network = Network()
    nodes = await nodes_of(network, 3)
    load = _Load(nodes)
    for _ in load.pools:
        load.change()
    await load.converge()
    network.bytes_per_s, network.delay_s = BYTES_PER_S, DELAY_S
    before = await load.seen_after()
    bytes_each = await _bytes_each(network, load)
    taken = len(nodes) * BYTES_PER_S / bytes_each
    gc.collect()
    memory = rss_bytes()
    network.queued_bytes_max = 0
    look: list[int] = []
    made = await load.write(TIMES * taken, seconds, look)
    converged_s = await load.converge()
    after = await load.seen_after()
    middle = len(look) // 2
    return {
        "pools": POOLS,
        "bytes/s of a link": BYTES_PER_S,
        "bytes for each change": bytes_each,
        "changes/s that the links take": taken,
        "changes/s made": made,
        "seconds": seconds,
        "bytes under way on all links, max": network.queued_bytes_max,
        "RSS before": memory,
        "RSS max, first half": max(look[:middle]),
        "RSS max, second half": max(look[middle:]),
        "converged after s": converged_s,
        "single change seen after s, before": statistics.median(before),
        "single change seen after s, afterwards": statistics.median(after),
        "before": before,
        "after": after,
    }


async def _bytes_each(network: Network, load: _Load) -> float:
    """What a change costs a link when every change is sent: slowly enough for that."""
    sent, made = network.sent_bytes, load.made
    await load.write(100.0, FULL_S, [])
    await load.converge()
    spent = network.sent_bytes - sent
    await asyncio.sleep(FULL_S)
    idle = network.sent_bytes - sent - spent
    # Each change goes to both others.
    return max(1.0, (spent - idle) / (load.made - made) / 2)


def run() -> list[dict[str, Any]]:
    """Bounds as floors, and single changes against those before."""
    measured = actorkit.run(_measure(SECONDS))
    name = f"{TIMES} times what the network takes"
    return [
        result(
            f"after {name}: until all nodes show the same (bound as floor)",
            "s",
            [measured["converged after s"]],
            [CONVERGED_S],
            target=1.0,
            at_most=True,
            details=measured,
        ),
        result(
            f"after {name}: a change is seen, against before",
            "ms",
            [1000 * measured["single change seen after s, afterwards"]],
            [1000 * measured["single change seen after s, before"]],
            target=SEEN_TIMES,
            at_most=True,
        ),
        result(
            f"during {name}: memory, second half against first",
            "bytes",
            [float(measured["RSS max, second half"])],
            [float(measured["RSS max, first half"])],
            target=GROWTH,
            at_most=True,
        ),
    ]


if __name__ == "__main__":
    measured = actorkit.run(_measure(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS))
    print(json.dumps(measured, indent=1))

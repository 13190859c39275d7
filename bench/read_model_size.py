"""What do many updates leave behind? Memory and the size of the documents, against those of a fresh map.

Two nodes in one process, 300 pools; each change is written into a document and sent: the next one is made when the
other node has heard. ``python -m bench.read_model_size 10000000`` makes ten million changes (ten to forty minutes); the
default is enough for every document to have been written anew many times.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from typing import Any

import actorkit
from actorkit.readmodel.settings import ReadModelSettings
from bench.measure import result
from bench.read_models import Network, Node, document_bytes, nodes_of, rss_bytes
from bench.shown import pools_of

POOLS = 300
UPDATES = 150_000
LOOKS = 20
TIMES = 4.0


class _Writers:
    """Changes each pool in turn, on the node that has it."""

    def __init__(self, nodes: list[Node]) -> None:
        self._nodes = nodes
        ids = pools_of(POOLS)
        self._ids = [[id for id in ids if node.owns(id)] for node in nodes]
        self._version = 0

    async def change_all(self) -> None:
        """Returns when all nodes have everything."""
        self._version += 1
        for node, ids in zip(self._nodes, self._ids, strict=True):
            for id in ids:
                node.change(id, self._version)
        while not self.equal():
            await asyncio.sleep(0)

    def equal(self) -> bool:
        """Whether all of them show the newest version of everything."""
        version = self._version
        shown = [node.view.items() for node in self._nodes]
        return all(
            len(entries) == POOLS and all(entry.version == version for entry in entries.values()) for entries in shown
        )


async def _measure(updates: int) -> dict[str, Any]:
    gc.collect()
    before = rss_bytes()
    network = Network()
    nodes = await nodes_of(network, 2, settings=ReadModelSettings(flush_s=0.0))
    writers = _Writers(nodes)
    await writers.change_all()
    gc.collect()
    fresh_bytes, fresh_rss = [document_bytes(node) for node in nodes], rss_bytes()
    sizes: list[list[int]] = []
    memory: list[int] = []
    began_s, cpu_s = time.monotonic(), time.process_time()
    rounds = max(1, updates // POOLS)
    for number in range(1, rounds + 1):
        await writers.change_all()
        if number % max(1, rounds // LOOKS) == 0:
            sizes.append([document_bytes(node) for node in nodes])
            memory.append(rss_bytes())
    cpu_s = time.process_time() - cpu_s
    return {
        "updates": rounds * POOLS,
        "seconds": time.monotonic() - began_s,
        "µs of processor time for each update, both nodes": cpu_s / (rounds * POOLS) * 1e6,
        "fresh documents": fresh_bytes,
        "largest documents": [max(column) for column in zip(*sizes, strict=True)],
        "RSS before any node": before,
        "RSS with fresh maps": fresh_rss,
        "RSS afterwards, greatest": max(memory),
        "RSS, in order": memory,
        "rewrites": [node.model.counters.rewrites for node in nodes],
    }


def run() -> list[dict[str, Any]]:
    """The floor is a fresh map."""
    measured = actorkit.run(_measure(UPDATES))
    largest, fresh = ([float(size) for size in measured[name]] for name in ("largest documents", "fresh documents"))
    base = measured["RSS before any node"]
    used = [float(measured["RSS afterwards, greatest"] - base)]
    first = [float(measured["RSS with fresh maps"] - base)]
    after = f"after {measured['updates']:,} updates of {POOLS} keys"
    return [
        result(f"documents {after}", "bytes", largest, fresh, target=TIMES, at_most=True, details=measured),
        result(f"memory of two nodes {after}", "bytes", used, first, target=TIMES, at_most=True),
    ]


if __name__ == "__main__":
    print(json.dumps(actorkit.run(_measure(int(sys.argv[1]) if len(sys.argv) > 1 else UPDATES)), indent=1))

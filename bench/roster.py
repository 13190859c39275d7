"""Which pool does a reservation belong to? Three designs side by side, up to ten times what each can take, and after.

``release`` is called on any node and knows only the reservation's id. Ours carries the pool in the id. The service that
this one follows kept a roster, reservation to pool, in a map replicated to all nodes, and fell apart: see
``bench.roster_nodes``. The third asks all nodes.

Three nodes in one process; each link takes so many bytes a second, which is what limits all three: so the figures are
small, and the same happens at whatever rate a network has. First each design's capacity is measured (as many calls as
are answered when the next one is made as soon as one has ended), then its own multiples of that are offered, half
reservations, half releases of earlier reservations, each through any node; then half of its capacity again, until it is
as it was before.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter as Counts
from collections import deque
from collections.abc import Coroutine
from typing import Any

from rich.console import Console
from rich.table import Table

import actorkit
from bench.measure import result
from bench.processes import percentiles
from bench.read_models import Network, rss_bytes
from bench.roster_nodes import Broadcast, Carried, Node, Roster

DESIGNS: dict[str, type[Node]] = {"the id carries it": Carried, "replicated roster": Roster, "broadcast": Broadcast}
NODES = 3
POOLS = 300
BYTES_PER_S = 5_000.0
DELAY_S = 0.001
MULTIPLES = (0.5, 1.0, 2.5, 5.0, 10.0)
STEP_S = 3.0
CLOSED_CALLS = 60
"""In progress on all nodes while the capacity is measured."""
NORMAL = 0.5
ENDINGS = ("done", "late", "unknown", "refused")
TICK_S = 0.005
AGE_S = 0.5
AGE_MAX_S = 1.0
"""A reservation is released between these ages, or never."""
WINDOW_S = 0.5
RECOVERED_PART = 0.99
RECOVERY_MAX_S = 20.0
RECOVERY_BOUND_S = 5.0
SEED = 20180301


class _Callers:
    """Reserve and release in turns, each through any node."""

    def __init__(self, nodes: list[Node]) -> None:
        self._nodes = nodes
        self._random = random.Random(SEED)
        self._reserved: deque[tuple[float, str]] = deque()
        self._turn = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    def call(self) -> Coroutine[Any, Any, None] | None:
        """One of both; ``None``: it was refused at once."""
        node = self._random.choice(self._nodes)
        if node.full:
            node.endings["refused"] += 1
            return None
        self._turn += 1
        now_s, reserved = self._loop.time(), self._reserved
        while reserved and reserved[0][0] + AGE_MAX_S < now_s:
            reserved.popleft()
        if self._turn % 2 and reserved and reserved[0][0] + AGE_S <= now_s:
            return node.release(reserved.popleft()[1])
        return node.reserve(f"pool-{self._random.randrange(POOLS)}", self._note)

    def _note(self, reservation: str) -> None:
        self._reserved.append((self._loop.time(), reservation))

    async def capacity(self, seconds: float) -> float:
        """Calls a second that are answered; the first half of the time is not counted."""
        end_s = self._loop.time() + seconds

        async def caller() -> None:
            while self._loop.time() < end_s:
                call = self.call()
                assert call is not None
                await call

        callers = [asyncio.ensure_future(caller()) for _ in range(CLOSED_CALLS)]
        await asyncio.sleep(seconds / 2)
        self.clear()
        began_s = time.monotonic()
        await asyncio.gather(*callers)
        return self.endings()["done"] / (time.monotonic() - began_s)

    async def offer(self, rate: float, seconds: float) -> dict[str, Any]:
        """So many calls a second, whatever becomes of them."""
        self.clear()
        began_s, made = time.monotonic(), 0
        while (spent_s := time.monotonic() - began_s) < seconds:
            while made < rate * spent_s:
                made += 1
                if (call := self.call()) is not None:
                    task = asyncio.ensure_future(call)
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(TICK_S)
        endings, spent_s = self.endings(), time.monotonic() - began_s
        return {
            "offered/s": made / spent_s,
            "endings/s": {ending: count / spent_s for ending, count in endings.items()},
            "took_s": percentiles([took for node in self._nodes for took in node.took_s]),
            "waiting bytes": max(node.waiting_bytes for node in self._nodes),
            "kept bytes": max(node.kept_bytes for node in self._nodes),
            "RSS": rss_bytes(),
        }

    async def recover(self, rate: float) -> float:
        """How long it takes until all calls of a window are answered again; infinite: not within the time."""
        began_s = time.monotonic()
        while time.monotonic() - began_s < RECOVERY_MAX_S:
            offered = await self.offer(rate, WINDOW_S)
            endings = offered["endings/s"]
            if endings.get("done", 0.0) >= RECOVERED_PART * sum(endings.values()) > 0:
                return max(0.0, time.monotonic() - began_s - WINDOW_S)
        return float("inf")

    def clear(self) -> None:
        for node in self._nodes:
            node.endings.clear()
            node.took_s.clear()

    def endings(self) -> Counts[str]:
        return sum((node.endings for node in self._nodes), Counts[str]())


async def _measure(design: type[Node], step_s: float) -> dict[str, Any]:
    network = Network()
    network.bytes_per_s, network.delay_s = BYTES_PER_S, DELAY_S
    names = [f"n{number}" for number in range(NODES)]
    nodes = [design(network, names, name) for name in names]
    callers = _Callers(nodes)
    capacity = await callers.capacity(step_s)
    steps = [{"multiple": multiple, **await callers.offer(multiple * capacity, step_s)} for multiple in MULTIPLES]
    recovered_s = await callers.recover(NORMAL * capacity)
    return {"capacity/s": capacity, "steps": steps, "recovered after s": recovered_s}


def _compare(step_s: float) -> dict[str, Any]:
    return {name: actorkit.run(_measure(design, step_s)) for name, design in DESIGNS.items()}


def run() -> list[dict[str, Any]]:
    """How much is still answered at ten times the load, and how soon all is well; the others are there to compare."""
    compared = _compare(STEP_S)
    lines: list[dict[str, Any]] = []
    for name, measured in compared.items():
        done = [measured["steps"][-1]["endings/s"].get("done", 0.0)]
        what = f"release finds its pool, {name}"
        ours = name == next(iter(DESIGNS))
        lines.append(
            result(
                f"{what}: answered at {MULTIPLES[-1]:g} times its capacity, against that",
                "1/s",
                done,
                [measured["capacity/s"]],
                target=0.5 if ours else 0.0,
                details=measured,
            )
        )
        if ours:
            recovered = [measured["recovered after s"]]
            lines.append(
                result(f"{what}: recovery (bound as floor)", "s", recovered, [RECOVERY_BOUND_S], target=1, at_most=True)
            )
    return lines


def _table(compared: dict[str, Any]) -> Table:
    table = Table(title=f"{NODES} nodes, links of {BYTES_PER_S:,.0f} bytes/s: calls a second")
    for column in ("design", "times", "offered", "done", *ENDINGS[1:], "p99 ms", "queue kB", "kept kB"):
        table.add_column(column, justify="left" if column == "design" else "right")
    for name, measured in compared.items():
        for step in measured["steps"]:
            endings = (f"{step['endings/s'].get(ending, 0.0):,.0f}" for ending in ENDINGS)
            p99 = f"{1000 * step['took_s']['p99']:,.0f}"
            sizes = (f"{step[size] / 1000:,.0f}" for size in ("waiting bytes", "kept bytes"))
            table.add_row(name, f"{step['multiple']:g}", f"{step['offered/s']:,.0f}", *endings, p99, *sizes)
        recovered_s = measured["recovered after s"]
        never = f"not recovered after {RECOVERY_MAX_S:g} s"
        said = never if recovered_s == float("inf") else f"recovered after {recovered_s:.1f} s"
        table.add_row(name, "then", said, *[""] * 7)
        table.add_section()
    return table


if __name__ == "__main__":
    measured = _compare(float(sys.argv[1]) if len(sys.argv) > 1 else STEP_S)
    print(json.dumps(measured, indent=1), file=sys.stderr)
    Console(width=130).print(_table(measured))

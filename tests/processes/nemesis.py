"""A long run: real bookings into real processes, to which something bad happens all the time; then the verdict.

``make nemesis MINUTES=60``. Every node is a process; clients book and cancel through all of them what guests of two
hotels have booked and cancelled. Now and then a node is killed and started again, stopped for longer than its leases
last, told to leave and started again, or somebody else holds the file's lock; or its links are cut in both directions
or in one, flap, are slow, or break (``--links namespaces``: those of network namespaces, else of proxies). After each
fault every shard has to take writes again; how long that took is shown. In the end the whole history is held against
the model of a pool, and against the journal. Ends with 1 where anything is wrong; history and logs are kept then.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random

from actorkit.testing.checkers import Recorder
from examples.capacity_service.bookings import Command, command_stream, peak_demand
from tests.processes.callers import Caller, percentile
from tests.processes.link_faults import LINKS
from tests.processes.links import Links
from tests.processes.namespaces import inside, why_not
from tests.processes.nodes import Nodes, processes
from tests.processes.story import Story
from tests.replay.test_bookings import real_bookings

CALLERS = 12
OPERATIONS_MAX = 5_000_000
BETWEEN_S = (2.0, 8.0)
"""How long nothing bad happens."""
PAUSE_S = (1.0, 12.0)
"""Shorter and longer than leases, and than it takes to be declared gone."""
LOCKED_S = (1.0, 6.0)
SERVED_AGAIN_S = 5.0
"""What is promised after a crash."""
FAILED_AFTER = 2.0
"""So many times as long is wrong whatever else the machine has to do."""
OFTEN = ("kill", "kill", "kill", "pause", "pause", "leave", "leave", "lock")
"""As often as all faults of links together."""


class Nemesis:
    """One run of it."""

    def __init__(self, story: Story, links: Links, random: Random, faults: Sequence[str]) -> None:
        self.story = story
        self._links = links
        all_faults: dict[str, Callable[[], Awaitable[None]]] = {
            "kill": self._kill,
            "pause": self._pause,
            "leave": self._leave,
            "lock": self._lock,
            **{name: partial(self._befall, name) for name in links.faults},
        }
        self._faults = [all_faults[name] for name in faults or (*OFTEN, *links.faults)]
        self.random = random
        self.findings: list[str] = []
        self.took_s: dict[str, list[float]] = {}
        self._stopping = asyncio.Event()
        self._pools = self._all_pools()
        self.bookings = 0

    # ----------------------------------------------------------------------------------------------------------- load

    def _all_pools(self) -> Iterator[tuple[str, int, list[Command]]]:
        """Pools with what happened to them, each in its order; again and again, as other pools."""
        stream = command_stream(real_bookings())
        peaks = peak_demand(stream)
        by_pool: dict[str, list[Command]] = {}
        for command in stream:
            by_pool.setdefault(command.pool, []).append(command)
        round_number = 0
        while True:
            round_number += 1
            for pool, commands in by_pool.items():
                yield f"r{round_number}-{pool}", max(1, peaks[pool] * 4 // 5), commands

    async def book(self, caller: Caller) -> None:
        """One pool after the other, until the end; the pool that is being booked then is not finished."""
        while not self._stopping.is_set():
            pool, capacity, commands = next(self._pools)
            await caller.call("change", pool, {"capacity": capacity}, key=caller.next_key())
            held: set[str] = set()
            for command in commands:
                if self._stopping.is_set():
                    return
                part = f"b{command.booking}"
                if command.op == "reserve":
                    told = await caller.call("reserve", pool, 1, part, key=command.key)
                    held |= {part} if told.status == 200 else set()
                elif part in held:
                    await caller.call("release", pool, part, None, key=command.key)
                self.bookings += 1
                if self.random.random() < 0.05:
                    await caller.call("describe", pool)

    # --------------------------------------------------------------------------------------------------------- faults

    async def torment(self, minutes: float) -> None:
        """One fault after the other; after each everything has to be served again."""
        nodes, random = self.story.nodes, self.random
        until_s = time.monotonic() + minutes * 60
        while time.monotonic() < until_s:
            await asyncio.sleep(random.uniform(*BETWEEN_S))
            await random.choice(self._faults)()
            for node in nodes.all:
                if not node.running:
                    await nodes.start(node)
            await nodes.formed(nodes.all)

    async def _served_again(self, fault: str, *, within_s: float | None) -> None:
        took_s = await self.story.served_again_s()
        self.took_s.setdefault(fault, []).append(took_s)
        late = within_s is not None and took_s > within_s
        print(f"{fault}: served again after {took_s:.2f} s{' — LATE' if late else ''}", flush=True)
        if late:
            # The last caller is the one that has asked.
            for failure in self.story.callers[-1].failures:
                print(f"  {failure}", flush=True)
        if within_s is not None and took_s > FAILED_AFTER * within_s:
            self.findings.append(f"{fault}: served again after {took_s:.2f} s only")

    async def _kill(self) -> None:
        node = self.random.choice(self.story.nodes.all)
        await node.kill()
        await self._served_again("kill -9", within_s=SERVED_AGAIN_S)

    async def _pause(self) -> None:
        node = self.random.choice(self.story.nodes.all)
        node.send_signal(signal.SIGSTOP)
        node.was_ready = False
        await asyncio.sleep(self.random.uniform(*PAUSE_S))
        node.send_signal(signal.SIGCONT)
        # From here on, since a node that was stopped while it had the file's lock held up everybody until now.
        await self._served_again("SIGSTOP, SIGCONT", within_s=None)
        self.findings += await self.story.nodes.whole_again()

    async def _befall(self, fault: str) -> None:
        """To callers nothing is said: those who ask the node that is cut off go on to."""
        nodes = self.story.nodes
        node = self.random.choice(nodes.all)
        others = [each.name for each in nodes.all if each is not node]
        async with self._links.faults[fault](node.name, others, self.random):
            await asyncio.sleep(self.random.uniform(*PAUSE_S))
        await self._served_again(fault, within_s=SERVED_AGAIN_S)
        self.findings += await nodes.whole_again()

    async def _leave(self) -> None:
        node = self.random.choice(self.story.nodes.all)
        status = await node.terminate()
        if status != 0:
            self.findings.append(f"{node.name} has ended with status {status} when it was told to leave")
        await self._served_again("SIGTERM", within_s=SERVED_AGAIN_S)

    async def _lock(self) -> None:
        foreign = sqlite3.connect(self.story.nodes.journal, isolation_level=None, timeout=30, check_same_thread=False)
        await asyncio.to_thread(foreign.execute, "BEGIN IMMEDIATE")
        await asyncio.sleep(self.random.uniform(*LOCKED_S))
        foreign.execute("ROLLBACK")
        foreign.close()
        await self._served_again("locked by another", within_s=SERVED_AGAIN_S)

    # ------------------------------------------------------------------------------------------------------------ run

    async def run(self, minutes: float) -> None:
        """Everything but the verdict on the history."""
        story = self.story
        await story.create_pools(capacity=1_000_000)
        tasks = [asyncio.create_task(self.book(story.caller(f"guest-{number}"))) for number in range(CALLERS)]
        try:
            await self.torment(minutes)
        finally:
            self._stopping.set()
            await asyncio.gather(*tasks)

    def show(self) -> None:
        for fault, values in sorted(self.took_s.items()):
            figures = ", ".join(f"p{part} {percentile(values, part):.2f} s" for part in (50, 99))
            print(f"{fault}: {len(values)} times, served again: {figures}, at most {max(values):.2f} s")
        outcomes = Counter(each.outcome.value for each in self.story.recorder.history().operations)
        print(f"{self.bookings} bookings and cancellations; operations: {dict(outcomes)}")


async def run(nodes: Nodes, links: Links, directory: Path, minutes: float, seed: int, faults: Sequence[str]) -> int:
    """The status with which the command ends."""
    await nodes.start_all()
    story = Story(nodes, seed)
    story.recorder = Recorder(operations_max=OPERATIONS_MAX)
    nemesis = Nemesis(story, links, Random(seed), faults)
    await nemesis.run(minutes)
    nemesis.show()
    print("judging", flush=True)
    findings = [*nemesis.findings, *await story.wrong()]
    internal = [failure for failure in story.failures if " 500 " in failure]
    findings += [f"a defect was met: {failure}" for failure in internal]
    for finding in findings:
        print(f"found: {finding}")
    if findings:
        (directory / "history.jsonl").write_text("".join(story.recorder.history(seed=seed).lines()))
        print(f"the history, the journal and the logs are in {directory}")
    else:
        print("nothing was lost, nothing was done twice, every answer was right")
    return 1 if findings else 0


def chosen_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--faults", default="", help="One of them each time, at random; else all that there are.")
    parser.add_argument("--links", choices=LINKS, default="proxies", help="What the nodes reach each other through.")
    parser.add_argument("--isolated", action="store_true", help="This is a network namespace of its own already.")
    return parser.parse_args()


async def main(chosen: argparse.Namespace) -> int:
    print(f"seed {chosen.seed}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="nemesis-"))
    names = [f"n{number}" for number in range(1, chosen.nodes + 1)]
    links = LINKS[chosen.links]()
    faults = [fault for fault in chosen.faults.split(",") if fault]
    async with processes(directory, names, shards=chosen.shards, links=links) as nodes:
        return await run(nodes, links, directory, chosen.minutes, chosen.seed, faults)


if __name__ == "__main__":
    options = chosen_options()
    if options.links == "namespaces" and not options.isolated:
        if reason := why_not():
            sys.exit(f"no network namespaces: {reason}")
        again = inside([sys.executable, "-m", "tests.processes.nemesis", *sys.argv[1:], "--isolated"])
        os.execvp(again[0], again)
    sys.exit(asyncio.run(main(options)))

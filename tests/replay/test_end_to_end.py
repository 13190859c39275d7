"""Real bookings against a real node in a process of its own, or a cluster of them, killed and started again on the way.

All of them, with ten kills, on one node and then on three, all of which are asked for availability all the while
(``REPLAY_READS`` times for each command)::

    REPLAY_BOOKINGS=119390 REPLAY_KILLS=10 make test PYTEST_ARGS="-k is_killed --timeout 3600"
    REPLAY_BOOKINGS=119390 REPLAY_KILLS=10 make test PYTEST_ARGS="-k are_killed --timeout 3600"
"""

from __future__ import annotations

import asyncio
import io
import os
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from examples.capacity_service.bookings import Command, Recomputation, command_stream, peak_demand, recompute
from examples.capacity_service.replay_client import ServiceClient
from examples.capacity_service.replay_driver import Driver, Figures
from examples.capacity_service.replay_reads import Reads
from tests.processes.nodes import Nodes, processes
from tests.processes.ports import free_port
from tests.replay.test_bookings import real_bookings

PROJECT = Path(__file__).parent.parent.parent
BOOKINGS = int(os.environ.get("REPLAY_BOOKINGS", "2000"))
KILLS = int(os.environ.get("REPLAY_KILLS", "2"))
NODES = int(os.environ.get("REPLAY_NODES", "3"))
READS = int(os.environ.get("REPLAY_READS", "1"))
SEED = int(os.environ.get("REPLAY_SEED", "1"))
CONCURRENCY = 32


class Node:
    """A node that can be killed and started again on the same port and file."""

    def __init__(self, journal: Path) -> None:
        self.address, self._remoting = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self._journal = journal
        self.log = journal.with_suffix(".log")
        self._process: asyncio.subprocess.Process

    async def start(self) -> None:
        """Returns once it serves."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "examples.capacity_service", "node", "--name", "n1", "--http", self.address),
                *("--remoting", self._remoting, "--journal", f"sqlite:///{self._journal}"),
                cwd=PROJECT,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert self._process.stdout is not None
        assert b"serves" in await self._process.stdout.readline()

    async def kill(self) -> None:
        """``kill -9``: it cannot do anything about it."""
        self._process.kill()
        await self._process.wait()

    async def terminate(self) -> int:
        self._process.terminate()
        return await self._process.wait()


class KillingReport(io.BytesIO):
    """Says when so many commands have had their answers."""

    def __init__(self, kill_after: list[int]) -> None:
        super().__init__()
        self.lines = 0
        self.reached = {number: asyncio.Event() for number in kill_after}

    def write(self, line: bytes) -> int:  # type: ignore[override]
        self.lines += 1
        if self.lines in self.reached:
            self.reached[self.lines].set()
        return super().write(line)


@asynccontextmanager
async def running(node: Node) -> AsyncIterator[Node]:
    await node.start()
    try:
        yield node
    except BaseException:
        print(node.log.read_text()[-4000:])
        raise
    finally:
        if node._process.returncode is None:
            await node.kill()


def some_bookings() -> tuple[list[Command], Recomputation]:
    stream = command_stream(real_bookings(), limit=BOOKINGS)
    return stream, recompute(stream, {pool: max(1, peak * 4 // 5) for pool, peak in peak_demand(stream).items()})


def report_with_kills(stream: list[Command]) -> KillingReport:
    # Early enough that all of them are reached: not every command is sent.
    return KillingReport(sorted(random.Random(SEED).sample(range(1, len(stream) * 4 // 5), KILLS)))


async def kill_and_restart(node: Node, report: KillingReport) -> None:
    for reached in report.reached.values():
        await reached.wait()
        await node.kill()
        await node.start()


class Absence(NamedTuple):
    """From when a node was killed until all were members again."""

    url: str
    began_s: float
    ended_s: float


async def kill_and_restart_one_of(nodes: Nodes, report: KillingReport) -> list[Absence]:
    """The next one is killed once all are members again."""
    choice, absences = random.Random(SEED), list[Absence]()
    for reached in report.reached.values():
        await reached.wait()
        node, began_s = choice.choice(nodes.all), time.perf_counter()
        await node.kill()
        print(f"after {report.lines} commands {node.name} was killed")
        await nodes.start(node)
        await nodes.formed(nodes.all)
        absences.append(Absence(node.url, began_s, time.perf_counter()))
    return absences


def assert_only_the_absent_left_questions_open(reads: Reads, absences: list[Absence]) -> None:
    assert reads.latencies_s
    assert [
        question
        for question in reads.unanswered
        if not any(
            absence.url == question.url and absence.began_s <= question.ended_s and question.began_s <= absence.ended_s
            for absence in absences
        )
    ] == []


def assert_all_as_recomputed(driver: Driver, stream: list[Command], report: KillingReport) -> None:
    assert driver.figures.differences == []
    assert driver.figures.done == len(stream)
    assert driver.figures.rejected > 0
    lines = [msgspec.json.decode(line) for line in report.getvalue().splitlines()]
    assert {line["status"] for line in lines} == {200, 409}
    reserved = [line["reservation_id"] for line in lines if line["outcome"] == "reserved"]
    assert len(set(reserved)) == len(reserved)


@pytest.mark.skipif(os.name != "posix", reason="platform: needs kill -9")
async def test_a_node_that_is_killed_on_the_way_has_every_acknowledged_command_once(tmp_path: Path) -> None:
    stream, expected = some_bookings()
    print(f"REPLAY_SEED={SEED}")
    report = report_with_kills(stream)
    node = Node(tmp_path / "capacity.db")
    async with running(node):
        async with ServiceClient([f"http://{node.address}"], connections=CONCURRENCY, patience_s=60) as client:
            driver = Driver(client, stream, expected, concurrency=CONCURRENCY, report=report)
            await driver.create_pools(key="create")
            killing = asyncio.create_task(kill_and_restart(node, report))
            await driver.drive()
            await killing
            await driver.compare_pools()
            assert await driver.compare_availability(f"http://{node.address}")
            assert client.retries > 0, "the node was killed while commands were in flight"
        assert await node.terminate() == 0
    assert_all_as_recomputed(driver, stream, report)


@pytest.mark.skipif(os.name != "posix", reason="platform: needs kill -9")
async def test_a_cluster_whose_nodes_are_killed_on_the_way_has_every_acknowledged_command_once(tmp_path: Path) -> None:
    stream, expected = some_bookings()
    print(f"REPLAY_SEED={SEED}")
    report = report_with_kills(stream)
    async with processes(tmp_path, [f"n{number}" for number in range(1, NODES + 1)], shards=64) as nodes:
        await nodes.start_all()
        urls = [node.url for node in nodes.all]
        async with ServiceClient(urls, connections=CONCURRENCY, patience_s=60) as client:
            figures = Figures()
            reads = Reads(client, urls, per_command=READS, differs=figures.differs)
            driver = Driver(
                client, stream, expected, concurrency=CONCURRENCY, report=report, reads=reads, figures=figures
            )
            await driver.create_pools(key="create")
            killing = asyncio.create_task(kill_and_restart_one_of(nodes, report))
            await driver.drive()
            absences = await killing
            await driver.compare_pools()
            for url in urls:
                assert await driver.compare_availability(url)
            assert client.retries > 0, "nodes were killed while commands were in flight"
            assert_only_the_absent_left_questions_open(reads, absences)
        assert await nodes.stop_all() == [0] * NODES
    assert_all_as_recomputed(driver, stream, report)

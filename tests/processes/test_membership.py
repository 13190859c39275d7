"""Forming, joining and leaving with real processes: nobody who uses the service notices."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest

from tests.processes.callers import percentile
from tests.processes.nodes import processes, until
from tests.processes.story import Story, cluster

pytestmark = pytest.mark.timeout(300)


def look_at(story: Story, what: str) -> None:
    latencies = [each for caller in story.callers for each in caller.latencies_s]
    figures = ", ".join(f"p{part:g} {percentile(latencies, part) * 1e3:.0f} ms" for part in (50, 99, 99.9))
    print(f"{what}: {len(latencies)} calls, {figures}")
    assert story.failures == []


async def test_nodes_leave_and_join_under_load_and_no_request_fails(tmp_path: Path) -> None:
    async with cluster(tmp_path) as story:
        nodes = story.nodes
        async with story.load():
            await story.progress(100)
            look_at(story, "before")
            for leaving in (nodes[2], nodes[0]):
                assert await leaving.terminate() == 0
                look_at(story, f"{leaving.name} has left")
                await story.progress(50)
                await nodes.start(leaving)
                await nodes.formed(nodes.all)
                await story.progress(50)
                look_at(story, f"{leaving.name} is back")
        assert await story.wrong() == []
        assert story.failures == []


@pytest.mark.parametrize("seed", range(3))
async def test_nodes_that_start_at_about_the_same_time_end_up_in_one_cluster(tmp_path: Path, seed: int) -> None:
    print(f"seed {seed}")
    random = Random(seed)
    async with processes(tmp_path, ["a", "b", "c"], shards=4) as nodes:
        order = list(nodes.all)
        random.shuffle(order)

        async def start_after(node_number: int, delay_s: float) -> None:
            # What is tested is the delay itself.
            await asyncio.sleep(delay_s)
            await nodes.start(order[node_number])

        delays_s = [0.0, *(0.0 if seed == 0 else random.uniform(0.0, 4.0) for _ in range(2))]
        await asyncio.gather(*(start_after(number, delay_s) for number, delay_s in enumerate(delays_s)))
        await nodes.formed(nodes.all)
        assert await nodes.stop_all() == [0, 0, 0]


async def test_nodes_with_another_secret_stay_out(tmp_path: Path) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("one-secret-of-the-right-length-for-all\n")
    wrong.write_text("another-secret-of-the-right-length-too\n")
    async with processes(tmp_path, ["a", "b", "stranger"], shards=4) as nodes:
        insiders, stranger = nodes.all[:2], nodes[2]
        for node in insiders:
            await nodes.start(node, "--secret-file", str(right))
        await nodes.formed(insiders)
        await nodes.start(stranger, "--secret-file", str(wrong))

        async def refused() -> bool:
            return "handshake_failed" in stranger.log.read_text()

        await until(refused, "the stranger's handshakes fail")
        await nodes.formed(insiders)
        assert await nodes.get(stranger, "/health/ready") is None
        assert await nodes.stop_all() == [0, 0, 0]

"""Three nodes on one file, and what befalls them: faults 30, 31 and 37, with the history and the journal judged."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from tests.processes.nodes import NodeProcess, until
from tests.processes.story import cluster

TAKE_OVER_MAX_S = 10.0
"""Twice what is promised: machines of a test service are slow, and do other things meanwhile."""
LEASE_S = 3.0

pytestmark = pytest.mark.timeout(300)


async def test_a_node_that_is_killed_under_load_is_replaced_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    async with cluster(tmp_path) as story:
        nodes = story.nodes
        assert {await nodes.owner_of(shard) for shard in range(nodes.shards)} == {"n1", "n2", "n3"}
        async with story.load():
            await story.progress(100)
            await nodes[0].kill()
            took_s = await story.served_again_s()
            print(f"served again after {took_s:.2f} s")
            assert took_s < TAKE_OVER_MAX_S
            await story.progress(50)
            # Under the same name, at the same address: another incarnation.
            await nodes.start(nodes[0])
            await nodes.formed(nodes.all)
            await story.progress(50)
        await until(lambda: story.shows_the_same_everywhere(nodes.all), "all read models show what is committed")
        assert await story.wrong() == []


async def test_every_node_answers_for_every_pool_and_shows_what_others_have_written(tmp_path: Path) -> None:
    async with cluster(tmp_path) as story:
        caller = story.caller("somebody")
        for node in story.nodes.all:
            for pool in story.pools:
                told = await caller.attempt(node, "reserve", pool, 1, None, key=caller.next_key())
                assert told.status == 200
            token = {"X-Consistency-Token": ""}
            async with story.nodes.session.post(f"{node.url}/rpc/pools", json={"pool_id": "p0", "capacity": 61}) as it:
                token["X-Consistency-Token"] = it.headers["X-Consistency-Token"]
                version = (await it.json())["version"]
            for other in story.nodes.all:
                url = f"{other.url}/rpc/availability"
                async with story.nodes.session.post(url, json={"pool_ids": ["p0"]}, headers=token) as answer:
                    assert answer.status == 200
                    body = await answer.json()
                    assert body["pools"][0]["version"] >= version
                    assert body["as_of"]["oldest_source_ms"] >= 0
        assert caller.failures == []
        assert await story.nodes.stop_all() == [0, 0, 0]


async def test_a_node_that_is_paused_for_three_leases_does_no_harm_when_it_goes_on(tmp_path: Path) -> None:
    async with cluster(tmp_path) as story:
        nodes, paused = story.nodes, story.nodes[1]
        async with story.load():
            await story.progress(100)
            await pause_without_lock(paused, nodes.journal)
            began_s = time.monotonic()
            # Whoever sends clients to nodes sees that it does not answer.
            paused.was_ready = False
            took_s = await story.served_again_s()
            print(f"served again after {took_s:.2f} s")
            assert took_s < TAKE_OVER_MAX_S

            async def three_leases_later() -> bool:
                return time.monotonic() - began_s > 3 * LEASE_S

            await until(three_leases_later, "three leases pass")
            paused.send_signal(signal.SIGCONT)
            await story.served_again_s()
            await story.progress(50)
        # It comes back as itself, or it was declared gone and ends; either way there is one cluster.
        assert await nodes.whole_again() == []
        assert await story.wrong() == []


async def pause_without_lock(node: NodeProcess, journal: Path) -> None:
    """Stops a node while it neither has the file's lock nor is the next to get it: else it would hold up everybody, as
    a foreign process does."""
    locks = [os.open(f"{journal}-lock{which}", os.O_RDWR) for which in ("-gate", "")]
    try:
        for _ in range(50):
            node.send_signal(signal.SIGSTOP)
            try:
                async with asyncio.timeout(1.0):
                    for lock in locks:
                        while not taken(lock):
                            await asyncio.sleep(0)
                return
            except TimeoutError:
                node.send_signal(signal.SIGCONT)
            finally:
                for lock in locks:
                    fcntl.flock(lock, fcntl.LOCK_UN)
        raise AssertionError("it held the lock whenever it was stopped")
    finally:
        for lock in locks:
            os.close(lock)


def taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def test_a_foreign_process_that_holds_the_write_lock_delays_and_destroys_nothing(tmp_path: Path) -> None:
    async with cluster(tmp_path) as story:
        async with story.load():
            await story.progress(100)
            foreign = sqlite3.connect(story.nodes.journal, isolation_level=None, timeout=10)
            foreign.execute("BEGIN IMMEDIATE")
            began_s = time.monotonic()

            async def a_while() -> bool:
                return time.monotonic() - began_s > 2 * LEASE_S

            await until(a_while, "two leases pass")
            foreign.execute("ROLLBACK")
            foreign.close()
            took_s = await story.served_again_s()
            print(f"served again after {took_s:.2f} s")
            assert took_s < TAKE_OVER_MAX_S
            await story.progress(50)
        await story.nodes.formed(story.nodes.all)
        assert await story.wrong() == []

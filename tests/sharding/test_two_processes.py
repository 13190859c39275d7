"""Faults 30, 31 with real processes on one SQLite file: a pause longer than the lease, kill -9, two at once."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


class Node:
    """One process, and what it has answered."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._sent = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._started = asyncio.get_running_loop().create_future()
        self._reading = asyncio.ensure_future(self._read())

    @classmethod
    async def start(cls, url: str) -> Node:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.sharding.node_process", url),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        node = cls(process)
        await node._started
        return node

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            if not line.startswith(b"{"):
                continue
            said = json.loads(line)
            if "started" in said:
                self._started.set_result(said["started"])
            else:
                self._waiting.pop(said["n"]).set_result(said)
        for left in self._waiting.values():
            left.set_exception(ConnectionResetError("the process has gone"))
            left.exception()

    def send(self, do: str, *args: Any, key: str | None = None) -> asyncio.Future[dict[str, Any]]:
        self._sent += 1
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[self._sent] = answer
        assert self._process.stdin is not None
        line = json.dumps({"n": self._sent, "do": do, "args": args, "key": key})
        self._process.stdin.write(line.encode() + b"\n")
        return answer

    async def call(self, do: str, *args: Any, key: str | None = None) -> Any:
        return (await self.send(do, *args, key=key))["reply"]

    def pause(self, file: Path) -> None:
        """Stops the process where it does not hold the file's lock: time during which it does is not promised."""
        with ExitStack() as locks:
            for name in ("lock-gate", "lock"):
                lock = locks.enter_context(Path(f"{file}-{name}").open("r+"))
                fcntl.flock(lock, fcntl.LOCK_EX)
            os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    async def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._reading

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reading


class Cluster:
    def __init__(self, file: Path) -> None:
        self.file = file
        self.nodes: list[Node] = []

    async def start(self) -> Node:
        node = await Node.start(f"sqlite:///{self.file}")
        self.nodes.append(node)
        return node


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    cluster = Cluster(tmp_path / "journal.db")
    yield cluster
    for node in cluster.nodes:
        await node.kill()


async def test_a_process_that_was_paused_for_longer_than_its_lease_is_fenced(cluster: Cluster) -> None:
    """Fault 31. What it had in memory does not count any more, and it says nothing that rests on it."""
    first, second = await cluster.start(), await cluster.start()
    assert await first.call("note", "1") == ["1"]
    first.pause(cluster.file)
    assert await second.call("note", "2") == ["1", "2"]
    notes, note, again = first.send("notes"), first.send("note", "3", key="k"), first.send("note", "3", key="k")
    first.go_on()
    assert await second.call("note", "4") == ["1", "2", "4"]
    assert not (notes.done() and "reply" in notes.result()), "the second one renews its lease"
    assert not note.done()
    await second.stop()
    assert (await notes)["reply"] == ["1", "2", "4"]
    assert (await note)["reply"] == ["1", "2", "4", "3"]
    assert (await again)["reply"] == ["1", "2", "4", "3"]
    assert await first.call("notes") == ["1", "2", "4", "3"]


async def test_only_one_of_two_processes_writes_at_a_time(cluster: Cluster) -> None:
    first, second = await cluster.start(), await cluster.start()
    assert await first.call("note", "1") == ["1"]
    waiting = second.send("note", "2")
    for number in range(20):
        await first.call("note", f"first {number}")
    assert not waiting.done()
    await first.stop()
    assert (await waiting)["reply"] == ["1", *(f"first {number}" for number in range(20)), "2"]


@pytest.mark.parametrize("seed", range(1))
async def test_a_killed_process_loses_nothing_that_it_acknowledged(cluster: Cluster, seed: int) -> None:
    """Fault 30, with keys: after each kill whatever got no answer is sent again, and acts once."""
    print(f"seed {seed}")
    wanted = [f"{number}" for number in range(40 + seed)]
    acknowledged: set[str] = set()
    for kills in range(4):
        node = await cluster.start()
        calls = {text: node.send("note", text, key=text) for text in wanted}
        enough = 1 + (kills * 13 + seed * 7) % len(wanted)
        for done in asyncio.as_completed(calls.values()):
            await done
            enough -= 1
            if not enough:
                break
        await node.kill()
        acknowledged |= {text for text, call in calls.items() if call.done() and not call.exception()}
    node = await cluster.start()
    notes = await node.call("notes")
    assert len(set(notes)) == len(notes)
    assert acknowledged <= set(notes)
    replies = await asyncio.gather(*(node.call("note", text, key=text) for text in wanted))
    notes = await node.call("notes")
    assert sorted(notes) == sorted(wanted)
    for text, reply in zip(wanted, replies, strict=True):
        assert reply == notes[: notes.index(text) + 1]

"""Nodes in processes of their own, which do what they are told by lines of JSON, and answer each with one."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
import time
import traceback
from typing import Any

import structlog

__all__ = ["Lags", "Process", "do_as_told", "free_port", "log_errors_only", "percentiles"]

LAG_EVERY_S = 0.005
LINE_MAX_BYTES = 1 << 24


class Process:
    """A node in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._sent = 0
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reading = asyncio.ensure_future(self._read())

    @classmethod
    async def start(cls, module: str, *arguments: str) -> Process:
        """Runs a module of ours, which is to ``do_as_told``. Returns at once."""
        pipe = asyncio.subprocess.PIPE
        return cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", module, *arguments), stdin=pipe, stdout=pipe, limit=LINE_MAX_BYTES
            )
        )

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            number, answer = json.loads(line)
            self._waiting.pop(number).set_result(answer)
        for left in self._waiting.values():
            left.set_exception(ConnectionResetError("the node has ended"))

    def tell(self, what: str, **arguments: Any) -> asyncio.Future[Any]:
        """The future is what it answers."""
        assert self._process.stdin is not None
        self._sent += 1
        answer = self._waiting[self._sent] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps([self._sent, what, arguments]).encode() + b"\n")
        return answer

    async def kill(self) -> float:
        """Returns when it was killed."""
        killed_s = time.monotonic()
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reading
        return killed_s


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


class Lags:
    """How late the loop is, and how much of that it was busy itself: the rest is for want of a processor."""

    def __init__(self) -> None:
        self.late_s: list[float] = []
        self.busy_s: list[float] = []

    async def watch(self) -> None:
        """Until it is cancelled."""
        while True:
            began_s, cpu_s = time.monotonic(), time.thread_time()
            await asyncio.sleep(LAG_EVERY_S)
            self.late_s.append(time.monotonic() - began_s - LAG_EVERY_S)
            self.busy_s.append(time.thread_time() - cpu_s)


def percentiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values) or [0.0]
    return {name: ordered[min(len(ordered) - 1, int(len(ordered) * part))] for name, part in _PARTS}


_PARTS = (("p50", 0.5), ("p99", 0.99), ("max", 1.0))


async def do_as_told(node: Any) -> None:
    """Calls the methods of ``node`` that this process is told, until its input ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LINE_MAX_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def do(number: int, what: str, arguments: dict[str, Any]) -> None:
        try:
            answer = await getattr(node, what)(**arguments)
        except BaseException:  # noqa: BLE001 - whoever waits for the answer is to know
            traceback.print_exc()
            os._exit(1)
        print(json.dumps([number, answer]), flush=True)

    tasks: set[asyncio.Task[None]] = set()
    while line := await reader.readline():
        task = asyncio.create_task(do(*json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


def log_errors_only() -> None:
    """To the standard error, since the standard output is for answers."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )

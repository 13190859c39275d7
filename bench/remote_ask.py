"""What does an ask between two processes cost, against bare MessagePack over the same WebSockets?

With 1,000 in flight the floor packs everything queued in one turn of the loop into one frame, unpacks it and resolves
futures, and does nothing else: no authentication, limits, declared types, order across reconnects or heartbeats. One at
a time the floor is a message that comes back. This measures remoting itself: the handler at the other end echoes, and
asks are matched with answers here; regions and entities come on top.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import msgpack

import actorkit
from actorkit.remoting import Connected, Remoting
from bench.measure import interleaved, result
from bench.remote_echo import MAX_BYTES, Answer, Ask, remoting_of

IN_FLIGHT = 1_000
ASKS_EACH = 50
ONE_BY_ONE = 2_000
ROUNDS = 9
TARGET = 0.4
TARGET_ONE = 2.0
ARGUMENTS = b"x" * 40

AskOne = Callable[[int], Awaitable[Any]]


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _other_process(*ports: int) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-m", "bench.remote_echo", *map(str, ports)])
    try:
        yield
    finally:
        process.terminate()
        process.wait()


class Asker:
    """The least that makes asks of messages: numbers, and a dict of futures."""

    def __init__(self, remoting: Remoting, address: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._number = 0
        self._send = remoting.send
        self._address = address
        remoting.register(Ask, lambda peer, message: None)
        remoting.register(Answer, lambda peer, answer: self._waiting.pop(answer.number).set_result(answer.reply))

    def ask(self, _: int) -> asyncio.Future[bytes]:
        self._number += 1
        future = self._waiting[self._number] = self._loop.create_future()
        if not self._send(self._address, Ask(self._number, "pool/17", "reserve", ARGUMENTS)):
            raise RuntimeError("the ask was not accepted")
        return future


class FloorAsker:
    """The same by hand over one WebSocket."""

    def __init__(self, websocket: aiohttp.ClientWebSocketResponse) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._number = 0
        self._queued: list[tuple[int, str, str, bytes]] = []
        self._socket = websocket
        self._reading = self._loop.create_task(self._read())

    def ask(self, _: int) -> asyncio.Future[bytes]:
        self._number += 1
        future = self._waiting[self._number] = self._loop.create_future()
        if not self._queued:
            self._loop.call_soon(self._flush)
        self._queued.append((self._number, "pool/17", "reserve", ARGUMENTS))
        return future

    def _flush(self) -> None:
        queued, self._queued = self._queued, []
        self._task = self._loop.create_task(self._socket.send_bytes(msgpack.packb(queued)))

    async def _read(self) -> None:
        async for message in self._socket:
            for number, reply in msgpack.unpackb(message.data):
                self._waiting.pop(number).set_result(reply)


async def _rate(ask: AskOne) -> float:
    async def asker() -> None:
        for number in range(ASKS_EACH):
            await ask(number)

    begin_s = time.perf_counter()
    await asyncio.gather(*(asker() for _ in range(IN_FLIGHT)))
    return IN_FLIGHT * ASKS_EACH / (time.perf_counter() - begin_s)


async def _mean_us(ask: AskOne) -> float:
    begin_s = time.perf_counter()
    for number in range(ONE_BY_ONE):
        await ask(number)
    return (time.perf_counter() - begin_s) / ONE_BY_ONE * 1e6


async def websocket_to(url: str, session: aiohttp.ClientSession) -> aiohttp.ClientWebSocketResponse:
    """A WebSocket to a process that may still have to start."""
    for _ in range(600):
        try:
            return await session.ws_connect(url, compress=0, max_msg_size=MAX_BYTES)
        except aiohttp.ClientConnectionError:
            await asyncio.sleep(0.05)
    raise RuntimeError("the other process did not start")


async def _measure(remoting_port: int, bare_port: int) -> list[dict[str, Any]]:
    async with aiohttp.ClientSession() as session:
        batches = FloorAsker(await websocket_to(f"http://127.0.0.1:{bare_port}/batches", session))
        echoes = await websocket_to(f"http://127.0.0.1:{bare_port}/echoes", session)
        remoting = remoting_of("client", free_port())
        asker = Asker(remoting, f"127.0.0.1:{remoting_port}")
        connected = asyncio.Event()
        remoting.subscribe(lambda event: connected.set() if isinstance(event, Connected) else None)
        await remoting.start()
        await asker.ask(0)
        await connected.wait()

        async def echo(_: int) -> None:
            await echoes.send_bytes(ARGUMENTS)
            await echoes.receive()

        many = await interleaved(lambda: _rate(asker.ask), lambda: _rate(batches.ask), rounds=ROUNDS)
        single = await interleaved(lambda: _mean_us(asker.ask), lambda: _mean_us(echo), rounds=ROUNDS)
        await remoting.stop()
    return [
        result("remote asks per second, two processes, 1,000 in flight (remoting, echo)", "1/s", *many, target=TARGET),
        result("one remote ask at a time (remoting, echo)", "µs", *single, target=TARGET_ONE, at_most=True),
    ]


def run() -> list[dict[str, Any]]:
    """Both lines."""
    ports = free_port(), free_port()
    with _other_process(*ports):
        return actorkit.run(_measure(*ports))

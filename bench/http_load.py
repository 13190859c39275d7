"""A load generator for HTTP/1.1 in a process of its own: so many connections, one request in flight on each.

It parses no more of an answer than it must, so that the server is what is measured. Prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import cast

import uvloop


class Connection(asyncio.Protocol):
    """Sends the next request as soon as the answer to the last one is complete."""

    def __init__(self, requests: list[bytes], start: int, load: Load) -> None:
        self.requests = requests
        self.next = start
        self.load = load
        self.buffer = b""
        self.transport: asyncio.Transport | None = None
        self.sent_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.send()

    def send(self) -> None:
        assert self.transport is not None
        self.sent_s = time.perf_counter()
        self.transport.write(self.requests[self.next % len(self.requests)])
        self.next += 1

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, blank, body = self.buffer.partition(b"\r\n\r\n")
        if not blank:
            return
        length_at = head.lower().index(b"content-length:") + 15
        length = int(head[length_at:].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        self.buffer = b""
        self.load.answered(head[9:12] == b"200", time.perf_counter() - self.sent_s)
        if self.load.running:
            self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.load.running:
            self.load.lost += 1


class Load:
    """The count."""

    def __init__(self) -> None:
        self.running = True
        self.right = 0
        self.wrong = 0
        self.lost = 0
        self.latencies_s: list[float] = []

    def answered(self, right: bool, latency_s: float) -> None:
        self.right += right
        self.wrong += not right
        self.latencies_s.append(latency_s)


async def generate(port: int, path: str, bodies: list[str], connections: int, seconds: float) -> dict[str, float]:
    """Requests a second, and how long they took."""
    requests = [
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        for body in bodies
    ]
    load = Load()
    loop = asyncio.get_running_loop()
    begin_s = time.perf_counter()
    for number in range(connections):
        start = number * len(requests) // connections
        await loop.create_connection(lambda start=start: Connection(requests, start, load), "127.0.0.1", port)
    await asyncio.sleep(seconds)
    load.running = False
    took_s = time.perf_counter() - begin_s
    load.latencies_s.sort()
    return {
        "per_second": load.right / took_s,
        "wrong": load.wrong + load.lost,
        "p50_ms": load.latencies_s[len(load.latencies_s) // 2] * 1e3,
        "p99_ms": load.latencies_s[len(load.latencies_s) * 99 // 100] * 1e3,
    }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(generate(**json.load(sys.stdin)))))

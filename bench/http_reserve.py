"""How many reservations a second does one node serve over HTTP, against a bare aiohttp handler?

64 kept-alive connections over 1,000 pools. Service, floor and load generator are processes of their own; service and
floor are measured in turns.
"""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from bench.measure import result, scratch

CONNECTIONS = 64
POOLS = 1_000
SECONDS = 3.0
ROUNDS = 5
TARGET = 0.6
START_MAX_S = 30.0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _process(*arguments: str, port: int) -> Iterator[None]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([sys.executable, "-m", *arguments], stdout=log, stderr=log)
        try:
            give_up_s = time.monotonic() + START_MAX_S
            while not _serves(port):
                if process.poll() is not None or time.monotonic() > give_up_s:
                    log.seek(0)
                    raise RuntimeError(f"{arguments[0]} did not start: {log.read().decode()}")
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait()


def _serves(port: int) -> bool:
    """Whether it is up, and ready as far as it says anything about that."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=1).close()
    except urllib.error.HTTPError as error:
        return error.code != HTTPStatus.SERVICE_UNAVAILABLE
    except OSError:
        return False
    return True


def _load(port: int, path: str, bodies: list[Any], seconds: float) -> dict[str, float]:
    work = {"port": port, "path": path, "bodies": [json.dumps(body) for body in bodies]}
    done = subprocess.run(
        [sys.executable, "-m", "bench.http_load"],
        input=json.dumps({**work, "connections": CONNECTIONS, "seconds": seconds}),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    answer: dict[str, float] = json.loads(done.stdout)
    if answer["wrong"]:
        raise RuntimeError(f"{answer['wrong']} requests were not answered with 200")
    return answer


def _create(port: int, pool: str) -> None:
    body = json.dumps({"pool_id": pool, "capacity": 1_000_000_000}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/rpc/pools", data=body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:
        response.read()


def run() -> dict[str, Any]:
    """The medians of interleaved rounds."""
    ours_port, floor_port = _free_port(), _free_port()
    pools = [f"pool-{number}" for number in range(POOLS)]
    bodies = [{"pool_id": pool, "quantity": 1} for pool in pools]
    values: list[dict[str, float]] = []
    floors: list[dict[str, float]] = []
    with scratch() as directory:
        node = ["examples.capacity_service", "node", "--http", f"127.0.0.1:{ours_port}"]
        journal = ["--journal", f"sqlite:///{directory / 'bench.db'}"]
        with (
            _process(*node, *journal, "--remoting", f"127.0.0.1:{_free_port()}", port=ours_port),
            _process("bench.http_floor", str(floor_port), port=floor_port),
        ):
            for pool in pools:
                _create(ours_port, pool)
            for number in range(ROUNDS + 1):
                value = _load(ours_port, "/rpc/reserve", bodies, SECONDS)
                floor = _load(floor_port, "/rpc/reserve", bodies, SECONDS)
                if number:
                    values.append(value)
                    floors.append(floor)
    return result(
        f"reservations over HTTP, {CONNECTIONS} connections, against a bare aiohttp handler",
        "1/s",
        [value["per_second"] for value in values],
        [floor["per_second"] for floor in floors],
        target=TARGET,
        p50_ms=statistics.median(value["p50_ms"] for value in values),
        p99_ms=statistics.median(value["p99_ms"] for value in values),
    )


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))

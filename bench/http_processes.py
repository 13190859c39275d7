"""Servers and the load generator as processes of their own."""

from __future__ import annotations

import json
import socket
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

__all__ = ["CONNECTIONS", "free_port", "load", "post", "process"]

CONNECTIONS = 64
START_MAX_S = 30.0


def free_port() -> int:
    """One that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(*arguments: str, port: int) -> Iterator[None]:
    """Runs a module until the block is left; it serves on the port when the block begins."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([sys.executable, "-m", *arguments], stdout=log, stderr=log)
        try:
            give_up_s = time.monotonic() + START_MAX_S
            while not serves(port):
                if process.poll() is not None or time.monotonic() > give_up_s:
                    log.seek(0)
                    raise RuntimeError(f"{arguments[0]} did not start: {log.read().decode()}")
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait()


def serves(port: int) -> bool:
    """Whether it is up, and ready as far as it says anything about that."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=1).close()
    except urllib.error.HTTPError as error:
        return error.code != HTTPStatus.SERVICE_UNAVAILABLE
    except OSError:
        return False
    return True


def load(port: int, path: str, bodies: list[Any], seconds: float) -> dict[str, float]:
    """What the load generator has seen, with ``CONNECTIONS``."""
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


def post(port: int, path: str, body: Any) -> bytes:
    """The answer to one call."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:
        answer: bytes = response.read()
    return answer

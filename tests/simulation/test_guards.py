"""Guards: what would make a run depend on more than its seed is out of reach, and comes back when the run is over."""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import random
import secrets
import socket
import sqlite3
import subprocess
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from random import randint as draw
from time import monotonic as read_clock

import pytest

from actorkit.errors import SimulationEscape
from actorkit.testing.simulation.guards import guarded


class Later(datetime.datetime):
    """A user's own kind of time."""


CLOCK, WAITING, RANDOM, FILES = "clock that actorkit hands out", "asyncio.sleep", "context.new_id", "simulated store"
SOCKETS, THREADS, PROCESSES = "World.network", "in a task", "with World"

REACHED: dict[str, tuple[Callable[[], object], str]] = {
    "time.time": (lambda: time.time(), CLOCK),
    "time.monotonic_ns": (lambda: time.monotonic_ns(), CLOCK),
    "time.monotonic": (lambda: read_clock(), CLOCK),
    "time.localtime": (lambda: time.localtime(), CLOCK),
    "time.strftime": (lambda: time.strftime("%H"), CLOCK),
    "datetime.now": (lambda: datetime.datetime.now(datetime.UTC), CLOCK),
    "datetime.now of a subclass": (lambda: Later.now(datetime.UTC), CLOCK),
    "datetime.utcnow": (lambda: datetime.datetime.utcnow(), CLOCK),  # noqa: DTZ003
    "date.today": (lambda: datetime.date.today(), CLOCK),  # noqa: DTZ011
    "time.sleep": (lambda: time.sleep(1), WAITING),
    "random.random": (lambda: random.random(), RANDOM),
    "random.randint": (lambda: draw(1, 6), RANDOM),
    "random.Random": (lambda: random.Random(), RANDOM),
    "random.SystemRandom": (lambda: random.SystemRandom(), RANDOM),
    "secrets": (lambda: secrets.token_hex(), RANDOM),
    "os.urandom": (lambda: os.urandom(8), RANDOM),
    "uuid.uuid4": (lambda: uuid.uuid4(), RANDOM),
    "builtins.open": (lambda: open(__file__), FILES),  # noqa: SIM115
    "Path.read_text": (lambda: Path(__file__).read_text(), FILES),
    "Path.exists": (lambda: Path(__file__).exists(), FILES),
    "os.listdir": (lambda: os.listdir("."), FILES),
    "sqlite3.connect": (lambda: sqlite3.connect(":memory:"), FILES),
    "socket.socket": (lambda: socket.socket(), SOCKETS),
    "socket.create_connection": (lambda: socket.create_connection(("127.0.0.1", 9)), SOCKETS),
    "socket.getaddrinfo": (lambda: socket.getaddrinfo("localhost", 80), SOCKETS),
    "threading.Thread": (lambda: threading.Thread(target=print).start(), THREADS),
    "subprocess.run": (lambda: subprocess.run(["true"], check=True), PROCESSES),
    "os.system": (lambda: os.system("true"), PROCESSES),
}


@pytest.mark.parametrize("name", REACHED)
def test_what_reaches_for_the_real_world_is_told_what_to_use_instead(name: str) -> None:
    call, seam = REACHED[name]
    noted: list[SimulationEscape] = []

    def note(escape: SimulationEscape) -> SimulationEscape:
        noted.append(escape)
        return escape

    with guarded(note), pytest.raises(SimulationEscape) as raised:
        call()
    assert noted == [raised.value]
    assert seam in str(raised.value)
    assert f"called in {__name__}" in str(raised.value)


def unnoted(escape: SimulationEscape) -> SimulationEscape:
    raise AssertionError(escape)


def test_what_reads_nothing_of_the_real_world_is_no_escape() -> None:
    with guarded(unnoted):
        assert random.Random(7).random() == random.Random(7).random()
        assert time.gmtime(0).tm_year == 1970
        assert time.strftime("%Y", time.gmtime(0)) == "1970"
        assert datetime.datetime.fromtimestamp(0, datetime.UTC).year == 1970
        assert datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC) < Later(2026, 1, 2, tzinfo=datetime.UTC)
        assert uuid.uuid5(uuid.NAMESPACE_DNS, "actorkit") == uuid.uuid5(uuid.NAMESPACE_DNS, "actorkit")
        logging.getLogger("actorkit.tests").warning("logging looks at the clock, and that is its business")


def test_other_threads_go_on() -> None:
    told = threading.Event()
    seen: list[float] = []

    def read() -> None:
        told.wait(10)
        seen.append(time.time() + len(os.urandom(1)))

    thread = threading.Thread(target=read)
    thread.start()
    with guarded(unnoted):
        told.set()
        thread.join()
    assert len(seen) == 1


def test_everything_comes_back() -> None:
    before = {name: value for name, value in vars(datetime.datetime).items() if name in ("now", "utcnow")}
    for _ in range(3):
        with guarded(unnoted):
            pass
    assert before == {name: vars(datetime.datetime)[name] for name in before}
    for what, (call, _) in REACHED.items():
        if what.startswith(("time.", "date", "random", "uuid", "Path")) and what != "time.sleep":
            call()
    assert type(Later.now(datetime.UTC)) is Later
    assert asyncio.run(asyncio.sleep(0, "a loop")) == "a loop"

"""A loop on virtual time: waiting costs nothing; waiting for ever and unhandled exceptions fail the test."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import pytest
import structlog
import uvloop

from actorkit import logs
from actorkit.actor import Actor, ActorRuntime
from actorkit.clock import SystemClock
from actorkit.testing.simulation.loop import SimulatedLoop


class VirtualLoop(SimulatedLoop):
    """Waiting costs nothing; waiting for ever, and exceptions that nobody handles, fail the test."""

    def close(self) -> None:
        super().close()
        assert not self.unhandled, f"exceptions that nobody handled: {self.unhandled}"


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.path.name == "test_real_loops.py":
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"virtual": VirtualLoop}


class EvenRandomness:
    """Jitter of exactly nothing."""

    def token(self, size_bytes: int) -> bytes:
        return bytes(size_bytes)

    def uniform(self) -> float:
        return 0.5


class Recorder(Actor[Any]):
    """Keeps what it is sent; a function as a message is called with the actor, and its result is the answer."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def receive(self, message: Any) -> object:
        if callable(message):
            return message(self)
        self.seen.append(message)
        return message


@pytest.fixture(autouse=True)
def plain_logs() -> Iterator[None]:
    """To stdout, where pytest captures it: structlog's own default renders every local of every traceback."""
    logs.configure(stream=sys.stdout)
    yield
    structlog.reset_defaults()


@pytest.fixture
async def runtime() -> AsyncIterator[ActorRuntime]:
    runtime = ActorRuntime(clock=SystemClock(), randomness=EvenRandomness())
    yield runtime
    await runtime.shutdown(5.0)

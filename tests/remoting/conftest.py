"""Tests of remoting on virtual time; those with real sockets say so in their module."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

from actorkit.testing.simulation.loop import SimulatedLoop


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.path.name.startswith("test_websocket"):
        return {"asyncio": asyncio.new_event_loop}
    return {"simulated": SimulatedLoop}

"""The shell runs on the simulated loop, but for what asks the system's resolver."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

from actorkit.testing.simulation.loop import SimulatedLoop


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if "resolver" in item.path.name:
        return {"asyncio": asyncio.new_event_loop}
    return {"simulated": SimulatedLoop}

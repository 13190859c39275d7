"""Tests of single parts of the simulation run on its loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

from actorkit.testing.simulation.loop import SimulatedLoop


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"simulated": SimulatedLoop}

"""Leases on virtual time. What needs threads, files or processes runs in modules named for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest

from tests.persistence.actors import Account, Busy
from tests.persistence.kit import BoundedLoop, Nodes


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if "sqlite" in item.path.name or "process" in item.path.name:
        return {"asyncio": asyncio.new_event_loop}
    return {"virtual": BoundedLoop}


@pytest.fixture
async def nodes() -> AsyncIterator[Nodes]:
    nodes = Nodes()
    yield nodes
    await nodes.stop()


@pytest.fixture(autouse=True)
def _fresh_actors() -> None:
    Account.runs.clear()
    Busy.reset()

"""Fixtures of the capacity service's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.capacity_service.service import Client, serving, settings


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Client]:
    """A node on a journal of its own."""
    async with serving(settings(tmp_path)) as client:
        yield client

"""Journals of the service: what an earlier program wrote, this one reads, and makes the same pools of."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from examples.capacity_service.domain import PoolChanged, PoolCreated, Released, Reserved
from examples.capacity_service.entity import Pool

NOON_US = 1_767_268_800_000_000


def test_pools_of_earlier_programs_are_read(golden_events: Callable[..., Any]) -> None:
    history = [
        PoolCreated(8, "north", datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC), {"gpu": "a100"}),
        PoolChanged(capacity=10, region=None, labels={"gpu": "h100"}),
        Reserved("order-7", 3, NOON_US - 86_400_000_000),
        Reserved("~0f", 2, NOON_US - 86_400_000_000),
        Released("order-7", 1, NOON_US, NOON_US - 86_400_000_000),
        Released("~0f", 2, NOON_US + 1, NOON_US - 86_400_000_000),
    ]
    golden_events(Pool, "golden/pool.json", history)

"""What the specs of journals share: fixtures, a clock that is moved by hand, appends to try."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Final, TypeAlias

import pytest
import pytest_asyncio

from actorkit.clock import Clock
from actorkit.journal.protocols import Append, NewEvent, Store

__all__ = ["OWNER", "SHARDS", "MakeStore", "SteppedClock", "StoreSpec", "outcome_of", "some_append"]

MakeStore: TypeAlias = Callable[[Clock], Store]
SHARDS: Final = 4
OWNER: Final = "node-1#a"


class SteppedClock:
    """A clock that a test moves by hand."""

    def __init__(self, *, now_s: float = 1_000.0) -> None:
        self.now_s = now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds

    def wall_us(self) -> int:
        return int(self.now_s * 1_000_000)

    def lease_s(self) -> float:
        return self.now_s


def some_append(
    expected: int,
    *payloads: bytes,
    stream: str = "pool/a",
    shard: int = 0,
    epoch: int = 1,
    time_us: int | None = None,
    key: str | None = None,
    outcome: bytes | None = None,
) -> Append:
    """An append of one event, or of the given payloads, at a time that grows with ``expected``."""
    return Append(
        shard=shard,
        epoch=epoch,
        stream=stream,
        expected=expected,
        events=tuple(NewEvent("Added", 1, payload) for payload in payloads or (b"x",)),
        time_us=100 + expected if time_us is None else time_us,
        metadata=b"meta",
        key=key,
        outcome=outcome,
    )


def outcome_of(
    expected: int, outcome: bytes, *, key: str, stream: str = "pool/a", shard: int = 0, epoch: int = 1, time_us: int = 0
) -> Append:
    """The outcome alone of a command that emitted nothing."""
    return Append(
        shard=shard,
        epoch=epoch,
        stream=stream,
        expected=expected,
        events=(),
        time_us=time_us or 100 + expected,
        metadata=b"meta",
        key=key,
        outcome=outcome,
    )


class StoreSpec:
    """What specs of stores share. A subclass gives the fixture ``make``."""

    @pytest.fixture
    def clock(self) -> SteppedClock:
        return SteppedClock()

    @pytest.fixture
    def make(self) -> MakeStore:
        raise NotImplementedError("give a fixture make() -> MakeStore")

    @pytest_asyncio.fixture
    async def store(self, make: MakeStore, clock: SteppedClock) -> AsyncIterator[Store]:
        """An open store with four shards, all of them owned by ``OWNER`` under epoch 1."""
        store = make(clock)
        await store.open(SHARDS)
        await store.acquire(range(SHARDS), owner=OWNER, duration_s=3.0)
        yield store
        await store.close()

"""The simulated store behaves as the real ones do: it passes the contract that they pass."""

from __future__ import annotations

import asyncio

import pytest

from actorkit.clock import Clock
from actorkit.journal.protocols import Store
from actorkit.testing.journal_crash_spec import CrashStore, JournalCrashSpec
from actorkit.testing.journal_spec import JournalSpec, MakeStore, SteppedClock
from actorkit.testing.simulation.connection import Connection
from actorkit.testing.simulation.loop import SimulatedLoop
from actorkit.testing.simulation.randomness import stream
from actorkit.testing.simulation.store import SimulatedStore


class Place:
    """Where the store of one test is."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.store: SimulatedStore | None = None

    def connect(self, clock: Clock) -> Store:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        if self.store is None:
            self.store = SimulatedStore(loop, stream(self.seed, "store"), lease_s=clock.lease_s)
        return Connection(self.store)


class TestSimulatedStore(JournalSpec):
    @pytest.fixture
    def make(self) -> MakeStore:
        return Place(1).connect


@pytest.mark.parametrize("seed", range(5))
class TestSimulatedCrashes(JournalCrashSpec):
    @pytest.fixture
    def place(self, seed: int) -> Place:
        return Place(seed)

    @pytest.fixture
    def make(self, place: Place) -> MakeStore:
        return place.connect

    @pytest.fixture
    def crash(self, place: Place, clock: SteppedClock) -> CrashStore:
        async def crash(store: Store) -> Store:
            assert place.store is not None
            place.store.crash()
            place.store.start()
            return place.connect(clock)

        return crash

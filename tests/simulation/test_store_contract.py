"""The simulated store behaves as the real ones do: it passes the contract that they pass."""

from __future__ import annotations

import asyncio

import pytest

from actorkit.clock import Clock
from actorkit.journal.protocols import Store
from actorkit.testing.journal_spec import JournalSpec, MakeStore
from actorkit.testing.simulation.connection import Connection
from actorkit.testing.simulation.loop import SimulatedLoop
from actorkit.testing.simulation.randomness import stream
from actorkit.testing.simulation.store import SimulatedStore


class TestSimulatedStore(JournalSpec):
    @pytest.fixture
    def make(self) -> MakeStore:
        stores: list[SimulatedStore] = []

        def connect(clock: Clock) -> Store:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, SimulatedLoop)
            if not stores:
                stores.append(SimulatedStore(loop, stream(1, "store"), lease_s=clock.lease_s))
            return Connection(stores[0])

        return connect

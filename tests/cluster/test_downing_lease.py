"""The downing lease over a journal store: one side gets it, whatever the store does to requests."""

from __future__ import annotations

import asyncio

import pytest

from actorkit.cluster import JournalDowningLease
from actorkit.cluster.partition import lease_duration_s
from actorkit.cluster.settings import DowningSettings
from actorkit.errors import AppendUncertain, JournalError, JournalFailed, JournalUnavailable
from actorkit.ids import NodeId
from actorkit.journal.memory import MemoryJournal
from actorkit.testing.faulty_journal import FaultyJournal
from actorkit.testing.journal_spec import SteppedClock
from actorkit.testing.simulation import SimulatedLoop

SETTINGS = DowningSettings(strategy="lease-majority")


class Place:
    """A store, and the leases of nodes on it."""

    def __init__(self) -> None:
        self.clock = SteppedClock()
        self.store = FaultyJournal(MemoryJournal(clock=self.clock))

    async def open(self) -> Place:
        await self.store.open(4)
        return self

    def lease(self, name: str, *, cluster: str = "actorkit") -> JournalDowningLease:
        return JournalDowningLease(self.store, cluster=cluster, node=NodeId(name, "1"), settings=SETTINGS)

    def fails(self, *errors: JournalError) -> None:
        """What the next requests end in."""
        left = list(errors)
        self.store.on_read = lambda _: left.pop(0) if left else None


@pytest.fixture
async def place() -> Place:
    return await Place().open()


async def test_whoever_asks_first_has_it_and_the_other_side_has_not(place: Place) -> None:
    assert await place.lease("n1").acquire()
    assert not await place.lease("n2").acquire()
    assert await place.lease("n1").acquire()


async def test_it_is_kept_for_as_long_as_the_other_side_may_ask(place: Place) -> None:
    """That side sees the partition last, never comes to rest, waits, and asks until its time is up."""
    assert await place.lease("n1").acquire()
    patience_s = 4 * SETTINGS.stable_after_s + SETTINGS.lease_delay_s + SETTINGS.lease_timeout_s
    place.clock.advance(patience_s + 3.0)
    assert not await place.lease("n2").acquire()
    place.clock.advance(lease_duration_s(SETTINGS) - patience_s - 3.0 + 0.1)
    assert await place.lease("n2").acquire()


async def test_clusters_of_other_names_and_owners_of_shards_do_not_matter(place: Place) -> None:
    await place.store.acquire(range(4), owner="n2#1", duration_s=100.0)
    assert await place.lease("n1").acquire()
    assert await place.lease("n2", cluster="other").acquire()
    assert {status.owner for status in await place.store.status()} == {"n2#1"}


async def test_a_store_that_fails_is_asked_again(place: Place) -> None:
    place.fails(JournalUnavailable("away"), AppendUncertain("perhaps"), JournalUnavailable("away"))
    assert await place.lease("n1").acquire()
    assert not await place.lease("n2").acquire()


async def test_a_request_that_is_not_answered_is_sent_again_within_the_time_limit(place: Place) -> None:
    class Silent(FaultyJournal):
        asked = 0

        async def claim(self, name: str, *, owner: str, duration_s: float) -> str:
            holder = await super().claim(name, owner=owner, duration_s=duration_s)
            self.asked += 1
            if self.asked == 1:
                await asyncio.Event().wait()
            return holder

    place.store = Silent(place.store.inner)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulatedLoop)
    began_s = loop.time()
    assert await place.lease("n1").acquire()
    assert 0 < loop.time() - began_s < SETTINGS.lease_timeout_s / 2


async def test_a_store_that_has_failed_for_good_gives_nothing(place: Place) -> None:
    place.fails(JournalFailed("a sync failed"))
    with pytest.raises(JournalFailed):
        await place.lease("n1").acquire()

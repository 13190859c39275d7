"""The part of the contract of a journal that is about leases: on shards, and on names."""

from __future__ import annotations

import pytest

from actorkit.journal.protocols import Acquired, Appended, Held, Store
from actorkit.testing.journal_spec_kit import OWNER, SteppedClock, StoreSpec, some_append

__all__ = ["LeaseSpec"]


@pytest.mark.asyncio
class LeaseSpec(StoreSpec):
    """What every ``LeaseStore`` does. ``JournalSpec`` has these tests, too."""

    async def test_a_shard_is_held_until_its_lease_runs_out(self, store: Store, clock: SteppedClock) -> None:
        clock.advance(2.0)
        (held,) = await store.acquire([1], owner="node-2#b", duration_s=3.0)
        assert isinstance(held, Held)
        assert (held.shard, held.epoch, held.owner) == (1, 1, OWNER)
        assert held.remaining_s == pytest.approx(1.0)
        clock.advance(1.001)
        assert await store.acquire([1], owner="node-2#b", duration_s=3.0) == [Acquired(1, 2, 0)]
        assert await store.renew({0: 1, 1: 1}, owner=OWNER, duration_s=3.0) == {0}

    async def test_a_lease_is_held_for_as_long_as_its_owner_asked(self, store: Store, clock: SteppedClock) -> None:
        await store.renew({0: 1}, owner=OWNER, duration_s=60.0)
        clock.advance(10.0)
        (held,) = await store.acquire([0], owner="node-2#b", duration_s=3.0)
        assert isinstance(held, Held)
        assert held.remaining_s == pytest.approx(50.0)

    async def test_renewing_extends(self, store: Store, clock: SteppedClock) -> None:
        for _ in range(3):
            clock.advance(2.0)
            assert await store.renew({0: 1, 2: 1}, owner=OWNER, duration_s=3.0) == {0, 2}
        got = await store.acquire([0, 1], owner="node-2#b", duration_s=3.0)
        assert isinstance(got[0], Held)
        assert got[1] == Acquired(1, 2, 0)

    async def test_a_lease_that_ran_out_untaken_can_be_renewed(self, store: Store, clock: SteppedClock) -> None:
        clock.advance(100.0)
        assert await store.renew({0: 1}, owner=OWNER, duration_s=3.0) == {0}
        assert await store.renew({0: 2}, owner=OWNER, duration_s=3.0) == set()
        assert await store.renew({0: 1}, owner="node-2#b", duration_s=3.0) == set()

    async def test_releasing_frees_at_once(self, store: Store) -> None:
        await store.release({0: 1, 1: 5}, owner=OWNER)
        await store.release({2: 1}, owner="node-2#b")
        got = await store.acquire([0, 1, 2], owner="node-2#b", duration_s=3.0)
        assert [type(answer) for answer in got] == [Acquired, Held, Held]

    async def test_acquiring_ones_own_shard_raises_the_epoch(self, store: Store) -> None:
        await store.append([some_append(0)])
        assert await store.acquire([0, 3], owner=OWNER, duration_s=3.0) == [Acquired(0, 2, 1), Acquired(3, 2, 0)]

    async def test_a_claim_is_its_owners_until_it_runs_out(self, store: Store, clock: SteppedClock) -> None:
        assert await store.claim("downing", owner=OWNER, duration_s=10.0) == OWNER
        assert await store.claim("downing", owner="node-2#b", duration_s=10.0) == OWNER
        clock.advance(9.0)
        assert await store.claim("downing", owner=OWNER, duration_s=10.0) == OWNER
        clock.advance(9.0)
        assert await store.claim("downing", owner="node-2#b", duration_s=10.0) == OWNER
        clock.advance(1.001)
        assert await store.claim("downing", owner="node-2#b", duration_s=10.0) == "node-2#b"
        assert await store.claim("downing", owner=OWNER, duration_s=10.0) == "node-2#b"

    async def test_a_claim_concerns_no_other_name_and_no_shard(self, store: Store) -> None:
        before = await store.status()
        for name in ("0", "1", "downing", "downing/café"):
            assert await store.claim(name, owner=f"owner of {name}", duration_s=3.0) == f"owner of {name}"
        assert [status.owner for status in await store.status()] == [status.owner for status in before]
        assert await store.append([some_append(0)]) == [Appended(1)]
        assert await store.renew({0: 1, 1: 1}, owner=OWNER, duration_s=3.0) == {0, 1}
        assert await store.claim("0", owner=OWNER, duration_s=3.0) == "owner of 0"

    async def test_status(self, store: Store, clock: SteppedClock) -> None:
        await store.append([some_append(0), some_append(1)])
        clock.advance(1.0)
        await store.release({3: 1}, owner=OWNER)
        first, last = await store.status([3, 0])
        assert (first.shard, first.owner, first.epoch, first.head, first.remaining_s) == (3, "", 1, 0, 0.0)
        assert (last.shard, last.owner, last.epoch, last.head) == (0, OWNER, 1, 2)
        assert last.remaining_s == pytest.approx(2.0)
        clock.advance(5.0)
        assert (await store.status([0]))[0].remaining_s == 0.0

"""The contract of a journal, as tests: for authors of backends.

Subclass ``JournalSpec``, say how to make a store, and let pytest (with pytest-asyncio) collect it::

    class TestMyJournal(JournalSpec):
        @pytest.fixture
        def make(self, tmp_path: Path) -> MakeStore:
            return lambda clock: MyJournal(tmp_path / "journal", clock=clock)

``make`` is called once for each test, and again for the same place where a test reopens the store.
"""

from __future__ import annotations

import msgspec
import pytest

from actorkit.errors import JournalUnavailable, NamespaceMismatch
from actorkit.journal.protocols import (
    Acquired,
    Append,
    Appended,
    Conflict,
    EventPage,
    Fenced,
    NewEvent,
    Recorded,
    Refused,
    Store,
    StoredSnapshot,
)
from actorkit.testing.journal_lease_spec import LeaseSpec
from actorkit.testing.journal_spec_kit import (
    OWNER,
    SHARDS,
    MakeStore,
    SteppedClock,
    StoreSpec,
    outcome_of,
    some_append,
)

__all__ = ["JournalSpec", "MakeStore", "SteppedClock", "StoreSpec", "outcome_of", "some_append"]

PAYLOADS = (
    *(bytes([byte]) for byte in range(256)),
    b"",
    b"\x00" * 9,
    b"",
    bytes(range(256)) * 40,
    b"\xc3\x28",
    b"\x00a",
)
"""Every byte, nothing at all, and what is no text."""


@pytest.mark.asyncio
class JournalSpec(LeaseSpec):
    """What every ``Store`` does. A subclass gives the fixture ``make``."""

    # ------------------------------------------------------------------------------------------------------- opening

    async def test_a_new_store_has_its_shards_and_no_owner(self, make: MakeStore, clock: SteppedClock) -> None:
        store = make(clock)
        await store.open(SHARDS)
        assert store.shards == SHARDS
        assert store.generation >= 1
        assert isinstance(store.identity, str)
        assert [(s.shard, s.owner, s.epoch, s.head) for s in await store.status()] == [
            (n, "", 0, 0) for n in range(SHARDS)
        ]
        await store.close()

    async def test_nothing_is_stored_in_a_shard_that_was_never_acquired(
        self, make: MakeStore, clock: SteppedClock
    ) -> None:
        store = make(clock)
        await store.open(SHARDS)
        assert await store.append([some_append(0, epoch=0), some_append(0, epoch=1)]) == [Fenced(0), Fenced(0)]
        await store.close()

    async def test_before_opening_and_after_closing_it_is_unavailable(
        self, make: MakeStore, clock: SteppedClock
    ) -> None:
        store = make(clock)
        with pytest.raises(JournalUnavailable):
            await store.append([some_append(0)])
        await store.open(SHARDS)
        await store.close()
        with pytest.raises(JournalUnavailable):
            await store.read_stream("pool/a", after=0, limit=1)

    async def test_what_is_stored_is_there_after_reopening(
        self, make: MakeStore, store: Store, clock: SteppedClock
    ) -> None:
        if not store.capabilities.durable:
            pytest.skip("not durable")
        await store.append([some_append(0, b"1", b"2", key="k", outcome=b"o"), outcome_of(2, b"no", key="l")])
        await store.save_cursor("view", {1: 7})
        await store.claim("downing", owner=OWNER, duration_s=10.0)
        await store.save_snapshot(StoredSnapshot("pool/a", 2, 100, b"state"), keep=2)
        before = await store.read_log(0, after=0, limit=10)
        await store.close()
        again = make(clock)
        await again.open(None)
        assert again.shards == SHARDS
        assert await again.read_log(0, after=0, limit=10) == before
        assert await again.load_cursor("view") == {1: 7}
        assert await again.claim("downing", owner="node-2#b", duration_s=10.0) == OWNER
        assert [s.payload for s in await again.load_snapshots("pool/a")] == [b"state"]
        assert await again.append([some_append(2), some_append(0)]) == [Appended(4), Conflict(3)]
        await again.close()

    async def test_another_number_of_shards_is_a_mismatch(
        self, make: MakeStore, store: Store, clock: SteppedClock
    ) -> None:
        await store.close()
        again = make(clock) if store.capabilities.durable else store
        with pytest.raises(NamespaceMismatch):
            await again.open(SHARDS * 2)

    # ----------------------------------------------------------------------------------------------------- appending

    async def test_appending_gives_positions_without_holes(self, store: Store) -> None:
        assert await store.append([some_append(0, b"1", b"2"), some_append(2)]) == [Appended(2), Appended(3)]
        assert await store.append([some_append(0, stream="pool/b"), some_append(3)]) == [Appended(4), Appended(5)]
        log = await store.read_log(0, after=0, limit=10)
        assert [(r.position, r.stream, r.sequence) for r in log] == [
            (1, "pool/a", 1),
            (2, "pool/a", 2),
            (3, "pool/a", 3),
            (4, "pool/b", 1),
            (5, "pool/a", 4),
        ]

    async def test_a_record_is_read_as_it_was_written(self, store: Store) -> None:
        append = Append(
            shard=3,
            epoch=1,
            stream="pool/ä/ö\u20ac\U0001f600",
            expected=0,
            events=(NewEvent("Added", 3, b"\x00\xff"), NewEvent("Gone", 4, b"")),
            time_us=1_700_000_000_000_000,
            metadata=b"\x00m",
            key="schlüssel",
            outcome=b"",
        )
        assert await store.append([append]) == [Appended(2)]
        last = Recorded(
            shard=3,
            position=2,
            stream=append.stream,
            sequence=2,
            type="Gone",
            version=4,
            payload=b"",
            time_us=append.time_us,
            epoch=1,
            metadata=b"\x00m",
            key="schlüssel",
            outcome=b"",
        )
        first = msgspec.structs.replace(
            last, position=1, sequence=1, type="Added", version=3, payload=b"\x00\xff", key=None, outcome=None
        )
        assert await store.read_stream(append.stream, after=0, limit=10) == [first, last]
        assert await store.read_log(3, after=0, limit=10) == [first, last]

    async def test_an_unexpected_sequence_conflicts_and_stores_nothing(self, store: Store) -> None:
        await store.append([some_append(0)])
        got = await store.append([some_append(0), some_append(2), some_append(1, stream="pool/new")])
        assert got == [Conflict(1), Conflict(1), Conflict(0)]
        assert len(await store.read_log(0, after=0, limit=10)) == 1
        assert await store.streams("pool", after="", limit=10) == ["pool/a"]

    async def test_appends_of_one_stream_build_on_each_other(self, store: Store) -> None:
        batch = [some_append(0), some_append(1, epoch=7), some_append(2), some_append(1), some_append(2)]
        assert await store.append(batch) == [Appended(1), Fenced(1), Conflict(1), Appended(2), Appended(3)]

    async def test_several_events_are_stored_entirely_or_not_at_all(self, store: Store) -> None:
        too_large = b"x" * (store.capabilities.payload_max_bytes + 1)
        got = await store.append([some_append(0, b"1", too_large, b"3"), some_append(0, b"4")])
        assert isinstance(got[0], Refused)
        assert got[1] == Appended(1)
        assert [r.payload for r in await store.read_log(0, after=0, limit=10)] == [b"4"]

    async def test_each_shard_is_for_itself(self, store: Store) -> None:
        await store.acquire([2], owner=OWNER, duration_s=3.0)
        batch = [some_append(0, stream=f"pool/{n}", shard=n) for n in range(SHARDS)]
        assert await store.append(batch) == [Appended(1), Appended(1), Fenced(2), Appended(1)]
        assert await store.append([some_append(0, stream="pool/2", shard=2, epoch=2)]) == [Appended(1)]

    @pytest.mark.parametrize("what", ["payload", "metadata", "outcome", "nothing", "shard", "text", "number"])
    async def test_what_cannot_be_stored_is_refused_for_itself(self, store: Store, what: str) -> None:
        large = b"x" * (store.capabilities.payload_max_bytes + 1)
        bad = Append(
            shard=SHARDS if what == "shard" else 0,
            epoch=1,
            stream="pool/\ud800" if what == "text" else "pool/bad",
            expected=0,
            events=() if what == "nothing" else (NewEvent("Added", 1, large if what == "payload" else b"x"),),
            time_us=1 << 70 if what == "number" else 1,
            metadata=large if what == "metadata" else b"",
            key=None,
            outcome=large if what == "outcome" else None,
        )
        got = await store.append([some_append(0), bad, some_append(1)])
        assert isinstance(got[1], Refused)
        assert got[1].why
        assert [got[0], got[2]] == [Appended(1), Appended(2)]
        assert await store.streams("pool", after="", limit=10) == ["pool/a"]

    async def test_the_largest_payload_is_stored(self, store: Store) -> None:
        largest = b"x" * store.capabilities.payload_max_bytes
        assert await store.append([some_append(0, largest)]) == [Appended(1)]
        assert (await store.read_stream("pool/a", after=0, limit=1))[0].payload == largest

    async def test_an_empty_batch_is_nothing(self, store: Store) -> None:
        assert await store.append([]) == []

    async def test_a_large_batch_is_one_commit(self, store: Store) -> None:
        batch = [some_append(n // 50, stream=f"pool/{n % 50}", shard=n % 50 % SHARDS) for n in range(2000)]
        assert all(isinstance(result, Appended) for result in await store.append(batch))
        assert sum(status.head for status in await store.status()) == 2000
        assert len(await store.read_stream("pool/7", after=0, limit=100)) == 40

    # --------------------------------------------------------------------------------------------------------- fence

    async def test_a_newer_epoch_fences_the_older_one(self, store: Store) -> None:
        assert await store.append([some_append(0)]) == [Appended(1)]
        assert await store.acquire([0], owner=OWNER, duration_s=3.0) == [Acquired(0, 2, 1)]
        assert await store.append([some_append(1)]) == [Fenced(2)]
        assert await store.append([some_append(1, epoch=3)]) == [Fenced(2)]
        assert await store.append([some_append(1, epoch=2)]) == [Appended(2)]
        assert [record.epoch for record in await store.read_stream("pool/a", after=0, limit=9)] == [1, 2]

    async def test_the_fence_does_not_ask_for_a_lease(self, store: Store, clock: SteppedClock) -> None:
        clock.advance(1000)
        assert await store.append([some_append(0)]) == [Appended(1)]

    # ------------------------------------------------------------------------------------------------------- reading

    async def test_reading_in_pages(self, store: Store) -> None:
        await store.append([some_append(n, stream="pool/a") for n in range(7)])
        await store.append([outcome_of(7, b"no", key="k"), some_append(7)])
        pages = [await store.read_stream("pool/a", after=after, limit=3) for after in (0, 3, 6, 8)]
        assert [[r.sequence for r in page] for page in pages] == [[1, 2, 3], [4, 5, 6], [7, 8], []]
        pages = [await store.read_log(0, after=after, limit=4) for after in (0, 4, 8, 9)]
        assert [[r.position for r in page] for page in pages] == [[1, 2, 3, 4], [5, 6, 7, 8], [9], []]
        assert await store.read_stream("pool/none", after=0, limit=3) == []
        assert await store.read_log(1, after=0, limit=3) == []

    @pytest.mark.parametrize("after", [-1, -7])
    async def test_reading_after_less_than_nothing_is_from_the_beginning(self, store: Store, after: int) -> None:
        await store.append([some_append(n, stream="pool/a") for n in range(5)])
        await store.append([some_append(0, stream="pool/b", shard=1)])
        assert [r.sequence for r in await store.read_stream("pool/a", after=after, limit=3)] == [1, 2, 3]
        assert (await store.read_events("pool/a", after=after, limit=3)).sequences == [1, 2, 3]
        assert [r.position for r in await store.read_log(0, after=after, limit=3)] == [1, 2, 3]
        assert [r.stream for r in await store.read_log(1, after=after, limit=3)] == ["pool/b"]

    @pytest.mark.parametrize("limit", [0, -1])
    async def test_reading_at_most_nothing_gives_nothing(self, store: Store, limit: int) -> None:
        await store.append([some_append(n, stream="pool/a") for n in range(5)])
        for after in (-1, 0, 2):
            assert await store.read_stream("pool/a", after=after, limit=limit) == []
            assert not (await store.read_events("pool/a", after=after, limit=limit)).sequences
            assert await store.read_log(0, after=after, limit=limit) == []

    async def test_reading_for_a_replay_gives_the_same_events(self, store: Store) -> None:
        await store.append([some_append(0, *PAYLOADS), some_append(0, b"other", stream="pool/b")])
        names = ["", "a,b", 'a"b', "a\\", "a\nb", "\x00", "\u00e9\U0001f600", "[", "opened", "opened"]
        more = tuple(NewEvent(name, number % 3, name.encode()) for number, name in enumerate(names))
        append = msgspec.structs.replace(some_append(len(PAYLOADS)), events=more, time_us=7_777_777)
        assert isinstance((await store.append([append]))[0], Appended)
        await store.append([outcome_of(len(PAYLOADS) + len(more), b"no", key="k")])
        whole = await store.read_stream("pool/a", after=0, limit=10_000)
        for limit in (1, 2, 3, len(PAYLOADS), len(whole), 10_000):
            after = 0
            found: list[tuple[int, tuple[str, int], bytes]] = []
            for _ in range(len(whole) + 1):
                page = await store.read_events("pool/a", after=after, limit=limit)
                assert len(page.sequences) == len(page.kinds) == len(page.payloads) <= limit
                if not page.sequences:
                    break
                after = page.sequences[-1]
                assert page.time_us == whole[after - 1].time_us
                assert page.more or after == len(whole)
                found += zip(page.sequences, page.kinds, page.payloads, strict=True)
                if not page.more:
                    break
            assert found == [(e.sequence, (e.type, e.version), e.payload) for e in whole]
        for stream, after in (("pool/none", 0), ("pool/a", len(whole)), ("pool/a", len(whole) + 9)):
            assert await store.read_events(stream, after=after, limit=3) == EventPage.of(())

    async def test_streams_are_listed_by_type_and_in_pages(self, store: Store) -> None:
        names = ["pool/a", "pool/b", "pool/c/d", "pool/c", "pools/a", "poo/a", "pool0/a"]
        await store.append([some_append(0, stream=name) for name in names])
        await store.append([outcome_of(0, b"no", key="k", stream="pool/z")])
        assert await store.streams("pool", after="", limit=10) == ["pool/a", "pool/b", "pool/c", "pool/c/d", "pool/z"]
        assert await store.streams("pool", after="pool/b", limit=2) == ["pool/c", "pool/c/d"]
        assert await store.streams("none", after="", limit=2) == []

    # ---------------------------------------------------------------------------------------------------------- keys

    async def test_a_key_finds_the_last_record_of_its_command(self, store: Store) -> None:
        await store.append([some_append(0, b"1", b"2", key="k", outcome=b"yes"), some_append(2, b"3")])
        found = await store.find_key("pool/a", "k", since_us=0)
        assert found is not None
        assert (found.sequence, found.payload, found.outcome) == (2, b"2", b"yes")
        assert await store.find_key("pool/a", "other", since_us=0) is None
        assert await store.find_key("pool/b", "k", since_us=0) is None

    async def test_the_outcome_alone_takes_a_position_but_no_sequence(self, store: Store) -> None:
        got = await store.append([some_append(0), outcome_of(1, b"no", key="k"), some_append(1)])
        assert got == [Appended(1), Appended(2), Appended(3)]
        assert [r.sequence for r in await store.read_log(0, after=0, limit=9)] == [1, 0, 2]
        assert [r.position for r in await store.read_stream("pool/a", after=0, limit=9)] == [1, 3]
        found = await store.find_key("pool/a", "k", since_us=0)
        assert found is not None
        assert (found.sequence, found.type, found.version, found.payload, found.outcome) == (0, "", 0, b"", b"no")

    async def test_an_outcome_is_fenced_and_conflicts_like_any_append(self, store: Store) -> None:
        got = await store.append([outcome_of(1, b"no", key="k"), outcome_of(0, b"no", key="k", epoch=9)])
        assert got == [Conflict(0), Fenced(1)]
        assert await store.find_key("pool/a", "k", since_us=0) is None

    async def test_keys_by_time(self, store: Store) -> None:
        await store.append([some_append(n, key=f"k{n}" if n % 2 else None, time_us=n * 10) for n in range(8)])
        await store.append([outcome_of(8, b"no", key="k1", time_us=80)])
        recent = await store.recent_keys("pool/a", since_us=30, limit=10)
        assert [(r.key, r.time_us) for r in recent] == [("k1", 80), ("k7", 70), ("k5", 50), ("k3", 30)]
        assert recent[:2] == await store.recent_keys("pool/a", since_us=30, limit=2)
        assert await store.count_keys("pool/a", since_us=31) == 3
        assert await store.count_keys("pool/a", since_us=0) == 5
        assert await store.count_keys("pool/b", since_us=0) == 0
        assert await store.recent_keys("pool/b", since_us=0, limit=3) == []
        newest = await store.find_key("pool/a", "k1", since_us=0)
        assert newest is not None
        assert newest.time_us == 80
        assert await store.find_key("pool/a", "k7", since_us=71) is None
        assert await store.find_key("pool/a", "k7", since_us=70) is not None

    async def test_keys_by_time_where_an_event_is_older_than_the_outcome_before_it(self, store: Store) -> None:
        await store.append([some_append(0, key="k0", time_us=10), outcome_of(1, b"no", key="k1", time_us=30)])
        await store.append([some_append(1, key="k2", time_us=20)])
        recent = await store.recent_keys("pool/a", since_us=15, limit=10)
        assert [(r.key, r.time_us) for r in recent] == [("k1", 30), ("k2", 20)]
        assert await store.count_keys("pool/a", since_us=20) == 2
        assert await store.find_key("pool/a", "k1", since_us=30) is not None

    async def test_keys_of_the_same_time_come_newest_first(self, store: Store) -> None:
        await store.append([some_append(n, key=f"k{n}", time_us=5) for n in range(4)])
        assert [r.key for r in await store.recent_keys("pool/a", since_us=5, limit=3)] == ["k3", "k2", "k1"]

    # ----------------------------------------------------------------------------------------------------- snapshots

    async def test_snapshots_are_kept_by_number_and_found_by_sequence_and_time(self, store: Store) -> None:
        for n in range(1, 6):
            await store.save_snapshot(StoredSnapshot("pool/a", n * 10, n * 100, b"s%d" % n), keep=3)
        await store.save_snapshot(StoredSnapshot("pool/b", 1, 1, b"other"), keep=3)
        assert [s.sequence for s in await store.load_snapshots("pool/a")] == [50, 40, 30]
        assert [s.payload for s in await store.load_snapshots("pool/a", limit=1)] == [b"s5"]
        assert [s.sequence for s in await store.load_snapshots("pool/a", max_sequence=45)] == [40, 30]
        assert [s.sequence for s in await store.load_snapshots("pool/a", max_time_us=300)] == [30]
        await store.save_snapshot(StoredSnapshot("pool/a", 50, 500, b"again"), keep=3)
        assert (await store.load_snapshots("pool/a"))[0].payload == b"again"
        await store.delete_snapshots("pool/a")
        assert await store.load_snapshots("pool/a") == []
        assert len(await store.load_snapshots("pool/b")) == 1

    # ------------------------------------------------------------------------------------------------------- cursors

    async def test_cursors_merge(self, store: Store) -> None:
        assert await store.load_cursor("view") == {}
        await store.save_cursor("view", {0: 5, 1: 6})
        await store.save_cursor("view", {1: 7, 2: 1})
        await store.save_cursor("other", {0: 1})
        assert await store.load_cursor("view") == {0: 5, 1: 7, 2: 1}

"""What goes wrong in the simulated store, one thing at a time: what the caller is told, and what is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from actorkit.errors import AppendUncertain, JournalFailed, JournalUnavailable
from actorkit.journal.protocols import Acquired, Appended, Fenced, Held, Refused, StoredSnapshot
from actorkit.testing.journal_spec import some_append
from actorkit.testing.simulation import SimulatedLoop, SimulatedStore, StoreSettings, stream
from actorkit.testing.simulation.connection import Connection


def loop_now() -> SimulatedLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulatedLoop)
    return loop


async def opened(seed: int = 1, settings: StoreSettings = StoreSettings()) -> tuple[SimulatedStore, Connection]:  # noqa: B008 - frozen
    """A store with four shards, all of them owned by ``a`` under epoch 1 for an hour."""
    store = SimulatedStore(loop_now(), stream(seed, "store"), settings=settings)
    connection = Connection(store, node="a")
    await connection.open(4)
    await connection.acquire(range(4), owner="a", duration_s=3600)
    return store, connection


async def stored(connection: Connection) -> int:
    return len(await connection.read_log(0, after=0, limit=100))


async def test_a_write_error_leaves_doubt_which_a_later_write_settles() -> None:
    store, connection = await opened()
    store.faults.fail_write.add(store.writes + 1)
    with pytest.raises(AppendUncertain):
        await connection.append([some_append(0)])
    assert await stored(connection) == 0
    assert await connection.acquire([0], owner="a", duration_s=3) == [Acquired(0, 2, 0)]
    store.crash()
    store.start()
    assert await stored(connection) == 0


async def test_what_failed_may_come_back_with_a_crash() -> None:
    found: set[int] = set()
    for seed in range(20):
        store, connection = await opened(seed)
        store.faults.fail_write.add(store.writes + 1)
        with pytest.raises(AppendUncertain):
            await connection.append([some_append(0)])
        store.crash()
        store.start()
        found.add(await stored(connection))
    assert found == {0, 1}


async def test_after_a_failed_sync_the_connection_says_nothing_any_more() -> None:
    store, connection = await opened()
    crashes: list[bool] = []
    store.on_crash = lambda: crashes.append(store.up)
    store.faults.fail_sync.add(store.syncs + 1)
    with pytest.raises(JournalFailed):
        await connection.append([some_append(0)])
    assert crashes == [False]
    store.start()
    with pytest.raises(JournalFailed):
        await connection.status()
    another = Connection(store, node="a")
    await another.open(None)
    assert await stored(another) in (0, 1)


async def test_a_full_disk_stores_nothing_and_reads_on() -> None:
    store, connection = await opened()
    store.faults.full = True
    with pytest.raises(JournalUnavailable):
        await connection.append([some_append(0)])
    assert await stored(connection) == 0
    assert await connection.renew({0: 1}, owner="a", duration_s=3) == {0}
    store.faults.full = False
    assert await connection.append([some_append(0)]) == [Appended(1)]


async def test_an_answer_may_be_lost_although_all_is_stored() -> None:
    store, connection = await opened(settings=StoreSettings(append_timeout_s=2.0))
    store.faults.lost_answer = 1.0
    for number in range(6):
        with pytest.raises(AppendUncertain):
            await connection.append([some_append(number)])
    assert await stored(connection) == 6


async def test_a_late_append_arrives_after_others_have_read_and_the_fence_keeps_it_out() -> None:
    store, connection = await opened()
    store.faults.late_append = 1.0
    late = asyncio.ensure_future(connection.append([some_append(0)]))
    await asyncio.sleep(1)
    store.faults.late_append = 0.0
    assert await stored(connection) == 0
    assert await connection.acquire([0], owner="a", duration_s=3) == [Acquired(0, 2, 0)]
    assert await connection.append([some_append(0, epoch=2)]) == [Appended(1)]
    assert await late == [Fenced(2)]
    assert await stored(connection) == 1


@pytest.mark.parametrize(("told", "takes_s"), [(True, 0.1), (False, 5.0)])
async def test_unreachable_from_one_node_only(told: bool, takes_s: float) -> None:
    store, connection = await opened()
    other = Connection(store, node="b")
    await other.open(None)
    store.faults.unreachable["a"] = told
    began_s = loop_now().now_s
    with pytest.raises(JournalUnavailable):
        await connection.status()
    assert loop_now().now_s - began_s == pytest.approx(takes_s, abs=0.1)
    assert len(await other.status()) == 4
    with pytest.raises(JournalUnavailable if told else AppendUncertain):
        await connection.acquire([0], owner="a", duration_s=3)


async def test_a_crash_loses_what_was_not_synced_from_the_end() -> None:
    found: set[int] = set()
    for seed in range(20):
        store, connection = await opened(seed, StoreSettings(sync=False, sync_later_s=10))
        store.disk.sync()
        for number in range(5):
            assert await connection.append([some_append(2 * number, b"1", b"2")]) == [Appended(2 * number + 2)]
        store.crash()
        store.start()
        count = await stored(connection)
        assert count % 2 == 0
        found.add(count)
    assert {0, 10} <= found
    assert len(found) > 3


async def test_one_payload_of_a_batch_is_refused() -> None:
    store, connection = await opened()
    store.faults.refused_payload = 1.0
    batch = [some_append(0, stream=f"pool/{shard}", shard=shard) for shard in range(4)]
    kinds = sorted(type(result).__name__ for result in await connection.append(batch))
    assert kinds == ["Appended", "Appended", "Appended", Refused.__name__]


async def test_a_thief_takes_the_shards_and_keeps_them_for_as_long_as_their_owner_was_promised() -> None:
    store, connection = await opened()
    await connection.renew({0: 1}, owner="a", duration_s=3)
    await connection.renew({1: 1}, owner="a", duration_s=1)
    store.steal([0, 1], owner="thief", duration_s=2.0)
    assert await connection.append([some_append(0)]) == [Fenced(2)]
    assert await connection.renew({0: 1, 1: 1, 2: 1}, owner="a", duration_s=3) == {2}
    held = await connection.acquire([0, 1], owner="a", duration_s=3)
    assert [each.remaining_s for each in held if isinstance(each, Held)] == pytest.approx([3.0, 2.0], abs=0.1)
    await asyncio.sleep(3.1)
    assert await connection.acquire([0], owner="a", duration_s=3) == [Acquired(0, 3, 0)]


async def test_an_older_copy_has_another_generation_and_ends_old_connections() -> None:
    store, connection = await opened()
    for number in range(4):
        await connection.append([some_append(number)])
    store.restore(store.disk.length - 2)
    with pytest.raises(JournalFailed, match="older copy"):
        await connection.status()
    again = Connection(store, node="a")
    await again.open(None)
    assert again.generation == connection.generation + 1
    assert await stored(again) == 2


async def test_corrupt_snapshots_and_a_crash_while_one_is_written() -> None:
    store, connection = await opened()
    snapshot = StoredSnapshot("pool/a", 1, 1, b"state")
    await connection.save_snapshot(snapshot, keep=2)
    assert store.disk.corrupt_snapshots(part=0.5) == 1
    [read] = await connection.load_snapshots("pool/a")
    assert (len(read.payload), read.payload == b"state") == (5, False)
    store.faults.crash_in_snapshot = 1.0
    with pytest.raises(AppendUncertain):
        await connection.save_snapshot(StoredSnapshot("pool/a", 2, 2, b"newer"), keep=2)
    assert not store.up
    store.start()
    assert [each.sequence for each in await connection.load_snapshots("pool/a")] in ([1], [2, 1])


@pytest.mark.parametrize(
    ("settings", "batch", "results"),
    [
        (StoreSettings(fence=False), [some_append(0, epoch=9)], [Appended(1)]),
        (StoreSettings(expect=False), [some_append(0), some_append(0)], [Appended(1), Appended(2)]),
    ],
)
async def test_duties_can_be_neglected_for_checking_the_checkers(
    settings: StoreSettings, batch: list[object], results: list[object]
) -> None:
    _, connection = await opened(settings=settings)
    assert await connection.append(batch) == results  # type: ignore[arg-type]


@pytest.mark.parametrize("end", [SimulatedStore.crash, SimulatedStore.heal])
async def test_nobody_waits_for_ever(end: Callable[[SimulatedStore], None]) -> None:
    store, connection = await opened()
    store.faults.unreachable["a"] = False
    lost = asyncio.ensure_future(connection.append([some_append(0)]))
    await asyncio.sleep(0.1)
    store.faults.unreachable.clear()
    sent = asyncio.ensure_future(connection.append([some_append(0)]))
    await asyncio.sleep(0)
    end(store)
    with pytest.raises(AppendUncertain):
        await lost
    if end is SimulatedStore.crash:
        with pytest.raises(AppendUncertain):
            await sent
    else:
        assert await sent == [Appended(1)]

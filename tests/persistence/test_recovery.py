"""Promise P7: snapshot plus tail gives what all events give; what cannot be used stops its own stream only."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings, strategies

from actorkit import Event, PersistentActor, Rejected, State, applies, command, field, published, query
from actorkit.errors import RecoveryFailed, VersionNotReached
from actorkit.journal.memory import MemoryJournal
from actorkit.journal.protocols import Append, Appended, NewEvent, StoredSnapshot
from actorkit.persistence.recovery import recover
from actorkit.persistence.snapshot_writer import SnapshotWriter
from actorkit.persistence.snapshots import encode_snapshot, event_digest
from tests.persistence.actors import Account, AccountState
from tests.persistence.kit import LoopClock, Nodes, ScriptedJournal, eventually


def account_type() -> Any:
    assert Account.entity_type is not None
    return Account.entity_type


async def journal_with(amounts: list[int], times: list[int] | None = None) -> MemoryJournal:
    """One account's events, written without actors."""
    journal = MemoryJournal(clock=LoopClock())
    await journal.open(1)
    await journal.acquire([0], owner="test", duration_s=3)
    codec = account_type().codec
    for number, amount in enumerate(amounts):
        cls = codec.by_name["tests.put"]
        payload, _ = codec.encode(cls(amount, f"{number}"))
        time_us = times[number] if times is not None else number
        append = Append(0, 1, "account/a", number, (NewEvent("tests.put", 1, payload),), time_us, b"")
        [result] = await journal.append([append])
        assert isinstance(result, Appended)
    return journal


async def digest_of(journal: MemoryJournal, sequence: int) -> bytes:
    [event] = await journal.read_stream("account/a", after=sequence - 1, limit=1)
    return event_digest(event)


async def fold(journal: Any, **how: Any) -> Any:
    return await recover(journal, account_type(), "account/a", **{"page_events": 1000, **how})


@given(
    amounts=strategies.lists(strategies.integers(-100, 100), max_size=30),
    snapshots=strategies.sets(strategies.integers(1, 30)),
    page_events=strategies.integers(1, 40),
    upto=strategies.none() | strategies.integers(0, 30),
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_snapshots_and_the_tail_give_the_state_that_all_events_give(
    amounts: list[int], snapshots: set[int], page_events: int, upto: int | None
) -> None:
    async def check() -> None:
        journal = await journal_with(amounts)
        for sequence in sorted(snapshots):
            if sequence <= len(amounts):
                at = await fold(journal, max_sequence=sequence)
                stored = encode_snapshot(
                    account_type(), "account/a", sequence, at.time_us, await digest_of(journal, at.sequence), at.state
                )
                await journal.save_snapshot(stored, keep=100)
        recovery = await fold(journal, page_events=page_events, max_sequence=upto)
        expected = amounts if upto is None else amounts[:upto]
        assert recovery.state.balance == sum(expected)
        assert recovery.state.notes == [f"{number}" for number in range(len(expected))]
        assert recovery.sequence == len(expected)
        assert recovery.ignored == []
        usable = [s for s in snapshots if s <= len(expected)]
        assert recovery.from_snapshot == max(usable, default=0)

    asyncio.run(check())


@given(
    steps=strategies.lists(strategies.integers(0, 5), min_size=1, max_size=20),
    snapshot=strategies.integers(1, 20),
    asked=strategies.integers(-1, 60),
)
@settings(max_examples=80, deadline=None)
def test_the_state_at_a_time_has_all_events_up_to_that_time(steps: list[int], snapshot: int, asked: int) -> None:
    async def check() -> None:
        times = [sum(steps[: number + 1]) for number in range(len(steps))]
        journal = await journal_with([1] * len(steps), times)
        if snapshot <= len(steps):
            at = await fold(journal, max_sequence=snapshot)
            await journal.save_snapshot(
                encode_snapshot(
                    account_type(), "account/a", snapshot, at.time_us, await digest_of(journal, at.sequence), at.state
                ),
                keep=2,
            )
        recovery = await fold(journal, max_time_us=asked, page_events=3)
        assert recovery.state.balance == sum(time <= asked for time in times)

    asyncio.run(check())


async def with_snapshots(nodes: Nodes, count: int = 6) -> ScriptedJournal:
    """An account with ``count`` events and snapshots after each, two of which are kept."""
    journal = nodes.journal()
    async with nodes.running(journal, snapshot_every_events=1) as system:
        for number in range(count):
            await system.get(Account, "a").note(f"{number}")
            await eventually(lambda n=number: system.snapshots.saved == n + 1)
    return ScriptedJournal(journal.inner)


NOTES = ["0", "1", "2", "3", "4", "5"]


async def test_the_newest_snapshots_are_kept_and_used(nodes: Nodes) -> None:
    journal = await with_snapshots(nodes)
    assert [s.sequence for s in await journal.inner.load_snapshots("account/a")] == [6, 5]
    system = await nodes.start(journal)
    assert await system.get(Account, "a").notes() == NOTES
    assert system.counters.events_replayed == 1, "the snapshot's own event, to see that it is the journal's"
    assert system.counters.snapshots_ignored == 0


@pytest.mark.parametrize("how", ["bit", "empty", "short", "other bytes"])
async def test_a_corrupt_snapshot_is_ignored_and_counted_and_an_older_one_taken(nodes: Nodes, how: str) -> None:
    """Fault 25."""
    journal = await with_snapshots(nodes)
    newest = (await journal.inner.load_snapshots("account/a"))[0]
    flipped = bytearray(newest.payload)
    flipped[-1] ^= 1
    payload = {"bit": bytes(flipped), "empty": b"", "short": newest.payload[:10], "other bytes": b"x" * 100}[how]
    await journal.inner.save_snapshot(msgspec.structs.replace(newest, payload=payload), keep=2)
    system = await nodes.start(journal)
    assert await system.get(Account, "a").notes() == NOTES
    assert system.counters.snapshots_ignored == 1
    assert system.counters.events_replayed == 2


async def test_all_snapshots_may_be_corrupt_or_deleted(nodes: Nodes) -> None:
    journal = await with_snapshots(nodes)
    for stored in await journal.inner.load_snapshots("account/a"):
        await journal.inner.save_snapshot(StoredSnapshot(stored.stream, stored.sequence, 0, b"x" * 40), keep=2)
    async with nodes.running(journal) as system:
        assert await system.get(Account, "a").notes() == NOTES
        assert system.counters.snapshots_ignored == 2
    await journal.inner.delete_snapshots("account/a")
    async with nodes.running(ScriptedJournal(journal.inner)) as system:
        assert await system.get(Account, "a").notes() == NOTES


async def test_a_snapshot_of_another_history_is_ignored(nodes: Nodes) -> None:
    """The same sequence, another event: the store went back and went another way."""
    ours, theirs = await with_snapshots(nodes), nodes.journal()
    async with nodes.running(theirs) as system:
        for number in range(6):
            await system.get(Account, "a").note(f"other {number}")
    for stored in await ours.inner.load_snapshots("account/a"):
        await theirs.inner.save_snapshot(stored, keep=2)
    system = await nodes.start(ScriptedJournal(theirs.inner))
    assert await system.get(Account, "a").notes() == [f"other {number}" for number in range(6)]
    assert system.counters.snapshots_ignored == 2


async def test_a_snapshot_beyond_the_journals_end_is_ignored(nodes: Nodes) -> None:
    ours, theirs = await with_snapshots(nodes), nodes.journal()
    async with nodes.running(theirs) as system:
        await system.get(Account, "a").note("0")
    for stored in await ours.inner.load_snapshots("account/a"):
        await theirs.inner.save_snapshot(stored, keep=2)
    system = await nodes.start(ScriptedJournal(theirs.inner))
    assert await system.get(Account, "a").note("1") == ["0", "1"]
    assert system.counters.snapshots_ignored == 2


async def test_a_snapshot_of_another_schema_is_ignored(nodes: Nodes) -> None:
    class Noted2(Event, name="tests.noted"):
        note: str

    class NewState(State):
        notes: list[str] = field(default_factory=list[str])
        count: int = 0

        @applies(Noted2)
        def noted(self, event: Noted2) -> None:
            self.notes.append(event.note)
            self.count += 1

    class NewAccount(PersistentActor[NewState, Noted2], name="account"):
        @query
        def count(self) -> int:
            return self.state.count

    journal = await with_snapshots(nodes)
    system = await nodes.start(journal)
    assert await system.get(NewAccount, "a").count() == 6
    assert system.counters.snapshots_ignored == 2


async def test_a_slow_recovery_is_followed_by_a_snapshot(nodes: Nodes) -> None:
    journal = nodes.journal()
    async with nodes.running(journal, snapshot_every_events=0) as system:
        for number in range(5):
            await system.get(Account, "a").note(f"{number}")
    assert await journal.inner.load_snapshots("account/a") == []
    slow = ScriptedJournal(journal.inner)
    slow.reads_gate = asyncio.Event()
    system = await nodes.start(slow, snapshot_every_events=0, snapshot_after_recovery_s=0.5)
    notes = asyncio.ensure_future(system.get(Account, "a").notes())
    await asyncio.sleep(1)
    slow.reads_gate.set()
    await notes
    await eventually(lambda: system.snapshots.saved == 1)
    assert [s.sequence for s in await journal.inner.load_snapshots("account/a")] == [5]


async def test_a_slow_recovery_of_nothing_leaves_no_snapshot_though_an_event_comes_meanwhile(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = nodes.journal()
    async with nodes.running(journal) as system:
        await system.get(Account, "other").note("first")
    slow = ScriptedJournal(journal.inner)
    slow.reads_gate = asyncio.Event()
    taken: list[int] = []
    monkeypatch.setattr(SnapshotWriter, "save", lambda self, snapshot: taken.append(snapshot.sequence))
    system = await nodes.start(slow, snapshot_after_recovery_s=0.5)
    read_stream = slow.read_stream

    async def with_late_append(stream: str, *, after: int, limit: int) -> Any:
        """By the time of the read for the snapshot the stream has its first event, as another one has here."""
        return await read_stream("account/other" if after < 0 else stream, after=max(0, after), limit=limit)

    monkeypatch.setattr(slow, "read_stream", with_late_append)
    notes = asyncio.ensure_future(system.get(Account, "a").notes())
    await asyncio.sleep(1)
    slow.reads_gate.set()
    await notes
    assert taken == []


# --------------------------------------------------------------------------------------------- what cannot be recovered


async def put_directly(journal: Any, stream: str, name: str, version: int, payload: bytes, expected: int) -> None:
    """An event as some other program might have written it."""
    from actorkit.ids import shard_of

    shard = shard_of(stream, journal.inner.shards)
    [acquired] = await journal.inner.acquire([shard], owner="someone", duration_s=3)
    append = Append(shard, acquired.epoch, stream, expected, (NewEvent(name, version, payload),), 1, b"")
    [result] = await journal.inner.append([append])
    assert isinstance(result, Appended)
    await journal.inner.release({shard: acquired.epoch}, owner="someone")


@pytest.mark.parametrize(
    ("name", "version", "payload", "says"),
    [
        ("tests.unheard-of", 1, b"\x80", "unheard-of"),
        ("tests.noted", 2, b"\x80", "newer"),
        ("tests.noted", 1, b"\xff\xff", "tests.noted"),
        ("tests.noted", 1, b"\x81\xa4note\x05", "tests.noted"),
        ("tests.noted", 1, b"\x81\xa4note\xa1\x80", "tests.noted"),
        ("tests.noted", 1, b"\x81\xa4more" + b"\x91" * 100_000 + b"\x01", "tests.noted"),
    ],
)
async def test_a_poison_event_stops_its_own_stream_only_and_says_what_it_is(
    nodes: Nodes, name: str, version: int, payload: bytes, says: str
) -> None:
    """Fault 29."""
    journal = nodes.journal()
    await journal.open(4)
    await put_directly(journal, "account/bad", name, version, payload, 0)
    system = await nodes.start(journal)
    view = system.view(Account.total)
    for _ in range(2):
        with pytest.raises(RecoveryFailed, match=says):
            await system.get(Account, "bad").put(1)
    assert await system.get(Account, "good").put(1) == 1
    assert view.get("good") == (1, 1)
    assert view.get("bad") is None
    assert system.ready is None


async def test_an_event_that_its_state_cannot_apply_stops_its_own_stream_only(nodes: Nodes) -> None:
    class Picky(State):
        numbers: list[int] = field(default_factory=list[int])

        @applies(Counted)
        def counted(self, event: Counted) -> None:
            if event.number < 0:
                raise ValueError("never accepted")
            self.numbers.append(event.number)

    class Counter(PersistentActor[Picky, Counted], name="picky"):
        @command
        def count(self, number: int) -> int:
            self.emit(Counted(number))
            return len(self.state.numbers)

        @published
        def length(self) -> int | None:
            return len(self.state.numbers)

    journal = nodes.journal()
    await journal.open(4)
    await put_directly(journal, "picky/bad", "tests.counted", 1, msgspec.msgpack.encode({"number": -1}), 0)
    await put_directly(journal, "picky/good", "tests.counted", 1, msgspec.msgpack.encode({"number": 1}), 0)
    system = await nodes.start(journal)
    view = system.view(Counter.length)
    with pytest.raises(RecoveryFailed):
        await system.get(Counter, "bad").count(1)
    await eventually(lambda: system.ready is None)
    assert view.get("good") == (1, 1)
    assert await system.get(Counter, "good").count(2) == 2


class Counted(Event, name="tests.counted"):
    number: int


class GappyJournal(ScriptedJournal):
    """Its second event is missing."""

    gap = True

    async def read_stream(self, stream: str, **how: Any) -> Any:
        page = await super().read_stream(stream, **how)
        return [record for record in page if record.sequence != 2] if self.gap and stream == "account/a" else page


async def test_a_gap_is_corruption_that_concerns_its_own_stream_only_and_the_next_call_looks_again(
    nodes: Nodes,
) -> None:
    journal = nodes.journal()
    async with nodes.running(journal) as system:
        for number in range(3):
            await system.get(Account, "a").note(f"{number}")
    gappy = GappyJournal(journal.inner)
    system = await nodes.start(gappy)
    with pytest.raises(RecoveryFailed, match="event 3 after event 1"):
        await system.get(Account, "a").notes()
    assert await system.get(Account, "b").put(1) == 1
    gappy.gap = False
    assert await system.get(Account, "a").notes() == ["0", "1", "2"]
    assert system.counters.recovery_failures == 1


# ---------------------------------------------------------------------------------------------------------- passivation


async def test_an_idle_entity_leaves_memory_and_its_state_survives(nodes: Nodes) -> None:
    system = await nodes.start(passivate_after_s=10.0)
    account = system.get(Account, "a")
    await account.put(5)
    for _ in range(10):
        await asyncio.sleep(5)
        await account.balance()
    assert system.region.entities == 1, "it is in use"
    assert system.counters.recoveries == 1
    await asyncio.sleep(12)
    assert system.region.entities == 0
    assert len(system.runtime) == 0
    assert await account.put(1) == 6


async def test_too_many_entities_make_the_least_recently_used_leave(nodes: Nodes) -> None:
    system = await nodes.start(entities_max=10)
    for number in range(50):
        await system.get(Account, f"a{number}").put(number)
        await system.get(Account, "a0").balance()
    assert system.region.entities <= 11
    assert system.counters.recoveries == 50, "the one in use stayed"
    for number in range(50):
        assert await system.get(Account, f"a{number}").balance() == number


async def test_a_busy_entity_does_not_leave(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal, passivate_after_s=1.0, entities_max=1, append_timeout_s=1000)
    await system.get(Account, "a").balance()
    journal.hold()
    put = asyncio.ensure_future(system.get(Account, "a").put.options(deadline_s=100)(5))
    await eventually(lambda: journal.held)
    await asyncio.sleep(10)
    await system.get(Account, "b").balance()
    assert not put.done()
    journal.let_go()
    assert await put == 5
    assert await system.get(Account, "a").balance() == 5


async def test_recoveries_are_bounded(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal, recoveries_max=3)
    await system.own_all_shards()
    journal.reads_gate = asyncio.Event()
    reading = 0
    most = 0
    plain = journal._reading

    async def counting() -> None:
        nonlocal reading, most
        reading += 1
        most = max(most, reading)
        await plain()
        reading -= 1

    journal._reading = counting  # type: ignore[method-assign]
    calls = [asyncio.ensure_future(system.get(Account, f"a{n}").put(1)) for n in range(20)]
    await eventually(lambda: reading == 3)
    journal.reads_gate.set()
    assert await asyncio.gather(*calls) == [1] * 20
    assert most == 3


# -------------------------------------------------------------------------------------------------------- past and time


async def test_the_state_at_any_version_and_time_while_the_live_entity_goes_on(nodes: Nodes) -> None:
    system = await nodes.start(snapshot_every_events=3)
    account = system.get(Account, "a")
    times: list[int] = []
    for number in range(10):
        await account.note(f"{number}")
        past = await system.state_at(Account, "a", version=number + 1)
        times.append(past.time_us)
        await asyncio.sleep(1)
    recoveries = system.counters.recoveries
    for version in range(11):
        past = await system.state_at(Account, "a", version=version)
        assert isinstance(past.state, AccountState)
        assert past.state.notes == [f"{number}" for number in range(version)]
        assert past.version == version
    for number, time_us in enumerate(times):
        assert (await system.state_at(Account, "a", time_us=time_us)).version == number + 1
        assert (await system.state_at(Account, "a", time_us=time_us - 1)).version == number
    past = await system.state_at(Account, "a", version=10)
    past.state.notes.append("mine")
    assert await account.note("10") == [f"{number}" for number in range(11)]
    assert system.counters.recoveries == recoveries
    with pytest.raises(VersionNotReached) as error:
        await system.state_at(Account, "a", version=12)
    assert (error.value.asked, error.value.reached) == (12, 11)
    assert (await system.state_at(Account, "unheard-of", version=0)).state.notes == []


@pytest.mark.parametrize("how", [{}, {"version": 1, "time_us": 1}, {"version": -1}])
async def test_the_past_needs_either_a_version_or_a_time(nodes: Nodes, how: dict[str, int]) -> None:
    system = await nodes.start()
    with pytest.raises(ValueError, match="either a version"):
        await system.state_at(Account, "a", **how)


async def test_event_times_never_decrease_although_the_clock_does(nodes: Nodes) -> None:
    """Fault 11."""
    journal = nodes.journal()
    system = await nodes.start(journal)
    for number, jump_s in enumerate([0, 3600, -7200, -3600, 10, 20_000]):
        nodes.clock.wall_offset_us += jump_s * 1_000_000
        await system.get(Account, "a").note(f"{number}")
        if number == 3:
            await system.stop()
            system = await nodes.start(ScriptedJournal(journal.inner))
    times = [record.time_us for record in await journal.inner.read_stream("account/a", after=0, limit=10)]
    assert times == sorted(times)
    assert times[2] == times[1] == times[3]
    assert times[5] > times[4]


async def test_a_turns_time_and_its_events_time_are_one(nodes: Nodes) -> None:
    seen: list[int] = []

    class Timed(State):
        @applies(Counted)
        def counted(self, event: Counted) -> None: ...

    class Timer(PersistentActor[Timed, Counted], name="timer"):
        @command
        async def wait(self) -> int:
            first = self.context.now_us
            await asyncio.sleep(5)
            assert self.context.now_us == first
            seen.append(first)
            if self.context.now.timestamp() != first / 1e6:
                raise Rejected("another time")
            self.emit(Counted(1))
            return first

    journal = nodes.journal()
    system = await nodes.start(journal)
    now_us = await system.get(Timer, "t").wait.options(deadline_s=60)()
    [record] = await journal.inner.read_stream("timer/t", after=0, limit=5)
    assert seen == [record.time_us] == [now_us]

"""The group-commit writer: what gathers, what is bounded, and how each append is told what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from actorkit.errors import AppendUncertain, JournalError, JournalFailed, JournalUnavailable, Overloaded
from actorkit.journal.memory import MemoryJournal
from actorkit.journal.protocols import Append, Appended, AppendResult, Conflict, Fenced, NewEvent
from actorkit.journal.settings import WriterSettings
from actorkit.journal.writer import GroupCommit


class HeldJournal(MemoryJournal):
    """Answers each batch only when the test says so, with what the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Sequence[Append]] = []
        self.gates: list[asyncio.Future[None]] = []
        self.ended = 0

    async def append(self, batch: Sequence[Append]) -> list[AppendResult]:
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.batches.append(batch)
        self.gates.append(gate)
        try:
            await gate
            return await super().append(batch)
        finally:
            self.ended += 1


def one(n: int, *, stream: str = "pool/a", size_bytes: int = 8, epoch: int = 1) -> Append:
    event = NewEvent("Added", 1, b"x" * size_bytes)
    return Append(shard=0, epoch=epoch, stream=stream, expected=n, events=(event,), time_us=n, metadata=b"")


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
async def journal() -> HeldJournal:
    journal = HeldJournal()
    await journal.open(4)
    await journal.acquire([0], owner="me", duration_s=60)
    return journal


Outcome = AppendResult | JournalError


@pytest.mark.parametrize("limit", [{"queue_max_appends": 10}, {"queue_max_bytes": 1040}])
async def test_that_there_is_no_room_is_known_before_anything_is_refused(
    journal: HeldJournal, limit: dict[str, int]
) -> None:
    writer = GroupCommit(journal, settings=WriterSettings(**limit))
    for n in range(10):
        assert writer.has_room
        writer.submit(one(n, size_bytes=100), lambda outcome: None)
    assert not writer.has_room
    with pytest.raises(Overloaded):
        writer.submit(one(10, size_bytes=100), lambda outcome: None)
    await turns()
    assert writer.has_room
    journal.gates[0].set_result(None)
    await writer.close()


async def test_closing_twice_at_once_ends_both(journal: HeldJournal) -> None:
    writer = GroupCommit(journal, settings=WriterSettings(close_timeout_s=3600))
    writer.submit(one(0), lambda outcome: None)
    closing = [asyncio.ensure_future(writer.close()) for _ in range(2)]
    await turns()
    journal.gates[0].set_result(None)
    await asyncio.wait_for(asyncio.gather(*closing), 10)


async def test_the_next_batch_is_with_the_store_before_the_owners_of_the_last_one_are_told(
    journal: HeldJournal,
) -> None:
    writer = GroupCommit(journal)
    batches_when_told: list[int] = []
    writer.submit(one(0), lambda result: batches_when_told.append(len(journal.batches)))
    await turns()
    writer.submit(one(1), lambda result: batches_when_told.append(len(journal.batches)))
    journal.gates[0].set_result(None)
    await turns()
    journal.gates[1].set_result(None)
    await turns()
    assert batches_when_told == [2, 2]
    await writer.close()


async def test_owners_are_told_in_order_also_when_the_writer_gives_up_at_that_moment(journal: HeldJournal) -> None:
    writer = GroupCommit(journal)
    told: list[tuple[str, type]] = []
    for n in range(2):
        writer.submit(one(n), lambda result, n=n: told.append((f"append {n}", type(result))))
        await turns()
    journal.gates[0].set_result(None)
    while writer._untold is None:
        await turns(1)
    writer._give_up()
    assert told == [("append 0", Appended), ("append 1", AppendUncertain)]
    await turns()
    assert len(told) == 2


async def test_what_is_submitted_in_one_turn_is_one_batch_and_the_next_gathers(journal: HeldJournal) -> None:
    writer = GroupCommit(journal)
    got: list[Outcome] = []
    for n in range(3):
        writer.submit(one(n), got.append)
    await turns()
    assert [len(batch) for batch in journal.batches] == [3]
    for n in range(3, 8):
        writer.submit(one(n), got.append)
        await turns(1)
    assert len(journal.batches) == 1
    assert writer.queued == 5
    journal.gates[0].set_result(None)
    await turns()
    assert [len(batch) for batch in journal.batches] == [3, 5]
    assert got == [Appended(1), Appended(2), Appended(3)]
    journal.gates[1].set_result(None)
    await turns()
    assert got[3:] == [Appended(n) for n in range(4, 9)]
    assert (writer.batches, writer.appends, writer.bytes) == (2, 8, 64)
    await writer.close()


async def test_each_append_gets_its_own_result(journal: HeldJournal) -> None:
    writer = GroupCommit(journal)
    got: list[Outcome] = []
    for append in (one(0), one(5, stream="pool/b"), one(0, stream="pool/c", epoch=9), one(1)):
        writer.submit(append, got.append)
    await turns()
    journal.gates[0].set_result(None)
    await turns()
    assert got == [Appended(1), Conflict(0), Fenced(1), Appended(2)]


async def test_a_batch_is_bounded_by_appends_and_by_bytes(journal: HeldJournal) -> None:
    writer = GroupCommit(journal, settings=WriterSettings(batch_max_appends=3, batch_max_bytes=100))
    got: list[Outcome] = []
    sizes_bytes = [10, 10, 10, 10, 60, 60, 500, 10]
    for n, size_bytes in enumerate(sizes_bytes):
        writer.submit(one(n, size_bytes=size_bytes), got.append)
    for n in range(6):
        await turns()
        if n < len(journal.gates):
            journal.gates[n].set_result(None)
    await turns()
    assert [[len(a.events[0].payload) for a in batch] for batch in journal.batches] == [
        [10, 10, 10],
        [10, 60],
        [60],
        [500],
        [10],
    ]
    assert got == [Appended(n) for n in range(1, 9)]
    assert writer.queued == 0
    assert writer.bytes == sum(sizes_bytes)


async def test_a_full_queue_is_overloaded(journal: HeldJournal) -> None:
    writer = GroupCommit(journal, settings=WriterSettings(queue_max_appends=2, queue_max_bytes=20))
    got: list[Outcome] = []
    writer.submit(one(0), got.append)
    writer.submit(one(1), got.append)
    with pytest.raises(Overloaded):
        writer.submit(one(2), got.append)
    await turns()
    writer.submit(one(2, size_bytes=15), got.append)
    with pytest.raises(Overloaded):
        writer.submit(one(3, size_bytes=6), got.append)
    journal.gates[0].set_result(None)
    await turns()
    journal.gates[1].set_result(None)
    await turns()
    assert got == [Appended(1), Appended(2), Appended(3)]


async def test_a_raising_callback_hurts_nobody_else(journal: HeldJournal) -> None:
    writer = GroupCommit(journal)
    got: list[Outcome] = []

    def bad(outcome: Outcome) -> None:
        raise ZeroDivisionError

    for n, settled in enumerate((got.append, bad, got.append)):
        writer.submit(one(n), settled)
    await turns()
    journal.gates[0].set_result(None)
    await turns()
    assert got == [Appended(1), Appended(3)]


@pytest.mark.parametrize("error", [JournalUnavailable("down"), AppendUncertain("who knows")])
async def test_an_error_hits_its_batch_and_the_next_one_goes_on(journal: HeldJournal, error: JournalError) -> None:
    writer = GroupCommit(journal)
    got: list[Outcome] = []
    writer.submit(one(0), got.append)
    writer.submit(one(1), got.append)
    await turns()
    writer.submit(one(0), got.append)
    journal.gates[0].set_exception(error)
    await turns()
    journal.gates[1].set_result(None)
    await turns()
    assert got == [error, error, Appended(1)]


async def test_an_unexpected_exception_is_uncertain(journal: HeldJournal) -> None:
    writer = GroupCommit(journal)
    got: list[Outcome] = []
    writer.submit(one(0), got.append)
    await turns()
    journal.gates[0].set_exception(KeyError("bug"))
    await turns()
    assert isinstance(got[0], AppendUncertain)
    assert isinstance(got[0].__cause__, KeyError)


async def test_a_failed_journal_ends_everything(journal: HeldJournal) -> None:
    writer = GroupCommit(journal)
    got: list[Outcome] = []
    writer.submit(one(0), got.append)
    await turns()
    writer.submit(one(1), got.append)
    failure = JournalFailed("fsync")
    journal.gates[0].set_exception(failure)
    await turns()
    assert got == [failure, failure]
    assert writer.failed is failure
    with pytest.raises(JournalFailed):
        writer.submit(one(2), got.append)
    assert len(journal.batches) == 1


async def test_a_late_answer_is_ignored_and_the_next_batch_goes_on(journal: HeldJournal) -> None:
    writer = GroupCommit(journal, settings=WriterSettings(append_timeout_s=0.0))
    got: list[Outcome] = []
    writer.submit(one(0), got.append)
    await turns()
    assert isinstance(got[0], AppendUncertain)
    journal.gates[0].set_result(None)
    await turns()
    assert len(got) == 1
    assert len(await journal.read_stream("pool/a", after=0, limit=9)) == 1
    assert (writer.batches, writer.appends) == (0, 0)


async def test_batches_without_an_answer_are_bounded(journal: HeldJournal) -> None:
    writer = GroupCommit(journal, settings=WriterSettings(append_timeout_s=0.0, overdue_max_batches=2))
    got: list[Outcome] = []
    for n in range(4):
        writer.submit(one(n), got.append)
        await turns()
    assert [type(outcome) for outcome in got] == [AppendUncertain] * 2 + [JournalUnavailable] * 2
    assert len(journal.batches) == 2
    journal.gates[0].set_result(None)
    await turns()
    writer.submit(one(1), got.append)
    await turns()
    assert len(journal.batches) == 3
    await writer.close()
    await turns()
    assert journal.ended == 3


async def test_closing_commits_what_is_queued(journal: HeldJournal) -> None:
    writer = GroupCommit(journal)
    got: list[Outcome] = []
    writer.submit(one(0), got.append)
    await turns()
    writer.submit(one(1), got.append)
    closing = asyncio.ensure_future(writer.close())
    await turns()
    with pytest.raises(JournalUnavailable):
        writer.submit(one(2), got.append)
    for n in range(2):
        journal.gates[n].set_result(None)
        await turns()
    await closing
    assert got == [Appended(1), Appended(2)]


async def test_closing_gives_up_at_its_deadline(journal: HeldJournal) -> None:
    writer = GroupCommit(journal, settings=WriterSettings(close_timeout_s=0.0))
    got: list[Outcome] = []
    writer.submit(one(0), got.append)
    await turns()
    writer.submit(one(1), got.append)
    await writer.close()
    assert [type(outcome) for outcome in got] == [AppendUncertain, JournalUnavailable]
    await turns()
    assert journal.ended == 1
    assert len(got) == 2


async def test_a_callback_may_submit_again(journal: HeldJournal) -> None:
    inner = MemoryJournal()
    await inner.open(4)
    await inner.acquire([0], owner="me", duration_s=60)
    writer = GroupCommit(inner)
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    got: list[Outcome] = []

    def settled(outcome: Outcome) -> None:
        got.append(outcome)
        if len(got) < 20:
            writer.submit(one(len(got)), settled)
        else:
            done.set_result(None)

    writer.submit(one(0), settled)
    await done
    assert got == [Appended(n) for n in range(1, 21)]
    await writer.close()


class BegunJournal(MemoryJournal):
    """Has begun each batch when it returns, and ends them in order when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Sequence[Append]] = []
        self.outcomes: list[asyncio.Future[list[AppendResult]]] = []

    def append(self, batch: Sequence[Append]) -> asyncio.Future[list[AppendResult]]:  # type: ignore[override]
        self.batches.append(batch)
        self.outcomes.append(asyncio.get_running_loop().create_future())
        return self.outcomes[-1]

    async def end(self, number: int) -> None:
        self.outcomes[number].set_result(await super().append(self.batches[number]))
        await turns()

    @property
    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.batches]


@pytest.fixture
async def begun() -> BegunJournal:
    journal = BegunJournal()
    await journal.open(4)
    await journal.acquire([0], owner="me", duration_s=60)
    return journal


async def submit(writer: GroupCommit, numbers: range, told: list[Outcome]) -> None:
    for n in numbers:
        writer.submit(one(n), told.append)
    await turns()


async def test_a_small_batch_is_followed_by_the_next_one_before_its_answer_but_not_by_a_few(
    begun: BegunJournal,
) -> None:
    writer, told = GroupCommit(begun), list[Outcome]()
    await submit(writer, range(10), told)
    await submit(writer, range(10, 14), told)
    assert begun.sizes == [10], "so few wait for more"
    await submit(writer, range(14, 20), told)
    assert begun.sizes == [10, 10]
    await submit(writer, range(20, 100), told)
    assert begun.sizes == [10, 10], "two are on their way at most"
    assert told == []
    await begun.end(0)
    assert told == [Appended(n + 1) for n in range(10)]
    assert begun.sizes == [10, 10, 80]
    await begun.end(1)
    await begun.end(2)
    assert told == [Appended(n + 1) for n in range(100)]
    await writer.close()


async def test_a_large_batch_is_followed_only_after_its_answer(begun: BegunJournal) -> None:
    writer, told = GroupCommit(begun), list[Outcome]()
    await submit(writer, range(128), told)
    await submit(writer, range(128, 256), told)
    assert begun.sizes == [128]
    await begun.end(0)
    assert begun.sizes == [128, 128]
    await begun.end(1)
    await writer.close()


async def test_an_unanswered_batch_does_not_hold_up_the_one_that_was_sent_after_it(begun: BegunJournal) -> None:
    writer = GroupCommit(begun, settings=WriterSettings(append_timeout_s=0.05))
    first, second = list[Outcome](), list[Outcome]()
    await submit(writer, range(2), first)
    await submit(writer, range(2, 4), second)
    await begun.end(1)
    assert second == [Conflict(0), Conflict(0)]
    while len(first) < 2:
        await turns()
    assert all(isinstance(outcome, AppendUncertain) for outcome in first)
    await begun.end(0)
    await submit(writer, range(2, 4), second)
    await begun.end(2)
    assert second[2:] == [Appended(3), Appended(4)]
    await writer.close()


@pytest.mark.parametrize("failure", [JournalFailed("the disk is gone"), None])
async def test_a_failed_or_closed_writer_settles_both_batches_that_are_on_their_way(
    begun: BegunJournal, failure: JournalFailed | None
) -> None:
    writer, told = GroupCommit(begun, settings=WriterSettings(close_timeout_s=0.01)), list[Outcome]()
    await submit(writer, range(2), told)
    await submit(writer, range(2, 4), told)
    writer.submit(one(4), told.append)
    if failure is not None:
        begun.outcomes[0].set_exception(failure)
        await turns()
        assert told == [failure] * 5
    await writer.close()
    assert len(told) == 5
    if failure is None:
        assert [type(outcome) for outcome in told] == [AppendUncertain] * 4 + [JournalUnavailable]
    assert all(outcome.done() for outcome in begun.outcomes)

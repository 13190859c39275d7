"""Folding the pages of a replay: every event is checked, and what is wrong is said of the right one."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from actorkit import Event, PersistentActor, State, applies, field, upcasts
from actorkit.errors import EventError, JournalCorrupt, JournalUnavailable
from actorkit.journal.memory import MemoryJournal
from actorkit.journal.protocols import Append, Appended, EventPage, NewEvent
from actorkit.persistence.declaration import EntityType
from actorkit.persistence.recovery import recover
from tests.persistence.kit import LoopClock

PAGE_EVENTS = 4


class Added(Event, name="replay.added"):
    number: int


class Renamed(Event, name="replay.renamed", version=2):
    text: str


@upcasts(Renamed, version=1)
def from_name(members: dict[str, Any]) -> dict[str, Any]:
    return {"text": members["name"]}


class Log(State):
    seen: list[Any] = field(default_factory=list[Any])

    @applies(Added)
    def added(self, event: Added) -> None:
        if event.number < 0:
            raise ValueError("never accepted")
        self.seen.append(event.number)

    @applies(Renamed)
    def renamed(self, event: Renamed) -> None:
        self.seen.append(event.text)


class Logger(PersistentActor[Log, Added | Renamed], name="replay"):
    """Has no handlers: its events are written by the tests."""


def logger_type() -> EntityType:
    assert Logger.entity_type is not None
    return Logger.entity_type


def added(number: Any) -> NewEvent:
    return NewEvent("replay.added", 1, msgspec.msgpack.encode({"number": number}))


def renamed(text: str) -> NewEvent:
    return NewEvent("replay.renamed", 2, msgspec.msgpack.encode({"text": text}))


def renamed_1(name: str) -> NewEvent:
    return NewEvent("replay.renamed", 1, msgspec.msgpack.encode({"name": name}))


class CountingJournal(MemoryJournal):
    """Says what is being read; may give short pages and fail."""

    def __init__(self) -> None:
        super().__init__(clock=LoopClock())
        self.reading = 0
        self.most = 0
        self.asked: list[int] = []
        self.short: dict[int, int] = {}
        self.fails_after: int | None = None

    async def read_events(self, stream: str, *, after: int, limit: int) -> EventPage:
        self.reading += 1
        self.most = max(self.most, self.reading)
        self.asked.append(after)
        try:
            await asyncio.sleep(1)
            if after == self.fails_after:
                raise JournalUnavailable("as the test has it")
            page = await super().read_events(stream, after=after, limit=self.short.get(after, limit))
            return msgspec.structs.replace(page, more=True) if after in self.short else page
        finally:
            self.reading -= 1


async def journal_of(*events: NewEvent) -> CountingJournal:
    journal = CountingJournal()
    await journal.open(1)
    await journal.acquire([0], owner="test", duration_s=3)
    if events:
        [result] = await journal.append([Append(0, 1, "replay/a", 0, events, 1, b"")])
        assert isinstance(result, Appended)
    return journal


async def replayed(journal: MemoryJournal) -> list[Any]:
    recovery = await recover(journal, logger_type(), "replay/a", page_events=PAGE_EVENTS)
    assert recovery.sequence == recovery.events_read == len(recovery.state.seen)
    seen: list[Any] = recovery.state.seen
    return seen


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8, 9, 23, 24])
async def test_pages_are_read_ahead_and_folded_in_order(count: int) -> None:
    journal = await journal_of(*map(added, range(count)))
    assert await replayed(journal) == list(range(count))
    assert journal.reading == 0
    assert journal.most <= 2


async def test_one_page_is_one_read() -> None:
    journal = await journal_of(added(1))
    assert await replayed(journal) == [1]
    assert journal.asked == [0]


async def test_a_page_that_is_shorter_than_expected_is_followed_by_the_one_after_it() -> None:
    journal = await journal_of(*map(added, range(30)))
    journal.short = {0: 3, 7: 1, 8: 1, 12: 2}
    assert await replayed(journal) == list(range(30))
    assert journal.reading == 0


async def test_nothing_is_left_reading_when_an_event_cannot_be_used() -> None:
    journal = await journal_of(*map(added, range(5)), added("x"), *map(added, range(20)))
    with pytest.raises(EventError, match="event 6") as error:
        await replayed(journal)
    assert error.value.sequence == 6
    assert journal.reading == 0


async def test_a_read_ahead_that_fails_is_the_replays_failure() -> None:
    journal = await journal_of(*map(added, range(30)))
    journal.fails_after = 12
    with pytest.raises(JournalUnavailable, match="as the test has it"):
        await replayed(journal)
    assert journal.reading == 0


async def test_events_of_several_kinds_and_versions_in_one_page() -> None:
    mixed = [added(1), renamed("a"), renamed_1("b"), added(2), renamed_1("c"), renamed_1("d"), renamed_1("e")]
    journal = await journal_of(*mixed, *[renamed("f")] * 8, added(3))
    assert await replayed(journal) == [1, "a", "b", 2, "c", "d", "e", *["f"] * 8, 3]


@pytest.mark.parametrize("at", [1, 2, 3, 4])
@pytest.mark.parametrize("others", [added(1), renamed_1("a")])
@pytest.mark.parametrize(
    ("event", "says"),
    [
        (NewEvent("replay.unheard-of", 1, b"\x80"), "unheard-of"),
        (NewEvent("replay.added", 2, b"\x80"), "newer"),
        (NewEvent("replay.renamed", 1, b"\x80"), "upcaster from version 1 .*failed"),
        (NewEvent("replay.added", 1, b"\xc1"), "replay.added"),
        (added("no number"), "replay.added"),
        (added(-1), "applying it to Log failed: ValueError\\('never accepted'\\)"),
    ],
)
async def test_what_cannot_be_used_is_named_wherever_it_stands(
    at: int, others: NewEvent, event: NewEvent, says: str
) -> None:
    events = [others] * 4
    events[at - 1] = event
    with pytest.raises(EventError, match=says) as error:
        await replayed(await journal_of(*events))
    found = error.value
    assert (found.stream, found.sequence, found.name, found.version) == ("replay/a", at, event.type, event.version)


@pytest.mark.parametrize(
    ("sequences", "says"),
    [
        ([2, 3], "event 2 after event 0"),
        ([1, 3], "event 3 after event 1"),
        ([1, 1], "event 1 after event 1"),
        ([1, 2, 2, 4], "event 2 after event 2"),
        ([1, 3, 2, 4], "event 3 after event 1"),
    ],
)
async def test_the_sequences_of_a_page_are_gapless(sequences: list[int], says: str) -> None:
    name, version, payload = added(1)
    page = EventPage.of([(sequence, name, version, payload, 1) for sequence in sequences])
    with pytest.raises(JournalCorrupt, match=says):
        logger_type().fold_page(Log(), "replay/a", page, 0)

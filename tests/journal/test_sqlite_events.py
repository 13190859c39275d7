"""A replay's pages from SQLite: their size, their order, and what is wrong with them."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from actorkit.errors import JournalCorrupt
from actorkit.journal.protocols import EventPage
from actorkit.journal.settings import SqliteSettings
from actorkit.journal.sqlite import SqliteJournal
from actorkit.journal.sqlite_events import READ_EVENTS, page_of
from actorkit.testing.journal_spec import some_append

PAGE_MAX_BYTES = 1000


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[SqliteJournal]:
    journal = SqliteJournal(tmp_path / "journal.db", settings=SqliteSettings(replay_max_bytes=PAGE_MAX_BYTES))
    await journal.open(1)
    await journal.acquire([0], owner="me", duration_s=60)
    yield journal
    await journal.close()


async def pages(journal: SqliteJournal, limit: int) -> list[EventPage]:
    found = [await journal.read_events("pool/a", after=0, limit=limit)]
    while found[-1].more:
        found.append(await journal.read_events("pool/a", after=found[-1].sequences[-1], limit=limit))
    return found


async def test_a_page_holds_no_more_than_fits_and_at_least_one_event(journal: SqliteJournal) -> None:
    sizes = [10, 500, 490, 1, 1001, 999, 1, 1, 1, 1000, 600, 600, 3000]
    await journal.append([some_append(0, *(bytes([number]) * size for number, size in enumerate(sizes)))])
    found = await pages(journal, limit=6)
    assert [[len(payload) for payload in page.payloads] for page in found] == [
        [10, 500, 490],
        [1],
        [1001],
        [999, 1],
        [1, 1],
        [1000],
        [600],
        [600],
        [3000],
    ]
    assert [sequence for page in found for sequence in page.sequences] == list(range(1, len(sizes) + 1))
    assert [page.more for page in found] == [True] * 8 + [False]


async def test_many_small_events_are_a_page_of_the_limit(journal: SqliteJournal) -> None:
    await journal.append([some_append(0, *([b"x"] * 25))])
    assert [len(page.payloads) for page in await pages(journal, limit=10)] == [10, 10, 5]
    assert [len(page.payloads) for page in await pages(journal, limit=25)] == [25]


async def test_the_order_is_that_of_the_sequences_whatever_sqlite_does(journal: SqliteJournal) -> None:
    appends = [some_append(0, b"1", b"22"), msgspec.structs.replace(some_append(2, b"333"), time_us=9_999)]
    await journal.append(appends)
    in_order = await journal.read_events("pool/a", after=0, limit=9)
    with closing(sqlite3.connect(journal.file)) as db:
        db.execute("PRAGMA reverse_unordered_selects=ON")
        rows = db.execute(READ_EVENTS, ("pool/a", 0, 9, PAGE_MAX_BYTES)).fetchall()
    assert rows[0][2] == "[3,2,1]", "else this shows nothing"
    assert page_of("pool/a", rows) == in_order


async def test_holes_show_in_the_sequences_however_large_they_are(journal: SqliteJournal) -> None:
    await journal.append([some_append(0, *([b"x"] * 20))])
    with closing(sqlite3.connect(journal.file)) as db:
        db.execute("DELETE FROM record WHERE sequence IN (1, 2, 5) OR sequence BETWEEN 9 AND 19")
        db.commit()
    assert [list(page.sequences) for page in await pages(journal, limit=4)] == [[3, 4, 6], [7, 8], [20]]


async def test_payloads_that_are_not_of_their_lengths_are_corruption() -> None:
    row = (2, 5, "[1,2]", '["a","a"]', "[1,1]", "3s2s", b"abcde")
    assert page_of("pool/a", [row]).payloads == [b"abc", b"de"]
    for content in (b"abcd", b"abcdef", b""):
        with pytest.raises(JournalCorrupt, match="pool/a: the payloads from event 1 on"):
            page_of("pool/a", [(*row[:-1], content)])

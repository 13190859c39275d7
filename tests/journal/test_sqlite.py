"""What only the SQLite journal can get wrong: other processes, crashes, full disks, other people's files."""

# ruff: noqa: ASYNC230, ASYNC240 - small local files

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from actorkit.errors import (
    AppendUncertain,
    ConfigurationError,
    JournalCorrupt,
    JournalFailed,
    JournalUnavailable,
    NamespaceMismatch,
)
from actorkit.journal import sqlite_connection, sqlite_lock, sqlite_tables
from actorkit.journal.protocols import Acquired, Appended, Conflict, Fenced, Held, Refused, StoredSnapshot
from actorkit.journal.settings import SqliteSettings
from actorkit.journal.sqlite import SqliteJournal
from actorkit.testing.journal_spec import SteppedClock, outcome_of, some_append

SHARDS = 4
ROOT = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
async def journal(file: Path) -> AsyncIterator[SqliteJournal]:
    journal = await opened(file)
    await journal.acquire(range(SHARDS), owner="me", duration_s=60)
    yield journal
    await journal.close()


async def opened(file: Path, **settings: Any) -> SqliteJournal:
    journal = SqliteJournal(file, settings=SqliteSettings(**settings))
    await journal.open(SHARDS)
    return journal


async def sequences(journal: SqliteJournal, stream: str = "pool/a") -> list[int]:
    return [record.sequence for record in await journal.read_stream(stream, after=0, limit=10_000)]


# ----------------------------------------------------------------------------------------------------- strange files


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalUnavailable, match="there is no directory"):
        await opened(tmp_path / "none" / "journal.db")


async def test_a_file_that_is_no_database_is_left_alone(file: Path) -> None:
    file.write_bytes(b"my precious notes\n" * 500)
    with pytest.raises(ConfigurationError, match="not an SQLite database"):
        await opened(file)
    assert file.read_bytes() == b"my precious notes\n" * 500


async def test_a_foreign_database_is_left_alone(file: Path) -> None:
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE meta(name, value)")
    db.close()
    before = file.read_bytes()
    with pytest.raises(ConfigurationError, match="not a journal"):
        await opened(file)
    assert file.read_bytes() == before


async def test_a_newer_schema_is_refused(journal: SqliteJournal, file: Path) -> None:
    await journal.close()
    with sqlite3.connect(file) as db:
        db.execute("UPDATE meta SET value = 99 WHERE name = 'schema'")
    db.close()
    with pytest.raises(ConfigurationError, match="schema 99"):
        await opened(file)


async def test_another_number_of_shards_is_a_mismatch(journal: SqliteJournal, file: Path) -> None:
    other = SqliteJournal(file)
    with pytest.raises(NamespaceMismatch):
        await other.open(SHARDS + 1)
    await other.open(None)
    assert other.shards == SHARDS
    await other.close()


async def test_a_journal_can_be_opened_again(journal: SqliteJournal) -> None:
    await journal.append([some_append(0)])
    await journal.close()
    await journal.open(SHARDS)
    assert await journal.append([some_append(1)]) == [Appended(2)]


# ------------------------------------------------------------------------------------------------- several at one file


async def test_two_journals_at_one_file_see_each_others_commits(journal: SqliteJournal, file: Path) -> None:
    other = await opened(file)
    expected = 0
    for _ in range(5):
        for one in (journal, other):
            assert await one.append([some_append(expected)]) == [Appended(expected + 1)]
            expected += 1
            assert (await other.status([0]))[0].head == expected
            assert await sequences(other) == await sequences(journal)
    (held,) = await other.acquire([0], owner="you", duration_s=1)
    assert isinstance(held, Held)
    await other.close()


async def test_a_shard_taken_while_only_others_were_written_is_fenced(file: Path) -> None:
    """P1: what is remembered of a shard ends with any write of somebody else, however little of it was read since."""
    mine, other = await opened(file), await opened(file)
    await mine.acquire(range(SHARDS), owner="me", duration_s=60)
    batch = [some_append(0, stream=f"pool/{shard}", shard=shard) for shard in range(SHARDS)]
    assert await mine.append(batch) == [Appended(1)] * SHARDS
    await other.acquire([1], owner="me", duration_s=60)
    for n in (1, 2):
        assert await mine.append([some_append(n, stream="pool/3", shard=3)]) == [Appended(n + 1)]
    assert await mine.append([some_append(1, stream="pool/1", shard=1)]) == [Fenced(2)]
    await mine.acquire([2], owner="me", duration_s=60)
    assert await mine.append([some_append(3, stream="pool/3", shard=3)]) == [Appended(4)]
    assert await mine.append([some_append(1, stream="pool/2", shard=2)]) == [Fenced(2)]
    assert await other.append([some_append(1, stream="pool/0")]) == [Appended(2)]
    assert await mine.append([some_append(1, stream="pool/0"), some_append(2, stream="pool/0")]) == [
        Conflict(2),
        Appended(3),
    ]
    await mine.close()
    await other.close()


async def test_the_journal_goes_on_when_another_one_closes(journal: SqliteJournal, file: Path) -> None:
    other = await opened(file)
    await journal.append([some_append(0)])
    await other.close()
    assert await journal.append([some_append(1)]) == [Appended(2)]
    assert await sequences(journal) == [1, 2]


async def test_a_lease_from_before_a_reboot_has_run_out(file: Path) -> None:
    clock = SteppedClock(now_s=100_000.0)
    journal = SqliteJournal(file, clock=clock)
    await journal.open(SHARDS)
    await journal.acquire([0], owner="before#1", duration_s=60)
    clock.now_s = 5.0
    assert (await journal.status([0]))[0].remaining_s == 0.0
    assert await journal.acquire([0], owner="after#2", duration_s=60) == [Acquired(0, 2, 0)]
    await journal.close()


WRITER = """
import asyncio, sys
from actorkit.journal.sqlite import SqliteJournal
from actorkit.journal.protocols import Acquired
from actorkit.testing.journal_spec import some_append

async def main():
    journal = SqliteJournal(sys.argv[1])
    await journal.open(4)
    (answer,) = await journal.acquire([0], owner=sys.argv[2], duration_s=60)
    expected = len(await journal.read_stream("pool/a", after=0, limit=100000))
    print(answer.epoch, flush=True)
    for line in sys.stdin if sys.argv[3] == "asked" else iter(int, 1):
        (result,) = await journal.append([some_append(expected, b"x" * 500, epoch=answer.epoch)])
        print(type(result).__name__, expected + 1, flush=True)
        expected += 1

asyncio.run(main())
"""


@pytest.fixture
def spawn(file: Path) -> Any:
    """Starts a process that writes to the file: once for each line it is sent, or without end."""
    started: list[subprocess.Popen[str]] = []

    def start(owner: str, how: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(file), owner, how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def answer(process: subprocess.Popen[str], ask: bool = True) -> list[str]:
    assert process.stdin is not None
    assert process.stdout is not None
    if ask:
        process.stdin.write("\n")
        process.stdin.flush()
    while line := process.stdout.readline():
        if "sqlite_version" not in line:
            return line.split()
    raise AssertionError("the process has ended")


async def test_a_stale_process_cannot_commit(file: Path, spawn: Callable[..., subprocess.Popen[str]]) -> None:
    old = spawn("one", "asked")
    assert answer(old, ask=False) == ["1"]
    assert answer(old) == ["Appended", "1"]
    journal = await opened(file)
    (held,) = await journal.acquire([0], owner="two", duration_s=60)
    assert isinstance(held, Held)
    assert await journal.acquire([0], owner="one", duration_s=60) == [Acquired(0, 2, 1)]
    assert answer(old) == ["Fenced", "2"]
    assert await journal.append([some_append(1, epoch=2)]) == [Appended(2)]
    assert answer(old) == ["Fenced", "3"]
    assert await sequences(journal) == [1, 2]
    await journal.close()


async def test_what_a_killed_process_was_told_is_there(file: Path, spawn: Callable[..., subprocess.Popen[str]]) -> None:
    told = 0
    for life in range(3):
        process = spawn("one", "endless")
        assert answer(process, ask=False) == [str(life + 1)]
        for _ in range(20):
            kind, number = answer(process, ask=False)
            assert kind == "Appended"
            told = int(number)
        process.kill()
        process.wait()
    journal = await opened(file)
    there = await sequences(journal)
    assert there == list(range(1, len(there) + 1))
    assert len(there) >= told
    log = await journal.read_log(0, after=0, limit=10_000)
    assert [record.position for record in log] == there
    assert (await journal.status([0]))[0].head == len(there)
    await journal.close()


async def test_a_process_that_does_not_close_its_journal_ends(file: Path) -> None:
    program = WRITER.replace("print(answer.epoch, flush=True)", "return")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(file), "one", "asked", env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    async with asyncio.timeout(30):
        assert await process.wait() == 0


async def test_a_file_that_another_process_has_locked_is_unavailable(journal: SqliteJournal, file: Path) -> None:
    await journal.append([some_append(0)])
    await journal.close()
    journal = await opened(file, busy_timeout_s=0.05)
    foreign = sqlite3.connect(file, isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalUnavailable, match="another process holds"):
        await journal.append([some_append(1)])
    assert await sequences(journal) == [1]
    with pytest.raises(JournalUnavailable):
        await opened(file, busy_timeout_s=0.05)
    foreign.execute("ROLLBACK")
    foreign.close()
    assert await journal.append([some_append(1)]) == [Appended(2)]
    await journal.close()


async def test_waiting_for_a_turn_is_bounded(journal: SqliteJournal, file: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    await journal.close()
    journal = await opened(file, busy_timeout_s=0.05)
    with open(f"{file}-lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(JournalUnavailable, match="no turn within"):
            await journal.append([some_append(0)])
    assert await journal.append([some_append(0)]) == [Appended(1)]
    await journal.close()


async def test_a_reader_of_another_process_does_not_keep_it_from_opening(journal: SqliteJournal, file: Path) -> None:
    await journal.append([some_append(0)])
    foreign = sqlite3.connect(file, isolation_level=None)
    foreign.execute("BEGIN")
    foreign.execute("SELECT count(*) FROM record").fetchone()
    other = await opened(file, busy_timeout_s=0.05)
    assert await sequences(other) == [1]
    await other.close()
    await journal.append([some_append(1)])
    with pytest.raises(JournalUnavailable, match="leftovers of a crash"):
        await opened(file, busy_timeout_s=0.05)
    foreign.close()
    await (await opened(file, busy_timeout_s=0.05)).close()


async def test_two_processes_take_turns(file: Path, spawn: Callable[..., subprocess.Popen[str]]) -> None:
    """Neither starves: while one writes without end, the other gets through a hundred commits."""
    busy = spawn("one", "endless")
    answer(busy, ask=False)
    journal = await opened(file, busy_timeout_s=5.0)
    await journal.acquire([1], owner="two", duration_s=60)
    before = (await journal.status([0]))[0].head
    for n in range(100):
        assert await journal.append([some_append(n, stream="pool/b", shard=1)]) == [Appended(n + 1)]
    assert (await journal.status([0]))[0].head - before >= 50
    await journal.close()


# ------------------------------------------------------------------------------------------------------------- faults


def limit_pages(journal: SqliteJournal, extra: int) -> asyncio.Future[Any]:
    """Lets the database grow by only so many pages more, which is what a full disk looks like."""
    assert journal._writer is not None

    def limit(db: sqlite3.Connection) -> None:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count={pages + extra}").fetchall()

    return asyncio.ensure_future(journal._writer.run(limit))


async def test_a_full_disk_is_uncertain_and_passes(journal: SqliteJournal) -> None:
    assert await journal.append([some_append(0)]) == [Appended(1)]
    await limit_pages(journal, 5)
    with pytest.raises(AppendUncertain, match="full"):
        await journal.append([some_append(1, b"x" * 500_000), some_append(0, stream="pool/b")])
    assert await sequences(journal) == [1]
    assert await journal.append([some_append(1)]) == [Appended(2)]
    await limit_pages(journal, 100_000)
    assert await journal.append([some_append(2, b"x" * 500_000)]) == [Appended(3)]
    assert await sequences(journal, "pool/b") == []


class Breaking:
    """A connection that raises in front of the statements that ``breaks`` picks."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        self.breaks: Callable[[str], str | None] = lambda statement: None
        self.after: Callable[[str], str | None] = lambda statement: None

    def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
        self.fail(self.breaks(statement))
        cursor = self.db.execute(statement, *parameters)
        self.fail(self.after(statement))
        return cursor

    @staticmethod
    def fail(name: str | None) -> None:
        if name is not None:
            error = sqlite3.OperationalError("injected")
            error.sqlite_errorname = name
            raise error

    def __getattr__(self, name: str) -> Any:
        return getattr(self.db, name)


@pytest.fixture
async def breaking(file: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[SqliteJournal, Breaking]]:
    made: list[Breaking] = []
    connect = sqlite_connection.connect

    def broken(*args: Any, **kwargs: Any) -> Any:
        made.append(Breaking(connect(*args, **kwargs)))
        return made[-1]

    monkeypatch.setattr(sqlite_connection, "connect", broken)
    journal = await opened(file, checkpoint_pages=200)
    await journal.acquire(range(SHARDS), owner="me", duration_s=60)
    await journal.append([some_append(0)])
    yield journal, made[0]
    made[0].breaks = made[0].after = lambda statement: None
    await journal.close()


def on(start: str, error: str) -> Callable[[str], str | None]:
    return lambda statement: error if statement.startswith(start) else None


async def test_a_busy_file_before_anything_is_written_is_unavailable(
    breaking: tuple[SqliteJournal, Breaking],
) -> None:
    journal, db = breaking
    db.breaks = on("BEGIN", "SQLITE_BUSY")
    with pytest.raises(JournalUnavailable):
        await journal.append([some_append(1)])
    assert await sequences(journal) == [1]


@pytest.mark.parametrize("start", ["INSERT OR ROLLBACK INTO record", "COMMIT"])
async def test_an_io_error_is_uncertain_and_nothing_counts_as_absent_until_a_commit(
    breaking: tuple[SqliteJournal, Breaking], start: str
) -> None:
    journal, db = breaking
    db.breaks = on(start, "SQLITE_IOERR_WRITE")
    with pytest.raises(AppendUncertain):
        await journal.append([some_append(1)])
    db.breaks = on("COMMIT", "SQLITE_IOERR_WRITE")
    for read in (
        journal.read_stream("pool/a", after=0, limit=9),
        journal.find_key("pool/a", "k", since_us=0),
        journal.status(),
    ):
        with pytest.raises(JournalUnavailable, match="nothing can be said yet"):
            await read
    db.breaks = lambda statement: None
    assert await sequences(journal) == [1]
    assert await journal.append([some_append(1)]) == [Appended(2)]


async def test_renewing_nothing_settles_nothing_by_itself(breaking: tuple[SqliteJournal, Breaking]) -> None:
    journal, db = breaking
    assert journal._writer is not None
    db.breaks = on("COMMIT", "SQLITE_IOERR_WRITE")
    with pytest.raises(AppendUncertain):
        await journal.append([some_append(1)])
    assert journal._writer.connection.unsettled
    db.breaks = lambda statement: None
    assert await journal.append([some_append(9)]) != []
    assert not journal._writer.connection.unsettled


async def test_a_commit_that_fails_after_it_was_written_may_be_there(
    breaking: tuple[SqliteJournal, Breaking],
) -> None:
    journal, db = breaking
    db.after = on("COMMIT", "SQLITE_IOERR")
    with pytest.raises(AppendUncertain):
        await journal.append([some_append(1)])
    db.after = lambda statement: None
    assert await sequences(journal) == [1, 2]
    assert await journal.append([some_append(2)]) == [Appended(3)]


@pytest.mark.parametrize("error", ["SQLITE_IOERR_FSYNC", "SQLITE_IOERR_DIR_FSYNC", "SQLITE_CORRUPT"])
async def test_a_failed_sync_fails_everything_from_then_on(
    breaking: tuple[SqliteJournal, Breaking], error: str
) -> None:
    journal, db = breaking
    db.breaks = on("COMMIT", error)
    with pytest.raises(JournalFailed):
        await journal.append([some_append(1)])
    db.breaks = lambda statement: None
    for call in (
        journal.append([some_append(1)]),
        journal.read_stream("pool/a", after=0, limit=9),
        journal.status(),
        journal.renew({0: 1}, owner="me", duration_s=1),
        journal.save_snapshot(StoredSnapshot("pool/a", 1, 1, b""), keep=1),
        journal.load_cursor("view"),
    ):
        with pytest.raises(JournalFailed):
            await call


async def test_a_failed_sync_of_a_checkpoint_is_fatal_too(breaking: tuple[SqliteJournal, Breaking]) -> None:
    journal, db = breaking
    db.breaks = on("PRAGMA wal_checkpoint", "SQLITE_IOERR_FSYNC")
    assert await journal.append([some_append(1, b"x" * 900_000)]) == [Appended(2)]
    # The first append was answered before the checkpoint; this one waits behind it.
    with pytest.raises(JournalFailed):
        await journal.append([some_append(2)])


class NoLocks:
    """``fcntl`` of a system that has run out of locks."""

    LOCK_EX, LOCK_UN = 2, 8

    @staticmethod
    def flock(file: int, operation: int) -> None:
        raise OSError(37, "No locks available")


async def test_an_error_that_nobody_foresaw_fails_closed_and_tells_everybody(
    journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P12: the thread does not die silently while calls wait for it."""
    pytest.importorskip("fcntl")
    assert journal._writer is not None
    await journal.append([some_append(0)])
    monkeypatch.setattr(sqlite_lock, "fcntl", NoLocks)
    calls = [journal.append([some_append(1)]), journal.save_cursor("view", {0: 1}), journal.append([some_append(2)])]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [JournalFailed] * 3
    monkeypatch.undo()
    with pytest.raises(JournalFailed, match="No locks available"):
        await journal.append([some_append(1)])
    with pytest.raises(JournalFailed):
        await journal.read_stream("pool/a", after=0, limit=9)
    assert journal._writer._thread.is_alive()


async def test_a_checkpoint_that_raises_something_else_fails_closed_but_the_commit_before_it_counts(
    breaking: tuple[SqliteJournal, Breaking], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, _ = breaking
    assert journal._writer is not None

    def denied() -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(journal._writer.connection.checkpointer, "_wal_bytes", denied)
    assert await journal.append([some_append(1, b"x" * 900_000)]) == [Appended(2)]
    with pytest.raises(JournalFailed, match="Permission denied"):
        await journal.append([some_append(2)])


async def test_no_memory_in_mid_commit_is_in_doubt(breaking: tuple[SqliteJournal, Breaking]) -> None:
    journal, db = breaking
    assert journal._writer is not None

    def no_memory(statement: str) -> str | None:
        if statement == "COMMIT":
            raise MemoryError
        return None

    db.breaks = no_memory
    with pytest.raises(MemoryError):
        await journal.append([some_append(1)])
    assert journal._writer.connection.unsettled
    db.breaks = lambda statement: None
    assert await sequences(journal) == [1]


async def test_a_contradiction_in_the_file_harms_only_the_appends_that_meet_it(journal: SqliteJournal) -> None:
    assert journal._writer is not None
    await journal.append([some_append(0), some_append(0, stream="pool/b", shard=1)])
    await journal._writer.run(lambda db: db.execute("UPDATE shard SET head = 0 WHERE shard = 1"))
    for n in range(1, 3):
        got = await journal.append(
            [
                some_append(n),
                some_append(1, stream="pool/b", shard=1),
                some_append(n - 1, stream="pool/\ud800"),
                some_append(n - 1, stream="pool/c", shard=2),
            ]
        )
        assert [type(result) for result in got] == [Appended, JournalCorrupt, Refused, Appended]
        assert await sequences(journal) == list(range(1, n + 2))
        assert await sequences(journal, "pool/b") == [1]
        assert await sequences(journal, "pool/c") == list(range(1, n + 1))
    log = await journal.read_log(0, after=0, limit=10)
    assert [record.position for record in log] == [1, 2, 3]


async def test_what_cannot_be_represented_is_not_found(journal: SqliteJournal) -> None:
    await journal.append([some_append(0, key="k")])
    strange = "pool/\ud800"
    assert await journal.read_stream(strange, after=0, limit=9) == []
    assert await journal.find_key("pool/a", strange, since_us=0) is None
    assert await journal.find_key(strange, "k", since_us=0) is None
    assert await journal.recent_keys(strange, since_us=0, limit=9) == []
    assert await journal.count_keys(strange, since_us=0) == 0
    assert await journal.load_snapshots(strange) == []
    assert await journal.load_cursor(strange) == {}


async def test_a_checkpoint_on_a_full_disk_is_tried_again(breaking: tuple[SqliteJournal, Breaking]) -> None:
    journal, db = breaking
    db.breaks = on("PRAGMA wal_checkpoint", "SQLITE_FULL")
    for n in range(1, 4):
        assert await journal.append([some_append(n, b"x" * 900_000)]) == [Appended(n + 1)]


async def test_the_log_file_stays_bounded(file: Path) -> None:
    journal = await opened(file, checkpoint_pages=100, wal_max_bytes=2 << 20)
    await journal.acquire([0], owner="me", duration_s=60)
    sizes: list[int] = []
    for n in range(200):
        await journal.append([some_append(n, b"x" * 50_000)])
        sizes.append(os.stat(f"{file}-wal").st_size)
    assert file.stat().st_size > 5 << 20
    assert max(sizes) < 3 << 20
    await journal.close()
    assert not Path(f"{file}-wal").exists()


async def test_a_reader_that_holds_the_log_file_open_only_delays_its_cut(file: Path) -> None:
    journal = await opened(file, checkpoint_pages=50, wal_max_bytes=1 << 20, truncate_timeout_s=0.01)
    await journal.acquire([0], owner="me", duration_s=60)
    foreign = sqlite3.connect(file, isolation_level=None)
    foreign.execute("BEGIN")
    foreign.execute("SELECT count(*) FROM record").fetchone()
    for n in range(30):
        assert await journal.append([some_append(n, b"x" * 50_000)]) == [Appended(n + 1)]
    assert os.stat(f"{file}-wal").st_size > 1 << 20
    foreign.close()
    for n in range(30, 60):
        await journal.append([some_append(n, b"x" * 50_000)])
    assert os.stat(f"{file}-wal").st_size < 1 << 20
    await journal.close()


async def test_forgetting_streams_changes_nothing(file: Path) -> None:
    journal = await opened(file, streams_cached_max=3)
    await journal.acquire(range(SHARDS), owner="me", duration_s=60)
    for n in range(4):
        batch = [some_append(n, stream=f"pool/{name}", shard=name % SHARDS) for name in range(10)]
        batch += [outcome_of(n + 1, b"no", key=f"k{n}", stream=f"pool/{name}", shard=name % SHARDS) for name in (1, 2)]
        assert all(isinstance(result, Appended) for result in await journal.append(batch))
    assert await journal.append([some_append(4, epoch=2), some_append(4, stream="pool/1", shard=1)]) == [
        Fenced(1),
        Appended(17),
    ]
    await journal.close()


async def test_snapshots_saved_at_once_are_all_stored(journal: SqliteJournal) -> None:
    snapshots = [StoredSnapshot(f"pool/{n}", 1, 1, b"s%d" % n) for n in range(50)]
    await asyncio.gather(*(journal.save_snapshot(snapshot, keep=1) for snapshot in snapshots))
    for snapshot in snapshots:
        assert await journal.load_snapshots(snapshot.stream) == [snapshot]


async def test_too_many_waiting_writes_are_unavailable(journal: SqliteJournal, file: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    await journal.close()
    journal = await opened(file, jobs_max=2)
    with open(f"{file}-lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = [asyncio.ensure_future(journal.save_cursor("view", {0: n})) for n in range(5)]
        done, waiting_still = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert all(isinstance(task.exception(), JournalUnavailable) for task in done)
    await asyncio.wait(waiting_still)
    await journal.close()


async def test_a_snapshot_is_in_the_transaction_that_is_waited_for_also_where_tasks_begin_at_once(
    journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    begins_at_once = getattr(asyncio, "eager_task_factory", None)
    if begins_at_once is None:
        pytest.skip("platform: only Python 3.12 and later has tasks that begin at once")
    saved: list[int] = []
    monkeypatch.setattr(sqlite_tables, "save_snapshots", lambda db, snapshots: saved.append(len(snapshots)))

    async def at_once(body: Callable[[Any], None], *, pages: Callable[[], int]) -> None:
        body(None)

    monkeypatch.setattr(journal._writer, "run", at_once)
    asyncio.get_running_loop().set_task_factory(begins_at_once)
    await journal.save_snapshot(StoredSnapshot("pool/a", 1, 1, b""), keep=1)
    asyncio.get_running_loop().set_task_factory(None)
    assert saved == [1]


def test_snapshots_that_one_loop_has_left_behind_do_not_hold_up_the_next(file: Path) -> None:
    journal = SqliteJournal(file)

    async def left_behind() -> None:
        await journal.open(SHARDS)
        await journal._snapshots_turn.acquire()
        saving = asyncio.ensure_future(journal.save_snapshot(StoredSnapshot("pool/a", 1, 1, b""), keep=1))
        await asyncio.sleep(0)
        saving.cancel()
        await journal.close()

    async def go_on() -> None:
        await journal.open(SHARDS)
        journal._snapshots_turn.release()
        await asyncio.wait_for(journal.save_snapshot(StoredSnapshot("pool/a", 2, 1, b""), keep=1), 10)
        assert [snapshot.sequence for snapshot in await journal.load_snapshots("pool/a")] == [2]
        await journal.close()

    asyncio.run(left_behind())
    asyncio.run(go_on())

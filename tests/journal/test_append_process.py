"""What a process of its own for appends must not change: what is stored, what is said of it, who ends when."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorkit.errors import AppendUncertain, JournalCorrupt, JournalError, JournalFailed, JournalUnavailable
from actorkit.journal.protocols import Appended, AppendResult, Conflict, Fenced, Refused
from actorkit.journal.settings import SqliteSettings
from actorkit.journal.sqlite import SqliteJournal
from actorkit.journal.sqlite_frames import Answer, open_answer, results_answer
from actorkit.testing.journal_spec import JournalSpec, MakeStore, some_append

pytestmark = pytest.mark.skipif(os.name != "posix", reason="platform: the append process needs POSIX signals")

SHARDS = 4


class TestSqliteJournalWithAppendProcess(JournalSpec):
    @pytest.fixture
    def make(self, tmp_path: Path) -> MakeStore:
        settings = SqliteSettings(process_after_appends=0)
        return lambda clock: SqliteJournal(tmp_path / "journal.db", clock=clock, settings=settings)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def opened(file: Path, **settings: Any) -> SqliteJournal:
    journal = SqliteJournal(file, settings=SqliteSettings(**{"process_after_appends": 0, **settings}))
    await journal.open(SHARDS)
    await journal.acquire(range(SHARDS), owner="me", duration_s=60)
    return journal


@pytest.fixture
async def journal(file: Path) -> AsyncIterator[SqliteJournal]:
    journal = await opened(file)
    yield journal
    await journal.close()


def process_of(journal: SqliteJournal) -> asyncio.SubprocessTransport:
    process = journal._helper.ready_for(1)
    assert process is not None
    assert process._transport is not None
    return process._transport


async def sequences(journal: SqliteJournal, stream: str = "pool/a") -> list[int]:
    return [record.sequence for record in await journal.read_stream(stream, after=0, limit=1_000_000)]


async def test_it_starts_once_appends_come_in_large_batches_and_goes_on_where_the_thread_was(file: Path) -> None:
    journal = await opened(file, process_after_appends=100)
    n = 0
    while n < 200:
        await journal.append([some_append(n)])
        n += 1
    assert journal._helper.ready_for(1) is None
    while journal._helper.ready_for(0) is None:
        expected = [Appended(n + m + 1) for m in range(16)]
        assert await journal.append([some_append(n + m) for m in range(16)]) == expected
        n += 16
    assert await journal.append([some_append(n)]) == [Appended(n + 1)]
    assert await journal.append([some_append(n)]) == [Conflict(n + 1)]
    assert await sequences(journal) == list(range(1, n + 2))
    await journal.close()


async def test_closing_while_it_starts_leaves_nothing_behind(file: Path) -> None:
    journal = await opened(file, process_after_appends=1)
    await journal.append([some_append(n) for n in range(16)])
    await journal.close()
    await journal.open(SHARDS)
    assert await sequences(journal) == list(range(1, 17))
    await journal.close()


async def test_one_append_that_no_journal_stores_harms_no_other(journal: SqliteJournal) -> None:
    batch = [some_append(0), some_append(0, stream="pool/\ud800"), some_append(0, stream="pool/b", shard=1)]
    results = await journal.append(batch)
    assert [type(result) for result in results] == [Appended, Refused, Appended]
    wrong: Any = some_append(1)
    wrong = type(wrong)(**{**{name: getattr(wrong, name) for name in wrong.__struct_fields__}, "metadata": "text"})
    assert await journal.append([wrong]) is not None
    assert process_of(journal).get_returncode() is None


async def test_when_it_is_killed_its_batches_are_in_doubt_and_the_thread_goes_on(journal: SqliteJournal) -> None:
    process = process_of(journal)
    process.send_signal(signal.SIGSTOP)
    waiting = [asyncio.ensure_future(journal.append([some_append(n)])) for n in range(3)]
    await asyncio.sleep(0)
    process.kill()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [AppendUncertain] * 3
    # What is read now is settled: a commit that has succeeded lies behind whatever was on its way.
    stored = await sequences(journal)
    assert await journal.append([some_append(len(stored))]) == [Appended(len(stored) + 1)]


async def test_while_another_process_holds_the_file_it_says_that_nothing_was_stored(file: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    journal = await opened(file, busy_timeout_s=1.0)
    with open(f"{file}-lock", "rb+") as held:  # noqa: ASYNC230 - a lock, not data
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(JournalUnavailable, match="no turn within"):
            await journal.append([some_append(0)])
    assert await journal.append([some_append(0)]) == [Appended(1)]
    await journal.close()


async def test_a_full_disk_is_uncertain_and_passes(journal: SqliteJournal, file: Path) -> None:
    assert await journal.append([some_append(0)]) == [Appended(1)]
    patched = patched_process(
        "from actorkit.journal import sqlite_append\n"
        "insert, left = sqlite_append.insert_many, [1]\n"
        "def full(*arguments, **how):\n"
        "    if left and left.pop():\n"
        "        error = sqlite3.OperationalError('database or disk is full')\n"
        "        error.sqlite_errorname = 'SQLITE_FULL'\n"
        "        raise error\n"
        "    return insert(*arguments, **how)\n"
        "sqlite_append.insert_many = full\n"
    )
    await restart(journal, patched)
    with pytest.raises(AppendUncertain, match="full"):
        await journal.append([some_append(1)])
    assert await sequences(journal) == [1]
    assert await journal.append([some_append(1)]) == [Appended(2)]


async def test_a_sync_that_fails_there_fails_everything_here(journal: SqliteJournal) -> None:
    """P12: after a failed sync nothing is said any more, and the process must end."""
    patched = patched_process(
        "from actorkit.journal import sqlite_connection\n"
        "class Broken:\n"
        "    def __init__(self, db): self.db = db\n"
        "    def execute(self, statement, *parameters):\n"
        "        if statement == 'COMMIT':\n"
        "            error = sqlite3.OperationalError('disk I/O error')\n"
        "            error.sqlite_errorname = 'SQLITE_IOERR_FSYNC'\n"
        "            raise error\n"
        "        return self.db.execute(statement, *parameters)\n"
        "    def __getattr__(self, name): return getattr(self.db, name)\n"
        "connect = sqlite_connection.connect\n"
        "sqlite_connection.connect = lambda *arguments, **how: Broken(connect(*arguments, **how))\n"
    )
    await restart(journal, patched)
    for call in (
        journal.append([some_append(0)]),
        journal.append([some_append(0)]),
        journal.status(),
        journal.save_cursor("view", {0: 1}),
    ):
        with pytest.raises(JournalFailed):
            await call


def patched_process(patch: str) -> list[str]:
    """The command of an append process in which something is made to fail."""
    code = f"import sqlite3\n{patch}\nfrom actorkit.journal.sqlite_process_main import main\nmain()\n"
    return [sys.executable, "-c", code]


async def restart(journal: SqliteJournal, command: list[str]) -> None:
    """The journal goes on with another append process."""
    await journal._helper.close()
    journal._helper.command = command
    await journal._helper.open()


@pytest.mark.parametrize("command", [["/no/such/program"], [sys.executable, "-c", "raise SystemExit(3)"]])
async def test_where_no_process_can_be_started_the_thread_does_it_all(file: Path, command: list[str]) -> None:
    journal = await opened(file, process_after_appends=1)
    journal._helper.command = command
    n = 0
    while journal._helper._after is not None:
        await journal.append([some_append(n + m) for m in range(16)])
        n += 16
    assert await journal.append([some_append(n)]) == [Appended(n + 1)]
    await journal.close()
    wanted = SqliteJournal(file, settings=SqliteSettings(process_after_appends=0))
    wanted._helper.command = command
    with pytest.raises(JournalUnavailable):
        await wanted.open(SHARDS)


async def test_signals_that_reach_both_are_left_to_the_process_that_it_serves(journal: SqliteJournal) -> None:
    process = process_of(journal)
    for number in (signal.SIGINT, signal.SIGTERM):
        process.send_signal(number)
    assert await journal.append([some_append(0)]) == [Appended(1)]
    await journal.close()
    assert process.get_returncode() == 0


async def test_it_ends_with_the_process_that_it_serves_whatever_that_dies_of(file: Path) -> None:
    script = (
        "import asyncio, sys\n"
        "from actorkit import logs\n"
        "from actorkit.journal.settings import SqliteSettings\n"
        "from actorkit.journal.sqlite import SqliteJournal\n"
        "async def main():\n"
        "    journal = SqliteJournal(sys.argv[1], settings=SqliteSettings(process_after_appends=0))\n"
        "    logs.configure()\n"
        "    await journal.open(4)\n"
        "    print(journal._helper.ready_for(1)._transport.get_pid(), flush=True)\n"
        "    await asyncio.sleep(3600)\n"
        "asyncio.run(main())\n"
    )
    served = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(file), stdout=asyncio.subprocess.PIPE
    )
    assert served.stdout is not None
    helper = int(await served.stdout.readline())
    served.kill()
    await served.wait()
    async with asyncio.timeout(30):
        while await asyncio.to_thread(_lives, helper):
            await asyncio.sleep(0.01)
    with sqlite3.connect(file) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """It has ended, but where nobody adopts orphans nobody has noticed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return False


numbers = st.integers(0, 2**62)
results = st.one_of(
    st.builds(Appended, numbers),
    st.builds(Fenced, numbers),
    st.builds(Conflict, numbers),
    st.builds(Refused, st.text()),
)


@given(st.lists(results))
def test_results_arrive_as_they_were(sent: list[AppendResult]) -> None:
    assert open_answer(results_answer(sent)) == sent


def test_a_contradiction_in_the_file_arrives_as_a_value() -> None:
    (result,) = open_answer(results_answer([JournalCorrupt("pool/a: twice")]))
    assert isinstance(result, JournalCorrupt)
    assert str(result) == "pool/a: twice"


@pytest.mark.parametrize("error", [JournalUnavailable, AppendUncertain, JournalFailed])
def test_errors_arrive_as_they_were(error: type[JournalError]) -> None:
    with pytest.raises(error, match="why"):
        open_answer(Answer(error=(error.__name__, "why")))
    with pytest.raises(AppendUncertain):
        open_answer(Answer(error=("SomethingNew", "why")))

"""What an append process must survive, and what must be known when it, or its journal, comes to an end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from actorkit.errors import AppendUncertain, JournalFailed, JournalUnavailable
from actorkit.journal import sqlite_process
from actorkit.journal.protocols import Appended
from actorkit.journal.settings import SqliteSettings
from actorkit.journal.sqlite import SqliteJournal
from actorkit.testing.journal_spec import some_append
from tests.journal.test_append_process import opened, patched_process, process_of, restart, sequences

fcntl = pytest.importorskip("fcntl", reason="platform: the append process needs POSIX signals")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
async def journal(file: Path) -> AsyncIterator[SqliteJournal]:
    journal = await opened(file)
    yield journal
    await journal.close()


async def ended(journal: SqliteJournal) -> None:
    process = journal._helper._process
    assert process is not None
    await process._silenced.wait()
    await process._exited.wait()


# ------------------------------------------------------------------------------------------------- failures are known


@pytest.mark.parametrize(
    "failure", ["sqlite3.OperationalError('disk I/O error')", "ValueError('nobody expects this here')"]
)
async def test_a_checkpoint_that_fails_after_the_answer_is_told_all_the_same(
    journal: SqliteJournal, failure: str
) -> None:
    """P12: the batch was stored, but nothing may be stored or read after a failed sync."""
    patched = patched_process(
        "from actorkit.journal import sqlite_checkpoint\n"
        "def due(self, db):\n"
        f"    error = {failure}\n"
        "    error.sqlite_errorname = 'SQLITE_IOERR_FSYNC'\n"
        "    raise error\n"
        "sqlite_checkpoint.Checkpointer.due = due\n"
    )
    await restart(journal, patched)
    assert await journal.append([some_append(0)]) == [Appended(1)]
    await ended(journal)
    for call in (journal.append([some_append(1)]), journal.status(), journal.save_cursor("view", {0: 1})):
        with pytest.raises(JournalFailed):
            await call


async def test_what_a_batch_failed_with_counts_also_when_nobody_waits_for_it_any_longer(journal: SqliteJournal) -> None:
    process = process_of(journal)
    process.send_signal(signal.SIGSTOP)
    waiting = asyncio.ensure_future(journal.append([some_append(0)]))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    process.kill()
    await ended(journal)
    assert journal._writer is not None
    assert journal._writer.connection.unsettled
    assert await sequences(journal) in ([], [1])
    assert not journal._writer.connection.unsettled


@pytest.mark.parametrize(
    "nonsense", [r"b'\xff' * 100", r"b'\0\0\0\4none' * 10", "b'Traceback (most recent call last)'"]
)
async def test_nonsense_between_the_answers_ends_it(journal: SqliteJournal, nonsense: str) -> None:
    patched = patched_process(
        "from actorkit.journal import sqlite_process_main\n"
        "frame, answers = sqlite_process_main.frame, []\n"
        "def spoiled(value):\n"
        "    answers.append(value)\n"
        f"    return frame(value) if len(answers) == 1 else {nonsense}\n"
        "sqlite_process_main.frame = spoiled\n"
    )
    await restart(journal, patched)
    with pytest.raises(AppendUncertain):
        await journal.append([some_append(0)])
    await ended(journal)
    assert await sequences(journal) == [1]


async def test_one_that_does_not_answer_is_ended_by_force_and_the_thread_goes_on(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P11: it may have been stopped, with or without the lock; without it this process keeps its leases."""
    monkeypatch.setattr(sqlite_process, "_SILENT_MAX_S", 0.5)
    journal = await opened(file, busy_timeout_s=1.0)
    process_of(journal).send_signal(signal.SIGSTOP)
    with pytest.raises(AppendUncertain):
        await journal.append([some_append(0)])
    await ended(journal)
    stored = await sequences(journal)
    assert await journal.append([some_append(len(stored))]) == [Appended(len(stored) + 1)]
    await journal.close()


async def test_what_waits_for_it_is_bounded(file: Path) -> None:
    """P9."""
    journal = await opened(file, jobs_max=8)
    process = process_of(journal)
    process.send_signal(signal.SIGSTOP)
    waiting = [asyncio.ensure_future(journal.append([some_append(n)])) for n in range(8)]
    await asyncio.sleep(0)
    with pytest.raises(JournalUnavailable, match="8 writes are waiting"):
        await journal.append([some_append(8)])
    process.send_signal(signal.SIGCONT)
    assert await asyncio.gather(*waiting) == [[Appended(n + 1)] for n in range(8)]
    await journal.close()


async def test_what_it_said_before_it_ended_counts(journal: SqliteJournal) -> None:
    patched = patched_process(
        "import os\n"
        "from actorkit.journal import sqlite_process_main\n"
        "serve = sqlite_process_main._AppendProcess.serve\n"
        "def last(self, batch, answer):\n"
        "    serve(self, batch, answer)\n"
        "    os._exit(1)\n"
        "sqlite_process_main._AppendProcess.serve = last\n"
    )
    await restart(journal, patched)
    assert await journal.append([some_append(0)]) == [Appended(1)]


# --------------------------------------------------------------------------------------------------- how it is started


@pytest.mark.parametrize("name", ["structlog.py", "signal.py", "json.py"])
async def test_nothing_is_imported_from_the_current_directory(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """P13: unless the process that it serves does, too."""
    here = tmp_path / "here"
    here.mkdir()
    (here / name).write_text("open('imported', 'w')\nraise SystemExit(7)\n")
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(here))])
    journal = await opened(file)
    assert process_of(journal).get_returncode() is None
    assert not (here / "imported").exists()
    await journal.close()


async def test_modules_come_from_where_they_come_from_here(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "a:b c"
    elsewhere.mkdir()
    program = "import witness, sys; sys.exit(witness.STATUS)"
    (elsewhere / "witness.py").write_text("STATUS = 42\n")
    monkeypatch.setattr(sys, "path", [str(elsewhere), *sys.path])
    monkeypatch.setattr(sqlite_process, "_MAIN", sqlite_process._MAIN.partition("from")[0] + program)
    process = sqlite_process.AppendProcess(str(file), SqliteSettings(), sqlite_process._command(), None)
    with pytest.raises(JournalUnavailable, match="before it could begin"):
        await process.start()
    assert process._transport is not None
    assert process._transport.get_returncode() == 42


async def test_a_version_that_was_installed_meanwhile_is_not_given_batches_that_it_may_misread(file: Path) -> None:
    journal = SqliteJournal(file, settings=SqliteSettings(process_after_appends=0))
    journal._helper.command = patched_process(
        "from actorkit.journal import sqlite_process_main\nsqlite_process_main.FORMAT = 'another'\n"
    )
    with pytest.raises(JournalUnavailable, match="another version"):
        await journal.open(4)


@pytest.mark.parametrize("executable", [None, "", "/bin/true"])
async def test_without_an_interpreter_to_start_the_thread_does_it_all(
    file: Path, monkeypatch: pytest.MonkeyPatch, executable: str | None
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    journal = await opened(file, process_after_appends=1)
    n = 0
    while journal._helper._after is not None:
        assert len(await journal.append([some_append(n + m) for m in range(16)])) == 16
        n += 16
    assert await journal.append([some_append(n)]) == [Appended(n + 1)]
    await journal.close()


async def test_a_program_that_holds_its_own_interpreter_is_not_started_once_more(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    journal = await opened(file)
    assert journal._helper.ready_for(1000) is None
    await journal.close()


@pytest.mark.parametrize("name", ["a b.db", "50%25.db", "ü?#&.db", "x:y.db", "'q\".db", os.fsdecode(b"caf\xe9.db")])
async def test_a_file_may_have_any_name_and_stays_where_it_was_when_the_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    journal = await opened(Path(name))
    monkeypatch.chdir("/")
    assert await journal.append([some_append(0)]) == [Appended(1)]
    assert await sequences(journal) == [1]
    await journal.close()
    assert (tmp_path / name).exists()


async def test_its_time_limit_holds_although_it_was_started_by_a_thread_that_takes_no_signals(file: Path) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    try:
        journal = await opened(file, busy_timeout_s=1.0)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    with open(f"{file}-lock", "rb+") as held:  # noqa: ASYNC230 - a lock, not data
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(JournalUnavailable, match="no turn within"):
            await journal.append([some_append(0)])
    await journal.close()


async def test_every_signal_for_services_is_left_to_the_process_that_it_serves(journal: SqliteJournal) -> None:
    process = process_of(journal)
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        process.send_signal(number)
    assert await journal.append([some_append(0)]) == [Appended(1)]
    assert os.getsid(process.get_pid()) != os.getsid(0)


@pytest.mark.parametrize("new_loop", [asyncio.SelectorEventLoop, None])
def test_it_serves_a_loop_in_any_thread(file: Path, new_loop: Callable[[], asyncio.AbstractEventLoop] | None) -> None:
    if new_loop is None:
        new_loop = pytest.importorskip("uvloop").new_event_loop
    results: list[Any] = []

    async def main() -> None:
        journal = await opened(file)
        results.append(await journal.append([some_append(0)]))
        await journal.close()

    def run() -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    assert results == [[Appended(1)]]


# ------------------------------------------------------------------------------------------------------------- closing


async def test_a_close_that_is_cancelled_leaves_no_thread(file: Path) -> None:
    journal = await opened(file, process_after_appends=None)
    writer = journal._writer
    assert writer is not None
    with open(f"{file}-lock", "rb+") as held:  # noqa: ASYNC230 - a lock, not data
        fcntl.flock(held, fcntl.LOCK_EX)
        closing = asyncio.ensure_future(writer.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
    await asyncio.to_thread(writer._thread.join, 10)
    assert not writer._thread.is_alive()
    await journal.close()


async def test_starting_and_closing_at_any_moment_leaves_nothing_open(file: Path) -> None:
    """27: cancelled at the n-th turn of the loop, for many n."""
    journal = await opened(file)
    await journal.close()
    before = _open_files()
    for turns in range(0, 40, 5):
        opening = asyncio.ensure_future(journal.open(None))
        for _ in range(turns):
            await asyncio.sleep(0.0005 * turns)
        opening.cancel()
        await asyncio.wait([opening])
        await journal.close()
    while _open_files() > before or any(thread.name.startswith("actorkit-journal") for thread in threading.enumerate()):
        await asyncio.sleep(0.01)


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

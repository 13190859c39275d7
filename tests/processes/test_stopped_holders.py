"""Fault 37: a process that is stopped (SIGSTOP) while it has the file's lock, or is the next to get it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actorkit.errors import JournalUnavailable
from actorkit.journal.protocols import Appended
from actorkit.journal.settings import SqliteSettings
from actorkit.journal.sqlite import SqliteJournal
from actorkit.testing.journal_spec import some_append
from tests.processes.nodes import PROJECT

BUSY_S = 0.5

OTHER = """
import fcntl, sqlite3, sys
from pathlib import Path
from actorkit.journal.sqlite_lock import FileLock

file, where = sys.argv[1:]
lock = FileLock(Path(f"{file}-lock"), gate_max_s=60)
lock.open()
db = sqlite3.connect(file, isolation_level=None)
if where == "next in line":
    print("ready", flush=True)
with lock.turn():
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE meta SET value = value + 1 WHERE name = 'touched'")
    if where == "in a transaction":
        print("ready", flush=True)
    sys.stdin.readline()
    db.execute("COMMIT")
print("done", flush=True)
"""


class Other:
    """Another process at the same file."""

    def __init__(self, file: Path, where: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OTHER, str(file), where],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.hears("ready")

    def hears(self, what: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == what

    def stop(self) -> None:
        """Returns when it does not run any more."""
        self.process.send_signal(signal.SIGSTOP)
        status = Path(f"/proc/{self.process.pid}/stat")
        while status.exists() and status.read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.001)

    def ends(self, how: str) -> None:
        """It goes on and does what it was about to do, or is killed."""
        if how == "killed":
            self.process.kill()
        else:
            assert self.process.stdin is not None
            self.process.stdin.write("\n")
            self.process.stdin.flush()
            self.process.send_signal(signal.SIGCONT)
            self.hears("done")
        self.process.wait()


@pytest.fixture
def others() -> Iterator[list[Other]]:
    started: list[Other] = []
    yield started
    for other in started:
        other.process.kill()
        other.process.communicate()


async def opened(file: Path) -> SqliteJournal:
    journal = SqliteJournal(
        file, settings=SqliteSettings(busy_timeout_s=BUSY_S, gate_max_s=0.1, process_after_appends=None)
    )
    await journal.open(4)
    return journal


def is_taken(file: Path) -> bool:
    with file.open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.mark.parametrize("how", ["goes on", "killed"])
async def test_who_is_stopped_as_the_next_in_line_is_gone_around(tmp_path: Path, others: list[Other], how: str) -> None:
    file = tmp_path / "journal.db"
    journal = await opened(file)
    await journal.acquire([0], owner="me", duration_s=60)
    turn = os.open(f"{file}-lock", os.O_RDWR)
    try:
        fcntl.flock(turn, fcntl.LOCK_EX)
        others.append(Other(file, "next in line"))
        async with asyncio.timeout(30):
            while not is_taken(Path(f"{file}-lock-gate")):
                await asyncio.sleep(0.001)
        others[0].stop()
    finally:
        os.close(turn)
    began_s = time.monotonic()
    for number in range(50):
        assert await journal.append([some_append(number)]) == [Appended(number + 1)]
    assert time.monotonic() - began_s < 5, "it is gone around once, and not waited for at each turn"
    others[0].ends(how)
    for number in range(50, 100):
        assert await journal.append([some_append(number)]) == [Appended(number + 1)]
    assert not is_taken(Path(f"{file}-lock-gate")), "the gate works again"
    await journal.close()


@pytest.mark.parametrize("how", ["goes on", "killed"])
async def test_who_is_stopped_in_a_transaction_makes_writes_unavailable_in_time_until_it_ends(
    tmp_path: Path, others: list[Other], how: str
) -> None:
    file = tmp_path / "journal.db"
    journal = await opened(file)
    await journal.acquire([0], owner="me", duration_s=60)
    assert await journal.append([some_append(0)]) == [Appended(1)]
    others.append(Other(file, "in a transaction"))
    others[0].stop()
    for _ in range(3):
        began_s = time.monotonic()
        with pytest.raises(JournalUnavailable, match="if it is stopped, let it go on or kill it"):
            await journal.append([some_append(1)])
        assert time.monotonic() - began_s < BUSY_S + 2
        assert [record.sequence for record in await journal.read_stream("pool/a", after=0, limit=9)] == [1]
    others[0].ends(how)
    assert await journal.append([some_append(1)]) == [Appended(2)], "nothing of what was given up was stored"
    await journal.close()

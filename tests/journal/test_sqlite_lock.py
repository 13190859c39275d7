"""The turns at a file: whoever waited in vain, or has died, holds up nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from actorkit.journal.sqlite_lock import FileLock

fcntl = pytest.importorskip("fcntl", reason="platform: there is no flock")


class Rung(Exception):
    """What a signal's handler raises."""


@pytest.mark.parametrize("given", [1, 2])
def test_a_signal_just_after_a_lock_was_given_leaves_nothing_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: int
) -> None:
    flock = fcntl.flock
    locks: list[int] = []

    def rings(file: int, how: int) -> None:
        flock(file, how)
        if how & fcntl.LOCK_EX:
            locks.append(file)
            if len(locks) == given:
                raise Rung

    lock = FileLock(tmp_path / "lock", gate_max_s=5)
    lock.open()
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", rings)
        with pytest.raises(Rung), lock.turn():
            raise AssertionError("the turn has begun")
    for name in ("lock", "lock-gate"):
        with open(tmp_path / name, "rb+") as other:
            flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    lock.close()


def test_a_lock_that_cannot_be_opened_leaves_nothing_open(tmp_path: Path) -> None:
    (tmp_path / "lock-gate").mkdir()
    free = os.dup(0)
    os.close(free)
    with pytest.raises(IsADirectoryError):
        FileLock(tmp_path / "lock", gate_max_s=5).open()
    os.close(again := os.dup(0))
    assert again == free


def test_a_forked_process_does_not_hold_the_lock_of_a_parent_that_has_died(tmp_path: Path) -> None:
    """P11: as the workers of a process pool would, for as long as they live."""
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from actorkit.journal.sqlite_lock import FileLock\n"
        "lock = FileLock(Path(sys.argv[1]), gate_max_s=5)\n"
        "lock.open()\n"
        "with lock.turn():\n"
        "    if os.fork() == 0:\n"
        "        print('forked', flush=True)\n"
        "        sys.stdin.read()\n"
        "    os._exit(9)\n"
    )
    parent: Any = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with parent:
        assert parent.stdout.readline() == b"forked\n"
        parent.wait()
        with open(tmp_path / "lock", "rb+") as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        parent.stdin.close()

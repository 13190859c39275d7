"""Fair turns at one file between processes.

SQLite's own waiting polls with growing pauses, so that of two busy writers one starves. ``flock`` queues the waiters in
the kernel, and the lock of a process that dies is free at once. Everything that writes, checkpoints included, happens
under it: that also keeps clear of the corruption by concurrent checkpoints of SQLite before 3.51.3.

One lock alone is not fair: who releases it and wants it again at once overtakes a waiter that is only just waking up.
So a process first takes its place in a queue of one (the gate) and keeps that place until it has the turn.

A process that is stopped (``SIGSTOP``, a debugger, a frozen container) keeps what it has. What that means for the
others differs:

- *It is the next in line*, in the gate. That is a matter of fairness alone, since nothing is written before the turn
  has been given, and a stopped process is given nothing. So the others wait for the gate for a limited time, and then
  go around it until it is free again.
- *It has the turn.* It may be in the middle of a transaction, and then has SQLite's write lock as well; or in a
  checkpoint, during which SQLite lets others write, but before 3.51.3 a write that begins the log file anew at that
  moment may corrupt the database. Nobody can tell from outside which it is. So the turn is never gone around: writes
  end with an error that says so until that process goes on or is killed, which frees the lock at once.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows: SQLite's busy timeout has to do
    fcntl = None  # type: ignore[assignment]

__all__ = ["FileLock"]

_HOW = os.O_RDWR | os.O_CREAT
_descriptors: set[int] = set()


def _close_inherited() -> None:
    """A fork shares its parent's locks: after the parent's death it would hold them for as long as it lives."""
    for descriptor in _descriptors:
        with suppress(OSError):
            os.close(descriptor)
    _descriptors.clear()


if fcntl is not None:
    os.register_at_fork(after_in_child=_close_inherited)


_FAIRNESS_S = 0.001
"""How long who goes around the gate leaves the turn to others first: without a gate it would overtake them."""


class _Place:
    """A place in the gate that is waited for."""

    __slots__ = ("_claimed", "file", "given")

    def __init__(self) -> None:
        self.given = threading.Event()
        self.file = -1
        self._claimed = threading.Lock()

    def claim(self) -> bool:
        """True once: either the place was given in time, or whoever waited has given up before."""
        return self._claimed.acquire(blocking=False)


class _Gate:
    """The queue of one. A wait for a lock has no limit of its own, so a thread waits for it, where one is needed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._wanted: queue.SimpleQueue[_Place | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._late: _Place | None = None
        """A place that was given up, and for which the thread still waits."""

    def open(self) -> int:
        return os.open(self._path, _HOW, 0o644)

    def close(self) -> None:
        if self._thread is not None:
            self._wanted.put(None)
            self._thread = None

    @property
    def is_stuck(self) -> bool:
        """Whether whoever is in it has not moved for so long that it is gone around."""
        return self._late is not None and not self._late.given.is_set()

    def wait(self, within_s: float) -> _Place | None:
        """The place, to be given back; ``None`` where it is not to be had in time."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._main, name=f"actorkit-gate {self._path.name}", daemon=True)
            self._thread.start()
        place = _Place()
        self._wanted.put(place)
        try:
            if place.given.wait(within_s) or not place.claim():
                place.given.wait()
                return place
        except BaseException:
            if not place.claim():
                place.given.wait()
                self.leave(place)
            raise
        self._late = place
        return None

    def leave(self, place: _Place) -> None:
        """May be called again, also where a signal's handler has raised in the middle of it."""
        if place.file >= 0:
            _let_go(place.file)
            file, place.file = place.file, -1
            _descriptors.discard(file)
            os.close(file)

    def _main(self) -> None:
        while (place := self._wanted.get()) is not None:
            place.file = self.open()
            _descriptors.add(place.file)
            _take(place.file)
            if not place.claim():
                self.leave(place)
            place.given.set()


def _take(file: int) -> None:
    assert fcntl is not None
    fcntl.flock(file, fcntl.LOCK_EX)


def _let_go(file: int) -> None:
    assert fcntl is not None
    fcntl.flock(file, fcntl.LOCK_UN)


class FileLock:
    """A lock between processes (and between journals of one process), used by one thread."""

    def __init__(self, path: Path, *, gate_max_s: float) -> None:
        self._paths = (path, path.with_name(f"{path.name}-gate"))
        self._files: tuple[int, int] | None = None
        self._gate = _Gate(self._paths[1])
        self._gate_max_s = gate_max_s

    def open(self) -> None:
        """Raises ``OSError`` where the lock's files cannot be created."""
        if fcntl is not None and self._files is None:
            opened = os.open(self._paths[0], _HOW, 0o644)
            try:
                self._files = (opened, self._gate.open())
            except OSError:
                os.close(opened)
                raise
            _descriptors.update(self._files)

    def close(self) -> None:
        if self._files is not None:
            files, self._files = self._files, None
            _descriptors.difference_update(files)
            for file in files:
                os.close(file)
            self._gate.close()

    @contextmanager
    def turn(self) -> Generator[None, None, None]:
        """Waits for the turn, without a limit: whoever asked may give up meanwhile, the thread cannot."""
        if fcntl is None or self._files is None:
            yield
            return
        turn, gate = self._files
        place: _Place | None = None
        # A signal's handler may raise anywhere, just after a lock was given too. To let go of what is not held is fine.
        try:
            if self._gate.is_stuck:
                time.sleep(_FAIRNESS_S)
            else:
                try:
                    fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    place = self._gate.wait(self._gate_max_s)
            fcntl.flock(turn, fcntl.LOCK_EX)
            fcntl.flock(gate, fcntl.LOCK_UN)
            if place is not None:
                self._gate.leave(place)
            yield
        finally:
            fcntl.flock(turn, fcntl.LOCK_UN)
            fcntl.flock(gate, fcntl.LOCK_UN)
            if place is not None:
                self._gate.leave(place)

"""Fair turns at one file between processes.

SQLite's own waiting polls with growing pauses, so that of two busy writers one starves. ``flock`` queues the waiters in
the kernel, and the lock of a process that dies is free at once. Everything that writes, checkpoints included, happens
under it: that also keeps clear of the corruption by concurrent checkpoints of SQLite before 3.51.3.

One lock alone is not fair: who releases it and wants it again at once overtakes a waiter that is only just waking up.
So a process first takes its place in a queue of one (the gate) and keeps that place until it has the turn.
"""

from __future__ import annotations

import os
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


class FileLock:
    """A lock between processes (and between journals of one process), used by one thread."""

    def __init__(self, path: Path) -> None:
        self._paths = (path, path.with_name(f"{path.name}-gate"))
        self._files: tuple[int, int] | None = None

    def open(self) -> None:
        """Raises ``OSError`` where the lock's files cannot be created."""
        if fcntl is not None and self._files is None:
            turn, gate = self._paths
            opened = os.open(turn, _HOW, 0o644)
            try:
                self._files = (opened, os.open(gate, _HOW, 0o644))
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

    @contextmanager
    def turn(self) -> Generator[None, None, None]:
        """Waits for the turn, without a limit: whoever asked may give up meanwhile, the thread cannot."""
        if fcntl is None or self._files is None:
            yield
            return
        turn, gate = self._files
        # A signal's handler may raise anywhere, just after a lock was given too. To let go of what is not held is fine.
        try:
            fcntl.flock(gate, fcntl.LOCK_EX)
            fcntl.flock(turn, fcntl.LOCK_EX)
            fcntl.flock(gate, fcntl.LOCK_UN)
            yield
        finally:
            fcntl.flock(turn, fcntl.LOCK_UN)
            fcntl.flock(gate, fcntl.LOCK_UN)

"""The append process: stores the batches that arrive on its standard input, and answers on its standard output.

It lives as long as its input is open, which is as long as the process that it serves: whatever that one dies of, what
is here already is stored or not, as an append that timed out would be, and then this process ends. Signals that are
sent to both (Ctrl-C in a terminal, the end of a service) are for the other one to act on.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import BinaryIO

import msgspec
import structlog

from actorkit import logs
from actorkit.errors import ActorkitError, AppendUncertain, JournalFailed, JournalUnavailable
from actorkit.journal.sqlite_append import Appender
from actorkit.journal.sqlite_connection import WriterConnection
from actorkit.journal.sqlite_frames import HEADER_BYTES, Answer, Hello, decode_batch, frame, length_of, results_answer
from actorkit.journal.sqlite_lock import FileLock

__all__ = ["main"]

_log = structlog.get_logger("actorkit.journal")


class _NoTurn(Exception):
    """Other processes have kept the file for too long."""


class _Alarm:
    """Ends the wait for a lock by a signal, since waiting for one has no time limit of its own."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._armed = False
        signal.signal(signal.SIGALRM, self._ring)

    def wait_for(self, enter: Callable[[], object]) -> None:
        """Calls ``enter``. Raises ``_NoTurn`` if it takes longer than the limit."""
        self._armed = True
        signal.setitimer(signal.ITIMER_REAL, self._limit_s)
        try:
            enter()
        finally:
            self._armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _ring(self, _signal: int, _frame: FrameType | None) -> None:
        if self._armed:
            self._armed = False
            raise _NoTurn


class _AppendProcess:
    def __init__(self, hello: Hello) -> None:
        self._file = hello.file
        self._settings = hello.settings
        self._alarm = _Alarm(hello.settings.busy_timeout_s)
        file = Path(hello.file)
        self._lock = FileLock(file.with_name(f"{file.name}-lock"))
        self._connection = WriterConnection(hello.file, hello.settings)
        self._appender: Appender

    def open(self) -> Answer:
        try:
            self._lock.open()
            with ExitStack() as turn:
                self._alarm.wait_for(lambda: turn.enter_context(self._lock.turn()))
                # The process that is served has settled what a crash had left when it opened the file.
                shards, _ = self._connection.open(None, settle=False)
        except (ActorkitError, OSError, _NoTurn) as error:
            return _failed(JournalUnavailable(f"{self._file}: the append process cannot open it: {error!r}"))
        self._appender = Appender(shards=shards, settings=self._settings)
        self._connection.on_rollback(self._appender.forget)
        return Answer(positions=[])

    def serve(self, batch: bytes, answer: Callable[[Answer], None]) -> None:
        """Answers as soon as the batch is durable, and checkpoints then, if it is time to."""
        try:
            with ExitStack() as turn:
                self._alarm.wait_for(lambda: turn.enter_context(self._lock.turn()))
                answer(self._append(batch))
                self._connection.checkpoint()
        except _NoTurn:
            text = f"{self._file}: no turn within {self._settings.busy_timeout_s:g} s, nothing was stored; retry"
            answer(_failed(JournalUnavailable(text)))

    def _append(self, batch: bytes) -> Answer:
        appender = self._appender
        try:
            appends = decode_batch(batch)
        except msgspec.MsgspecError:
            return Answer(unreadable=True)
        try:
            results = self._connection.transaction(lambda db: appender.append(db, appends), lambda: appender.pages)
        except ActorkitError as error:
            return _failed(error)
        except Exception as error:  # noqa: BLE001 - whoever asked gets what happened
            _log.error("journal.append_raised", file=self._file, error=repr(error), exc_info=error)
            return _failed(AppendUncertain(f"{self._file}: {error!r}: whether the batch is stored is unknown"))
        return results_answer(results)

    def crashed(self, error: Exception) -> Answer:
        """Something has happened that nobody foresaw: nothing more is written."""
        self._connection.crashed(error)
        assert self._connection.failed is not None
        return _failed(self._connection.failed)

    @property
    def failed(self) -> JournalFailed | None:
        return self._connection.failed

    def close(self) -> None:
        """In turn with the others: the last connection to close makes a checkpoint."""
        try:
            with ExitStack() as turn:
                self._alarm.wait_for(lambda: turn.enter_context(self._lock.turn()))
                self._connection.close()
        except (ActorkitError, OSError, _NoTurn) as error:
            _log.warning("journal.close_failed", file=self._file, error=repr(error))


def _failed(error: ActorkitError) -> Answer:
    return Answer(error=(type(error).__name__, str(error)))


def _read(source: BinaryIO) -> bytes | None:
    """The next frame, or ``None`` at the end; half a frame comes from a process that was killed while writing it."""
    header = source.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        return None
    length = length_of(header)
    content = source.read(length)
    return content if len(content) == length else None


def main() -> None:
    """Serves until the input ends."""
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    logs.configure()
    # Whatever prints must not get between the answers.
    target = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def answer(what: Answer) -> None:
        target.write(frame(what))
        target.flush()

    source = sys.stdin.buffer
    first = _read(source)
    if first is None:
        return
    process = _AppendProcess(msgspec.msgpack.decode(first, type=Hello))
    try:
        answer(process.open())
        while (batch := _read(source)) is not None:
            try:
                process.serve(batch, answer)
            except BrokenPipeError:
                raise
            except Exception as error:  # noqa: BLE001 - a process that ended here would end without a word
                answer(process.crashed(error))
            if process.failed is not None:
                break
    except BrokenPipeError:
        # Nobody waits for the answer any more.
        _log.debug("journal.append_process_left_alone")
    process.close()


if __name__ == "__main__":
    main()

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
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import BinaryIO

import msgspec
import structlog

from actorkit import logs
from actorkit.errors import ActorkitError, AppendUncertain, JournalUnavailable
from actorkit.journal.sqlite_append import Appender
from actorkit.journal.sqlite_connection import WriterConnection
from actorkit.journal.sqlite_errors import no_turn
from actorkit.journal.sqlite_frames import (
    FORMAT,
    HEADER_BYTES,
    Answer,
    Hello,
    decode_batch,
    frame,
    length_of,
    results_answer,
)
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
        # The thread that has started this process may have blocked it.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})

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
        self._file = os.fsdecode(hello.file)
        self._settings = hello.settings
        self._format = hello.format
        self._alarm = _Alarm(hello.settings.busy_timeout_s)
        file = Path(self._file)
        self._lock = FileLock(file.with_name(f"{file.name}-lock"), gate_max_s=hello.settings.gate_max_s)
        self._connection = WriterConnection(self._file, hello.settings)
        self._appender: Appender

    def open(self) -> Answer:
        if self._format != FORMAT:
            why = "it is of another version of actorkit, which was installed while this one runs: restart"
            return _failed(JournalUnavailable(f"{self._file}: the append process cannot serve it: {why}"))
        try:
            self._lock.open()
            with ExitStack() as turn:
                self._alarm.wait_for(lambda: turn.enter_context(self._lock.turn()))
                # The process that is served has settled what a crash had left when it opened the file.
                shards, _, _ = self._connection.open(None, settle=False)
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
            text = no_turn(self._file, self._settings.busy_timeout_s)
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

    def crashed(self, error: Exception) -> None:
        """Something has happened that nobody foresaw: nothing more is written."""
        self._connection.crashed(error)

    @property
    def failure(self) -> Answer | None:
        """Why nothing more is written, once that is so."""
        return None if self._connection.failed is None else _failed(self._connection.failed)

    def close(self) -> None:
        """In turn with the others: the last connection to close makes a checkpoint."""
        try:
            with ExitStack() as turn:
                self._alarm.wait_for(lambda: turn.enter_context(self._lock.turn()))
                self._connection.close()
        except (ActorkitError, OSError, _NoTurn) as error:
            _log.warning("journal.close_failed", file=self._file, error=repr(error))


def _failed(error: ActorkitError) -> Answer:
    text = str(error).encode(errors="backslashreplace").decode()
    return Answer(error=(type(error).__name__, text))


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
    for ignored in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2"):
        signal.signal(getattr(signal, ignored), signal.SIG_IGN)
    # Whatever prints must not get between the answers.
    target = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    if sys.stderr is None:
        # The process that is served has closed its own.
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    logs.configure()

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
            except ConnectionError:
                raise
            except Exception as error:  # noqa: BLE001 - a process that ended here would end without a word
                process.crashed(error)
            failure = process.failure
            if failure is not None:
                # Also where it has come after the answer, from the checkpoint: then nobody else knows of it.
                answer(failure)
                break
    except ConnectionError:
        # Nobody waits for the answer any more.
        _log.debug("journal.append_process_left_alone")
    process.close()
    with suppress(ConnectionError):
        target.close()


if __name__ == "__main__":
    main()

"""A process of its own for the appends of one journal, for when there are many.

Threads of one Python process take turns at the interpreter: a thread that stores thousands of rows a second and the
event loop hold each other up, although SQLite itself runs beside it. So once appends come in large batches they are
handed to another process, which does with them exactly what the writer's thread would do. It takes turns at the file
like any other process; leases, snapshots and cursors stay with the thread.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias, cast

import msgspec
import structlog

from actorkit.errors import AppendUncertain, JournalError, JournalFailed, JournalUnavailable
from actorkit.journal.protocols import Append, AppendResult
from actorkit.journal.settings import SqliteSettings
from actorkit.journal.sqlite_frames import (
    ANSWER_MAX_BYTES,
    FORMAT,
    HEADER_BYTES,
    Answer,
    Hello,
    error_of,
    frame,
    length_of,
    open_answer,
)

__all__ = ["AppendHelper", "AppendProcess"]

_START_MAX_S = 30.0
"""How long an interpreter may take to start on a busy machine; the thread does the work meanwhile."""
_MANY = 16
"""Smaller commits are no reason for a process: the loop has time for the thread then."""
_SILENT_MAX_S = 5.0
"""How long a batch may take beyond the waits for other processes, each of which has the busy timeout as its limit."""
_MAIN = "import sys; sys.path[:] = sys.argv[2:]; from actorkit.journal.sqlite_process_main import main; main()"
"""It imports from where the process that it serves does, and from nowhere else (as ``-m`` would, from the current
directory)."""
_answers = msgspec.msgpack.Decoder(Answer)
_log = structlog.get_logger("actorkit.journal")


OnFailure: TypeAlias = Callable[[AppendUncertain | JournalFailed], None]
"""Told, before anybody else, what a batch has failed with, as far as that says something of the file."""


Answered: TypeAlias = Callable[[Answer | JournalError], None]
"""Told once what the process has answered, or why it has not."""
Otherwise: TypeAlias = Callable[[], Coroutine[Any, Any, list[AppendResult]]]
"""Stores a batch in some other way."""


class AppendProcess(asyncio.SubprocessProtocol):
    """The process and the two pipes to it. All calls are made from the same asyncio loop."""

    def __init__(
        self, file: str, settings: SqliteSettings, command: Sequence[str], on_failure: OnFailure | None
    ) -> None:
        self._file = file
        self._settings = settings
        self._command = command
        self._on_failure = on_failure
        self._started = False
        self._watch: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.SubprocessTransport | None = None
        self._input: asyncio.WriteTransport | None = None
        self._received = bytearray()
        self._waiting: deque[Answered] = deque()
        """Who waits for the answers to what was sent, in order."""
        self._left: set[asyncio.Task[list[AppendResult]]] = set()
        """What was left to others, who have not ended."""
        self._exited = asyncio.Event()
        self._silenced = asyncio.Event()
        """Its output has ended."""
        self.gone = False
        """It answers no more: another one would have to be started."""

    async def start(self) -> None:
        """Returns once the process has opened the file.

        Raises ``JournalUnavailable`` where it cannot be started or cannot open it in time.
        """
        pipe = subprocess.PIPE
        try:
            # In a session of its own, since a terminal sends its signals to all processes of one.
            transport, _ = await self._loop.subprocess_exec(
                lambda: self, *self._command, stdin=pipe, stdout=pipe, stderr=None, start_new_session=True
            )
        except Exception as error:
            self.gone = True
            raise JournalUnavailable(f"{self._file}: no append process can be started: {error!r}") from error
        self._transport = transport
        self._input = cast("asyncio.WriteTransport", transport.get_pipe_transport(0))
        # Each batch leaves at once: uvloop would keep it until this turn of the loop has done everything else.
        self._input.set_write_buffer_limits(high=0)
        try:
            async with asyncio.timeout(_START_MAX_S + self._settings.busy_timeout_s):
                opened: asyncio.Future[Answer] = self._loop.create_future()
                self._send(frame(Hello(os.fsencode(self._file), self._settings, FORMAT)), partial(_tell, opened))
                open_answer(await opened)
        except TimeoutError:
            await self.close()
            raise JournalUnavailable(f"{self._file}: its append process does not start") from None
        except AppendUncertain as error:
            await self.close()
            raise JournalUnavailable(f"{self._file}: its append process has ended before it could begin") from error
        except BaseException:
            await self.close()
            raise
        self._started = True

    def append(self, batch: Sequence[Append], otherwise: Otherwise) -> asyncio.Future[list[AppendResult]]:
        """As ``Journal.append``, sent already when this returns. A batch that no journal would store as it is is left
        to ``otherwise``."""
        outcome: asyncio.Future[list[AppendResult]] = self._loop.create_future()
        try:
            content = frame(batch)
        except (UnicodeEncodeError, OverflowError, TypeError):
            self._leave(otherwise, outcome)
            return outcome
        if len(self._waiting) >= self._settings.jobs_max:
            text = f"{self._file}: {self._settings.jobs_max} writes are waiting already"
            outcome.set_exception(JournalUnavailable(text))
            return outcome

        def answered(answer: Answer | JournalError) -> None:
            if outcome.done():
                return
            if isinstance(answer, JournalError):
                outcome.set_exception(answer)
            elif answer.unreadable:
                self._leave(otherwise, outcome)
            else:
                try:
                    outcome.set_result(open_answer(answer))
                except JournalError as error:
                    outcome.set_exception(error)

        self._send(content, answered)
        return outcome

    def _leave(self, otherwise: Otherwise, outcome: asyncio.Future[list[AppendResult]]) -> None:
        task = self._loop.create_task(otherwise(), name="actorkit-journal-append-otherwise")
        self._left.add(task)

        def ended(task: asyncio.Task[list[AppendResult]]) -> None:
            self._left.discard(task)
            if outcome.done():
                # Nobody waits any more. Looking at it keeps asyncio from reporting it as forgotten.
                _ = task.cancelled() or task.exception()
            elif task.cancelled():
                outcome.cancel()
            elif (error := task.exception()) is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(task.result())

        task.add_done_callback(ended)

    async def close(self) -> None:
        """Lets it finish what it has, and ends it by force after the busy timeout."""
        if self._transport is None or self._input is None:
            return
        self._input.close()
        try:
            async with asyncio.timeout(self._settings.busy_timeout_s):
                await self._silenced.wait()
                await self._exited.wait()
        except TimeoutError:
            self._kill("it does not end")
            await self._exited.wait()
        self._transport.close()

    def _send(self, content: bytes, answered: Answered) -> None:
        if self.gone or self._input is None or self._input.is_closing():
            answered(JournalUnavailable(f"{self._file}: its append process has ended; retry"))
            return
        self._waiting.append(answered)
        self._input.write(content)
        if len(self._waiting) == 1:
            self._expect()

    def _expect(self) -> None:
        """Watches from now on how long the next answer takes, if there is to be one."""
        if self._watch is not None:
            self._watch.cancel()
        half_s = self._settings.busy_timeout_s + _SILENT_MAX_S / 2
        expected = self._started and self._waiting
        self._watch = self._loop.call_later(half_s, self._silent, half_s) if expected else None

    def _silent(self, half_s: float) -> None:
        # Where this process has been stopped meanwhile, both timers are due at once, and the answer is there already.
        self._watch = self._loop.call_later(half_s, self._kill, "it does not answer")

    def _kill(self, why: str) -> None:
        """What it has in hand is in doubt then, and no worse off than with an answer that never comes."""
        if self._exited.is_set():
            # Somebody else has got hold of its output, so that the end of that is not seen.
            self._end(None)
        elif self._transport is not None:
            _log.warning("journal.append_process_killed", file=self._file, why=why)
            with suppress(ProcessLookupError):
                self._transport.kill()

    # -------------------------------------------------------------------------------------------- called by the loop

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        received = self._received
        received += data
        while len(received) >= HEADER_BYTES:
            length = length_of(received[:HEADER_BYTES])
            if length > ANSWER_MAX_BYTES:
                self._misunderstood(f"an answer of {length} bytes")
                return
            end = HEADER_BYTES + length
            if len(received) < end:
                return
            content = bytes(received[HEADER_BYTES:end])
            del received[:end]
            try:
                answer = _answers.decode(content)
            except msgspec.MsgspecError as error:
                self._misunderstood(repr(error))
                return
            self._answered(answer)

    def _answered(self, answer: Answer) -> None:
        error = error_of(answer)
        if isinstance(error, AppendUncertain | JournalFailed):
            self._failed(error)
        waiting = self._waiting.popleft() if self._waiting else None
        self._expect()
        if waiting is not None:
            waiting(answer)

    def _misunderstood(self, what: str) -> None:
        """Whatever it says, and does, nobody knows it any more."""
        self._received.clear()
        self._end(None)
        self._kill(f"it sends {what}")

    def _failed(self, error: AppendUncertain | JournalFailed) -> None:
        if self._on_failure is not None and self._started:
            self._on_failure(error)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self.gone = True
        if fd == 1:
            # Not before: what it has said before it ended counts.
            self._end(exc)
            self._silenced.set()

    def process_exited(self) -> None:
        self.gone = True
        self._exited.set()

    def _end(self, error: Exception | None) -> None:
        """Nothing more is believed: what is unanswered is in doubt."""
        self.gone = True
        unanswered = list(self._waiting)
        self._waiting.clear()
        self._expect()
        if not unanswered:
            return
        _log.warning("journal.append_process_ended", file=self._file, unanswered=len(unanswered))
        text = f"{self._file}: its append process has ended: whether the batch is stored is unknown"
        # Also where whoever has sent it waits no longer: it may be stored all the same.
        self._failed(AppendUncertain(text))
        for waiting in unanswered:
            uncertain = AppendUncertain(text)
            uncertain.__cause__ = error
            waiting(uncertain)


class AppendHelper:
    """Decides when a journal gets an append process, and starts it beside the work that goes on."""

    def __init__(self, file: str, settings: SqliteSettings) -> None:
        self.command: Sequence[str] | None = None
        """What is started in place of the usual program."""
        self._file = file
        self._settings = settings
        self._on_failure: OnFailure | None = None
        # A program that was packed together with its interpreter would start itself once more.
        possible = os.name == "posix" and bool(sys.executable) and not getattr(sys, "frozen", False)
        self._after = settings.process_after_appends if possible else None
        self._counted = 0
        self._process: AppendProcess | None = None
        self._starting: asyncio.Task[None] | None = None

    async def open(self, on_failure: OnFailure | None = None) -> None:
        """Waits for the process only where it is wanted from the start. Raises ``JournalUnavailable`` if it is not.

        ``on_failure`` is told of every failure, also where whoever has sent the batch waits for it no longer.
        """
        self._on_failure = on_failure or self._on_failure
        self._counted = 0
        if self._after == 0:
            await self._start()

    def ready_for(self, appends: int) -> AppendProcess | None:
        """The process that is to store a batch of so many appends; ``None``: the thread is."""
        if self._process is not None and not self._process.gone:
            return self._process
        if self._after is None or self._starting is not None:
            return None
        if appends >= _MANY:
            self._counted += appends
            if self._counted >= self._after:
                self._starting = asyncio.create_task(self._try_to_start(), name="actorkit-journal-append-helper")
        return None

    async def close(self) -> None:
        """Ends the process once it has done what it has."""
        starting, process = self._starting, self._process
        self._starting = self._process = None
        try:
            if starting is not None:
                starting.cancel()
                await asyncio.wait([starting])
        finally:
            if process is not None:
                await process.close()

    async def _start(self) -> None:
        if self._process is not None:
            await self._process.close()
        process = AppendProcess(self._file, self._settings, self.command or _command(), self._on_failure)
        await process.start()
        self._process = process
        self._counted = 0
        _log.info("journal.append_process", file=self._file)

    async def _try_to_start(self) -> None:
        try:
            await self._start()
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread does as well, only slower
            self._after = None
            _log.warning("journal.no_append_process", file=self._file, error=str(error))
        finally:
            self._starting = None


def _tell(waiting: asyncio.Future[Answer], answer: Answer | JournalError) -> None:
    if waiting.done():
        return
    if isinstance(answer, JournalError):
        waiting.set_exception(answer)
    else:
        waiting.set_result(answer)


def _command() -> list[str]:
    """The interpreter that runs here; its search path follows the name under which the process can be recognised."""
    isolated = ["-I"] if sys.flags.isolated else []
    path = [entry for entry in sys.path if isinstance(entry, str)]
    return [sys.executable, *isolated, "-c", _MAIN, "actorkit.journal.sqlite_process_main", *path]

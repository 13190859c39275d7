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
from collections.abc import Sequence
from contextlib import suppress
from typing import cast

import msgspec
import structlog

from actorkit.errors import AppendUncertain, JournalError, JournalUnavailable
from actorkit.journal.protocols import Append, AppendResult
from actorkit.journal.settings import SqliteSettings
from actorkit.journal.sqlite_frames import HEADER_BYTES, Answer, Hello, frame, length_of, open_answer

__all__ = ["AppendHelper", "AppendProcess", "Unreadable"]

_START_MAX_S = 30.0
"""How long an interpreter may take to start on a busy machine; the thread does the work meanwhile."""
_MANY = 16
"""Smaller commits are no reason for a process: the loop has time for the thread then."""
_answers = msgspec.msgpack.Decoder(Answer)
_log = structlog.get_logger("actorkit.journal")


class Unreadable(Exception):
    """The batch cannot be handed over, since it holds something that no journal stores. Nothing was done with it."""


class AppendProcess(asyncio.SubprocessProtocol):
    """The process and the two pipes to it. All calls are made from the same asyncio loop."""

    def __init__(self, file: str, settings: SqliteSettings, command: Sequence[str]) -> None:
        self._file = file
        self._settings = settings
        self._command = command
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.SubprocessTransport | None = None
        self._input: asyncio.WriteTransport | None = None
        self._received = bytearray()
        self._waiting: deque[asyncio.Future[Answer]] = deque()
        """The batches that were sent and not answered, in order."""
        self._exited = asyncio.Event()
        self.gone = False
        """It answers no more: another one would have to be started."""

    async def start(self) -> None:
        """Returns once the process has opened the file.

        Raises ``JournalUnavailable`` where it cannot be started or cannot open it in time.
        """
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        pipe = subprocess.PIPE
        try:
            transport, _ = await self._loop.subprocess_exec(
                lambda: self, *self._command, stdin=pipe, stdout=pipe, stderr=None, env=environment
            )
        except (OSError, NotImplementedError) as error:
            self.gone = True
            raise JournalUnavailable(f"{self._file}: no append process can be started: {error!r}") from error
        self._transport = transport
        self._input = cast("asyncio.WriteTransport", transport.get_pipe_transport(0))
        try:
            async with asyncio.timeout(_START_MAX_S + self._settings.busy_timeout_s):
                open_answer(await self._send(frame(Hello(self._file, self._settings))))
        except TimeoutError:
            await self.close()
            raise JournalUnavailable(f"{self._file}: its append process does not start") from None
        except AppendUncertain as error:
            await self.close()
            raise JournalUnavailable(f"{self._file}: its append process has ended before it could begin") from error
        except BaseException:
            await self.close()
            raise

    async def append(self, batch: Sequence[Append]) -> list[AppendResult]:
        """As ``Journal.append``. Raises ``Unreadable`` for a batch that no journal would store as it is."""
        try:
            content = frame(batch)
        except (UnicodeEncodeError, OverflowError, TypeError) as error:
            raise Unreadable from error
        answer = await self._send(content)
        if answer.unreadable:
            raise Unreadable
        return open_answer(answer)

    async def close(self) -> None:
        """Lets it finish what it has, and ends it by force after the busy timeout."""
        if self._transport is None or self._input is None:
            return
        self._input.close()
        try:
            async with asyncio.timeout(self._settings.busy_timeout_s):
                await self._exited.wait()
        except TimeoutError:
            _log.warning("journal.append_process_killed", file=self._file)
            with suppress(ProcessLookupError):
                self._transport.kill()
            await self._exited.wait()
        self._transport.close()

    def _send(self, content: bytes) -> asyncio.Future[Answer]:
        answer: asyncio.Future[Answer] = self._loop.create_future()
        if self.gone or self._input is None or self._input.is_closing():
            answer.set_exception(JournalUnavailable(f"{self._file}: its append process has ended; retry"))
            return answer
        self._waiting.append(answer)
        self._input.write(content)
        return answer

    # -------------------------------------------------------------------------------------------- called by the loop

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        received = self._received
        received += data
        while len(received) >= HEADER_BYTES:
            end = HEADER_BYTES + length_of(received[:HEADER_BYTES])
            if len(received) < end:
                return
            content = bytes(received[HEADER_BYTES:end])
            del received[:end]
            try:
                answer = _answers.decode(content)
            except msgspec.MsgspecError as error:
                self._end(error)
                return
            waiting = self._waiting.popleft() if self._waiting else None
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._end(exc)

    def process_exited(self) -> None:
        self._end(None)
        self._exited.set()

    def _end(self, error: Exception | None) -> None:
        """Nothing more is believed: what is unanswered is in doubt."""
        self.gone = True
        if self._waiting:
            _log.warning("journal.append_process_ended", file=self._file, unanswered=len(self._waiting))
        for waiting in self._waiting:
            if not waiting.done():
                text = f"{self._file}: its append process has ended: whether the batch is stored is unknown"
                uncertain: JournalError = AppendUncertain(text)
                uncertain.__cause__ = error
                waiting.set_exception(uncertain)
        self._waiting.clear()


class AppendHelper:
    """Decides when a journal gets an append process, and starts it beside the work that goes on."""

    def __init__(self, file: str, settings: SqliteSettings) -> None:
        self._file = file
        self._settings = settings
        self.command: Sequence[str] = (sys.executable, "-m", "actorkit.journal.sqlite_process_main")
        self._after = settings.process_after_appends if os.name == "posix" else None
        self._counted = 0
        self._process: AppendProcess | None = None
        self._starting: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Waits for the process only where it is wanted from the start. Raises ``JournalUnavailable`` if it is not."""
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
        if starting is not None:
            starting.cancel()
            await asyncio.wait([starting])
        if process is not None:
            await process.close()

    async def _start(self) -> None:
        if self._process is not None:
            await self._process.close()
        process = AppendProcess(self._file, self._settings, self.command)
        await process.start()
        self._process = process
        self._counted = 0
        _log.info("journal.append_process", file=self._file)

    async def _try_to_start(self) -> None:
        try:
            await self._start()
        except JournalUnavailable as error:
            # The thread does as well, only slower.
            self._after = None
            _log.warning("journal.no_append_process", file=self._file, error=str(error))
        finally:
            self._starting = None

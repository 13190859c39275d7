"""Group commit: all entities of a process append through one writer.

While one batch is being committed, the next one gathers, so that thousands of appends share one flush to disk (DeWitt
et al., "Implementation techniques for main memory database systems", 1984). A batch starts with all that was submitted
in the same turn of the loop. Where the journal stores what it was given in that order, a small batch is followed by the
next one before its answer has come: otherwise the store would have nothing to do until the loop has looked at that.

A batch that gets no answer in time counts as uncertain, and its later answer is ignored. The next batch then goes
ahead: what an overdue batch may still store is kept in order by the store itself, since each append names its shard's
epoch and its stream's expected sequence. So a later append of the same stream succeeds if the overdue one was stored
and conflicts if it was not; whoever needs to know raises the epoch and reads.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import TypeAlias

import structlog

from actorkit.errors import AppendUncertain, JournalError, JournalFailed, JournalUnavailable, Overloaded
from actorkit.journal.checks import append_bytes
from actorkit.journal.protocols import Append, AppendResult, Journal
from actorkit.journal.settings import WriterSettings

__all__ = ["GroupCommit", "Settled"]

Settled: TypeAlias = Callable[[AppendResult | JournalError], None]
"""Called once with what became of an append, or with the error that hit its whole batch."""

_HALVED_FROM = 128
"""So few appends are always committed together."""
_IN_FLIGHT_MAX = 2
_NEVER = sys.maxsize
_log = structlog.get_logger("actorkit.journal")


class _Batch:
    """Appends that are committed together."""

    __slots__ = ("appends", "settled", "size_bytes", "started_s", "task", "timer")

    def __init__(self, appends: list[Append], settled: list[Settled], size_bytes: int) -> None:
        self.appends = appends
        self.settled = settled
        self.size_bytes = size_bytes
        self.started_s = 0.0
        self.task: asyncio.Future[list[AppendResult]] | None = None
        self.timer: asyncio.TimerHandle | None = None

    @property
    def has_begun(self) -> bool:
        """Whether the journal has it, and stores it before all that it is given later."""
        return not isinstance(self.task, asyncio.Task)


class GroupCommit:
    """The one writer of a process to one journal. All calls are made from the same asyncio loop.

    ``batches``, ``appends`` and ``bytes`` count what was committed; ``commit_last_s`` is how long the last commit took.
    """

    def __init__(self, journal: Journal, *, settings: WriterSettings = WriterSettings()) -> None:  # noqa: B008 - frozen
        self.batches = 0
        self.appends = 0
        self.bytes = 0
        self.commit_last_s = 0.0
        self._journal = journal
        self._settings = settings
        self._queue: list[Append] = []
        self._queue_settled: list[Settled] = []
        self._queue_bytes = 0
        self._start_scheduled = False
        self._in_flight: list[_Batch] = []
        """In the order in which they were sent."""
        self._start_from = 1
        """With so many appends the next batch starts; ``_NEVER``: one has to land before."""
        self._landed_appends = 0
        """How many the last batch had: their owners are about to send as many again."""
        self._overdue: set[asyncio.Future[list[AppendResult]]] = set()
        self._stopped: JournalError | None = None
        self._failed: JournalFailed | None = None
        self._idle: asyncio.Event | None = None
        self._untold: tuple[list[Settled], list[AppendResult] | JournalError] | None = None
        """A batch that has landed, whose owners are told in the next turn of the loop."""

    @property
    def failed(self) -> JournalFailed | None:
        """The failure after which the process must end, once it has happened; every later submit raises it."""
        return self._failed

    @property
    def queued(self) -> int:
        """How many appends wait for the next commits."""
        return len(self._queue)

    @property
    def has_room(self) -> bool:
        """Whether the next append, if it is as large as those that wait, will be taken."""
        queued, settings = len(self._queue), self._settings
        if not queued:
            return settings.queue_max_appends > 0
        size_bytes = self._queue_bytes + self._queue_bytes // queued
        return queued < settings.queue_max_appends and size_bytes <= settings.queue_max_bytes

    def submit(self, append: Append, settled: Settled) -> None:
        """Queues an append; ``settled`` is called exactly once, in a later turn of the loop.

        It gets the append's result, or the ``AppendUncertain``, ``JournalUnavailable`` or ``JournalFailed`` that hit
        its batch. Within a stream the calls come in the order of submission. Never blocks. Raises ``Overloaded`` when
        the queue is full, ``JournalUnavailable`` after ``close``, ``JournalFailed`` after that failure; then
        ``settled`` is not called.
        """
        if self._stopped is not None:
            raise self._stopped.with_traceback(None)
        queue = self._queue
        size_bytes = self._queue_bytes + append_bytes(append)
        settings = self._settings
        if len(queue) >= settings.queue_max_appends:
            raise Overloaded("the journal writer's queue of appends", limit=settings.queue_max_appends)
        if size_bytes > settings.queue_max_bytes and queue:
            raise Overloaded("the journal writer's queue of bytes", limit=settings.queue_max_bytes)
        queue.append(append)
        self._queue_settled.append(settled)
        self._queue_bytes = size_bytes
        if len(queue) >= self._start_from and not self._start_scheduled:
            self._start_scheduled = True
            asyncio.get_running_loop().call_soon(self._start)

    async def close(self) -> None:
        """Commits what is queued, for at most ``close_timeout_s``; what is left then is settled as given up."""
        if self._stopped is None:
            self._stopped = JournalUnavailable("the writer is closed: the append was not stored")
        if self._in_flight or self._queue:
            self._idle = self._idle or asyncio.Event()
            try:
                async with asyncio.timeout(self._settings.close_timeout_s):
                    await self._idle.wait()
            except TimeoutError:
                _log.warning("journal.writer_gave_up", queued=len(self._queue))
        self._give_up()

    # ------------------------------------------------------------------------------------------------------- batches

    def _start(self) -> None:
        """Starts the next batch, if it is time to."""
        self._start_scheduled = False
        if not self._queue and not self._in_flight and self._idle is not None:
            self._idle.set()
        if len(self._queue) < self._start_from:
            return
        batch = self._take()
        loop = asyncio.get_running_loop()
        if len(self._overdue) >= self._settings.overdue_max_batches:
            error = JournalUnavailable(f"the store has not answered {len(self._overdue)} batches: nothing more is sent")
            self._settle(batch.settled, error)
            self._start_scheduled = True
            loop.call_soon(self._start)
            return
        batch.started_s = loop.time()
        batch.task = asyncio.ensure_future(self._journal.append(batch.appends))
        batch.timer = loop.call_later(self._settings.append_timeout_s, self._timed_out, batch)
        self._in_flight.append(batch)
        self._look_ahead()
        batch.task.add_done_callback(lambda task: self._landed(batch, task))

    def _look_ahead(self) -> None:
        """Something was sent, or has landed: when may the next batch start?"""
        in_flight = self._in_flight
        if not in_flight:
            self._start_from = 1
        elif len(in_flight) < _IN_FLIGHT_MAX and in_flight[-1].has_begun and len(in_flight[-1].appends) < _HALVED_FROM:
            # Not with the first few: a commit costs the same for one as for many.
            self._start_from = (len(in_flight[-1].appends) + 1) // 2
        else:
            self._start_from = _NEVER

    def _take(self) -> _Batch:
        settings = self._settings
        queued = len(self._queue)
        # Not more than half of what is outstanding, the batch before this one included: while one half is committed,
        # the loop answers the other half and handles the commands that follow. In one batch they would wait in turns.
        most = min(settings.batch_max_appends, max(_HALVED_FROM, (queued + self._landed_appends + 1) // 2))
        if queued <= most and self._queue_bytes <= settings.batch_max_bytes:
            batch = _Batch(self._queue, self._queue_settled, self._queue_bytes)
            self._queue, self._queue_settled, self._queue_bytes = [], [], 0
            return batch
        size_bytes = append_bytes(self._queue[0])
        count = 1
        for append in self._queue[1:most]:
            more_bytes = append_bytes(append)
            if size_bytes + more_bytes > settings.batch_max_bytes:
                break
            size_bytes += more_bytes
            count += 1
        batch = _Batch(self._queue[:count], self._queue_settled[:count], size_bytes)
        del self._queue[:count], self._queue_settled[:count]
        self._queue_bytes -= size_bytes
        return batch

    def _landed(self, batch: _Batch, task: asyncio.Future[list[AppendResult]]) -> None:
        """The store has answered, or the call was given up."""
        outcome = self._outcome(batch, task)
        if batch not in self._in_flight:
            self._overdue.discard(task)
            if isinstance(outcome, JournalFailed):
                self._fail(outcome)
            return
        self._in_flight.remove(batch)
        self._look_ahead()
        self._landed_appends = len(batch.appends)
        if batch.timer is not None:
            batch.timer.cancel()
        if isinstance(outcome, JournalFailed):
            self._fail(outcome, batch)
            return
        if not isinstance(outcome, JournalError):
            self.commit_last_s = asyncio.get_running_loop().time() - batch.started_s
            self.batches += 1
            self.appends += len(batch.appends)
            self.bytes += batch.size_bytes
        # The next commit runs beside the callbacks of this one; its answer comes in a later turn of the loop.
        self._start()
        if not self._in_flight or self._in_flight[-1].has_begun:
            self._settle(batch.settled, outcome)
        else:
            # The next batch's task has been made just now. It goes to the store first, and these are told afterwards.
            self._untold = (batch.settled, outcome)
            asyncio.get_running_loop().call_soon(self._tell)

    @staticmethod
    def _outcome(batch: _Batch, task: asyncio.Future[list[AppendResult]]) -> list[AppendResult] | JournalError:
        if task.cancelled():
            return AppendUncertain("the append was given up: whether it is stored is unknown")
        error = task.exception()
        if error is None:
            results = task.result()
            if len(results) == len(batch.appends):
                return results
            error = AssertionError(f"{len(results)} results for {len(batch.appends)} appends")
        if isinstance(error, JournalError):
            return error
        _log.error("journal.append_raised", error=repr(error), exc_info=error)
        uncertain = AppendUncertain(f"the journal raised {error!r}: whether the batch is stored is unknown")
        uncertain.__cause__ = error
        return uncertain

    def _timed_out(self, batch: _Batch) -> None:
        if batch not in self._in_flight or batch.task is None or batch.task.done():
            return
        self._in_flight.remove(batch)
        self._look_ahead()
        self._overdue.add(batch.task)
        _log.warning("journal.append_timed_out", appends=len(batch.appends), overdue=len(self._overdue))
        timeout_s = self._settings.append_timeout_s
        self._settle(
            batch.settled, AppendUncertain(f"no answer within {timeout_s:g} s: whether it is stored is unknown")
        )
        self._start()

    def _tell(self) -> None:
        untold, self._untold = self._untold, None
        if untold is not None:
            self._settle(*untold)

    def _settle(self, callbacks: Sequence[Settled], outcome: Sequence[AppendResult] | JournalError) -> None:
        self._tell()
        results = repeat(outcome) if isinstance(outcome, JournalError) else outcome
        for settled, result in zip(callbacks, results, strict=False):
            try:
                settled(result)
            except Exception as error:  # noqa: BLE001 - one owner's mistake must not keep the others waiting
                _log.error("journal.settled_raised", error=repr(error), exc_info=error)

    def _fail(self, failure: JournalFailed, batch: _Batch | None = None) -> None:
        """Nothing may be appended any more: settles the batch in flight and all that is queued."""
        self._failed = self._failed or failure
        self._stopped = failure
        _log.critical("journal.failed", error=str(failure))
        if batch is not None:
            self._settle(batch.settled, failure)
        self._give_up()
        if self._idle is not None:
            self._idle.set()

    def _give_up(self) -> None:
        """Settles everything that is still open, and lets go of calls that may never return."""
        in_flight, self._in_flight = self._in_flight, []
        self._start_from = _NEVER
        for batch in in_flight:
            if batch.timer is not None:
                batch.timer.cancel()
            if batch.task is not None:
                batch.task.cancel()
            self._settle(
                batch.settled,
                self._failed or AppendUncertain("the writer was closed in mid-commit: whether it is stored is unknown"),
            )
        for task in self._overdue:
            task.cancel()
        while self._queue:
            self._settle(self._take().settled, self._stopped or JournalUnavailable("the writer is closed"))

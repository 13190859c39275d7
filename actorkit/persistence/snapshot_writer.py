"""Stores snapshots beside the traffic (a shell): one at a time, never in the way of commands.

Snapshots are expendable, so everything here may fail: it is counted and logged, and nobody waits for it. Only a failure
after which the journal cannot be relied on goes on to ``fatal``, like one of an append.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

import structlog

from actorkit.errors import JournalError, JournalFailed
from actorkit.journal.protocols import SnapshotStore, StoredSnapshot

__all__ = ["SnapshotWriter"]

_log = structlog.get_logger("actorkit.persistence")


class SnapshotWriter:
    """Holds at most one waiting snapshot for each stream: a newer one replaces it."""

    def __init__(
        self, store: SnapshotStore, *, keep: int, waiting_max: int, fatal: Callable[[JournalFailed], None]
    ) -> None:
        self._store = store
        self._fatal = fatal
        self._keep = keep
        self._waiting_max = waiting_max
        self._waiting: OrderedDict[str, StoredSnapshot] = OrderedDict()
        self._task: asyncio.Task[None] | None = None
        self.saved = 0
        self.failed = 0
        self.dropped = 0

    def save(self, snapshot: StoredSnapshot) -> None:
        """Takes a snapshot whose event is durable."""
        self._waiting[snapshot.stream] = snapshot
        if len(self._waiting) > self._waiting_max:
            self._waiting.popitem(last=False)
            self.dropped += 1
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._save_all(), name="actorkit.snapshots")

    async def close(self) -> None:
        """Ends at once; what waits is dropped."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _save_all(self) -> None:
        try:
            while self._waiting:
                stream, snapshot = self._waiting.popitem(last=False)
                try:
                    await self._store.save_snapshot(snapshot, keep=self._keep)
                    self.saved += 1
                except JournalFailed as error:
                    self.failed += 1
                    self._waiting.clear()
                    self._fatal(error)
                except JournalError as error:
                    self.failed += 1
                    _log.warning("snapshot.not_saved", stream=stream, sequence=snapshot.sequence, why=str(error))
        finally:
            self._task = None

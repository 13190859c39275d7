"""Rereading (a shell): entities whose newest events may be stored without being shown are read from the journal.

An append in doubt may be stored all the same. Its entity finds out by reading the journal, and publishes what it finds.
Where that cannot be read, the entity leaves memory: then nobody would publish what it committed last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import structlog

from actorkit.errors import JournalError, JournalFailed
from actorkit.persistence.declaration import EntityType
from actorkit.readmodel import background
from actorkit.readmodel.journal_reader import JournalReader

__all__ = ["Rereading"]

_log = structlog.get_logger("actorkit.readmodel")
_RETRY_FIRST_S = 0.1
_RETRY_MAX_S = 2.0


class _Request(NamedTuple):
    """One wish to have an entity read: a later one is not met by a reading that began before it."""

    entity_type: EntityType
    number: int


class Rereading:
    """Entities that are still to be read; at most those that there are."""

    def __init__(self, reader: JournalReader, *, fatal: Callable[[JournalFailed], None]) -> None:
        self._reader = reader
        self._fatal = fatal
        self._wanted: dict[int, dict[str, _Request]] = {}
        """By shard and stream."""
        self._requests = 0
        self._task: asyncio.Task[None] | None = None

    def pending(self, shard: int) -> bool:
        """Whether an entity of the shard is still to be read."""
        return shard in self._wanted

    @property
    def busy(self) -> bool:
        """Whether any entity is still to be read."""
        return bool(self._wanted)

    def add(self, shard: int, stream: str, entity_type: EntityType) -> None:
        """The entity is to be read as soon as that can be done."""
        self._requests += 1
        self._wanted.setdefault(shard, {})[stream] = _Request(entity_type, self._requests)
        if self._task is None:
            self._task = background.start(self._read_all(), "rereading", self._fatal)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _read_all(self) -> None:
        delay_s = _RETRY_FIRST_S
        try:
            while self._wanted:
                shard, streams = next(iter(self._wanted.items()))
                stream, request = next(iter(streams.items()))
                try:
                    await self._reader.read_stream(request.entity_type, stream)
                except JournalFailed as error:
                    self._fatal(error)
                    return
                except JournalError as error:
                    _log.warning("readmodel.not_read", stream=stream, why=str(error))
                    await asyncio.sleep(delay_s)
                    delay_s = min(2 * delay_s, _RETRY_MAX_S)
                    # Others have their turn, too: one stream alone may be what cannot be read.
                    streams[stream] = streams.pop(stream)
                    self._wanted[shard] = self._wanted.pop(shard)
                    continue
                delay_s = _RETRY_FIRST_S
                if streams[stream] is request:
                    del streams[stream]
                if not streams:
                    del self._wanted[shard]
        finally:
            # At once, and not when its end is told: what is wanted in between would never be read.
            self._task = None

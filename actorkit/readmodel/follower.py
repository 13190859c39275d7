"""Follower (a shell): reads what one entity type publishes from the journal, in a process that is no node of a cluster.

Entities of this process publish what they commit. What others have committed is read: all of it at the start, and
later what the log of a shard has that was taken over from somebody who has written it since.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from actorkit.errors import JournalError, JournalFailed
from actorkit.journal.protocols import Store
from actorkit.readmodel import background
from actorkit.readmodel.journal_reader import JournalReader

__all__ = ["Follower"]

_log = structlog.get_logger("actorkit.readmodel")
_RETRY_S = 0.5


class Follower:
    """What one entity type publishes, in this process."""

    def __init__(
        self, store: Store, reader: JournalReader, entity_type: str, *, fatal: Callable[[JournalFailed], None]
    ) -> None:
        """``reader`` reads this type only."""
        self._store = store
        self._reader = reader
        self._type = entity_type
        self._fatal = fatal
        self._read_to: dict[int, int] | None = None
        """For each shard the position up to which its entities are shown, at least; ``None``: nothing yet."""
        self._taken_at: dict[int, int] = {}
        """For each shard that was taken over the position of its newest record then."""
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._start()

    @property
    def busy(self) -> bool:
        """Whether the journal has, or may have, something that the maps do not show yet and nobody will publish."""
        return self._read_to is None or bool(self._behind())

    def taken_over(self, shard: int, head: int) -> None:
        """The shard is ours now, and its newest record is at this position."""
        self._taken_at[shard] = head
        if self._task is None and self._behind():
            self._start()

    def _behind(self) -> dict[int, int]:
        """Shards that somebody has written between our reading and our taking them over, and up to where."""
        read_to = self._read_to or {}
        return {shard: head for shard, head in self._taken_at.items() if read_to.get(shard, 0) < head}

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _start(self) -> None:
        self._task = background.start(self._follow(), "follower", self._fatal)

    async def _follow(self) -> None:
        try:
            while self.busy:
                try:
                    if self._read_to is None:
                        await self._read_all()
                    else:
                        for shard in self._behind():
                            after = self._read_to.get(shard, 0)
                            self._read_to[shard] = await self._reader.read_log(shard, after=after)
                except JournalFailed as error:
                    self._fatal(error)
                    return
                except JournalError as error:
                    _log.warning("readmodel.not_read", type=self._type, why=str(error))
                    await asyncio.sleep(_RETRY_S)
        finally:
            self._task = None

    async def _read_all(self) -> None:
        # The heads first: what is committed after this is not promised to be in what is read.
        heads = {status.shard: status.head for status in await self._store.status()}
        read = await self._reader.read_streams([self._type])
        self._read_to = heads
        _log.info("readmodel.read", type=self._type, entities=read)

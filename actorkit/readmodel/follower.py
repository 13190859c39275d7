"""Keeps the local read model in step with the journal (a shell), where the entities themselves do not.

Entities of this process publish what they commit. What others have committed is read from the journal: all of it at the
start, and a shard again when it is taken over from somebody who has written it since it was read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from actorkit.errors import JournalError, JournalFailed
from actorkit.journal.protocols import Store
from actorkit.persistence.declaration import EntityType
from actorkit.readmodel.lww_map import LwwMap
from actorkit.readmodel.rebuild import rebuild

__all__ = ["Follower"]

_log = structlog.get_logger("actorkit.readmodel")
_RETRY_S = 0.5


class Follower:
    """What one entity type publishes, in this process."""

    def __init__(
        self,
        store: Store,
        entity_type: EntityType,
        maps: dict[str, LwwMap[Any]],
        *,
        page_events: int,
        fatal: Callable[[JournalFailed], None],
    ) -> None:
        self._store = store
        self._type = entity_type
        self._maps = maps
        self._page_events = page_events
        self._fatal = fatal
        self._read_to: dict[int, int] | None = None
        """For each shard the position up to which its entities have been read, at least; ``None``: nothing yet."""
        self._taken_at: dict[int, int] = {}
        """For each shard that was taken over the position of its newest record then."""
        self._task: asyncio.Task[None] | None = None
        self._start()

    @property
    def busy(self) -> bool:
        """Whether the journal has, or may have, something that the maps do not show yet."""
        return self._task is not None

    def taken_over(self, shard: int, head: int) -> None:
        """The shard is ours now, and its newest record is at this position."""
        self._taken_at[shard] = head
        if self._task is None and self._behind():
            self._start()

    def _behind(self) -> frozenset[int]:
        """Shards that somebody has written between our reading and our taking them over."""
        read_to = self._read_to or {}
        return frozenset(shard for shard, head in self._taken_at.items() if read_to.get(shard, 0) < head)

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._read(), name="actorkit.readmodel")

    async def _read(self) -> None:
        try:
            while self._read_to is None or self._behind():
                try:
                    await self._read_once(None if self._read_to is None else self._behind())
                except JournalFailed as error:
                    self._fatal(error)
                    return
                except JournalError as error:
                    _log.warning("readmodel.not_read", type=self._type.name, why=str(error))
                    await asyncio.sleep(_RETRY_S)
        finally:
            self._task = None

    async def _read_once(self, shards: frozenset[int] | None) -> None:
        # The heads first: what is committed after this is not promised to be in what is read.
        heads = {status.shard: status.head for status in await self._store.status()}
        read = await rebuild(self._store, self._type, self._maps, page_events=self._page_events, shards=shards)
        read_to = self._read_to or {}
        self._read_to = {**read_to, **{shard: heads[shard] for shard in (heads if shards is None else shards)}}
        _log.info(
            "readmodel.read", type=self._type.name, entities=read, shards="all" if shards is None else len(shards)
        )

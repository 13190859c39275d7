"""Keeps the local read model in step with the journal (a shell), where the entities themselves do not.

Entities of this process publish what they commit. What others have committed is read from the journal: all of it at the
start, and from then on what the shards' logs have besides: of a shard that was taken over from somebody who has written
it since it was read, and in a cluster of every shard that somebody else owns.
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
from actorkit.readmodel.rebuild import read_changed, rebuild

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
        owner: str,
        poll_s: float | None,
    ) -> None:
        """``owner`` names this process in the leases. ``poll_s``: how often it is looked what others have written;
        ``None``: only when a shard is taken over from them."""
        self._store = store
        self._type = entity_type
        self._maps = maps
        self._page_events = page_events
        self._fatal = fatal
        self._owner = owner
        self._poll_s = poll_s
        self._read_to: dict[int, int] | None = None
        """For each shard the position up to which its entities are shown, at least; ``None``: nothing yet."""
        self._taken_at: dict[int, int] = {}
        """For each shard that was taken over the position of its newest record then."""
        self._ours: dict[int, tuple[int, int]] = {}
        """For each shard that was ours at the last look: under which epoch, and its newest record's position."""
        self._loop = asyncio.get_running_loop()
        self._looked_s = float("-inf")
        """When the last look that has been carried out entirely began, by the loop's clock."""
        self._task: asyncio.Task[None] | None = None
        self._start()

    @property
    def busy(self) -> bool:
        """Whether the journal has, or may have, something that the maps do not show yet and nobody will publish."""
        return self._read_to is None or bool(self._behind())

    @property
    def age_s(self) -> float:
        """For how long, at most, others may have written something that the maps do not show yet."""
        return 0.0 if self._poll_s is None and not self.busy else self._loop.time() - self._looked_s

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
        self._task = self._loop.create_task(self._follow(), name="actorkit.readmodel")

    async def _follow(self) -> None:
        try:
            while self._poll_s is not None or self.busy:
                began_s = self._loop.time()
                try:
                    if self._read_to is None:
                        await self._read_all()
                    else:
                        await self._read_changed(self._behind())
                        if self._poll_s is not None:
                            await self._read_changed(await self._written_by_others(self._read_to))
                except JournalFailed as error:
                    self._fatal(error)
                    return
                except JournalError as error:
                    _log.warning("readmodel.not_read", type=self._type.name, why=str(error))
                    await asyncio.sleep(_RETRY_S)
                else:
                    self._looked_s = began_s
                    if self._poll_s is not None:
                        await asyncio.sleep(self._poll_s)
        finally:
            self._task = None

    async def _read_all(self) -> None:
        # The heads first: what is committed after this is not promised to be in what is read.
        heads = {status.shard: status.head for status in await self._store.status()}
        read = await rebuild(self._store, self._type, self._maps, page_events=self._page_events)
        self._read_to = heads
        _log.info("readmodel.read", type=self._type.name, entities=read)

    async def _read_changed(self, behind: dict[int, int]) -> None:
        assert self._read_to is not None
        for shard in behind:
            self._read_to[shard] = await read_changed(
                self._store,
                self._type,
                self._maps,
                page_events=self._page_events,
                shard=shard,
                after=self._read_to.get(shard, 0),
            )

    async def _written_by_others(self, read_to: dict[int, int]) -> dict[int, int]:
        """Shards that have something to read, and up to where."""
        ours: dict[int, tuple[int, int]] = {}
        behind: dict[int, int] = {}
        for status in await self._store.status():
            if status.owner == self._owner:
                ours[status.shard] = status.epoch, status.head
                # What we have written ourselves since the last look has been published by its entities.
                before = self._ours.get(status.shard)
                if before is not None and before[0] == status.epoch and status.shard not in self._behind():
                    read_to[status.shard] = max(read_to.get(status.shard, 0), before[1])
            elif status.head > read_to.get(status.shard, 0):
                behind[status.shard] = status.head
        self._ours = ours
        return behind

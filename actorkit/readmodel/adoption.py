"""Adoption (a shell): a node that takes a shard over reads what the shard's log has beyond what it shows, and goes on.

What the former owner committed last it may not have told anybody. Where nobody can say how much of the log is shown
here, all entities of the shard are read: so it is where a cluster starts, or a node that is alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Mapping
from functools import partial
from typing import NamedTuple

import structlog

from actorkit.errors import JournalError, JournalFailed
from actorkit.ids import shard_of
from actorkit.journal.protocols import Store
from actorkit.persistence.declaration import EntityType
from actorkit.readmodel import background
from actorkit.readmodel.journal_reader import JournalReader

__all__ = ["Adoption"]

_log = structlog.get_logger("actorkit.readmodel")
_RETRY_FIRST_S = 0.1
_RETRY_MAX_S = 2.0
_LOOK_S = 0.02


class _TakenOver(NamedTuple):
    epoch: int
    head: int
    at_s: float


class Adoption:
    """The shards that this node has taken over and whose values it does not all show yet."""

    def __init__(
        self,
        store: Store,
        reader: JournalReader,
        types: Mapping[str, EntityType],
        *,
        position: Callable[[int], int | None],
        may_be_told: Callable[[int], bool],
        adopted: Callable[[int, int, int], None],
        wait_max_s: float,
        fatal: Callable[[JournalFailed], None],
    ) -> None:
        """``position(shard)`` is up to where its log is shown, ``may_be_told(shard)`` whether another node may yet say
        so, which is waited for up to ``wait_max_s``. ``adopted(shard, epoch, head)``: the log is shown up to there."""
        self._store = store
        self._reader = reader
        self._types = types
        self._position = position
        self._may_be_told = may_be_told
        self._adopted = adopted
        self._wait_max_s = wait_max_s
        self._fatal = fatal
        self._loop = asyncio.get_running_loop()
        self._wanted: dict[int, _TakenOver] = {}
        self._doubtful: set[int] = set()
        """Shards of others that are to be read from the journal, since what was heard of them is not to be trusted."""
        self._task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether any shard is still to be read."""
        return bool(self._wanted)

    def taken_over(self, shard: int, epoch: int, head: int) -> None:
        """The shard is owned under this epoch, and its newest record is at that position."""
        self._wanted[shard] = _TakenOver(epoch, head, self._loop.time())
        self._begin()

    def repair(self, shard: int) -> None:
        """All entities of the shard are to be read, though somebody else owns it."""
        self._doubtful.add(shard)
        self._begin()

    def _begin(self) -> None:
        if self._task is None:
            self._task = background.start(self._adopt_all(), "adoption", self._fatal)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _adopt_all(self) -> None:
        try:
            await self._adopt_and_repair()
        finally:
            # At once, and not when its end is told: what is wanted in between would never begin.
            self._task = None

    async def _adopt_and_repair(self) -> None:
        delay_s = _RETRY_FIRST_S
        while self._wanted or self._doubtful:
            try:
                await self._adopt_some()
                await self._repair_all()
            except JournalFailed as error:
                self._fatal(error)
                return
            except JournalError as error:
                _log.warning("readmodel.not_read", why=str(error))
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _RETRY_MAX_S)
            else:
                delay_s = _RETRY_FIRST_S

    async def _adopt_some(self) -> None:
        unknown: dict[int, _TakenOver] = {}
        waits = False
        for shard, taken in list(self._wanted.items()):
            position = self._position(shard)
            if position is not None or taken.head == 0:
                if taken.head > (position or 0):
                    await self._reader.read_log(shard, after=position or 0)
                await self._done(shard, taken)
            elif self._may_be_told(shard) and self._loop.time() < taken.at_s + self._wait_max_s:
                waits = True
            else:
                unknown[shard] = taken
        if unknown:
            shards = self._store.shards
            read = await self._reader.read_streams(self._types, where=partial(_is_in, unknown, shards))
            _log.info("readmodel.read", shards=len(unknown), entities=read)
            for shard, taken in unknown.items():
                await self._done(shard, taken)
        elif waits:
            await asyncio.sleep(_LOOK_S)

    async def _repair_all(self) -> None:
        while self._doubtful:
            doubtful, shards = frozenset(self._doubtful), self._store.shards
            await self._reader.read_streams(self._types, where=partial(_is_in, doubtful, shards))
            self._doubtful -= doubtful

    async def _done(self, shard: int, taken: _TakenOver) -> None:
        if self._wanted.get(shard) is taken:
            del self._wanted[shard]
            self._adopted(shard, taken.epoch, taken.head)
            # A large shard's document takes a while to write: others have their turn before the next one.
            await asyncio.sleep(0)


def _is_in(numbers: Container[int], shards: int, stream: str) -> bool:
    """Whether an entity belongs to one of these shards."""
    return shard_of(stream, shards) in numbers

"""What an entity needs from the process that it lives in. The composition root supplies it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from actorkit.actor.deadlines import Deadlines
from actorkit.clock import Clock, Randomness
from actorkit.errors import JournalFailed
from actorkit.ids import PersistenceId
from actorkit.journal.protocols import Store, StoredSnapshot
from actorkit.journal.writer import GroupCommit
from actorkit.persistence.calls import EntityCall, Handler
from actorkit.persistence.settings import PersistenceSettings

if TYPE_CHECKING:
    import asyncio

__all__ = ["Counters", "EntityServices", "Host", "ShardOwnership"]


class ShardOwnership(Protocol):
    """The activation of the shard that an entity belongs to."""

    @property
    def shard(self) -> int: ...

    @property
    def epoch(self) -> int:
        """The epoch of this activation; grows when the owner raises it itself."""
        ...

    def lease_is_valid(self) -> bool:
        """Whether the lease holds now, by a fresh reading of a clock that counts suspend time."""
        ...

    @property
    def unbroken_since(self) -> int:
        """The epoch since which nobody else can have owned the shard: older memory says nothing any more."""
        ...

    @property
    def tenure(self) -> int:
        """Which ownership calls from other nodes have to name to be run here; 0 where there are no others."""
        ...

    @property
    def tenures_since(self) -> int:
        """The oldest tenure since which nobody else can have owned the shard. Calls of one before it may have been run
        elsewhere since; calls of a later one were accepted here, and go on here, before those that came after them."""
        ...

    @property
    def leaving(self) -> bool:
        """Whether the shard is being given up: what is undone does not run here again."""
        ...

    def confirm(self, epoch: int, decided: Callable[[bool], None]) -> None:
        """Asks the store whether this process still owns the shard under ``epoch``; ``decided`` is called once,
        later."""
        ...

    async def settle_doubt(self, epoch: int) -> bool:
        """An append under ``epoch`` may still be on its way, or was fenced: raises the epoch, which kills it.

        Returns whether this process still owns the shard. In either case, what the journal says afterwards is final for
        everything that was sent under ``epoch``.
        """
        ...


class Host(Protocol):
    """Who holds the entities of this process, and routes calls to them."""

    def give_back(self, calls: list[EntityCall]) -> None:
        """Surely undone calls of a shard that has another owner now: they are routed anew."""
        ...

    def move_out(self, pid: PersistenceId, entity: object, calls: list[EntityCall]) -> None:
        """The entity's shard has another owner: these calls and those in its mailbox are routed anew, and it stops."""
        ...

    def recovered(self, pid: PersistenceId, entity: object) -> None:
        """The entity's first recovery has come to its end, whichever: another one may begin."""
        ...

    def retire(self, pid: PersistenceId) -> None:
        """The entity is broken: it leaves memory, those who wait for it are told why, and later calls begin afresh."""
        ...

    def forget(self, pid: PersistenceId, entity: object) -> None:
        """The entity has stopped."""
        ...

    def send_to_self(self, pid: PersistenceId, handler: Handler, args: tuple[Any, ...]) -> EntityCall:
        """A call that an entity makes to itself (a timer), ready for its mailbox."""
        ...


class Counters(msgspec.Struct):
    """What entities have done in this process, since its start."""

    commands: int = 0
    queries: int = 0
    rejected: int = 0
    deduplicated: int = 0
    handler_failures: int = 0
    settlements: int = 0
    recoveries: int = 0
    recovery_failures: int = 0
    events_replayed: int = 0
    snapshots_ignored: int = 0
    effects_failed: int = 0


class EntityServices(msgspec.Struct, kw_only=True):
    """One for all entities of a process."""

    loop: asyncio.AbstractEventLoop
    clock: Clock
    randomness: Randomness
    store: Store
    writer: GroupCommit
    deadlines: Deadlines
    settings: PersistenceSettings
    host: Host
    recoveries: asyncio.Semaphore
    save_snapshot: Callable[[StoredSnapshot], None]
    publish: Callable[[int, str, str, str, int, Any], None]
    """(shard, entity type, name of the published method, entity id, sequence, value or ``None``)"""
    fatal: Callable[[JournalFailed], None]
    counters: Counters
    system: Any = None
    """The ``ActorSystem``, as handlers see it."""

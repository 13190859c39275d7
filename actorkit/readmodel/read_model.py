"""The read model of one process (a shell): what all entities publish, whoever runs them.

In a process of its own, it is read from the journal, and then follows what is committed here. On a node of a cluster it
is replicated: each shard's owner has a document with the values of all its entities, which goes to all nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from actorkit.clock import Clock, Randomness
from actorkit.errors import ConfigurationError, JournalFailed
from actorkit.ids import PersistenceId, shard_of
from actorkit.journal.protocols import Store
from actorkit.persistence.declaration import EntityType
from actorkit.persistence.published import Published
from actorkit.readmodel.adoption import Adoption
from actorkit.readmodel.counters import ReadModelCounters
from actorkit.readmodel.follower import Follower
from actorkit.readmodel.journal_reader import JournalReader
from actorkit.readmodel.replicator import Messenger, Ownership, Replicator
from actorkit.readmodel.rereading import Rereading
from actorkit.readmodel.settings import ReadModelSettings
from actorkit.readmodel.tables import Tables
from actorkit.readmodel.view import View

__all__ = ["ReadModel"]

_log = structlog.get_logger("actorkit.readmodel")


class ReadModel:
    """All views of one process, and what keeps them up to date."""

    def __init__(
        self,
        store: Store,
        *,
        owner: str,
        page_events: int,
        settings: ReadModelSettings,
        clock: Clock,
        randomness: Randomness,
        fatal: Callable[[JournalFailed], None],
    ) -> None:
        self._store = store
        self._owner = owner
        self._page_events = page_events
        self._settings = settings
        self._clock = clock
        self._randomness = randomness
        self._fatal = fatal
        self.counters = ReadModelCounters()
        self._tables = Tables(self.counters)
        self._types: dict[str, EntityType] = {}
        self._followers: list[Follower] = []
        self._adoption: Adoption | None = None
        self._rereading = Rereading(self._reader(self._types), fatal=fatal)
        self._stopped = False
        self.replicator: Replicator | None = None
        """On a node of a cluster; for experts."""

    # ------------------------------------------------------------------------------------------------------ life cycle

    def add(self, entity_type: EntityType) -> None:
        """Shows what this type publishes from now on, on a node of a cluster.

        Raises ``ConfigurationError`` once that has been started: its part of the documents of its shards would be
        missing there.
        """
        if not entity_type.published or entity_type.name in self._types:
            return
        if self.replicator is not None:
            raise ConfigurationError(
                f"the read model of {entity_type.name} is not replicated by this node: pass its class as "
                "ActorSystem(entities=[...]), on every node"
            )
        self._types[entity_type.name] = entity_type
        self._tables.add(entity_type)

    def follow(self, entity_type: EntityType) -> None:
        """As ``add``, in a process that is no node of a cluster, from the journal."""
        if entity_type.name not in self._types and entity_type.published:
            self.add(entity_type)
            if self._stopped:
                self._tables.close()
                return
            types = {entity_type.name: entity_type}
            self._followers.append(Follower(self._store, self._reader(types), entity_type.name, fatal=self._fatal))

    def replicate(self, messenger: Messenger, ownership: Ownership) -> None:
        """From now on what others publish comes from them; all types have been added."""
        replicator = self.replicator = Replicator(
            messenger,
            _Shown(ownership, self._rereading),
            store=self._store,
            owner=self._owner,
            clock=self._clock,
            randomness=self._randomness,
            settings=self._settings,
            counters=self.counters,
            views=self._tables.views,
            encode=self._tables.encode,
            changed=self._tables.take,
            forged=self._repair,
            fatal=self._fatal,
        )
        self._adoption = Adoption(
            self._store,
            self._reader(self._types),
            self._types,
            position=replicator.catalog.position,
            may_be_told=replicator.may_be_told,
            adopted=lambda shard, epoch, head: replicator.begin(shard, epoch, self._tables.keys(shard), head),
            wait_max_s=self._settings.adoption_wait_s,
            fatal=self._fatal,
        )
        replicator.start()

    async def stop(self) -> None:
        self._stopped = True
        for follower in self._followers:
            follower.stop()
        if self._adoption is not None:
            await self._adoption.stop()
        await self._rereading.stop()
        if self.replicator is not None:
            await self.replicator.stop()
        self._tables.close()

    def _reader(self, types: dict[str, EntityType]) -> JournalReader:
        return JournalReader(self._store, types, page_events=self._page_events, publish=self._read)

    # --------------------------------------------------------------------------------------------------------- reading

    def view(self, entity_type: EntityType, published: Published[Any, Any]) -> View[Any]:
        """What a method publishes. Raises as ``add``."""
        if self.replicator is None:
            self.follow(entity_type)
        else:
            self.add(entity_type)
        table = self._tables.get(entity_type.name, published.name)
        assert table is not None
        return View(table.values, f"{entity_type.name}.{published.name}")

    @property
    def not_ready(self) -> str | None:
        """``None`` if it shows everything, as far as is known; else why not."""
        if self.replicator is None:
            # On a node of a cluster, what is read again only makes answers older than they were.
            behind = self._rereading.busy or any(follower.busy for follower in self._followers)
            return "its read model is catching up with the journal" if behind else None
        if self.replicator.catalog.uncovered and self._types:
            return f"its read model has nothing yet of {self.replicator.catalog.uncovered} shards"
        if self._types and self.oldest_s == float("inf"):
            return "nobody has told yet how old its read model may be"
        return None

    @property
    def oldest_s(self) -> float:
        """For how long, at most, something may have been committed elsewhere that is not shown here.

        Infinite before it has been heard of; 0 without a cluster, since entities of this process publish what they
        commit.
        """
        return 0.0 if self.replicator is None else self.replicator.oldest_s()

    # -------------------------------------------------------------------------------------------------------- changing

    def publish(self, shard: int, type: str, view: str, id: str, sequence: int, value: Any) -> None:
        """An entity of this process has committed."""
        table = self._tables.get(type, view)
        if table is None or not table.values.publish(id, sequence, value):
            return
        if self.replicator is not None:
            key = table.prefix + id
            self._tables.note(shard, key)
            self.replicator.published(shard, key)

    def _read(self, type: str, view: str, id: str, sequence: int, value: Any) -> None:
        """Something was read from the journal."""
        shard = 0 if self.replicator is None else shard_of(f"{type}/{id}", self._store.shards)
        self.publish(shard, type, view, id, sequence, value)

    def taken_over(self, shard: int, epoch: int, head: int) -> None:
        """This process owns the shard now, which others may have written before; its log ends at ``head``."""
        for follower in self._followers:
            follower.taken_over(shard, head)
        if self._adoption is not None:
            self._adoption.taken_over(shard, epoch, head)

    def unread(self, pid: PersistenceId) -> None:
        """An entity has left memory because it could not be read: what it committed last it may not have published."""
        entity_type = self._types.get(pid.type)
        if entity_type is not None:
            self._rereading.add(shard_of(str(pid), self._store.shards), str(pid), entity_type)

    def _repair(self, shard: int, head: int) -> None:
        """Of this shard something was taken that cannot be: what its entities publish is read from the journal."""
        _log.error("readmodel.forged", shard=shard, head=head, action="its values are read from the journal")
        self._tables.forget(shard, greater_than=head)
        assert self._adoption is not None
        self._adoption.repair(shard)


class _Shown:
    """Implements ``Ownership``: what is not shown entirely counts as owned by somebody else."""

    def __init__(self, ownership: Ownership, rereading: Rereading) -> None:
        self._ownership = ownership
        self._rereading = rereading

    def owned_since(self, shard: int) -> int:
        return 0 if self._rereading.pending(shard) else self._ownership.owned_since(shard)

    def idle(self, shard: int) -> bool:
        return self._ownership.idle(shard)

"""The composition root (a shell): the public ``ActorSystem``, and the only place that wires the parts together."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import structlog

from actorkit import logs
from actorkit.actor.actor import Actor
from actorkit.actor.ref import ActorRef
from actorkit.actor.runtime import ActorRuntime
from actorkit.clock import Clock, Randomness, SystemClock, SystemRandomness
from actorkit.cluster.event_stream import no_events
from actorkit.cluster.events import ClusterEvent
from actorkit.cluster.member import Member
from actorkit.clustering import Clustering
from actorkit.config import ClusterNode, SystemSettings
from actorkit.errors import ConfigurationError, DeclarationError, JournalFailed
from actorkit.ids import NodeId, PersistenceId
from actorkit.journal.protocols import ShardStatus, Store
from actorkit.journal.urls import journal_from_url
from actorkit.journal.writer import GroupCommit
from actorkit.persistence.actor import PersistentActor
from actorkit.persistence.calls import Message
from actorkit.persistence.commands import EntityReference, check_options
from actorkit.persistence.declaration import EntityType
from actorkit.persistence.past import Past, read_past
from actorkit.persistence.published import Published
from actorkit.persistence.services import Counters, EntityServices
from actorkit.persistence.snapshot_writer import SnapshotWriter
from actorkit.persistence.state import State
from actorkit.readmodel.read_model import ReadModel
from actorkit.readmodel.view import View
from actorkit.remoting.transport import Transport
from actorkit.sharding.region import Region
from actorkit.sharding.singletons import SINGLETON_ID, Singletons, check_singleton

__all__ = ["ActorSystem", "run"]

A = TypeVar("A", bound="PersistentActor[Any, Any]")
M = TypeVar("M")
R = TypeVar("R")
S = TypeVar("S", bound=State)

_log = structlog.get_logger("actorkit.node")
_EXIT_STATUS_AFTER_FAILED_SYNC = 70
_EXIT_STATUS_WHEN_DOWNED = 71
_NOT_STARTED = "it has not been started"
_GC_YOUNG_OBJECTS, _GC_MIDDLE_ROUNDS, _GC_OLD_ROUNDS = 20_000, 50, 100


def exit_process(error: JournalFailed) -> None:
    """After a failed sync nothing that the process knows about the store counts any more: it ends at once, by itself.

    Nothing is flushed or released on the way out, since that would be done with what may not be true.
    """
    _log.critical("node.journal_failed", why=str(error), action="the process ends now; start it again")
    os._exit(_EXIT_STATUS_AFTER_FAILED_SYNC)


def exit_downed(why: str) -> None:
    """A node that its cluster has declared gone may come back only as a new process."""
    os._exit(_EXIT_STATUS_WHEN_DOWNED)


class ActorSystem:
    """Actors and entities of one process, on one journal.

    ::

        async with ActorSystem(journal="sqlite:///pools.db") as system:
            reservation = await system.get(Pool, "gpu-a100").reserve(3)

    ``journal`` is a URL (``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``memory://``) or a store. ``shards``
    is fixed when the journal is created; give it again only to have it checked. ``entities`` are the classes whose
    published values are to be there from the start; on a node of a cluster all classes that other nodes may send calls
    for. Of each of ``singletons`` there is one instance, kept active; they are the same on all nodes. ``cluster`` makes
    it a node of one; all its nodes have the same journal. ``on_fatal`` is called when the store failed in a way after
    which the process must not go on, ``on_downed`` when the cluster has declared this node gone; both end the process
    unless given otherwise.
    """

    def __init__(
        self,
        journal: str | Store = "memory://",
        *,
        name: str | None = None,
        shards: int | None = None,
        entities: Sequence[type[PersistentActor[Any, Any]]] = (),
        singletons: Sequence[type[PersistentActor[Any, Any]]] = (),
        cluster: ClusterNode | None = None,
        settings: SystemSettings = SystemSettings(),  # noqa: B008 - frozen
        clock: Clock | None = None,
        randomness: Randomness | None = None,
        transport: Transport | None = None,
        on_fatal: Callable[[JournalFailed], None] = exit_process,
        on_downed: Callable[[str], None] = exit_downed,
    ) -> None:
        self._clock = clock or SystemClock()
        self._randomness = randomness or SystemRandomness()
        self.store: Store = journal_from_url(journal, clock=self._clock) if isinstance(journal, str) else journal
        self._wanted_shards = shards
        for cls in singletons:
            check_singleton(cls)
        self._entities = tuple(dict.fromkeys((*entities, *singletons)))
        self._singletons = tuple(dict.fromkeys(singletons))
        self.settings = settings
        self._cluster_node = cluster
        self._transport = transport
        self._on_fatal = on_fatal
        self._on_downed = on_downed
        self.node = NodeId(name or socket.gethostname(), self._randomness.token(8).hex())
        self.counters = Counters()
        self._stage = _NOT_STARTED
        self._open = AsyncExitStack()
        """What is to be closed, in the opposite order of opening."""
        self._failed: JournalFailed | None = None
        self.runtime: ActorRuntime
        self.writer: GroupCommit
        self.region: Region
        self.snapshots: SnapshotWriter
        self.read_model: ReadModel
        self.singletons: Singletons
        self.clustering: Clustering | None = None
        """Its part in a cluster, if it is a node of one; for experts."""

    # ----------------------------------------------------------------------------------------------------- life cycle

    async def start(self) -> None:
        """Opens the journal and takes calls. Raises ``JournalError`` where the journal cannot be opened.

        If it raises, everything is closed again. After ``stop`` it may be started again, as another incarnation. Where
        nobody has configured structlog, its lines go to stderr from now on, without the values of local variables.
        """
        if not structlog.is_configured():
            logs.configure()
        if self._stage != _NOT_STARTED:
            # Nobody may take it for the one that has left.
            self.node = NodeId(self.node.name, self._randomness.token(8).hex())
        async with AsyncExitStack() as opened:
            await self._start(opened)
            self._open = opened.pop_all()

    async def _start(self, opened: AsyncExitStack) -> None:
        await self.store.open(self._wanted_shards)
        opened.push_async_callback(self.store.close)
        persistence = self.settings.persistence
        self.read_model = ReadModel(
            self.store,
            owner=str(self.node),
            page_events=persistence.recovery_page_events,
            settings=self.settings.readmodel,
            clock=self._clock,
            randomness=self._randomness,
            fatal=self._fail,
        )
        clustering = self.clustering = self._new_clustering()
        if clustering is not None:
            await clustering.listen()
            opened.push_async_callback(clustering.close)
        self.runtime = ActorRuntime(
            clock=self._clock, randomness=self._randomness, settings=self.settings.actors, name=self.node.name
        )
        opened.push_async_callback(self.runtime.shutdown, self.settings.sharding.drain_timeout_s)
        self.writer = GroupCommit(self.store, settings=self.settings.writer)
        opened.push_async_callback(self.writer.close)
        self.snapshots = SnapshotWriter(
            self.store,
            keep=persistence.snapshots_keep,
            waiting_max=persistence.snapshots_max_waiting,
            fatal=self._fail,
        )
        opened.push_async_callback(self.snapshots.close)
        self.region = Region(
            runtime=self.runtime,
            node=self.node,
            shards=self.store.shards,
            clock=self._clock,
            settings=self.settings.sharding,
            taken_over=self.read_model.taken_over,
            unread=self.read_model.unread,
            may_hold=(lambda: True) if clustering is None else clustering.may_hold_leases,
        )
        self.region.start(
            EntityServices(
                loop=asyncio.get_running_loop(),
                clock=self._clock,
                randomness=self._randomness,
                store=self.store,
                writer=self.writer,
                deadlines=self.runtime.deadlines,
                settings=persistence,
                host=self.region,
                recoveries=asyncio.Semaphore(persistence.recoveries_max),
                save_snapshot=self.snapshots.save,
                publish=self.read_model.publish,
                fatal=self._fail,
                counters=self.counters,
                system=self,
            )
        )
        opened.push_async_callback(self._stop_region)
        show = self.read_model.follow if clustering is None else self.read_model.add
        for cls in self._entities:
            show(self.region.register(cls))
        if clustering is not None:
            await clustering.start(self.region, self.store.shards, self.read_model)
        opened.callback(self._start_singletons().close)
        self._stage = ""

    def _start_singletons(self) -> Singletons:
        types = [self.region.register(cls) for cls in self._singletons]
        sharding = self.settings.sharding
        self.singletons = Singletons(self.region, types, shards=self.store.shards, settings=sharding)
        self.singletons.start()
        return self.singletons

    def _new_clustering(self) -> Clustering | None:
        if self._cluster_node is None:
            return None
        return Clustering(
            self._cluster_node,
            node=self.node,
            store=self.store,
            settings=self.settings,
            clock=self._clock,
            randomness=self._randomness,
            transport=self._transport,
            downed=self._on_downed,
        )

    async def _stop_region(self) -> None:
        clustering = self.clustering
        if clustering is not None and clustering.started:
            await clustering.leave()
        await self.region.stop()
        await self.read_model.stop()
        if clustering is not None and clustering.started:
            await clustering.stop()

    async def stop(self) -> None:
        """Lets calls in progress end, within bounds, gives everything up in order and closes the journal."""
        if self._stage:
            return
        self._stage = "it is stopping"
        await self._open.aclose()
        self._stage = "it has stopped"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def own_all_shards(self) -> None:
        """Acquires every shard now, rather than with its first call. Returns when all are owned.

        In a cluster shards are acquired by themselves: returns when this node is a member and serves its share.
        """
        if self.clustering is None:
            await self.region.own_all()
        else:
            await self.clustering.served()

    async def leave(self) -> None:
        """Hands all shards over to the other nodes, and goes on sending calls to them; what comes next is ``stop``.

        Returns when nothing is owned here any more, or nobody is there to take it; at the latest after
        ``ShardingSettings.drain_timeout_s``. Without a cluster there is nothing to do.
        """
        if self.clustering is not None and self.clustering.started:
            await self.clustering.leave()

    @property
    def members(self) -> tuple[Member, ...]:
        """The nodes of the cluster, as this one sees it, by name; without a cluster there are none."""
        clustering = self.clustering
        return () if clustering is None or not clustering.started else clustering.cluster.members

    def cluster_events(self) -> AsyncIterator[ClusterEvent]:
        """What happens in the cluster from this call on, as this node sees it; the types are in ``actorkit.cluster``.

        ``members`` already shows what an event says. The stream ends when the system has stopped, and at once without a
        cluster. Up to ``ClusterSettings.events_max`` events wait for the reader; for one that is further behind they
        are dropped, and it reads ``EventsDropped`` with the members as they are at that moment. Raises
        ``ConfigurationError`` before the start.
        """
        if self._stage == _NOT_STARTED:
            raise ConfigurationError(f"cluster events are those of a running system, and {_NOT_STARTED}")
        clustering = self.clustering
        return no_events() if clustering is None or not clustering.started else clustering.cluster.events()

    @property
    def ready(self) -> str | None:
        """``None`` if calls are taken and the read model has caught up; else why not."""
        if self._failed is not None:
            return f"the journal has failed: {self._failed}"
        if self._stage:
            return self._stage
        if self.clustering is not None and (reason := self.clustering.not_ready) is not None:
            return reason
        return self.read_model.not_ready

    @property
    def read_model_age_s(self) -> float:
        """For how long, at most, other nodes may have committed something that the read model does not show.

        Infinite before it has been read; 0 without a cluster, since entities of this process publish what they commit.
        """
        return self.read_model.oldest_s

    def _fail(self, error: JournalFailed) -> None:
        if self._failed is None:
            self._failed = error
            self._on_fatal(error)

    # ------------------------------------------------------------------------------------------------------- entities

    def get(self, cls: type[A], id: str) -> A:
        """A reference to one entity, typed as its class; it has the class's commands and queries only.

        Every id exists: the first call brings the entity into memory. Ids have 1 to 256 characters.
        """
        entity_type = self._registered(cls)
        return cast(
            "A", EntityReference(self.region, PersistenceId.checked(entity_type.name, id), entity_type.handlers)
        )

    def singleton(self, cls: type[A]) -> A:
        """A reference to the one instance of a class that is among ``singletons``.

        A singleton is an entity with a fixed id, which the owner of its shard keeps active without anybody calling it:
        it calls the command ``started`` whenever it has become so. Raises ``ConfigurationError`` for other classes.
        """
        if cls not in self._singletons:
            raise ConfigurationError(f"{cls.__qualname__} is no singleton: pass it as ActorSystem(singletons=[...])")
        return self.get(cls, SINGLETON_ID)

    async def ask(self, message: Message) -> Any:
        """The low-level form of a call, for a message that came from elsewhere; ends as the call itself does.

        The entity's class must be known here, by ``get``, ``entities`` or ``view``; raises ``ConfigurationError`` if
        it is not, or has no such handler, and ``TypeError`` or ``ValueError`` where its arguments, key or deadline do
        not fit.
        """
        entity_type = self.region.known(message.type)
        handler = entity_type.handlers.get(message.handler)
        if handler is None:
            raise ConfigurationError(
                f"{message.type} has no handler {message.handler!r}, only {', '.join(sorted(entity_type.handlers))}"
            )
        check_options(handler, message.key, message.deadline_s)
        return await self.region.call(
            PersistenceId.checked(message.type, message.id),
            handler,
            handler.signature.decode(message.arguments),
            key=message.key,
            deadline_s=message.deadline_s,
            trace=message.trace,
            command_id=message.command_id,
            attempt=message.attempt,
        )

    async def state_at(
        self,
        cls: type[PersistentActor[S, Any]],
        id: str,
        *,
        version: int | None = None,
        time_us: int | None = None,
    ) -> Past[S]:
        """The state of an entity after event ``version``, or after its last event not later than ``time_us``.

        Reads the journal and does not disturb the live entity. Give exactly one of the two (``ValueError``). Raises
        ``VersionNotReached`` for a version that does not exist yet.
        """
        if (version is None) == (time_us is None) or (version is not None and version < 0):
            raise ValueError("give either a version of at least 0, or a time in microseconds since 1970 UTC")
        entity_type = self._registered(cls)
        past, _ = await read_past(
            self.store,
            entity_type,
            str(PersistenceId.checked(entity_type.name, id)),
            page_events=self.settings.persistence.recovery_page_events,
            version=version,
            time_us=time_us,
        )
        return cast("Past[S]", past)

    def view(self, published: Published[Any, R]) -> View[R]:
        """The read model of one published method, as in ``system.view(Pool.availability)``.

        The first use starts reading what the journal has; ``ready`` says when that is done. On a node of a cluster its
        class must be among ``entities``; raises ``ConfigurationError`` if it is not.
        """
        if not isinstance(published, Published):
            raise DeclarationError(f"{published!r} publishes nothing: a view is of a method marked with @published")
        if published.owner is None:
            raise DeclarationError(f"{published.name} is not a method of a persistent actor")
        entity_type = self._registered(published.owner)
        return self.read_model.view(entity_type, published)

    async def shards(self) -> list[ShardStatus]:
        """Who owns each shard, under which epoch, and the position of its newest record."""
        return await self.store.status()

    def _registered(self, cls: type[Any]) -> EntityType:
        if self._stage == _NOT_STARTED:
            raise ConfigurationError("this ActorSystem has not been started: use it in `async with`, or await start()")
        return self.region.register(cls)

    # --------------------------------------------------------------------------------------------------------- actors

    def spawn(
        self, factory: Callable[[], Actor[M]], name: str | None = None, *, mailbox: int | None = None
    ) -> ActorRef[M]:
        """Starts a plain actor at the top of the tree: no journal, no sharding, gone with the process."""
        return self.runtime.spawn(factory, name, mailbox=mailbox)


def run(main: Coroutine[Any, Any, R]) -> R:
    """``asyncio.run`` as a server process wants it: on uvloop where the platform has it, and with fewer collections.

    A busy system makes many short-lived objects; Python's defaults look for garbage among them every 700 allocations,
    which takes a sixth of the time. What exists before ``main`` runs (modules, classes) is not looked at any more.
    """
    gc.freeze()
    gc.set_threshold(_GC_YOUNG_OBJECTS, _GC_MIDDLE_ROUNDS, _GC_OLD_ROUNDS)
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)

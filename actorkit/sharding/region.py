"""Region (a shell): where calls come in, and which way they take.

A call is given its id here, once. Its entity's shard is acquired when the first call for it arrives; until then calls
wait, within bounds and their deadlines. Entities come into memory with their first call, and leave it when they were
idle for long or when there are too many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Hashable
from typing import TYPE_CHECKING, Any

import structlog

from actorkit.actor.dead_letters import DeadLetter
from actorkit.actor.runtime import ActorRuntime
from actorkit.clock import Clock
from actorkit.errors import CallCycle, ConfigurationError, DeclarationError, Overloaded, Unavailable
from actorkit.ids import NodeId, PersistenceId, shard_of
from actorkit.persistence.actor import entity_type_of
from actorkit.persistence.async_handler import RunningHandler
from actorkit.persistence.calls import OUTSIDE, EntityCall, Handler, Origin, Progress
from actorkit.persistence.declaration import EntityType
from actorkit.persistence.plain_turns import turn_in_progress
from actorkit.persistence.services import EntityServices
from actorkit.sharding.entities import Entities, Slot
from actorkit.sharding.leases import Leases
from actorkit.sharding.settings import ShardingSettings
from actorkit.sharding.shard import Shard
from actorkit.tracing import Trace

if TYPE_CHECKING:
    from actorkit.sharding.messages import RemoteCall
    from actorkit.sharding.ownership import Ownership
    from actorkit.sharding.router import Router

__all__ = ["Region"]

_log = structlog.get_logger("actorkit.sharding")

_POLL_S = 0.01
"""How often starting and stopping look whether they are done: rare waits for many things, not worth a signal each."""
_NAMED_MAX = 20
"""How many of the handlers that are cut off at the end are named in the log."""


class Region:
    """The entities of one process. Implements ``CallTarget`` for references and ``Host`` for entities."""

    def __init__(
        self,
        *,
        runtime: ActorRuntime,
        node: NodeId,
        shards: int,
        clock: Clock,
        settings: ShardingSettings,
        taken_over: Callable[[int, int, int], None] = lambda shard, epoch, head: None,
        unread: Callable[[PersistenceId], None] = lambda pid: None,
        may_hold: Callable[[], bool] = lambda: True,
    ) -> None:
        """``taken_over(shard, epoch, head)`` is called for shards that others may have written before they became ours,
        ``unread(pid)`` for an entity that leaves memory because it could not be read. ``may_hold`` is as ``Leases`` has
        it."""
        self._runtime = runtime
        self._loop = runtime.loop
        self._deadlines = runtime.deadlines
        self._node = node
        self._shards = shards
        self._clock = clock
        self._settings = settings
        self._taken_over = taken_over
        self._unread = unread
        self._may_hold = may_hold
        self._address_of: Callable[[str], str] = lambda owner: ""
        self._types: dict[str, EntityType] = {}
        self._by_number: dict[int, Shard] = {}
        self.memory = Entities(runtime, settings, self.shard, name=str(node))
        """The entities that are in memory."""
        self._slots = self.memory.slots
        self._ids = 0
        self._order = 0
        self._id_prefix = f"{node.incarnation}-"
        self._draining = False
        """Stopping has begun: only what is in progress is brought to its end."""
        self._closed = False
        self._router: Router | None = None
        self._ownership: Ownership | None = None
        """Both are there where other nodes may own shards."""
        self._lanes: Container[Hashable] = ()
        """Entities of which calls are on their way, which others must not overtake."""
        self.served: Callable[[Shard], None] = _nothing
        """Called with each shard that has come to be owned here."""
        self._services: EntityServices
        self.leases: Leases

    def start(self, services: EntityServices) -> None:
        self._services = services
        self._deadline_default_s = services.settings.deadline_default_s
        self.leases = Leases(
            services.store,
            owner=str(self._node),
            clock=self._clock,
            settings=self._settings,
            acquired=self._acquired,
            lost=self._lost,
            held_elsewhere=self._held,
            may_hold=self._may_hold,
            fatal=services.fatal,
        )
        self.leases.start()
        self._runtime.dead_letters.subscribe(_end_buried)
        self.memory.start(services, self._types)

    async def stop(self) -> None:
        """Takes no more calls, waits for those in progress with all that these call, and gives the shards up."""
        self._draining = True
        self.memory.stop_sweeping()
        for shard in self._by_number.values():
            for _ in range(len(shard.waiting)):
                waiter = shard.waiting.popleft()
                if waiter.origin.chain:
                    shard.waiting.append(waiter)
                else:
                    self._refuse_stopping(waiter)
        until_s = self._loop.time() + self._settings.drain_timeout_s
        while self._loop.time() < until_s and not self.memory.all_idle:
            await asyncio.sleep(_POLL_S)
        self._say_what_still_runs()
        self.give_up("its node has stopped")
        self.memory.close()
        await self.leases.stop()

    def give_up(self, why: str) -> None:
        """From now on no call is taken, and all that wait end at once, with what can be said honestly."""
        self._draining = self._closed = True
        for call in self._deadlines.pending():
            if isinstance(call, EntityCall):
                call.give_up(why)

    def _say_what_still_runs(self) -> None:
        running = [each.call for each in self._deadlines.pending() if isinstance(each, RunningHandler)]
        for call in sorted(running, key=lambda call: str(call.pid))[:_NAMED_MAX]:
            _log.warning(
                "region.handler_cut_off",
                entity=str(call.pid),
                handler=call.handler.name,
                command=call.command_id,
                hint=f"it was still running {self._settings.drain_timeout_s:g} s after the stop and is being cancelled",
            )
        if len(running) > _NAMED_MAX:
            _log.warning("region.handlers_cut_off", running=len(running), named=_NAMED_MAX)

    def register(self, cls: type[Any]) -> EntityType:
        """The declaration of a class, known from now on. Raises ``DeclarationError`` for a second class of its name."""
        entity_type = entity_type_of(cls)
        known = self._types.setdefault(entity_type.name, entity_type)
        if known.cls is not cls:
            other = f"{known.cls.__module__}.{known.cls.__qualname__}"
            raise DeclarationError(
                f"{cls.__module__}.{cls.__qualname__} has the name {known.name!r}, which {other} has already: they "
                f"would write into each other's streams; give one another, as in class {cls.__name__}(..., name='...')"
            )
        return entity_type

    def known(self, name: str) -> EntityType:
        """The registered declaration of that name; nothing is looked up by class. Raises ``ConfigurationError``."""
        entity_type = self._types.get(name)
        if entity_type is None:
            raise ConfigurationError(
                f"no entity type {name!r} is known here: pass its class as ActorSystem(entities=[...])"
            )
        return entity_type

    def handler(self, entity_type: str, name: str) -> Handler:
        """The handler of a registered type. Raises ``ConfigurationError`` where there is none."""
        handlers = self.known(entity_type).handlers
        handler = handlers.get(name)
        if handler is None:
            raise ConfigurationError(f"{entity_type} has no handler {name!r}, only {', '.join(sorted(handlers))}")
        return handler

    async def own_all(self) -> None:
        """Acquires every shard, so that first calls need not wait. Returns when all are owned."""
        for number in range(self._shards):
            self.shard(number)
        while self.leases.wanted:
            await asyncio.sleep(_POLL_S)

    @property
    def waiting_for(self) -> dict[int, str]:
        """Shards that are wanted and that another owner has, and which."""
        return dict(self.leases.held_by)

    def load(self, shard: int) -> int:
        """How many entities of the shard are busy."""
        return len(self.memory.busy(self.shard(shard)))

    def idle(self, shard: int) -> bool:
        """Whether no entity of the shard has anything in progress."""
        return shard not in self._by_number or self.memory.is_quiet(self._by_number[shard])

    def owned_since(self, shard: int) -> int:
        """The epoch under which the shard was taken over from others, if nobody else can write it now, and nothing is
        stored that its entities do not know of; else 0."""
        owned = self._by_number.get(shard)
        if owned is None or not owned.ready or not owned.lease_is_valid() or self.memory.settles(owned):
            return 0
        return owned.unbroken_since

    @property
    def buffered(self) -> int:
        """For metrics: calls that wait for their shards to be ready."""
        return sum(len(shard.waiting) for shard in self._by_number.values())

    @property
    def entities(self) -> int:
        """How many entities are in memory."""
        return len(self._slots)

    # --------------------------------------------------------------------------------------------------- other nodes

    def share(self, router: Router, ownership: Ownership, address_of: Callable[[str], str]) -> None:
        """From now on, before any call, other nodes may own shards. ``address_of`` an owner as the store names it is
        empty where that one is no member."""
        self._router = router
        self._lanes = router.lanes
        self._ownership = ownership
        self._address_of = address_of

    def arrived(self, pid: PersistenceId, handler: Handler, args: tuple[Any, ...], message: RemoteCall) -> EntityCall:
        """A call that another node has sent, in the form in which it runs here."""
        loop, remaining_s = self._loop, message.remaining_s
        origin = OUTSIDE
        if message.chain or message.trace != OUTSIDE.trace:
            origin = Origin(message.trace, message.chain)
        return EntityCall(
            pid,
            handler,
            args,
            message.command_id,
            message.key,
            loop.time() + remaining_s,
            loop.create_future(),
            self._deadlines.within(remaining_s),
            origin,
            message.attempt,
        )

    def admits(self, call: EntityCall, shard: int, tenure: int) -> bool:
        """Whether its shard is owned here, under that tenure, and takes the call."""
        if self._ownership is None or self._closed:
            return False
        return self._ownership.accepts(shard, tenure, within=self._within(call, shard))

    # --------------------------------------------------------------------------------------------------------- calls

    def call(
        self,
        pid: PersistenceId,
        handler: Handler,
        args: tuple[Any, ...],
        *,
        key: str | None,
        deadline_s: float | None,
        trace: Trace | None = None,
        command_id: str = "",
        attempt: int = 1,
    ) -> asyncio.Future[Any]:
        """Sends a call on its way; the future ends in its reply or in an error below ``CallError``.

        Calls of one sender to one entity are handled in the order in which they were sent. Raises
        ``CallingOutAfterEmit`` within a handler that has emitted. Cancelling the future does not cancel the call.
        """
        loop = self._loop
        future: asyncio.Future[Any] = loop.create_future()
        within_s = self._deadline_default_s if deadline_s is None else deadline_s
        deadline = loop.time() + within_s
        origin = OUTSIDE if trace is None else Origin(trace)
        turn = turn_in_progress()
        if turn is not None:
            caller = turn.call
            command_id = turn.next_call_id(str(pid), handler, args)
            origin = _origin_within(caller)
            deadline = min(deadline, caller.deadline)
            within_s = max(0.0, deadline - loop.time())
            attempt = 2 if caller.may_have_acted else 1
        elif not command_id:
            self._ids += 1
            command_id = f"{self._id_prefix}{self._ids:x}"
        bucket = self._deadlines.recent.get(within_s)
        if bucket is None:
            bucket = self._deadlines.within(within_s)
        call = EntityCall(pid, handler, args, command_id, key, deadline, future, bucket, origin, attempt)
        self._order += 1
        call.order = self._order
        if pid in origin.chain:
            cycle = " → ".join(str(member) for member in (*origin.chain[origin.chain.index(pid) :], pid))
            call.fail(CallCycle(str(pid), f"it waits for its own answer: {cycle}"))
        else:
            self._deliver(call)
        return future

    def send_to_self(self, pid: PersistenceId, handler: Handler, args: tuple[Any, ...]) -> EntityCall:
        self._ids += 1
        future: asyncio.Future[Any] = self._loop.create_future()
        future.add_done_callback(_nobody_waits)
        within_s = self._services.settings.deadline_default_s
        deadline = self._loop.time() + within_s
        bucket = self._deadlines.within(within_s)
        command_id = f"{self._id_prefix}{self._ids:x}"
        call = EntityCall(pid, handler, args, command_id, None, deadline, future, bucket, OUTSIDE, 1)
        if self._draining:
            self._refuse_stopping(call)
        return call

    def _refuse_stopping(self, call: EntityCall) -> None:
        call.fail(Unavailable(str(self._node), "it is stopping"))

    def _deliver(self, call: EntityCall) -> None:
        if self._draining and (self._closed or not call.origin.chain):
            self._refuse_stopping(call)
            return
        slot = self._slots.get(call.pid)
        if slot is not None and slot.shard.direct and call.pid not in self._lanes:
            self._enter(slot, call)
            return
        shard = self.shard(shard_of(str(call.pid), self._shards))
        if self._router is None:
            self._take(shard, call)
        elif shard.detour and self._within(call, shard.shard):
            # The hand-off waits for the end of a call that waits for this one.
            self._take(shard, call)
        else:
            self._router.submit(shard.shard, call)

    def _within(self, call: EntityCall, shard: int) -> bool:
        """Whether an entity of the shard waits for the call."""
        return any(shard_of(str(pid), self._shards) == shard for pid in call.origin.chain)

    def enter(self, call: EntityCall) -> None:
        """Puts a call into its entity's mailbox; the shard is owned, though its epoch may just be being raised."""
        slot = self._slots.get(call.pid)
        shard = self.shard(shard_of(str(call.pid), self._shards)) if slot is None else slot.shard
        self._take(shard, call)

    def _take(self, shard: Shard, call: EntityCall) -> None:
        if not shard.ready:
            self._buffer(shard, call)
            return
        slot = self._slots.get(call.pid)
        if slot is None:
            self.memory.bring_in(call, shard)
        else:
            self._enter(slot, call)

    def _enter(self, slot: Slot, call: EntityCall) -> None:
        self._slots.move_to_end(call.pid)
        slot.used_tick = self.memory.tick
        cell = slot.cell
        if len(cell.mailbox) >= cell.capacity:
            if cell.capacity < 0:
                # It has stopped without having been told to, as after failing again and again.
                self.memory.remove(call.pid)
                self._take(slot.shard, call)
                return
            if (refusal := cell.refusal()) is not None:
                call.fail(refusal)
                return
        cell.mailbox.append(call)
        cell.wake()

    def _buffer(self, shard: Shard, call: EntityCall) -> None:
        if len(shard.waiting) >= self._settings.buffer_max_calls:
            # Those whose deadline has passed only take up room.
            living = [waiting for waiting in shard.waiting if waiting.progress is Progress.QUEUED]
            shard.waiting.clear()
            shard.waiting.extend(living)
        if len(shard.waiting) >= self._settings.buffer_max_calls:
            full = Overloaded(f"the buffer of shard {shard.shard}", limit=self._settings.buffer_max_calls)
            call.fail(full)
            return
        shard.waiting.append(call)

    def shard(self, number: int) -> Shard:
        """The shard of that number, as this process sees it."""
        shard = self._by_number.get(number)
        if shard is None:
            shard = Shard(number, self._clock, self.leases, self._settings.clock_rate_error)
            self._by_number[number] = shard
            if self._ownership is None:
                self.leases.want(shard)
        return shard

    def give_back(self, calls: list[EntityCall]) -> None:
        """They came before whatever waits now, so they go first."""
        living = [call for call in calls if call.progress is not Progress.ENDED]
        if self._router is None:
            self._put_back(living)
            return
        for call in living:
            if call.hand_back is not None:
                call.hand_back(call)
            else:
                self._router.submit(shard_of(str(call.pid), self._shards), call)

    def _put_back(self, calls: list[EntityCall]) -> None:
        shards: dict[int, Shard] = {}
        for call in reversed(calls):
            shard = self.shard(shard_of(str(call.pid), self._shards))
            shard.waiting.appendleft(call)
            shards[shard.shard] = shard
        for shard in shards.values():
            self._flush(shard)

    def take_back(self, shard: Shard) -> None:
        """The shard goes, or has gone, to another node: calls that have not begun are routed anew."""
        waiting = list(shard.waiting)
        shard.waiting.clear()
        self.give_back([*self.memory.take_back(shard), *waiting])

    def move_out(self, pid: PersistenceId, entity: object, calls: list[EntityCall]) -> None:
        self.give_back([*calls, *self.memory.take_out(pid, entity)])

    def recovered(self, pid: PersistenceId, entity: object) -> None:
        self.memory.recovered(pid, entity)

    def retire(self, pid: PersistenceId) -> None:
        self._unread(pid)
        self._loop.call_soon(self.memory.retire, pid)

    def forget(self, pid: PersistenceId, entity: object) -> None:
        self.memory.forget(pid, entity)

    # -------------------------------------------------------------------------------------------------------- shards

    def _acquired(self, shard: Shard, unbroken: bool, head: int) -> None:
        shard.doubtful = True
        if not unbroken:
            self.memory.invalidate(shard)
            self._taken_over(shard.shard, shard.unbroken_since, head)
            if self._router is not None:
                # Calls that other nodes have sent for an earlier ownership may have been run elsewhere since.
                self.take_back(shard)
        self._flush(shard)
        if self._ownership is not None:
            self._ownership.acquired(shard)
        self.served(shard)

    def _lost(self, shard: Shard) -> None:
        """Another owner has it. Idle entities leave; busy ones find out what became of their appends first."""
        self.memory.invalidate(shard)
        shard.settled(owned=False)
        if self._ownership is None:
            self.leases.want(shard)
        else:
            self._ownership.lost(shard)

    def _held(self, shard: Shard, owner: str) -> None:
        """The shard is wanted, and the store says that another owner has it."""
        if self._ownership is not None:
            self._ownership.held(shard, self._address_of(owner))

    def _flush(self, shard: Shard) -> None:
        """Delivers what has waited, as long as the shard is ready."""
        waiting = shard.waiting
        for _ in range(len(waiting)):
            if not shard.ready:
                return
            call = waiting.popleft()
            if self._draining and (self._closed or not call.origin.chain):
                self._refuse_stopping(call)
            else:
                self._take(shard, call)
        self.memory.go_on()


def _nothing(shard: Shard) -> None:
    pass


def _origin_within(caller: EntityCall) -> Origin:
    """The origin of a call that an entity makes while it handles another one."""
    trace = caller.origin.trace
    story = Trace(trace.correlation or caller.command_id, caller.command_id, trace.trace_parent)
    return Origin(story, (*caller.origin.chain, caller.pid))


def _end_buried(letter: DeadLetter) -> None:
    """An entity has stopped with calls in its mailbox: nobody will handle them."""
    if type(letter.message) is EntityCall:
        letter.message.give_up("its entity has stopped")


def _nobody_waits(future: asyncio.Future[Any]) -> None:
    """A call to oneself has no caller: looking at its failure keeps asyncio from reporting it as forgotten."""
    if not future.cancelled():
        future.exception()

"""A cluster as discrete events: ``Routing`` and ``Handoffs`` on several nodes, with everything around them modelled.

Around them are a store with leases and a fenced log, connections that keep order and break, entities that run one call
after another, members that crash, pause, come and go, and views of the members that differ. One seed gives one run; no
asyncio, no real time. The shell's part is played as the docstrings of the two cores ask for it.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

from actorkit.sharding.handoff import AskNow, CutOff, Handoffs, Phase, Release, Say, Serve, Stop, Unwant, Want
from actorkit.sharding.messages import RemoteReply, RemoteReturn, ShardAnswer, ShardQuestion, ShardReleased
from actorkit.sharding.placement import PlacedMember, place
from actorkit.sharding.routing import Ask, Deliver, Routing, Send
from actorkit.sharding.settings import ShardingSettings

__all__ = ["Call", "Model", "Node"]

SHARDS = 8


class Call:
    """A call of one sender, and how it ended."""

    __slots__ = ("attempt", "began_s", "deadline_s", "ended_s", "entity", "id", "node", "order", "outcome", "query",
                 "sender", "sendings", "shard", "state")  # fmt: skip

    def __init__(self, id: int, node: Node, sender: str, entity: int, query: bool, deadline_s: float) -> None:
        self.id = id
        self.node = node
        self.sender = sender
        self.entity = entity
        self.shard = entity % SHARDS
        self.query = query
        self.order = 0
        self.attempt = 1
        self.sendings = 0
        self.began_s = node.model.now
        self.deadline_s = self.began_s + deadline_s
        self.ended_s: float | None = None
        self.outcome = ""
        self.state = "queued"

    def __repr__(self) -> str:
        return f"call {self.id} of {self.sender} to {self.entity}: {self.outcome or self.state}"


class Wire(msgspec.Struct, frozen=True):
    """What the model needs of a ``RemoteCall``."""

    number: int
    tenure: int
    call: Call
    attempt: int
    remaining_s: float


class Item:
    """A call in an entity's mailbox, from here (``peer`` is empty) or from another node."""

    __slots__ = ("attempt", "begun", "call", "deadline_s", "gone", "number", "peer")

    def __init__(self, call: Call, attempt: int, peer: str, number: int, deadline_s: float) -> None:
        self.call = call
        self.attempt = attempt
        self.peer = peer
        self.number = number
        self.deadline_s = deadline_s
        self.begun = ""
        self.gone = False


class Store:
    """Leases with epochs, and one log for each entity; what an append under an old epoch brings is refused."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.leases: dict[int, tuple[str, int, float]] = {}
        self.logs: dict[int, list[Call]] = {}

    def latency_s(self) -> float:
        rng = self._model.rng
        return rng.uniform(0.001, 0.01) if rng.random() > 0.02 * self._model.roughness else rng.uniform(0.01, 0.8)

    def acquire(self, shard: int, owner: str, lease_s: float) -> tuple[str, int, float]:
        """The lease as it is afterwards."""
        holder, epoch, until_s = self.leases.get(shard, ("", 0, 0.0))
        if holder in ("", owner) or until_s <= self._model.now:
            self.leases[shard] = (owner, epoch + 1, self._model.now + lease_s)
        return self.leases[shard]

    def renew(self, shard: int, owner: str, epoch: int, lease_s: float) -> bool:
        if self.leases.get(shard, ("", 0, 0.0))[:2] != (owner, epoch):
            return False
        self.leases[shard] = (owner, epoch, self._model.now + lease_s)
        return True

    def release(self, shard: int, owner: str, epoch: int) -> None:
        if self.leases.get(shard, ("", 0, 0.0))[:2] == (owner, epoch):
            self.leases[shard] = ("", epoch, 0.0)

    def append(self, call: Call, epoch: int) -> bool:
        if self.leases[call.shard][1] != epoch:
            return False
        self.logs.setdefault(call.entity, []).append(call)
        return True


class Link:
    """The connection of two nodes: in order both ways, and once it breaks, each side is told in its own time."""

    def __init__(self, model: Model, ends: tuple[str, str]) -> None:
        self._model = model
        self._ends = ends
        self._life = 0
        self._up = True
        self._told: set[str] = set()
        self.unaware: set[str] = set()
        """Nodes that have been told of a break, and pause."""
        self._arrives_s = dict.fromkeys(ends, 0.0)
        slowest_s = 0.002 if not model.roughness else model.rng.choice((0.002, 0.002, 0.01, 0.2))
        self._delay_max_s = {end: slowest_s * model.rng.random() for end in ends}
        self._transit: dict[str, deque[tuple[str, Any]]] = {end: deque() for end in ends}
        self._outbox: dict[str, list[Any]] = {end: [] for end in ends}

    def send(self, source: str, target: str, message: Any) -> None:
        if source in self.unaware:
            # What is sent before one knows of the break belongs to the connection that is broken.
            return
        if source in self._told:
            self._outbox[source].append(message)
        elif self._up:
            self._transmit(source, target, message)

    def _transmit(self, source: str, target: str, message: Any) -> None:
        model = self._model
        at_s = max(self._arrives_s[target], model.now + 0.0002 + model.rng.uniform(0.0, self._delay_max_s[target]))
        self._arrives_s[target] = at_s
        self._transit[target].append((source, message))
        model.at(at_s, self._arrive, self._life, target)

    def _arrive(self, life: int, target: str) -> None:
        """The next one of those on their way. When the connection has broken they may still arrive, even late, until
        the receiver is told."""
        model = self._model
        if life != self._life or target in self._told:
            return
        if not self._up and model.rng.random() < 0.5:
            model.after(model.rng.uniform(0.0, 1.0), self._arrive, life, target)
            return
        source, message = self._transit[target].popleft()
        node = model.nodes.get(target)
        if node is not None:
            node.soon(node.receive, source, message)

    def break_now(self, soon: bool = False) -> None:
        if not self._up:
            return
        self._up = False
        rng = self._model.rng
        for end in self._ends:
            within_s = 0.001 if soon else rng.uniform(0.0, rng.choice((0.02, 1.5, 5.0)))
            self._model.at(self._model.now + within_s, self._tell, self._life, end)

    def _tell(self, life: int, end: str) -> None:
        self._told.add(end)
        other = self._ends[self._ends[0] == end]
        node = self._model.nodes.get(end)
        if node is not None:
            self.unaware.add(end)
            node.soon(node.disconnected, other)
        if len(self._told) == 2:
            self._model.at(self._model.now + self._model.rng.uniform(0.001, 0.3), self._reconnect)

    def _reconnect(self) -> None:
        if any(end not in self._model.nodes for end in self._ends):
            for end in self._ends:
                self._outbox[end] = []
            self._model.at(self._model.now + 0.1, self._reconnect)
            return
        self._life += 1
        self._up = True
        self._told = set()
        for end in self._ends:
            self._transit[end].clear()
        for end in self._ends:
            other = self._ends[self._ends[0] == end]
            waiting, self._outbox[end] = self._outbox[end], []
            self._arrives_s[end] = self._model.now
            for message in waiting:
                self._transmit(end, other, message)


class Node:
    """One life of one node: the shell around the two cores."""

    def __init__(self, model: Model, name: str) -> None:
        self.model = model
        self.name = name
        self.life = model.next_life()
        self.owner = f"{name}#{self.life}"
        self._paused = 0
        self._backlog: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self.leaving = False
        self.gone = False
        self.routing: Routing[Call] = model.routing_type(
            name, SHARDS, settings=model.settings, randomness=model, ended=lambda call: call.ended_s is not None
        )
        self.handoffs = Handoffs(name, SHARDS, settings=model.settings, load=self._load, believed=self.routing.owner)
        self.epochs: dict[int, int] = {}
        self.unbroken: dict[int, int] = {}
        self.last_epoch: dict[int, int] = {}
        self.wanted: set[int] = set()
        self.doubted: set[int] = set()
        """Owned shards whose own epoch is being raised: calls wait."""
        self.mailboxes: dict[int, deque[Item]] = {}
        self.orders = 0
        self._acquiring = False
        self._waker: dict[str, float] = {}
        self._view = -1
        self.most = 0
        model.after(1.0, self.soon, self._renew)

    # -------------------------------------------------------------------------------------------------------- running

    def soon(self, what: Callable[..., None], *args: Any) -> None:
        """Does it once the process runs, if it lives."""
        if self.gone:
            return
        if self._paused:
            self._backlog.append((what, args))
            return
        what(*args)
        self._carry_out()

    def pause(self, for_s: float) -> None:
        """Everything waits, and then happens at once, in order."""
        self._paused += 1
        self.model.after(for_s, self._resume)

    def _resume(self) -> None:
        self._paused -= 1
        while self._backlog and not self._paused:
            what, args = self._backlog.popleft()
            self.soon(what, *args)

    def _carry_out(self) -> None:
        for _ in range(1_000):
            owning, sending = self.handoffs.poll(), self.routing.poll()
            if not owning and not sending:
                break
            for own in owning:
                self._own(own)
            for effect in sending:
                self._route(effect)
        else:
            raise AssertionError(f"{self.name} never comes to an end")
        self.most = max(self.most, self.routing.count)
        for core in ("routing", "handoffs"):
            wake_s = getattr(self, core).wake_s
            if wake_s is not None and not self.model.now < self._waker.get(core, 0.0) <= wake_s:
                self._waker[core] = wake_s
                self.model.at(max(wake_s, self.model.now + 1e-4), self.soon, self._tick, core)

    def _tick(self, core: str) -> None:
        getattr(self, core).tick(self.model.now)

    def _route(self, effect: Any) -> None:
        now, model = self.model.now, self.model
        match effect:
            case Send():
                call = effect.call
                call.attempt, call.sendings = effect.attempt, call.sendings + 1
                if not call.query:
                    call.state = "out"
                model.messages["call"] += 1
                remaining_s = call.deadline_s - now - 0.02
                wire = Wire(effect.number, effect.tenure, call, effect.attempt, max(0.0, remaining_s))
                model.send(self.name, effect.node, wire)
            case Deliver():
                call = effect.call
                call.attempt = max(call.attempt, effect.attempt)
                self._take(Item(call, effect.attempt, "", 0, call.deadline_s))
            case Ask():
                model.messages["question"] += 1
                model.send(self.name, effect.node, ShardQuestion(effect.shards))
            case _:
                effect.call.attempt = effect.attempt
                model.end(effect.call, "overloaded" if effect.attempt == 1 else "unknown")

    def _own(self, effect: Any) -> None:
        now = self.model.now
        match effect:
            case Want():
                self.wanted.add(effect.shard)
                self._acquire_soon()
            case Unwant():
                self.wanted.discard(effect.shard)
            case AskNow():
                self._acquire_soon()
            case Serve():
                self.routing.acquired(effect.shard, effect.tenure)
                for entity in self._entities(effect.shard):
                    self.routing.settled(entity)
                    self._run_next(entity)
            case Stop():
                busy = [entity for entity in self._entities(effect.shard) if self._local(entity)]
                self.routing.released(now, effect.shard, effect.to, busy)
                self._check_drained(effect.shard)
            case CutOff():
                for entity in self._entities(effect.shard):
                    self._give_back(entity, also_running=True)
                self._check_drained(effect.shard)
            case Release():
                epoch = self.epochs.pop(effect.shard)
                self.doubted.discard(effect.shard)
                self.model.after(self.model.store.latency_s(), self._release, effect.shard, epoch)
            case Say():
                self.model.send(self.name, effect.node, effect.message)

    def _release(self, shard: int, epoch: int) -> None:
        self.model.store.release(shard, self.owner, epoch)
        self.model.after(self.model.store.latency_s() / 2, self.soon, self._released, shard)

    def _released(self, shard: int) -> None:
        self.handoffs.released(self.model.now, shard)

    # ---------------------------------------------------------------------------------------------------------- calls

    def call(self, call: Call) -> None:
        self.orders += 1
        call.order = self.orders
        self.model.at(call.deadline_s, self._expire, call)
        # As a region does it: what need not wait goes straight to its entity.
        if self.routing.owner(call.shard)[0] == self.name and not self.routing.has_lane(call.entity):
            self._take(Item(call, 1, "", 0, call.deadline_s))
        else:
            self._submit(call)

    def _submit(self, call: Call) -> None:
        self.routing.submit(
            self.model.now, call, call.entity, call.shard, order=call.order, query=call.query, attempt=call.attempt
        )

    def _expire(self, call: Call) -> None:
        surely_not = call.query or (call.state == "queued" and call.attempt == 1)
        self.model.end(call, "unavailable" if surely_not else "unknown")

    def receive(self, source: str, message: Any) -> None:
        now = self.model.now
        match message:
            case Wire():
                call = message.call
                if self.model.accepts(self.handoffs, call.shard, message.tenure):
                    self._take(Item(call, message.attempt, source, message.number, now + message.remaining_s))
                else:
                    self._return(source, [message.number], call.shard)
            case RemoteReply():
                outcome = message.reply.decode()
                ended = self.routing.answered(source, message.number)
                if ended is not None:
                    self.model.end(ended, "unknown" if outcome == "unavailable" and ended.attempt > 1 else outcome)
            case RemoteReturn():
                for number in message.numbers:
                    routed = self.model.routed(self.routing, source, number)
                    if routed is not None and routed.attempt == 1:
                        routed.state = "queued"
                self.routing.returned(now, source, message.numbers, message.answer, message.acted)
            case ShardQuestion():
                self.handoffs.asked(source, message.shards)
            case ShardAnswer():
                self.routing.told(now, source, message)
                self.handoffs.told(now, source, message)
            case ShardReleased():
                self.handoffs.offered(source, message.shard)
            case _:
                raise AssertionError(message)

    def _return(self, peer: str, numbers: list[int], shard: int) -> None:
        self.model.messages["return"] += 1
        self.model.send(self.name, peer, RemoteReturn(tuple(numbers), self.handoffs.answer(shard)))

    def disconnected(self, peer: str) -> None:
        self.model.links[min(self.name, peer), max(self.name, peer)].unaware.discard(self.name)
        self.routing.disconnected(self.model.now, peer)
        for entity, items in self.mailboxes.items():
            # What has not begun will be sent again, if it still matters.
            dropped = [item for item in items if item.peer == peer and not item.begun]
            for item in dropped:
                items.remove(item)
            if dropped:
                self._rest(entity)

    # ------------------------------------------------------------------------------------------------------- entities

    def _load(self, shard: int) -> int:
        return len(self._entities(shard))

    def _entities(self, shard: int) -> list[int]:
        return [entity for entity, items in self.mailboxes.items() if entity % SHARDS == shard and items]

    def _local(self, entity: int) -> bool:
        return any(not item.peer for item in self.mailboxes.get(entity, ()))

    def _take(self, item: Item) -> None:
        self.mailboxes.setdefault(item.call.entity, deque()).append(item)
        self._run_next(item.call.entity)

    def _run_next(self, entity: int) -> None:
        items = self.mailboxes[entity]
        if not items or items[0].begun or entity % SHARDS in self.doubted:
            return
        item = items[0]
        item.begun = "running"
        rng = self.model.rng
        busy_s = rng.uniform(0.0, 0.004)
        if self.model.roughness and rng.random() < 0.01:
            busy_s = rng.uniform(0.1, 5.0)
        if not item.peer:
            item.call.state = "running"
        self.model.after(busy_s, self.soon, self._ran, item, self.epochs[entity % SHARDS])

    def _ran(self, item: Item, epoch: int) -> None:
        if item.gone:
            return
        call = item.call
        if self.model.now >= item.deadline_s:
            self._end(item, "unavailable" if item.attempt == 1 else "unknown")
            return
        if call.query:
            # Strong queries need a valid lease, which is not modelled here.
            self._end(item, "done")
            return
        item.begun = "appending"
        self.model.after(self.model.store.latency_s(), self._append, item, epoch)

    def _append(self, item: Item, epoch: int) -> None:
        """In the store: whatever becomes of the node meanwhile."""
        store, call = self.model.store, item.call
        known = item.attempt > 1 and call in store.logs.get(call.entity, ())
        stored = known or store.append(call, epoch)
        self.model.after(store.latency_s() / 2, self.soon, self._landed, item, epoch, stored)

    def _landed(self, item: Item, epoch: int, stored: bool) -> None:
        if stored:
            self._end(item, "done")
            return
        shard = item.call.shard
        if self.epochs.get(shard) == epoch and shard not in self.doubted:
            self._lose(shard)
        elif shard in self.epochs and (not item.peer or epoch >= self.unbroken[shard]):
            # Only our own epoch was raised, or we own it again: it runs again where it stands.
            item.begun = ""
            if self.handoffs.phase(shard) in (Phase.OWNED, Phase.DRAINING):
                self._run_next(item.call.entity)
                return
        item.gone = True
        self.mailboxes[item.call.entity].remove(item)
        self._back(item)
        self._rest(item.call.entity)

    def _end(self, item: Item, outcome: str) -> None:
        items = self.mailboxes[item.call.entity]
        assert items.popleft() is item
        if item.peer:
            self.model.send(self.name, item.peer, RemoteReply(item.number, outcome.encode()))
        else:
            self.model.end(item.call, "unknown" if outcome == "unavailable" and item.attempt > 1 else outcome)
        self._rest(item.call.entity)

    def _rest(self, entity: int) -> None:
        """One item less."""
        shard = entity % SHARDS
        if self.handoffs.phase(shard) not in (Phase.OWNED, Phase.DRAINING):
            self._give_back(entity)
        if not self._local(entity):
            self.routing.settled(entity)
        if self.mailboxes[entity] and shard in self.epochs:
            self._run_next(entity)
        self._check_drained(shard)

    def _check_drained(self, shard: int) -> None:
        if not self._entities(shard):
            self.handoffs.drained(self.model.now, shard)

    def _give_back(self, entity: int, also_running: bool = False) -> None:
        """What has not begun goes back to where it came from."""
        items = self.mailboxes[entity]
        kept: deque[Item] = deque()
        while items:
            item = items.popleft()
            if item.begun == "appending" or (item.begun and not also_running):
                kept.append(item)
            else:
                item.gone = True
                self._back(item)
        items.extend(kept)
        if not self._local(entity):
            self.routing.settled(entity)

    def _back(self, item: Item) -> None:
        if item.peer:
            self._return(item.peer, [item.number], item.call.shard)
        elif item.call.ended_s is None:
            item.call.state = "queued"
            self._submit(item.call)

    # --------------------------------------------------------------------------------------------------------- leases

    def _acquire_soon(self) -> None:
        if not self._acquiring:
            self._acquiring = True
            self.model.after(self.model.store.latency_s(), self._acquire)

    def _acquire(self) -> None:
        if self.gone:
            return
        store = self.model.store
        asked = sorted(self.wanted | self.doubted)
        answers = [(shard, store.acquire(shard, self.owner, self.model.settings.lease_s)) for shard in asked]
        self.model.after(store.latency_s() / 2, self.soon, self._acquired, answers)

    def _acquired(self, answers: list[tuple[int, tuple[str, int, float]]]) -> None:
        self._acquiring = False
        retry_s = None
        for shard, (owner, epoch, until_s) in answers:
            if owner == self.owner:
                self._got(shard, epoch)
            elif shard in self.doubted:
                self.doubted.discard(shard)
                self._lose(shard)
            elif shard in self.wanted:
                holder = owner.partition("#")[0]
                known = holder if holder in self.model.views.get(self.name, ()) and holder != self.name else ""
                self.handoffs.held(shard, known)
                self.routing.hinted(self.model.now, shard, known)
                retry_s = min(max(0.01, until_s - self.model.now), 0.25, retry_s or 1.0)
        if retry_s is not None or self.wanted | self.doubted:
            self.model.after(retry_s or 0.01, self.soon, self._acquire_soon)

    def _got(self, shard: int, epoch: int) -> None:
        if shard not in self.wanted and shard not in self.doubted:
            if shard not in self.epochs:
                self.model.store.release(shard, self.owner, epoch)
            return
        broken = shard not in self.last_epoch or epoch != self.last_epoch[shard] + 1
        if broken:
            self.unbroken[shard] = epoch
        self.last_epoch[shard] = self.epochs[shard] = epoch
        raised = shard in self.doubted
        self.doubted.discard(shard)
        self.wanted.discard(shard)
        if raised and broken:
            for entity in self._entities(shard):
                self._give_back(entity)
        self.handoffs.acquired(self.model.now, shard, self.unbroken[shard])
        for entity in self._entities(shard):
            self._run_next(entity)

    def doubt(self, shard: int) -> None:
        """The own epoch is to be raised: something of an append is not known."""
        if self.handoffs.phase(shard) is Phase.OWNED and shard in self.epochs and shard not in self.doubted:
            self.doubted.add(shard)
            self._acquire_soon()

    def _lose(self, shard: int) -> None:
        del self.epochs[shard]
        self.doubted.discard(shard)
        # Entities know first, then the cores: what is in progress is told as busy with the ``Stop``.
        was_owned = self.handoffs.phase(shard) is Phase.OWNED
        self.handoffs.lost(self.model.now, shard)
        if was_owned:
            for own in self.handoffs.poll():
                self._own(own)
        for entity in self._entities(shard):
            self._give_back(entity)

    def _renew(self) -> None:
        epochs = dict(self.epochs)
        self.model.after(self.model.store.latency_s(), self._renew_in_store, epochs)
        self.model.after(1.0, self.soon, self._renew)

    def _renew_in_store(self, epochs: dict[int, int]) -> None:
        lease_s = self.model.settings.lease_s
        lost = [shard for shard, epoch in epochs.items()
                if not self.model.store.renew(shard, self.owner, epoch, lease_s)]  # fmt: skip
        self.model.after(self.model.store.latency_s() / 2, self.soon, self._renewed, epochs, lost)

    def _renewed(self, epochs: dict[int, int], lost: list[int]) -> None:
        for shard in lost:
            if self.epochs.get(shard) == epochs[shard] and shard not in self.doubted:
                self._lose(shard)

    # -------------------------------------------------------------------------------------------------------- members

    def see(self, version: int, members: dict[str, bool]) -> None:
        """The members as this node sees them from now on, and whether each is to own shards."""
        if version <= self._view:
            return
        self._view = version
        before = self.model.views.get(self.name, {})
        self.model.views[self.name] = members
        owners = place(SHARDS, [PlacedMember(name) for name, owning in members.items() if owning])
        for name in before.keys() - members.keys():
            self.handoffs.forget(name)
        self.routing.placed(self.model.now, owners, frozenset(members))
        self.handoffs.placed(self.model.now, owners)


class Model:
    """The whole cluster. ``roughness`` 0: only planned changes; 1: everything that may happen."""

    def __init__(
        self,
        seed: int,
        *,
        nodes: int = 3,
        roughness: float = 0.0,
        settings: ShardingSettings | None = None,
        routing_type: type[Routing[Any]] = Routing,
        tenures: bool = True,
    ) -> None:
        self.rng = Random(seed)
        self.seed = seed
        self.now = 0.0
        self.roughness = roughness
        self.settings = settings or ShardingSettings()
        self.routing_type = routing_type
        self._tenures = tenures
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0
        self._lives = 0
        self._version = 0
        self.store = Store(self)
        self.nodes: dict[str, Node] = {}
        self.members: dict[str, bool] = {}
        self.views: dict[str, dict[str, bool]] = {}
        self.links: dict[tuple[str, str], Link] = {}
        self.calls: list[Call] = []
        self.messages: Counter[str] = Counter()
        self.happened: Counter[str] = Counter()
        for number in range(nodes):
            self.join(f"n{number}", at_once=True)

    # ----------------------------------------------------------------------------------------------------- time, rest

    def uniform(self) -> float:
        return self.rng.random()

    def token(self, size_bytes: int) -> bytes:
        return self.rng.randbytes(size_bytes)

    def at(self, time_s: float, what: Callable[..., None], *args: Any) -> None:
        self._sequence += 1
        heapq.heappush(self._events, (time_s, self._sequence, what, args))

    def after(self, delay_s: float, what: Callable[..., None], *args: Any) -> None:
        self.at(self.now + delay_s, what, *args)

    def run_until(self, time_s: float) -> None:
        events = self._events
        while events and events[0][0] <= time_s:
            self.now, _, what, args = heapq.heappop(events)
            what(*args)
        self.now = time_s

    def next_life(self) -> int:
        self._lives += 1
        return self._lives

    def send(self, source: str, target: str, message: Any) -> None:
        ends = (min(source, target), max(source, target))
        link = self.links.get(ends)
        if link is None:
            link = self.links[ends] = Link(self, ends)
        link.send(source, target, message)

    def accepts(self, handoffs: Handoffs, shard: int, tenure: int) -> bool:
        return handoffs.accepts(shard, tenure if self._tenures else handoffs.answer(shard).tenure)

    def routed(self, routing: Routing[Call], node: str, number: int) -> Call | None:
        return routing.sent(node, number)

    # --------------------------------------------------------------------------------------------------------- checks

    def problems(self) -> list[str]:
        """What should not have happened in this run, now that it is over."""
        found: list[str] = []
        for entity, log in self.store.logs.items():
            newest: dict[str, int] = {}
            for call in log:
                if call.order <= newest.get(call.sender, 0):
                    twice = log.count(call) > 1
                    found.append(f"{call} at {entity} was run {'twice' if twice else 'out of order'}")
                newest[call.sender] = max(call.order, newest.get(call.sender, 0))
        logged = {call for log in self.store.logs.values() for call in log}
        for call in self.calls:
            if call.node.gone and call.ended_s is None:
                continue
            if call.ended_s is None or call.ended_s > call.deadline_s + 1e-6:
                found.append(f"{call} has not ended in time")
            if not call.query and call.outcome == "done" and call not in logged:
                found.append(f"{call} was lost")
            if call.outcome in ("unavailable", "overloaded") and call in logged:
                found.append(f"{call} was run although it was said not to be")
            if call.sendings > 60:
                found.append(f"{call} was sent {call.sendings} times")
        limit = self.settings.calls_max
        return found + [f"{node.name} had {node.most} calls" for node in self.nodes.values() if node.most > limit]

    def end(self, call: Call, outcome: str) -> None:
        if call.ended_s is None and not call.node.gone:
            call.ended_s = self.now
            call.outcome = outcome

    # -------------------------------------------------------------------------------------------------------- members

    def join(self, name: str, at_once: bool = False) -> None:
        node = self.nodes[name] = Node(self, name)
        self.members[name] = True
        self.views[name] = {}
        self.announce(0.0 if at_once else 0.5)
        for ends, link in self.links.items():
            if name in ends:
                link.unaware.discard(name)
                link.break_now(soon=True)
        node.soon(node.see, self._version, dict(self.members))

    def join_again(self, name: str) -> None:
        """As another life of the same node."""
        if name not in self.nodes:
            self.join(name)

    def announce(self, within_s: float) -> None:
        """Everybody gets to know the members as they are now, sooner or later."""
        self._version += 1
        for node in self.nodes.values():
            self.after(self.rng.uniform(0.0, within_s), node.soon, node.see, self._version, dict(self.members))

    def leave(self, name: str) -> None:
        node = self.nodes[name]
        node.leaving = True
        self.members[name] = False
        self.announce(0.5)
        self.after(1.0, self._try_to_go, node)

    def _try_to_go(self, node: Node) -> None:
        if node.gone:
            return
        mine = [call for call in self.calls if call.node is node and call.ended_s is None]
        if node.handoffs.phases() or mine or any(node.mailboxes.values()):
            self.after(0.1, self._try_to_go, node)
            return
        self._remove(node)
        self.announce(0.5)

    def crash(self, name: str) -> None:
        node = self.nodes[name]
        self._remove(node)
        self._version += 1
        for other in self.nodes.values():
            self.after(self.rng.uniform(0.5, 2.0), other.soon, other.see, self._version, dict(self.members))

    def _remove(self, node: Node) -> None:
        node.gone = True
        del self.nodes[node.name]
        self.members.pop(node.name, None)
        for ends, link in self.links.items():
            if node.name in ends:
                link.break_now()

    def flip(self, name: str) -> None:
        """The node is not to own anything for a moment."""
        if self.members.get(name):
            self.members[name] = False
            self.announce(0.1)
            self.after(self.rng.uniform(0.01, 1.0), self._flip_back, self.nodes[name])

    def _flip_back(self, node: Node) -> None:
        if not node.gone and not node.leaving:
            self.members[node.name] = True
            self.announce(0.1)

    def suspect(self, name: str) -> None:
        """Some believe for a while that a living node is gone."""
        view = {member: owning for member, owning in self.members.items() if member != name}
        self._version += 1
        for other in list(self.nodes.values()):
            if other.name != name and self.rng.random() < 0.5:
                self.after(self.rng.uniform(0.0, 0.5), other.soon, other.see, self._version, view)
        self.after(self.rng.uniform(0.6, 3.0), self.announce, 0.5)

    # ----------------------------------------------------------------------------------------------------------- load

    def load(self, until_s: float, entities: int, every_s: float, deadline_s: float) -> None:
        """Each node's senders call, several calls at a time, until then."""

        def send(node: Node, sender: str) -> None:
            if node.gone or self.now >= until_s:
                return
            if not node.leaving:
                entity = self.rng.randrange(entities)
                for _ in range(self.rng.choice((1, 1, 2, 5))):
                    self.ask(node, sender, entity, deadline_s)
            self.after(self.rng.expovariate(1 / every_s), node.soon, send, node, sender)

        def start() -> None:
            for node in self.nodes.values():
                if node.life not in started:
                    started.add(node.life)
                    for number in range(2):
                        self.after(self.rng.uniform(0, every_s), node.soon, send, node, f"{node.owner}/{number}")
            if self.now < until_s:
                self.after(0.1, start)

        started: set[int] = set()
        start()

    def ask(self, node: Node, sender: str, entity: int, deadline_s: float) -> Call:
        call = Call(len(self.calls), node, sender, entity, self.rng.random() < 0.1, deadline_s)
        self.calls.append(call)
        node.call(call)
        return call

"""What users do to themselves and to others: faults 27 to 29, on entities made for it.

Meters count. Their commands refuse after they have emitted, raise, emit what cannot be applied, run too long, wait in
between, and call others; one meter has an event in its journal that nobody can read. Some of their callers live in the
nodes themselves and hang up in the middle, some send faster than anybody can answer, some are stopped for seconds with
their answers on the way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from random import Random
from typing import Any, NamedTuple

import msgspec

from actorkit import Event, PersistentActor, Rejected, State, applies, command, query
from actorkit.errors import CallError
from actorkit.ids import shard_of
from actorkit.journal.protocols import Append, NewEvent, Recorded
from actorkit.testing.checkers import Model, Operation, Outcome, Recorder, Violation
from actorkit.testing.simulation.clients import Client
from actorkit.testing.simulation.disk import Write
from actorkit.testing.simulation.node import Node
from actorkit.testing.simulation.randomness import stream
from actorkit.testing.simulation.world import World

__all__ = ["CROWDED", "UNREADABLE", "Hazards", "Meter", "MeterModel", "Sink", "check_meters"]

UNREADABLE = "meter/unreadable"
_METERS = ("m1", "m2")
_CROWDED = ("m3", "m4", "m5")
CROWDED = frozenset(f"meter/{id}" for id in _CROWDED)
"""Here many outcomes are unknown, so that no checker could try all their orders; ``check_meters`` looks at them."""


# ----------------------------------------------------------------------------------------------------------- entities


class Added(Event, name="added"):
    """So much more; ``number`` is the sender's own, and rises."""

    amount: int
    sender: str
    number: int


class Sent(Event, name="sent"):
    """A sink was told."""

    number: int


class Unapplicable(Event, name="unapplicable"):
    """The state does not know how to apply it."""


class Count(State):
    """What a meter shows."""

    total: int = 0
    count: int = 0

    @applies(Added)
    def added(self, event: Added) -> None:
        self.total += event.amount
        self.count += 1

    @applies(Sent)
    def sent(self, event: Sent) -> None:
        self.count += 1

    @applies(Unapplicable)
    def unapplicable(self, event: Unapplicable) -> None:
        self.total = -1_000_000
        raise RuntimeError("injected: this event cannot be applied")


class TooMuch(Rejected, code="meter-too-much"):
    """The meter refuses, though it has emitted already."""


class Shown(msgspec.Struct):
    total: int
    count: int


class Got(Event, name="got"):
    """The sink has got it."""

    number: int


class Gotten(State):
    numbers: list[int] = msgspec.field(default_factory=list)

    @applies(Got)
    def got(self, event: Got) -> None:
        self.numbers.append(event.number)


class Sink(PersistentActor[Gotten, Got], name="sink"):
    """What meters call."""

    @command
    def take(self, number: int) -> int:
        self.emit(Got(number))
        return len(self.state.numbers)


class Meter(PersistentActor[Count, Added | Sent | Unapplicable], name="meter"):
    """Counts, and misbehaves."""

    def _shown(self) -> Shown:
        return Shown(self.state.total, self.state.count)

    @command
    def add(self, amount: int, sender: str, number: int) -> Shown:
        self.emit(Added(amount, sender, number))
        return self._shown()

    @command
    async def add_slowly(self, amount: int, pauses: int) -> Shown:
        """Waits before and after it emits."""
        for _ in range(pauses):
            await asyncio.sleep(0.02)
        self.emit(Added(amount, "", 0))
        for _ in range(pauses):
            await asyncio.sleep(0.02)
        return self._shown()

    @command
    def refuse_after_emit(self, amount: int) -> Shown:
        before = self._shown()
        self.emit(Added(amount, "", 0))
        raise TooMuch("it is too much", total=before.total, count=before.count)

    @command
    def raise_after_emit(self, amount: int) -> Shown:
        self.emit(Added(amount, "", 0))
        raise RuntimeError("injected: the handler raises")

    @command
    def emit_unapplicable(self, amount: int) -> Shown:
        self.emit(Added(amount, "", 0))
        self.emit(Unapplicable())
        return self._shown()

    @command
    async def overrun(self, amount: int) -> Shown:
        """Is cancelled when its time is over, and resists once."""
        self.emit(Added(amount, "", 0))
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            raise
        return self._shown()

    @command
    async def send(self, sink: str, number: int) -> Shown:
        """Calls another entity, and emits when that has answered."""
        await self.context.system.get(Sink, sink).take(number)
        self.emit(Sent(number))
        return self._shown()

    @query
    def show(self) -> Shown:
        return self._shown()

    @query
    def raise_at_once(self) -> Shown:
        raise RuntimeError("injected: the query raises")


# ----------------------------------------------------------------------------------------------------------- contract


class Seen(NamedTuple):
    total: int = 0
    count: int = 0


_ADDING = frozenset({"add", "add_slowly"})
_FAILING = frozenset({"raise_after_emit", "emit_unapplicable", "overrun", "raise_at_once"})


class MeterModel(Model[Seen]):
    """A meter, as its callers were promised it."""

    reads = frozenset({"show"})

    def initial(self) -> Seen:
        return Seen()

    def step(self, state: Seen, operation: Operation) -> Collection[Seen]:
        after = state
        if operation.name in _ADDING:
            after = Seen(state.total + operation.arguments[0], state.count + 1)
        elif operation.name == "send":
            after = Seen(state.total, state.count + 1)
        if operation.outcome is Outcome.UNKNOWN:
            return () if operation.name in _FAILING or operation.name == "refuse_after_emit" else (after,)
        if operation.name == "refuse_after_emit":
            told = operation.details
            right = operation.code == "meter-too-much" and (told["total"], told["count"]) == state
            return (state,) if right else ()
        if operation.outcome is Outcome.REJECTED or operation.name in _FAILING:
            return ()
        return (after,) if (operation.value["total"], operation.value["count"]) == after else ()

    def expected(self, state: Seen, operation: Operation) -> str:
        return f"something that follows from {state}"


def check_meters(streams: dict[str, list[Recorded]], operations: Sequence[Operation]) -> Iterator[Violation]:
    """P3 and P4: calls within calls act once, and each sender's commands in the order of sending; I: what was answered.

    A meter's count is the number of its events, so an answer says which event it is about.
    """
    got: dict[int, int] = {}
    sent: dict[int, int] = {}
    for name, events in streams.items():
        last: dict[str, int] = {}
        for event in events:
            if not name.startswith(("meter/", "sink/")) or event.type not in ("added", "got", "sent"):
                continue
            members = msgspec.msgpack.decode(event.payload)
            if event.type == "got":
                got[members["number"]] = got.get(members["number"], 0) + 1
            elif event.type == "sent":
                sent[members["number"]] = sent.get(members["number"], 0) + 1
            elif sender := members.get("sender"):
                number = members["number"]
                if number <= last.get(sender, 0):
                    what = f"event {event.sequence} is command {number} of {sender}, after command {last[sender]}"
                    yield Violation("P4", name, what)
                last[sender] = number
    yield from _check_added(streams, operations)
    for operation in operations:
        if operation.name != "send" or not operation.entity.startswith("meter/"):
            continue
        number = operation.arguments[1]
        who = f"operation {operation.number} (send of {number}, {operation.outcome.value})"
        if got.get(number, 0) > 1 or sent.get(number, 0) > 1:
            what = f"{who} acted {got.get(number, 0)} times at the sink, {sent.get(number, 0)} times here"
            yield Violation("P3", operation.entity, what)
        elif operation.outcome is Outcome.REPLIED and (got.get(number), sent.get(number)) != (1, 1):
            yield Violation("I", operation.entity, f"{who} was answered, and is not stored at both ends")
        elif operation.outcome is Outcome.NOT_EXECUTED and (
            number in sent or (number in got and not _failed(operation))
        ):
            yield Violation("P10", operation.entity, f"{who} is stored")
        elif number in sent and number not in got:
            yield Violation("P3", operation.entity, f"{who} is stored here, and the sink has lost it")


def _failed(operation: Operation) -> bool:
    """A handler that fails keeps nothing of its own; what it had asked of others before stays done."""
    return str(operation.value).startswith("HandlerFailed")


def _check_added(streams: dict[str, list[Recorded]], operations: Sequence[Operation]) -> Iterator[Violation]:
    for operation in operations:
        if operation.name != "add" or not operation.entity.startswith("meter/"):
            continue
        amount, sender, number = operation.arguments
        event = {"amount": amount, "sender": sender, "number": number}
        stored = [
            record.sequence
            for record in streams.get(operation.entity, [])
            if record.type == "added" and msgspec.msgpack.decode(record.payload) == event
        ]
        who = f"operation {operation.number} (add {number} of {sender}, {operation.outcome.value})"
        if len(stored) > 1:
            yield Violation("P3", operation.entity, f"{who} is stored {len(stored)} times, as events {stored}")
        elif operation.outcome is Outcome.NOT_EXECUTED and stored:
            yield Violation("P10", operation.entity, f"{who} is stored as event {stored[0]}")
        elif operation.outcome is Outcome.REPLIED and stored != [operation.value["count"]]:
            what = f"{who} was answered as event {operation.value['count']}, and is stored as {stored}"
            yield Violation("I", operation.entity, what)


# ----------------------------------------------------------------------------------------------------------- workload


class Hazards:
    """The callers. ``story`` is done when they have had enough."""

    def __init__(self, world: World, recorder: Recorder, *, operations: int, burst: int, streams: int = 0) -> None:
        """``streams`` is how many callers there are in each node that send one command after the other."""
        self._world = world
        self._streams = streams
        self._recorder = recorder
        self._operations = operations
        self._burst = burst
        self._numbers = 0

    async def story(self) -> None:
        world = self._world
        await self._poison_the_journal()
        clients = [world.client(f"hazard-{n}") for n in (1, 2)]
        bursting = world.client("bursting")
        tasks = [
            *(
                world.loop.create_task(world.spawn(each.process, self._client(each), name=each.name))
                for each in clients
            ),
            world.loop.create_task(world.spawn(bursting.process, self._bursts(bursting), name="bursting")),
            world.loop.create_task(self._residents()),
            *(
                world.loop.create_task(self._stream(node, f"stream-{node.name}-{number}", f"m{number}"))
                for node in world.nodes
                for number in range(self._streams)
            ),
        ]
        for task in tasks:
            await task

    def _now_us(self) -> int:
        return int(self._world.loop.now_s * 1e6)

    async def _sleep(self, seconds: float) -> None:
        await self._world.sleep_until(self._world.loop.now_s + seconds)

    async def _poison_the_journal(self) -> None:
        """Some program has written an event that this one does not know."""
        disk = self._world.store.disk
        while not disk.created:
            await self._sleep(0.01)
        shard, at_s = shard_of(UNREADABLE, disk.shards), self._world.loop.now_s
        (answer,) = disk.write(Write("acquire", ([shard],), {"owner": "another program", "duration_s": 0.0}, at_s))
        event = NewEvent("of-another-program", 7, b"\xc1")
        append = Append(shard, answer.epoch, UNREADABLE, 0, (event,), 1, b"")
        disk.write(Write("append", ([append],), {}, at_s))
        disk.sync()

    # -------------------------------------------------------------------------------------------------- what is called

    def _drawn(self, random: Random) -> tuple[str, tuple[Any, ...]]:
        kind, amount = random.random(), random.randint(1, 9)
        if kind < 0.25:
            self._numbers += 1
            return "send", (f"s{random.randint(1, 2)}", self._numbers)
        if kind < 0.45:
            return "add_slowly", (amount, random.randint(0, 4))
        if kind < 0.6:
            return "refuse_after_emit", (amount,)
        if kind < 0.9:
            name = random.choice(["raise_after_emit", "emit_unapplicable", "overrun", "raise_at_once"])
            return name, () if name == "raise_at_once" else (amount,)
        return "show", ()

    async def _client(self, client: Client) -> None:
        random = stream(self._world.seed, f"{client.name}/work")
        for _ in range(self._operations):
            await self._sleep(random.random() * 0.6)
            if random.random() < 0.1:
                await self._call(client, UNREADABLE.partition("/")[2], "show", ())
            else:
                await self._call(client, random.choice(_METERS), *self._drawn(random))

    async def _call(self, client: Client, id: str, name: str, args: tuple[Any, ...]) -> None:
        recorder = self._recorder
        number = recorder.invoke(
            client.name, f"meter/{id}", name, args, at_us=self._now_us(), command_id=client.next_command_id
        )
        try:
            reply = await getattr(client.get(Meter, id), name).options(deadline_s=4.0)(*args)
        except CallError as error:
            recorder.failed(number, error, at_us=self._now_us())
        else:
            recorder.replied(number, reply, at_us=self._now_us())

    async def _bursts(self, client: Client) -> None:
        """Sends much at once, then does not look at the answers for a while."""
        random = stream(self._world.seed, "bursting/work")
        loop = self._world.loop
        for _ in range(2 if self._burst else 0):
            await self._sleep(random.random() * 8)
            calls = []
            for _ in range(self._burst):
                self._numbers += 1
                # Messages of one connection may overtake each other here: there is no order to be kept.
                call = self._call(client, random.choice(_CROWDED), "add", (1, "", self._numbers))
                calls.append(loop.create_task(call))
            loop.call_in(loop.world, 0.002, loop.pause, client.process)
            loop.call_in(loop.world, 0.002 + 3 * random.random(), loop.resume, client.process)
            for call in calls:
                await call

    # ------------------------------------------------------------------------------------------- callers in the nodes

    async def _residents(self) -> None:
        """Callers within the nodes, which end with them; those that are cut off in the middle never hear anything."""
        random = stream(self._world.seed, "residents")
        nodes = self._world.nodes
        for number in range(self._operations):
            await self._sleep(random.random() * 0.8)
            node = nodes[int(random.random() * len(nodes))]
            if node.up:
                resident = self._resident(node, f"resident-{number}", random.random() * 0.03, random.randint(2, 5))
                self._world.loop.start_in(node.process, resident, name=f"resident-{number}")

    async def _resident(self, node: Node, name: str, patience_s: float, count: int) -> None:
        """Sends some commands one after the other without waiting, and loses patience with most of them."""
        system, loop = node.system, self._world.loop
        assert system is not None
        id = "m3" if count % 2 else "m4"
        meter = system.get(Meter, id)
        tasks = []
        for number in range(1, count + 1):
            operation = self._recorder.invoke(name, f"meter/{id}", "add", (1, name, number), at_us=self._now_us())
            tasks.append(loop.create_task(self._heard(operation, meter.add.options(deadline_s=3.0)(1, name, number))))
        await asyncio.sleep(patience_s)
        for task in tasks[1:]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _stream(self, node: Node, name: str, id: str) -> None:
        """A command every few milliseconds, whatever becomes of those before, as long as its node lives."""
        random = stream(self._world.seed, name)
        while not node.up:
            await self._sleep(0.05)
        process, system = node.process, node.system
        assert system is not None
        number = 0
        while process.alive and node.system is system and self._world.loop.now_s < self._world.plan.heal_at_s:
            number += 1
            operation = self._recorder.invoke(name, f"meter/{id}", "add", (1, name, number), at_us=self._now_us())
            call = system.get(Meter, id).add.options(deadline_s=6.0)(1, name, number)
            self._world.loop.start_in(process, self._heard(operation, call), name=name)
            await self._sleep(0.06 * random.random())

    async def _heard(self, operation: int, call: Any) -> None:
        try:
            reply = await call
        except CallError as error:
            self._recorder.failed(operation, error, at_us=self._now_us())
        else:
            self._recorder.replied(operation, reply, at_us=self._now_us())

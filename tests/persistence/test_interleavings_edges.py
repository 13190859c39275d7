"""Promises P2, P3, P9, P10: tasks left behind, shared lists, full queues, and programs that have changed meanwhile."""

from __future__ import annotations

import asyncio
import gc
import threading
from contextvars import copy_context
from typing import Any, ClassVar

import msgspec
import pytest

from actorkit import (
    Event,
    Message,
    OutcomeUnknown,
    Overloaded,
    PersistentActor,
    Rejected,
    State,
    Unavailable,
    applies,
    command,
    field,
    query,
)
from actorkit.persistence.calls import EntityCall
from tests.persistence.actors import Account, AccountState, Busy, Noted, Put, Taken
from tests.persistence.interleaving import outcome, start
from tests.persistence.kit import Nodes, eventually, turns


class Full(Rejected, code="interleavings.full"):
    """No more of them."""


class Added(Event, name="interleavings.added"):
    item: str


class Items(State):
    items: list[str] = field(default_factory=list[str])

    @applies(Added)
    def added(self, event: Added) -> None:
        self.items.append(event.item)


class Shelf(PersistentActor[Items, Added], name="interleavings.shelf"):
    @command
    def add(self, item: str) -> None:
        self.emit(Added(item))

    @command
    def add_to_full(self) -> None:
        raise Full("no room", items=self.state.items)

    @query
    def items(self) -> list[str]:
        return self.state.items

    @query
    async def items_later(self) -> list[str]:
        return self.state.items


class Threads:
    """What the leaky one's thread and its handlers tell each other."""

    begin: ClassVar = threading.Event()
    ended: ClassVar = threading.Event()
    errors: ClassVar[list[str]] = []


class Leaky(PersistentActor[Items, Added], name="interleavings.leaky"):
    """Leaves tasks behind."""

    async def _later(self) -> None:
        await Busy.wait("later")
        self.emit(Added("leaked"))

    @command
    def leak(self) -> None:
        Busy.waiting["task"] = asyncio.ensure_future(self._later())

    @command
    async def leak_from_a_task(self) -> None:
        Busy.waiting["task"] = asyncio.ensure_future(self._later())

    def _in_a_thread(self) -> None:
        assert Threads.begin.wait(10)
        try:
            self.emit(Added("leaked"))
        except RuntimeError as error:
            Threads.errors.append(str(error))
        finally:
            Threads.ended.set()

    @command
    def leak_to_a_thread(self) -> None:
        # As asyncio.to_thread does it.
        threading.Thread(target=copy_context().run, args=(self._in_a_thread,)).start()

    @command
    def add_beside_the_thread(self) -> list[str]:
        self.emit(Added("first"))
        Threads.begin.set()
        assert Threads.ended.wait(10)
        self.emit(Added("second"))
        return self.state.items

    @command
    async def add_slowly(self, gate: str) -> list[str]:
        self.emit(Added("first"))
        await Busy.wait(gate)
        self.emit(Added("second"))
        return self.state.items


@pytest.mark.parametrize("leak", ["leak", "leak_from_a_task"])
async def test_a_task_that_a_handler_left_behind_emits_nothing_into_another_command(nodes: Nodes, leak: str) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal)
    leaky = system.get(Leaky, "l")
    await getattr(leaky, leak)()
    slow = start(leaky.add_slowly("slow"))
    await eventually(lambda: "slow" in Busy.entered)
    Busy.go("later")
    with pytest.raises(RuntimeError, match="not for tasks that outlive them"):
        await Busy.waiting["task"]
    Busy.go("slow")
    assert await slow == ["first", "second"]
    assert len(await journal.inner.read_stream("interleavings.leaky/l", after=0, limit=9)) == 2


async def test_a_thread_that_a_handler_left_behind_emits_nothing_into_another_command(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal)
    leaky = system.get(Leaky, "t")
    await leaky.leak_to_a_thread()
    assert await leaky.add_beside_the_thread() == ["first", "second"]
    assert ["not for tasks that outlive them" in error for error in Threads.errors] == [True]
    assert len(await journal.inner.read_stream("interleavings.leaky/t", after=0, limit=9)) == 2


async def test_an_entity_keeps_nothing_of_its_last_call(nodes: Nodes) -> None:
    system = await nodes.start(nodes.journal())
    shelf = system.get(Shelf, "tidy")
    await shelf.add("a")
    assert await shelf.items() == ["a"]
    assert await shelf.items_later() == ["a"]
    await turns()
    gc.collect()
    calls = [each for each in gc.get_objects() if isinstance(each, EntityCall)]
    assert [call for call in calls if call.pid.id == "tidy"] == []


async def test_details_of_a_refusal_share_nothing_with_the_state(nodes: Nodes) -> None:
    """Neither what the entity does while they wait for an append, nor what their caller does, reaches the other."""
    journal = nodes.journal()
    system = await nodes.start(journal)
    shelf = system.get(Shelf, "s")
    await shelf.add("a")
    journal.hold()
    second = start(shelf.add("b"))
    refused = start(outcome(shelf.add_to_full()))
    third = start(shelf.add("c"))
    await turns()
    journal.let_go()
    refusal = await refused
    await asyncio.gather(second, third)
    assert isinstance(refusal, Full)
    assert refusal.details == {"items": ["a", "b"]}
    refusal.details["items"].clear()
    assert await shelf.items() == ["a", "b", "c"]


async def test_a_full_queue_of_the_writer_refuses_a_command_before_its_handler_runs(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal, queue_max_appends=1)
    accounts = [system.get(Account, f"a{number}") for number in range(3)]
    for account in accounts:
        await account.balance()
    journal.hold()
    on_its_way = start(accounts[0].put(1))
    await eventually(lambda: journal.held)
    queued = start(accounts[1].put(2))
    await turns()
    assert not system.writer.has_room
    with pytest.raises(Overloaded):
        await accounts[2].put(3)
    with pytest.raises(Overloaded):
        await accounts[2].take.options(idempotency_key="k")(3)
    assert Account.runs == ["put 1", "put 2"]
    assert await accounts[2].balance() == 0, "what needs no append is answered"
    journal.let_go()
    assert await asyncio.gather(on_its_way, queued) == [1, 2]
    assert await accounts[2].put(3) == 3


@pytest.mark.parametrize("how", ["its key", "its command id"])
async def test_a_repetition_whose_stored_reply_fits_no_longer_has_an_unknown_outcome(nodes: Nodes, how: str) -> None:
    """Between the two, a new version of the program has declared another reply type."""

    class Old(PersistentActor[AccountState, Put | Taken | Noted], name="interleavings.changed"):
        @command
        def put(self, amount: int) -> int:
            self.emit(Put(amount))
            return self.state.balance

    class New(PersistentActor[AccountState, Put | Taken | Noted], name="interleavings.changed"):
        @command
        def put(self, amount: int) -> str:
            self.emit(Put(amount))
            return f"{self.state.balance}"

        @query
        def balance(self) -> int:
            return self.state.balance

    def message(attempt: int) -> Message:
        return Message("interleavings.changed", "x", "put", b"\x91\x05", command_id="c", attempt=attempt)

    journal = nodes.journal()
    async with nodes.running(journal) as old:
        before = old.get(Old, "x").put.options(idempotency_key="k")
        assert await (before(5) if how == "its key" else old.ask(message(1))) == 5
    system = await nodes.start(nodes.journal(journal.inner))
    new = system.get(New, "x")
    with pytest.raises(OutcomeUnknown, match="does not fit the type declared now"):
        await (new.put.options(idempotency_key="k")(5) if how == "its key" else system.ask(message(2)))
    assert await new.balance() == 5
    assert await new.put(1) == "6"


@pytest.mark.parametrize("asked", ["its key", "the number of keys", "its command id"])
async def test_a_call_that_has_ended_while_the_store_was_asked_about_it_is_not_run(
    nodes: Nodes, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P10: told that it was not executed, its caller may send another."""
    journal = nodes.journal()
    system = await nodes.start(journal, keys_max=1, keys_in_memory=1)
    shelf = system.get(Shelf, "s")
    await shelf.add("first")
    gate = asyncio.Event()
    if asked == "the number of keys":
        await shelf.add.options(idempotency_key="other")("second")
        count_keys = journal.inner.count_keys

        async def slowly(stream: str, *, since_us: int) -> int:
            await gate.wait()
            found: int = await count_keys(stream, since_us=since_us)
            return found - 1

        monkeypatch.setattr(journal, "count_keys", slowly, raising=False)
    else:
        journal.reads_gate = gate
    before = (await shelf.items()).copy()
    if asked == "its command id":
        message = Message("interleavings.shelf", "s", "add", msgspec.msgpack.encode(["late"]), "c1", None, 0.2, 2)
        calling: asyncio.Future[Any] = asyncio.ensure_future(system.ask(message))
        expected: type[Exception] = OutcomeUnknown
    else:
        calling = start(shelf.add.options(idempotency_key="k", deadline_s=0.2)("late"))
        expected = Unavailable
    with pytest.raises(expected):
        await calling
    gate.set()
    assert await shelf.items() == before
    if expected is Unavailable:
        await shelf.add("next")
        assert await shelf.items() == [*before, "next"]

"""Promise P2: what leaves an entity exists only after the events it depends on are durable."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actorkit import (
    Actor,
    CallError,
    Event,
    HandlerFailed,
    PersistentActor,
    State,
    applies,
    command,
    field,
    published,
    query,
)
from actorkit.errors import CallCycle, CallingOutAfterEmit
from tests.persistence.actors import Account, Broke, Busy
from tests.persistence.kit import Nodes, eventually, lost_for_lack_of_space, settings, stored_in_doubt, turns


class Recorder(Actor[Any]):
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def receive(self, message: Any) -> object:
        self.seen.append(message)
        return message


class Step(Event, name="tests.step"):
    name: str


class Steps(State):
    names: list[str] = field(default_factory=list[str])

    @applies(Step)
    def step(self, event: Step) -> None:
        self.names.append(event.name)


class Caller(PersistentActor[Steps, Step], name="caller"):
    """Reaches out in every way there is."""

    recorder: Any = None

    @command
    def emit_and_tell(self, name: str) -> str:
        self.recorder.tell(f"before {name}")
        self.emit(Step(name))
        self.recorder.tell(f"after {name}")
        return name

    @command
    async def emit_and_send(self, name: str) -> str:
        self.emit(Step(name))
        await self.recorder.send(name, deadline_s=1)
        return name

    @command
    def tell_only(self, name: str) -> str:
        self.recorder.tell(name)
        return name

    @command
    def tell_then_reject(self, name: str) -> str:
        self.recorder.tell(name)
        raise Broke("no")

    @command
    def tell_then_fail(self, name: str) -> str:
        self.recorder.tell(name)
        raise ZeroDivisionError

    @query
    def ask_to_tell(self, name: str) -> str:
        self.recorder.tell(name)
        return name

    @command
    async def ask_after_emit(self) -> str:
        self.emit(Step("x"))
        return str(await self.recorder.ask("question"))

    @command
    async def ask_then_emit(self, name: str) -> str:
        answer = await self.recorder.ask(name)
        self.emit(Step(answer))
        return str(answer)

    @command
    async def call_after_emit(self, other: str) -> int:
        self.emit(Step("x"))
        return await self.context.system.get(Account, other).put(1)

    @command
    async def call_then_emit(self, other: str) -> int:
        balance: int = await self.context.system.get(Account, other).put(1)
        self.emit(Step(f"{balance}"))
        return balance

    @command
    async def call_other(self, ids: list[str]) -> str:
        if not ids:
            return "end"
        return await self.context.system.get(Caller, ids[0]).call_other(ids[1:])

    @command
    def remind(self, name: str, after_s: float) -> None:
        self.context.once("reminder", after_s, Caller.emit_and_tell, f"timer {name}")
        self.emit(Step(name))

    @command
    def remind_every(self, name: str, every_s: float) -> None:
        self.context.every("reminder", every_s, Caller.tell_only, name)

    @command
    def forget(self) -> None:
        self.context.cancel("reminder")

    @query
    def names(self) -> list[str]:
        return self.state.names

    @published
    def count(self) -> int | None:
        return len(self.state.names)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


async def recording(nodes: Nodes, recorder: Recorder, **changes: Any) -> tuple[Any, Any]:
    journal = nodes.journal()
    system = await nodes.start(journal, **changes)
    await system.own_all_shards()
    Caller.recorder = system.spawn(lambda: recorder)
    return journal, system


def not_done(*tasks: asyncio.Future[Any]) -> bool:
    return not any(task.done() for task in tasks)


def start(call: Any) -> asyncio.Task[Any]:
    return asyncio.ensure_future(call)


async def test_a_reply_leaves_only_after_its_append_was_acknowledged(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal)
    journal.hold()
    reply = start(system.get(Account, "a").put(5))
    await eventually(lambda: journal.held)
    await turns()
    assert not_done(reply)
    assert await journal.inner.read_stream("account/a", after=0, limit=10) == []
    journal.let_go()
    assert await reply == 5


async def test_later_commands_of_an_entity_run_while_an_append_is_on_its_way(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal)
    account = system.get(Account, "a")
    assert await account.balance() == 0
    journal.hold()
    replies = [start(account.put(amount)) for amount in range(1, 101)]
    await eventually(lambda: len(Account.runs) == 100)
    assert not_done(*replies)
    journal.let_go()
    assert await asyncio.gather(*replies) == [amount * (amount + 1) // 2 for amount in range(1, 101)]
    assert len(journal.appends) == 2, "what gathered while the first was on its way shares one commit"


async def test_queries_refusals_and_no_ops_that_saw_uncommitted_events_wait_for_them(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal)
    account = system.get(Account, "a")
    assert await account.balance() == 0
    journal.hold()
    put, query_, refusal, no_op = (
        start(call) for call in (account.put(5), account.balance(), account.take(9), account.nothing())
    )
    await eventually(lambda: "nothing" in Account.runs)
    await turns()
    assert not_done(put, query_, refusal, no_op)
    journal.let_go()
    assert (await put, await query_, await no_op) == (5, 5, 5)
    with pytest.raises(Broke) as refused:
        await refusal
    assert refused.value.details == {"left": 5}


async def test_without_anything_uncommitted_a_query_needs_no_journal(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal)
    account = system.get(Account, "a")
    assert await account.put(3) == 3
    journal.hold()
    journal.reads_fail = AssertionError("no read is needed")
    assert await account.balance() == 3
    journal.reads_fail = None


async def test_one_entity_waiting_for_the_disk_does_not_hold_up_anothers_queries(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal)
    one, other = system.get(Account, "one"), system.get(Account, "other")
    assert await other.balance() == 0
    journal.hold()
    put = start(one.put(1))
    await eventually(lambda: journal.held)
    assert await other.balance() == 0
    assert not_done(put)


@pytest.mark.parametrize("how", ["put", "query", "refusal"])
async def test_an_answer_that_saw_an_event_which_was_refused_does_not_leave_as_it_was(nodes: Nodes, how: str) -> None:
    """A's event is too large for the journal: nobody may hear of a state that includes it."""
    journal = nodes.journal()
    system = await nodes.start(journal)
    account = system.get(Account, "a")
    assert await account.put(10) == 10
    journal.hold()
    payload_max = journal.capabilities.payload_max_bytes
    refused = start(account.put(90, "x" * (payload_max + 1)))
    calls = {"put": account.put(1), "query": account.balance(), "refusal": account.take(50)}
    chosen = calls.pop(how)
    for call in calls.values():
        call.close()
    seer = start(chosen)
    await eventually(lambda: journal.held)
    await turns()
    journal.let_go()
    with pytest.raises(HandlerFailed):
        await refused
    if how == "refusal":
        with pytest.raises(Broke) as broke:
            await seer
        assert broke.value.details == {"left": 10}
    else:
        assert await seer == {"put": 11, "query": 10}[how]


async def test_a_refusal_after_emit_that_saw_an_event_which_was_refused_is_decided_again(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal)
    account = system.get(Account, "a")
    await account.put(10)
    journal.hold()
    refused = start(account.put(90, "x" * (journal.capabilities.payload_max_bytes + 1)))
    seer = start(account.put_then_reject(1))
    await eventually(lambda: journal.held)
    await turns()
    journal.let_go()
    with pytest.raises(HandlerFailed):
        await refused
    with pytest.raises(Broke) as broke:
        await seer
    assert broke.value.details == {"left": 11}
    assert await account.balance() == 10


async def test_a_handlers_failure_that_saw_uncommitted_events_waits_for_them(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal)
    account = system.get(Account, "a")
    await account.balance()
    journal.hold()
    put, boom = start(account.put(5)), start(account.boom())
    await eventually(lambda: journal.held)
    await turns()
    assert not_done(put, boom)
    journal.let_go()
    assert await put == 5
    with pytest.raises(HandlerFailed) as failed:
        await boom
    assert isinstance(failed.value.__cause__, ZeroDivisionError)
    assert await account.balance() == 5


async def test_messages_to_others_wait_and_leave_in_order(nodes: Nodes, recorder: Recorder) -> None:
    journal, system = await recording(nodes, recorder)
    caller = system.get(Caller, "c")
    await caller.names()
    journal.hold()
    replies = [
        start(caller.emit_and_tell("1")), start(caller.emit_and_send("2")), start(caller.tell_only("3")),
        start(caller.ask_to_tell("4")),
    ]  # fmt: skip
    await eventually(lambda: journal.held)
    await turns()
    assert recorder.seen == []
    journal.let_go()
    await asyncio.gather(*replies)
    await turns()
    assert recorder.seen == ["before 1", "after 1", "2", "3", "4"]


@pytest.mark.parametrize("how", ["tell_then_reject", "tell_then_fail"])
async def test_messages_of_a_rejected_or_failed_command_never_leave(nodes: Nodes, recorder: Recorder, how: str) -> None:
    _, system = await recording(nodes, recorder)
    caller = system.get(Caller, "c")
    with pytest.raises(CallError):
        await getattr(caller, how)("never")
    await caller.tell_only("later")
    await turns()
    assert recorder.seen == ["later"]


async def test_messages_of_a_command_that_ran_again_leave_once(nodes: Nodes, recorder: Recorder) -> None:
    journal, system = await recording(nodes, recorder)
    caller = system.get(Caller, "c")
    await caller.names()
    journal.script.append(lost_for_lack_of_space)
    assert await caller.emit_and_tell("1") == "1"
    await turns()
    assert recorder.seen == ["before 1", "after 1"]
    assert await caller.names() == ["1"]


async def test_messages_of_a_command_that_was_stored_in_doubt_leave_once_and_in_order(
    nodes: Nodes, recorder: Recorder
) -> None:
    """A later command is acknowledged before it is known that the earlier one was stored, too."""
    journal, system = await recording(nodes, recorder, batch_max_appends=1)
    caller = system.get(Caller, "c")
    await caller.names()
    journal.script.append(stored_in_doubt)
    assert await asyncio.gather(caller.emit_and_tell("1"), caller.emit_and_tell("2")) == ["1", "2"]
    await turns()
    assert recorder.seen == ["before 1", "after 1", "before 2", "after 2"]
    assert await caller.names() == ["1", "2"]


async def test_a_timer_starts_when_its_commands_events_are_durable(nodes: Nodes, recorder: Recorder) -> None:
    journal, system = await recording(nodes, recorder)
    caller = system.get(Caller, "c")
    await caller.names()
    loop = asyncio.get_running_loop()
    journal.hold()
    reply = start(caller.remind("x", 0.1))
    await asyncio.sleep(0.4)
    assert recorder.seen == []
    assert not_done(reply)
    released_s = loop.time()
    journal.let_go()
    await reply
    await eventually(lambda: recorder.seen)
    assert loop.time() >= released_s + 0.1
    assert await caller.names() == ["x", "timer x"]


async def test_a_repeating_timer_repeats_until_it_is_cancelled(nodes: Nodes, recorder: Recorder) -> None:
    _, system = await recording(nodes, recorder)
    caller = system.get(Caller, "c")
    await caller.remind_every("tick", 10.0)
    await asyncio.sleep(35)
    assert recorder.seen == ["tick"] * 3
    await caller.forget()
    await asyncio.sleep(100)
    assert recorder.seen == ["tick"] * 3


async def test_a_published_view_shows_only_what_is_durable(nodes: Nodes, recorder: Recorder) -> None:
    journal, system = await recording(nodes, recorder)
    view = system.view(Caller.count)
    caller = system.get(Caller, "c")
    await caller.emit_and_tell("1")
    assert view.get("c") == (1, 1)
    journal.hold()
    reply = start(caller.emit_and_tell("2"))
    await eventually(lambda: journal.held == 2)
    await turns()
    assert view.get("c") == (1, 1)
    journal.let_go()
    await reply
    assert view.get("c") == (2, 2)


async def test_a_published_value_is_not_the_live_states_own_object(nodes: Nodes) -> None:
    class Shared(PersistentActor[Steps, Step], name="shared-list"):
        @command
        def step(self, name: str) -> None:
            self.emit(Step(name))

        @published
        def names(self) -> list[str] | None:
            return self.state.names

    journal = nodes.journal()
    system = await nodes.start(journal)
    view = system.view(Shared.names)
    await system.get(Shared, "s").step("1")
    journal.hold()
    second = start(system.get(Shared, "s").step("2"))
    await eventually(lambda: journal.held == 2)
    entry = view.get("s")
    assert entry is not None
    assert entry == (["1"], 1), "the uncommitted second event shows"
    journal.let_go()
    await second


async def test_a_reply_is_not_the_live_states_own_object(nodes: Nodes) -> None:
    system = await nodes.start()
    account = system.get(Account, "a")
    first = await account.note("1")
    await account.note("2")
    first.append("mine")
    assert await account.notes() == ["1", "2"]


async def test_a_snapshot_is_stored_only_after_its_event(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal, snapshot_every_events=1)
    await system.get(Account, "a").balance()
    journal.hold()
    reply = start(system.get(Account, "a").put(1))
    await eventually(lambda: journal.held)
    await turns()
    assert await journal.inner.load_snapshots("account/a") == []
    journal.let_go()
    await reply
    await eventually(lambda: system.snapshots.saved)
    assert [snapshot.sequence for snapshot in await journal.inner.load_snapshots("account/a")] == [1]


async def test_asking_a_plain_actor_after_emit_is_an_error_that_says_so(nodes: Nodes, recorder: Recorder) -> None:
    _, system = await recording(nodes, recorder)
    caller = system.get(Caller, "c")
    with pytest.raises(HandlerFailed) as failed:
        await caller.ask_after_emit()
    assert isinstance(failed.value.__cause__, CallingOutAfterEmit)
    assert recorder.seen == []
    assert await caller.names() == []
    assert await caller.ask_then_emit("first") == "first"
    assert await caller.names() == ["first"]


async def test_calling_an_entity_after_emit_is_an_error_that_says_so(nodes: Nodes, recorder: Recorder) -> None:
    _, system = await recording(nodes, recorder)
    caller = system.get(Caller, "c")
    with pytest.raises(HandlerFailed) as failed:
        await caller.call_after_emit("a")
    assert isinstance(failed.value.__cause__, CallingOutAfterEmit)
    assert await caller.names() == []
    assert await system.get(Account, "a").balance() == 0
    assert await caller.call_then_emit("a") == 1
    assert await caller.names() == ["1"]


@pytest.mark.parametrize("path", [["a"], ["b", "a"], ["b", "c", "b"]])
async def test_a_call_that_comes_back_is_a_cycle_and_not_a_deadlock(
    nodes: Nodes, recorder: Recorder, path: list[str]
) -> None:
    _, system = await recording(nodes, recorder)
    before_s = asyncio.get_running_loop().time()
    with pytest.raises(HandlerFailed) as failed:
        await system.get(Caller, "a").call_other(path)
    cause: BaseException | None = failed.value
    while isinstance(cause, HandlerFailed):
        cause = cause.__cause__
    assert isinstance(cause, CallCycle)
    assert asyncio.get_running_loop().time() - before_s < 1
    assert await system.get(Caller, "a").call_other(["b", "c"]) == "end"


async def test_a_full_gate_stops_taking_calls_until_answers_have_left(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal, pending_max_answers=10)
    account = system.get(Account, "a")
    await account.balance()
    journal.hold()
    replies = [start(account.put(1)) for _ in range(30)]
    await eventually(lambda: len(Account.runs) == 10)
    await turns()
    assert len(Account.runs) == 10
    journal.let_go()
    assert await asyncio.gather(*replies) == list(range(1, 31))


async def test_an_append_that_fails_while_the_gate_is_full_does_not_stop_the_entity(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal, pending_max_answers=4)
    account = system.get(Account, "a")
    await account.balance()
    journal.hold()
    journal.script.append(lost_for_lack_of_space)
    replies = [start(account.put(1)) for _ in range(12)]
    await eventually(lambda: len(Account.runs) == 4)
    await turns()
    journal.let_go()
    assert await asyncio.gather(*replies) == list(range(1, 13))


async def test_an_entity_cannot_call_its_own_commands_directly(nodes: Nodes) -> None:
    class Selfish(PersistentActor[Steps, Step], name="selfish"):
        @command
        def twice(self) -> None:
            self.once()

        @command
        def once(self) -> None:
            self.emit(Step("once"))

    system = await nodes.start()
    with pytest.raises(HandlerFailed) as failed:
        await system.get(Selfish, "s").twice()
    assert isinstance(failed.value.__cause__, TypeError)


async def test_emitting_in_a_query_or_after_the_handler_ended_raises(nodes: Nodes) -> None:
    class Sneaky(PersistentActor[Steps, Step], name="sneaky"):
        @query
        def look(self) -> None:
            self.emit(Step("in a query"))

        @command
        async def leak(self) -> None:
            async def later() -> None:
                await Busy.wait("later")
                self.emit(Step("late"))

            Busy.waiting["task"] = asyncio.ensure_future(later())

        @query
        def names(self) -> list[str]:
            return self.state.names

    system = await nodes.start()
    sneaky = system.get(Sneaky, "s")
    with pytest.raises(HandlerFailed):
        await sneaky.look()
    await sneaky.leak()
    Busy.go("later")
    with pytest.raises(RuntimeError):
        await Busy.waiting["task"]
    assert await sneaky.names() == []


async def test_the_system_has_the_settings_that_it_was_given(nodes: Nodes) -> None:
    system = await nodes.start(keys_max=7)
    assert system.settings.persistence.keys_max == settings(keys_max=7).persistence.keys_max == 7

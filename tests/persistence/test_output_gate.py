"""Promise P2: what leaves an entity exists only after the events it depends on are durable."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actorkit import (
    CallError,
    HandlerFailed,
    OutcomeUnknown,
    PersistentActor,
    command,
    published,
)
from actorkit.errors import JournalUnavailable
from tests.persistence.actors import Account, Broke
from tests.persistence.kit import Nodes, eventually, lost_for_lack_of_space, settings, stored_in_doubt, turns
from tests.persistence.reaching import Caller, Recorder, Step, Steps, recording


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


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


async def test_calls_that_are_begun_are_handled_in_that_order_whether_anybody_waits_or_not(nodes: Nodes) -> None:
    account = (await nodes.start()).get(Account, "a")
    calls = [account.put.begin(amount) for amount in (1, 2, 3)]
    calls[1].cancel()
    refused = account.take.begin(100)
    assert await account.balance.begin() == 6
    assert [calls[0].result(), calls[2].result()] == [1, 6]
    assert isinstance(refused.exception(), Broke)


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


async def test_what_is_stored_is_answered_and_told_although_the_rest_cannot_be_settled(
    nodes: Nodes, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first append is in doubt, the second lands; then the journal can be read for the state, and no further."""
    journal, system = await recording(nodes, recorder)
    caller = system.get(Caller, "c")
    await caller.names()
    journal.hold()
    journal.script.append(stored_in_doubt)
    first = start(caller.emit_and_send("1"))
    await eventually(lambda: journal.held)
    second, third = start(caller.emit_and_send("2")), start(caller.ask_to_tell("3"))
    await turns()
    reads = []

    async def unreadable(stream: str, **how: Any) -> Any:
        reads.append(stream)
        if len(reads) > 1:
            raise JournalUnavailable("cannot be reached")
        return await journal.inner.read_stream(stream, **how)

    monkeypatch.setattr(journal, "read_stream", unreadable)
    journal.let_go()
    outcomes = await asyncio.gather(first, second, third, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [OutcomeUnknown, type(outcomes[1]), OutcomeUnknown]
    assert not isinstance(outcomes[1], Exception)
    await turns()
    assert recorder.seen == ["2"]
    monkeypatch.undo()
    assert await caller.names() == ["1", "2"]


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


async def test_the_system_has_the_settings_that_it_was_given(nodes: Nodes) -> None:
    system = await nodes.start(keys_max=7)
    assert system.settings.persistence.keys_max == settings(keys_max=7).persistence.keys_max == 7

"""Handlers that raise, hang and are cancelled, callers that go away, deadlines and full queues. Promises P9, P10."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from actorkit import (
    Event,
    HandlerFailed,
    OutcomeUnknown,
    Overloaded,
    PersistentActor,
    Rejected,
    State,
    Unavailable,
    applies,
    command,
    field,
    published,
    query,
)
from tests.persistence.actors import Account, Broke, Busy
from tests.persistence.kit import Nodes, eventually, turns


class Went(Event, name="tests.went"):
    step: str


class Walked(State):
    steps: list[str] = field(default_factory=list[str])

    @applies(Went)
    def went(self, event: Went) -> None:
        if event.step == "poison":
            raise ValueError("cannot be applied")
        self.steps.append(event.step)


async def outcome(call: Any) -> Any:
    return (await asyncio.gather(call, return_exceptions=True))[0]


def start(call: Any) -> asyncio.Task[Any]:
    return asyncio.ensure_future(call)


# ------------------------------------------------------------------------------------------------------------- raising


async def test_what_a_raising_handler_had_emitted_is_discarded(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal)
    account = system.get(Account, "a")
    await account.put(5)
    with pytest.raises(HandlerFailed) as failed:
        await account.boom(100)
    assert isinstance(failed.value.__cause__, ZeroDivisionError)
    assert await account.balance() == 5
    assert await account.put(1) == 6
    assert len(await journal.inner.read_stream("account/a", after=0, limit=10)) == 2


async def test_a_raising_handler_undoes_nothing_of_earlier_commands_on_their_way(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal)
    account = system.get(Account, "a")
    await account.balance()
    journal.hold()
    calls = [account.put(1), account.put(2), account.boom(100), account.put(4), account.balance()]
    tasks = [start(outcome(call)) for call in calls]
    await eventually(lambda: journal.held)
    await turns()
    assert not any(task.done() for task in tasks)
    journal.let_go()
    results = await asyncio.gather(*tasks)
    assert [results[0], results[1], results[3], results[4]] == [1, 3, 7, 7]
    assert isinstance(results[2], HandlerFailed)


async def test_a_raising_handler_behind_a_lost_append_is_run_again(nodes: Nodes) -> None:
    from tests.persistence.kit import lost_for_lack_of_space

    journal = nodes.journal()
    system = await nodes.start(journal)
    account = system.get(Account, "a")
    await account.balance()
    journal.script.append(lost_for_lack_of_space)
    results = await asyncio.gather(*(outcome(call) for call in (account.put(1), account.boom(), account.balance())))
    assert [type(result) for result in results] == [int, HandlerFailed, int]
    assert await account.balance() == 1


async def test_a_stored_command_is_acknowledged_though_the_entity_cannot_be_rebuilt_afterwards(nodes: Nodes) -> None:
    """A lands while B's failure makes the entity settle, and then the journal cannot be read: A is durable."""
    from actorkit.errors import JournalCorrupt

    journal = nodes.journal()
    system = await nodes.start(journal)
    account = system.get(Account, "a")
    await account.balance()
    journal.hold()
    put, boom = start(outcome(account.put(1))), start(outcome(account.boom()))
    await eventually(lambda: journal.held)
    await turns()
    journal.reads_fail = JournalCorrupt("a gap")
    journal.let_go()
    assert await put == 1
    assert isinstance(await boom, Unavailable)
    journal.reads_fail = None
    assert await account.balance() == 1


async def test_rejected_after_emit_discards_what_was_emitted(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal)
    account = system.get(Account, "a")
    await account.put(5)
    with pytest.raises(Broke) as broke:
        await account.put_then_reject(100)
    assert broke.value.details == {"left": 105}
    assert await account.balance() == 5
    assert await account.at_version() == 1
    calls = [account.put(1), account.put_then_reject(50), account.put(1), account.balance()]
    results = await asyncio.gather(*map(outcome, calls))
    assert [results[0], results[2], results[3]] == [6, 7, 7]
    assert isinstance(results[1], Broke)
    assert len(await journal.inner.read_stream("account/a", after=0, limit=10)) == 3


async def test_several_events_of_one_command_are_stored_together_or_not_at_all(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal)
    account = system.get(Account, "a")
    assert await account.put_both(1, 2) == 3
    [append] = journal.appends[0]
    assert len(append.events) == 2
    records = await journal.inner.read_stream("account/a", after=0, limit=10)
    assert [(record.sequence, record.outcome is None) for record in records] == [(1, True), (2, False)]


async def test_a_rejected_command_travels_as_itself(nodes: Nodes) -> None:
    system = await nodes.start()
    with pytest.raises(Broke) as broke:
        await system.get(Account, "a").take(5)
    assert type(broke.value) is Broke
    assert (broke.value.reason, broke.value.details) == ("not enough", {"left": 0})


async def test_an_event_that_cannot_be_applied_fails_its_command_even_if_the_handler_goes_on(nodes: Nodes) -> None:
    class Stubborn(PersistentActor[Walked, Went], name="stubborn"):
        @command
        def go(self, *, step: str) -> list[str]:
            try:
                self.emit(Went(step))
            except ValueError:
                self.emit(Went("instead"))
            return self.state.steps

    system = await nodes.start()
    stubborn = system.get(Stubborn, "s")
    with pytest.raises(HandlerFailed):
        await stubborn.go(step="poison")
    assert await stubborn.go(step="1") == ["1"]


async def test_a_reply_that_cannot_be_encoded_fails_the_command(nodes: Nodes) -> None:
    class Odd(PersistentActor[Walked, Went], name="odd-reply"):
        @command
        def go(self) -> list[Any]:
            self.emit(Went("1"))
            return [object()]

        @query
        def steps(self) -> list[str]:
            return self.state.steps

    system = await nodes.start()
    with pytest.raises(HandlerFailed):
        await system.get(Odd, "o").go()
    assert await system.get(Odd, "o").steps() == []


async def test_a_published_method_that_raises_fails_the_command_and_not_the_entity(nodes: Nodes) -> None:
    class Shy(PersistentActor[Walked, Went], name="shy"):
        @command
        def go(self, step: str) -> list[str]:
            self.emit(Went(step))
            return self.state.steps

        @published
        def last(self) -> str | None:
            if "bad" in self.state.steps:
                raise ValueError("cannot show it")
            return self.state.steps[-1] if self.state.steps else None

    system = await nodes.start()
    view = system.view(Shy.last)
    shy = system.get(Shy, "s")
    assert await shy.go("1") == ["1"]
    with pytest.raises(HandlerFailed):
        await shy.go("bad")
    assert await shy.go("2") == ["1", "2"]
    assert view.get("s") == ("2", 2)


# ------------------------------------------------------------------------------------------------- hanging, cancelling


async def test_a_hanging_handler_is_cancelled_at_its_limit_and_the_entity_goes_on(nodes: Nodes) -> None:
    system = await nodes.start(handler_timeout_s=0.5)
    account = system.get(Account, "a")
    await account.put(1)
    begun_s = asyncio.get_running_loop().time()
    hanging = start(outcome(account.put_slowly.options(deadline_s=10)(100, "never", True)))
    behind = start(account.put(1))
    failed = await hanging
    assert isinstance(failed, HandlerFailed)
    assert isinstance(failed.__cause__, TimeoutError)
    assert 0.5 <= asyncio.get_running_loop().time() - begun_s <= 0.7
    assert await behind == 2


class Walker(PersistentActor[Walked, Went], name="walker"):
    """Awaits n times, and emits between."""

    before: Callable[[int], None] = staticmethod(lambda n: None)

    @command
    async def walk(self, count: int) -> list[str]:
        for number in range(count):
            await self._wait(number)
            self.emit(Went(f"{number}"))
        await self._wait(count)
        return self.state.steps

    async def _wait(self, number: int) -> None:
        future = Busy.waiting[f"walk {number}"] = asyncio.get_running_loop().create_future()
        Busy.entered.append(f"walk {number}")
        await future

    @query
    def steps(self) -> list[str]:
        return self.state.steps


@pytest.mark.parametrize("how", ["what it awaits", "its task"])
@pytest.mark.parametrize("at", range(4))
async def test_a_handler_that_is_cancelled_at_its_nth_await_leaves_nothing_behind(
    nodes: Nodes, at: int, how: str
) -> None:
    """Fault 27."""
    journal = nodes.journal()
    system = await nodes.start(journal)
    walker = system.get(Walker, "w")
    assert await walker.steps() == []
    walk = start(outcome(walker.walk(3)))
    for number in range(at):
        await eventually(lambda n=number: f"walk {n}" in Busy.entered)
        Busy.waiting[f"walk {number}"].set_result(None)
    await eventually(lambda: f"walk {at}" in Busy.entered)
    if how == "what it awaits":
        Busy.waiting[f"walk {at}"].cancel()
    else:
        [slot] = system.region._slots.values()
        assert slot.cell.task is not None
        slot.cell.task.cancel()
    result = await walk
    assert isinstance(result, Unavailable)
    assert await walker.steps() == []
    assert await journal.inner.read_stream("walker/w", after=0, limit=10) == []
    Busy.reset()
    again = start(walker.walk(1))
    for number in range(2):
        await eventually(lambda n=number: f"walk {n}" in Busy.entered)
        Busy.waiting[f"walk {number}"].set_result(None)
    assert await again == ["0"]


@pytest.mark.parametrize("at", range(4))
async def test_a_node_that_stops_at_the_nth_await_of_a_handler_keeps_nothing_of_it(nodes: Nodes, at: int) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal)
    walk = start(outcome(system.get(Walker, "w").walk(3)))
    for number in range(at):
        await eventually(lambda n=number: f"walk {n}" in Busy.entered)
        Busy.waiting[f"walk {number}"].set_result(None)
    await eventually(lambda: f"walk {at}" in Busy.entered)
    behind = start(outcome(system.get(Walker, "w").walk(3)))
    await turns()
    await system.stop()
    assert isinstance(await walk, Unavailable | OutcomeUnknown)
    assert isinstance(await behind, Unavailable)
    assert await journal.inner.read_stream("walker/w", after=0, limit=10) == []


@pytest.mark.parametrize(
    "where", ["append on its way", "waiting for room", "looking up a key", "recovering", "settling"]
)
async def test_a_node_that_stops_ends_every_call(nodes: Nodes, where: str) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal, pending_max_answers=2, close_timeout_s=0.5)
    account = system.get(Account, "a")
    if where != "recovering":
        await account.balance()
    if where in ("looking up a key", "recovering"):
        journal.reads_gate = asyncio.Event()
    else:
        journal.hold()
    keyed = account.put.options(idempotency_key="k", deadline_s=1000)
    calls = [keyed(1)] + [account.put.options(deadline_s=1000)(1) for _ in range(1 if where == "settling" else 5)]
    if where == "settling":
        calls += [account.boom.options(deadline_s=1000)(), account.balance()]
    tasks = [start(outcome(call)) for call in calls]
    await turns()
    await system.stop()
    results = await asyncio.gather(*tasks)
    assert all(isinstance(result, OutcomeUnknown | Unavailable) for result in results), results
    executed = [result for result in results if isinstance(result, OutcomeUnknown)]
    assert len(executed) <= 2


async def test_a_client_that_hangs_up_cancels_no_write(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal)
    account = system.get(Account, "a")
    await account.balance()
    journal.hold()
    calls = [start(account.put(1)), start(account.put_slowly(2, "gate", True))]
    await eventually(lambda: Busy.entered)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    journal.let_go()
    Busy.go("gate")
    assert await account.balance() == 3


async def test_a_client_that_hangs_up_before_its_turn_and_one_whose_append_is_settled(nodes: Nodes) -> None:
    from tests.persistence.kit import lost_for_lack_of_space

    journal = nodes.journal()
    system = await nodes.start(journal)
    account = system.get(Account, "a")
    await account.balance()
    journal.hold()
    journal.script.append(lost_for_lack_of_space)
    call = start(account.put(1))
    await eventually(lambda: journal.held)
    call.cancel()
    journal.let_go()
    assert await account.balance() == 1, "it was run again although nobody waits for it"


# ------------------------------------------------------------------------------------------------------------ deadlines


async def test_a_call_whose_deadline_passes_in_the_mailbox_is_not_executed(nodes: Nodes) -> None:
    system = await nodes.start()
    account = system.get(Account, "a")
    slow = start(account.put_slowly(1, "gate"))
    await eventually(lambda: Busy.entered)
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    with pytest.raises(Unavailable) as late:
        await account.put.options(deadline_s=0.3)(100)
    assert not isinstance(late.value, HandlerFailed)
    assert late.value.retryable
    assert 0.3 <= loop.time() - begun_s <= 0.4
    Busy.go("gate")
    assert await slow == 1
    assert await account.balance() == 1
    assert Account.runs == []


@pytest.mark.parametrize("deadline_s", [0.01, 0.05, 0.3, 1.0, 3.33])
async def test_a_deadline_that_passes_while_the_append_is_on_its_way_is_an_unknown_outcome(
    nodes: Nodes, deadline_s: float
) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal, append_timeout_s=1000)
    account = system.get(Account, "a")
    await account.balance()
    journal.hold()
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    with pytest.raises(OutcomeUnknown):
        await account.put.options(deadline_s=deadline_s)(1)
    assert deadline_s <= loop.time() - begun_s <= deadline_s + 0.1
    journal.let_go()
    assert await account.balance() == 1


async def test_a_deadline_that_passes_while_the_handler_runs_is_an_unknown_outcome(nodes: Nodes) -> None:
    system = await nodes.start()
    account = system.get(Account, "a")
    with pytest.raises(OutcomeUnknown):
        await account.put_slowly.options(deadline_s=0.3)(1, "gate")
    Busy.go("gate")
    assert await account.balance() == 1


async def test_a_query_never_ends_with_an_unknown_outcome(nodes: Nodes) -> None:
    system = await nodes.start()
    with pytest.raises(Unavailable):
        await system.get(Account, "a").balance_slowly.options(deadline_s=0.3)("gate")


async def test_a_call_that_was_undone_and_not_run_again_in_time_is_surely_not_executed(nodes: Nodes) -> None:
    from actorkit.errors import JournalUnavailable
    from tests.persistence.kit import lost_for_lack_of_space

    journal = nodes.journal()
    system = await nodes.start(journal)
    account = system.get(Account, "a")
    await account.balance()
    journal.script.extend([lost_for_lack_of_space] * 1000)
    begun_s = asyncio.get_running_loop().time()
    result = await outcome(account.put.options(deadline_s=3)(1))
    assert asyncio.get_running_loop().time() - begun_s <= 3.1
    assert isinstance(result, Unavailable)
    assert len(journal.appends) < 20, "a full disk is not written to at full speed"
    journal.script.clear()
    assert await account.balance() == 0
    assert JournalUnavailable


# ------------------------------------------------------------------------------------------------------------- overload


async def test_a_full_mailbox_answers_overloaded_at_once_and_speed_returns_by_itself(nodes: Nodes) -> None:
    system = await nodes.start(mailbox_max_calls=5)
    account = system.get(Account, "a")
    await account.balance()
    slow = start(account.put_slowly(1, "gate"))
    await eventually(lambda: Busy.entered)
    calls = [start(outcome(account.put(1))) for _ in range(12)]
    await turns()
    refused = [call for call in calls if call.done()]
    assert len(refused) == 7
    for call in refused:
        error = await call
        assert isinstance(error, Overloaded)
        assert error.retryable
        assert error.limit == 5
    Busy.go("gate")
    assert await slow == 1
    assert await account.put(1) == 7


async def test_a_full_buffer_of_a_shard_answers_overloaded(nodes: Nodes) -> None:
    from actorkit.errors import JournalUnavailable

    journal = nodes.journal()
    system = await nodes.start(journal, buffer_max_calls=5, shards=1)
    journal.leases_fail = JournalUnavailable("cut off")
    calls = [start(outcome(system.get(Account, f"a{n}").put.options(deadline_s=1)(1))) for n in range(8)]
    await turns()
    assert sum(call.done() for call in calls) == 3
    assert {type(result) for result in await asyncio.gather(*calls[:5])} == {Unavailable}
    journal.leases_fail = None
    assert await system.get(Account, "a0").put(1) == 1


async def test_a_full_queue_of_the_writer_answers_overloaded_and_keeps_nothing(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal, queue_max_appends=3)
    account = system.get(Account, "a")
    await account.balance()
    journal.hold()
    first = start(outcome(account.put(1)))
    await eventually(lambda: journal.held)
    calls = [start(outcome(account.put(1))) for _ in range(6)]
    await turns()
    journal.let_go()
    results = [await first, *(await asyncio.gather(*calls))]
    assert {type(result) for result in results} <= {int, Overloaded}
    done = sum(isinstance(result, int) for result in results)
    assert [result for result in results if isinstance(result, int)] == list(range(1, done + 1))
    assert await account.balance() == done


async def test_a_refusal_declared_by_its_author_keeps_its_code_and_text() -> None:
    error = Rejected.rebuild("tests.broke", "why", {"left": 1})
    assert type(error) is Broke
    assert str(error) == "why"

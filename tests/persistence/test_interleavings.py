"""Promises P3, P4, P5, P10: take-overs, lost appends and repetitions, in the order that once broke them."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from actorkit import HandlerFailed, Message
from actorkit.errors import JournalUnavailable, OutcomeUnknown
from actorkit.ids import shard_of
from tests.persistence.actors import Account, Broke
from tests.persistence.interleaving import (
    SHARDS,
    Batch,
    Relay,
    account_away_from,
    answered_after,
    outcome,
    pause,
    refused_after,
    start,
    two,
)
from tests.persistence.kit import Nodes, eventually, lost_in_doubt, turns


async def test_a_query_behind_an_append_does_not_miss_what_another_owner_wrote_meanwhile(nodes: Nodes) -> None:
    """First: append stored, unanswered; pause. Second: takes over, writes, leaves. First: has the shard again."""
    first, second, journal = await two(nodes, append_timeout_s=10)
    account = first.get(Account, "a")
    assert await account.put(1) == 1
    gate = asyncio.Event()
    journal.script.append(answered_after(gate))
    put = start(account.put(2))
    await turns()
    pause(nodes)
    assert await second.get(Account, "a").put(100) == 103
    query = start(account.balance())
    await turns()
    assert not query.done()
    await second.stop()
    await asyncio.sleep(1.5)
    gate.set()
    assert await query == 103, "it was asked after the other owner's write was acknowledged"
    assert await put == 3
    assert await account.balance() == 103


async def test_a_command_that_has_called_another_is_never_called_surely_not_executed(nodes: Nodes) -> None:
    """The relay's account has the money; then the relay's own append is fenced, and nobody runs it in time."""
    first, second, _ = await two(nodes)
    target = account_away_from("interleavings.relay/x")
    relay, account = first.get(Relay, "x"), first.get(Account, target)
    assert await relay.relay(target, 1) == 1
    pause(nodes)
    assert await second.get(Relay, "x").put(0) == 1
    with pytest.raises(OutcomeUnknown):
        await relay.relay.options(deadline_s=3)(target, 10)
    assert await account.balance() == 11


async def test_a_message_sent_again_is_not_told_that_it_was_surely_not_executed(nodes: Nodes) -> None:
    """Its first sending is stored; the second arrives while the store cannot be read."""
    journal = nodes.journal()
    system = await nodes.start(journal)
    system.get(Account, "a")
    arguments = msgspec.msgpack.encode([5, ""])

    def message(attempt: int) -> Message:
        return Message("account", "a", "put", arguments, command_id="c", deadline_s=2.0, attempt=attempt)

    assert await system.ask(message(1)) == 5
    journal.reads_fail = JournalUnavailable("cut off")
    with pytest.raises(OutcomeUnknown):
        await system.ask(message(2))
    journal.reads_fail = None
    assert await system.ask(message(3)) == 5
    assert await system.get(Account, "a").balance() == 5


async def test_a_sub_command_is_found_again_however_many_events_came_after_it(nodes: Nodes) -> None:
    """Sub-command stored; the caller's append lost; 350 other events at the target; the caller runs again."""
    journal = nodes.journal()
    system = await nodes.start(journal, shards=SHARDS, deadline_default_s=5, recovery_page_events=100)
    target = account_away_from("interleavings.relay/x")
    relay, account = system.get(Relay, "x"), system.get(Account, target)
    await account.put(0)
    await relay.put(0)
    journal.script.extend([None, lost_in_doubt])
    inner_acquire, may_acquire = journal.acquire, asyncio.Event()

    async def acquire(*args: Any, **how: Any) -> Any:
        await may_acquire.wait()
        return await inner_acquire(*args, **how)

    journal.acquire = acquire  # type: ignore[method-assign]
    call = start(relay.relay(target, 7))
    await turns(200)
    assert await account.balance() == 7
    await asyncio.gather(*(account.put(0) for _ in range(350)))
    may_acquire.set()
    assert await call == 7
    assert await account.notes() == ["relayed"]
    assert await account.balance() == 7


@pytest.mark.parametrize("what", ["refusal", "no-op"])
async def test_a_keyed_outcome_whose_record_is_lost_is_stored_as_it_was_decided_and_in_its_place(
    nodes: Nodes, what: str
) -> None:
    """The record of what a command without events has decided is lost while put, sent later, waits to be stored."""
    journal = nodes.journal()
    system = await nodes.start(journal)
    account = system.get(Account, "a")
    assert await account.put(1) == 1
    Account.runs.clear()

    def decide() -> asyncio.Future[Any]:
        if what == "refusal":
            return start(outcome(account.take.options(idempotency_key="k")(5)))
        return start(account.nothing.options(idempotency_key="k")())

    journal.hold()
    decided = decide()
    await turns()
    journal.script.append(lost_in_doubt)
    put = start(account.put(10))
    await turns()
    journal.let_go()
    answers = [await decided, await decide()]
    if what == "refusal":
        assert [(type(answer), answer.details) for answer in answers] == [(Broke, {"left": 1})] * 2
    else:
        assert answers == [1, 1]
    assert await put == 11
    assert await account.balance() == 11
    assert Account.runs[0] == {"refusal": "take 5", "no-op": "nothing"}[what]
    assert all(run.startswith("put") for run in Account.runs[1:]), "it is not decided again"
    [record] = await journal.inner.recent_keys("account/a", since_us=0, limit=10)
    assert record.key == "k"


async def test_a_handler_that_runs_again_has_the_arguments_that_were_sent(nodes: Nodes) -> None:
    """The first run used up its list; its append was lost."""
    journal = nodes.journal()
    system = await nodes.start(journal)
    batch = system.get(Batch, "b")
    assert await batch.put_all([1]) == 1
    journal.script.append(lost_in_doubt)
    amounts = [10, 20]
    assert await batch.put_all(amounts) == 2
    assert amounts == [10, 20], "they are the caller's"
    assert (await system.state_at(Batch, "b", version=3)).state.balance == 31


async def test_a_key_stands_for_the_arguments_that_were_sent(nodes: Nodes) -> None:
    """Not for what the handler has made of them."""
    system = await nodes.start()
    keyed = system.get(Batch, "b").put_all.options(idempotency_key="k")
    assert await keyed([5]) == 1
    assert await keyed([5]) == 1
    assert (await system.state_at(Batch, "b", version=1)).state.balance == 5


@pytest.mark.parametrize("again_at", ["the other", "the first"])
async def test_refusals_that_wait_for_confirmation_are_decided_again_in_order(nodes: Nodes, again_at: str) -> None:
    """The first refuses from old memory, unconfirmed; its renewal finds the shard lost; then the store answers."""
    first, second, journal = await two(nodes)
    account = first.get(Account, "a")
    assert await account.put(1) == 1
    pause(nodes)
    assert await second.get(Account, "a").put(4) == 5
    inner_status, may_answer = journal.inner.status, asyncio.Event()

    async def status(*args: Any, **how: Any) -> Any:
        await may_answer.wait()
        return await inner_status(*args, **how)

    journal.status = status  # type: ignore[method-assign]
    takes = [start(outcome(account.take(amount))) for amount in (5, 3)]
    await turns()
    lease = first.region._by_number[shard_of("account/a", SHARDS)].lease
    await eventually(lambda: not lease.active)
    if again_at == "the first":
        await second.stop()
        await eventually(lambda: lease.active)
        takes.append(start(outcome(account.take(2))))
        await turns()
        may_answer.set()
    else:
        may_answer.set()
        await turns()
        await second.stop()
    done, *refused = await asyncio.gather(*takes)
    assert done == 0, "the first of them gets it all"
    assert [type(answer) for answer in refused] == [Broke] * (len(takes) - 1)


@pytest.mark.parametrize("how_if_rich", ["put", "note"])
async def test_a_handler_that_decides_otherwise_when_run_again_gets_no_answer_to_its_old_call(
    nodes: Nodes, how_if_rich: str
) -> None:
    """It saw a balance that was then refused, and called somebody for it; the second run calls for something else."""
    journal = nodes.journal()
    system = await nodes.start(journal)
    relay, account = system.get(Relay, "x"), system.get(Account, "t")
    await account.put(0)
    assert await relay.put(0) == 0
    gate = asyncio.Event()
    journal.script.append(refused_after(gate))
    put = start(relay.put(5))
    await turns()
    call = start(relay.relay_by_balance.options(deadline_s=3)("t", how_if_rich))
    await turns()
    gate.set()
    with pytest.raises(HandlerFailed):
        await put
    first_run = {"put": 100, "note": 0}[how_if_rich]
    assert await call == str(first_run + 1)
    assert await account.balance() == first_run + 1
    assert await account.notes() == ([] if how_if_rich == "put" else ["rich"])

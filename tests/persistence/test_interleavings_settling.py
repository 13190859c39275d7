"""Promises P3, P5, P9, P10: what waits, and in which order it leaves, when the entity has to find out what is true."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actorkit import HandlerFailed, OutcomeUnknown, Unavailable
from actorkit.ids import shard_of
from actorkit.persistence.entity import Entity
from tests.persistence.actors import Account, Broke, Busy
from tests.persistence.interleaving import SHARDS, Relay, outcome, pause, start, two
from tests.persistence.kit import Nodes, lost_in_doubt, turns
from tests.persistence.reaching import Caller, Recorder, recording


@pytest.mark.parametrize("when", ["before its append is sent", "after it was sent"])
@pytest.mark.parametrize("handler", ["plain", "async"])
async def test_a_crash_of_the_shell_settles_in_doubt_and_the_entity_goes_on(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, handler: str, when: str
) -> None:
    """A defect of the framework: its caller is told that nobody knows, the others get what is true."""
    journal = nodes.journal()
    system = await nodes.start(journal, shards=SHARDS)
    account = system.get(Account, "a")
    assert await account.put(1) == 1
    [before] = await journal.inner.status([shard_of("account/a", SHARDS)])
    append = Entity._append
    crashes = ["a defect"]

    def crash(entity: Entity, answer: Any, *args: Any) -> None:
        if answer.call.args[0] == 10 and crashes:
            if when == "after it was sent":
                append(entity, answer, *args)
            raise ZeroDivisionError(crashes.pop())
        append(entity, answer, *args)

    monkeypatch.setattr(Entity, "_append", crash)
    journal.hold()
    earlier = start(account.put(2))
    crashed = start(outcome(account.put(10) if handler == "plain" else account.put_slowly(10, "gate")))
    Busy.go("gate")
    await turns()
    later = start(account.put(3))
    query = start(account.balance())
    await turns()
    journal.let_go()
    assert isinstance(await crashed, OutcomeUnknown)
    crashed_amount = 10 if when == "after it was sent" else 0
    assert await earlier == 3
    assert await later == 6 + crashed_amount
    assert await query == 6 + crashed_amount
    assert not crashes
    [after] = await journal.inner.status([shard_of("account/a", SHARDS)])
    assert after.epoch > before.epoch, "what may still have been on its way is dead"


async def test_answers_that_wait_for_confirmation_leave_in_the_order_of_their_calls(nodes: Nodes) -> None:
    """The lease has run out, nobody else has had the shard, and the store takes its time to say so."""
    first, _, journal = await two(nodes)
    account = first.get(Account, "a")
    assert await account.put(1) == 1
    pause(nodes)
    may_answer = asyncio.Event()

    async def status(*args: Any, **how: Any) -> Any:
        await may_answer.wait()
        return await journal.inner.status(*args, **how)

    journal.status = status  # type: ignore[method-assign]
    left: list[str] = []

    def send(name: str, call: Any) -> asyncio.Future[Any]:
        future = start(outcome(call))
        future.add_done_callback(lambda _: left.append(name))
        return future

    answers = [send("query", account.balance())]
    await turns()
    answers += [send("refusal", account.take(50)), send("put", account.put(5)), send("no-op", account.nothing())]
    answers += [send("refusal after emit", account.put_then_reject(9)), send("last", account.balance())]
    await turns()
    assert journal.held == 2, "the put is stored already"
    assert left == []
    may_answer.set()
    balance, refusal, put, no_op, refused_after_emit, last = await asyncio.gather(*answers)
    assert (balance, put, no_op, last) == (1, 6, 6, 6)
    assert [type(answer) for answer in (refusal, refused_after_emit)] == [Broke, Broke]
    assert left == ["query", "refusal", "put", "no-op", "refusal after emit", "last"]


@pytest.mark.parametrize("failures", [1, 3])
async def test_one_lost_append_of_many_costs_each_command_behind_it_one_more_run(nodes: Nodes, failures: int) -> None:
    """What is behind it is on its way, one append after the other, and conflicts."""
    journal = nodes.journal()
    system = await nodes.start(journal, batch_max_appends=1, deadline_default_s=60)
    account = system.get(Account, "a")
    assert await account.put(0) == 0
    Account.runs.clear()
    commands = 200
    for _ in range(failures):
        journal.script.extend([*[None] * 5, lost_in_doubt])
    answers = await asyncio.gather(*(account.put(1) for _ in range(commands)))
    assert answers == list(range(1, commands + 1))
    assert len(Account.runs) <= (failures + 1) * commands
    assert len(journal.appends) <= 1 + (failures + 1) * commands


async def test_messages_leave_in_order_also_where_the_entity_settles_while_they_wait_for_confirmation(
    nodes: Nodes,
) -> None:
    """The first message rests on memory that is yet to be confirmed; the second one's event is stored; one fails."""
    recorder = Recorder()
    journal, system = await recording(nodes, recorder, deadline_default_s=20)
    caller = system.get(Caller, "c")
    await caller.emit_and_tell("0")
    recorder.seen.clear()
    pause(nodes)
    may_answer = asyncio.Event()

    async def status(*args: Any, **how: Any) -> Any:
        await may_answer.wait()
        return await journal.inner.status(*args, **how)

    journal.status = status
    calls = [start(outcome(call)) for call in (caller.tell_only("1"), caller.emit_and_tell("2"))]
    await turns()
    assert journal.held == 2, "the second one's event is stored"
    calls.append(start(outcome(caller.tell_then_fail("3"))))
    await turns()
    may_answer.set()
    assert [type(answer) for answer in await asyncio.gather(*calls)] == [str, str, HandlerFailed]
    await turns()
    assert recorder.seen == ["1", "before 2", "after 2"]


async def test_stopping_ends_every_call_wherever_it_is(nodes: Nodes) -> None:
    """Waiting for another's shard, in a handler, behind it, for a sub-call, for a commit, for confirmation, for keys.

    What ended ``Unavailable`` is not in the journal, and what was answered is.
    """
    first, second, journal = await two(nodes, deadline_default_s=1000, close_timeout_s=0.5)
    [foreign, slow, committing, confirming, keyed, settling, behind] = own = accounts_of_different_shards(7)
    assert await second.get(Account, foreign).put(1) == 1
    for id in (slow, committing, confirming, settling, behind):
        assert await first.get(Account, id).put(1) == 1
    theirs = shard_of(f"account/{foreign}", SHARDS)
    relay_id = next(f"r{n}" for n in range(100) if shard_of(f"interleavings.relay/r{n}", SHARDS) != theirs)
    relay = first.get(Relay, relay_id)
    await relay.put(1)
    accounts = {id: first.get(Account, id) for id in own}
    calls = {
        "of another": accounts[foreign].put(10),
        "in its handler": accounts[slow].put_slowly(10, "never"),
        "behind it": accounts[slow].put(20),
        "of a busy one": accounts[slow].balance(),
        "with a sub-call": relay.relay(slow, 40),
    }
    tasks = {name: start(outcome(call)) for name, call in calls.items()}
    await turns()
    journal.hold()
    journal.script.append(lost_in_doubt)
    calls = {
        "committing": accounts[committing].put(10),
        "behind a commit": accounts[committing].balance(),
        "in doubt": accounts[settling].put(10),
        "failed": accounts[settling].boom(),
        "behind a failure": accounts[settling].balance(),
    }
    tasks |= {name: start(outcome(call)) for name, call in calls.items()}
    await turns()

    async def hang(*args: Any, **how: Any) -> Any:
        await asyncio.get_running_loop().create_future()

    journal.status = journal.renew = hang  # type: ignore[method-assign]
    pause(nodes)
    tasks["to be confirmed"] = start(outcome(accounts[confirming].balance()))
    journal.reads_gate = asyncio.Event()
    tasks["looking up a key"] = start(outcome(accounts[behind].put.options(idempotency_key="k")(10)))
    tasks["recovering"] = start(outcome(accounts[keyed].put(10)))
    await turns()
    assert not any(task.done() for task in tasks.values())
    await first.stop()
    await turns()
    assert [name for name, task in tasks.items() if not task.done()] == []
    results = {name: task.result() for name, task in tasks.items()}
    honest = OutcomeUnknown | Unavailable | HandlerFailed | int
    assert [name for name, result in results.items() if not isinstance(result, honest)] == []
    balances = {id: await second.get(Account, id).balance() for id in own}
    for name, id in {"of another": foreign, "behind it": slow, "looking up a key": behind, "recovering": keyed}.items():
        assert isinstance(results[name], Unavailable), name
        assert balances[id] == (0 if id == keyed else 1), name
    assert isinstance(results["in its handler"], Unavailable | OutcomeUnknown)


def accounts_of_different_shards(count: int) -> list[str]:
    by_shard: dict[int, str] = {}
    for number in range(1_000):
        by_shard.setdefault(shard_of(f"account/s{number}", SHARDS), f"s{number}")
    return list(by_shard.values())[:count]

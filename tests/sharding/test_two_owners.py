"""Promise P1: two systems on one store; a pause, a take-over, and what the first may still do and say."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from actorkit.errors import JournalUnavailable, NamespaceMismatch, OutcomeUnknown, Unavailable
from actorkit.ids import shard_of
from actorkit.journal.protocols import Fenced
from tests.persistence.actors import Account, Broke
from tests.persistence.kit import Nodes, ScriptedJournal, eventually, turns


async def two(nodes: Nodes, **changes: Any) -> tuple[Any, Any, ScriptedJournal, ScriptedJournal]:
    """Two systems with connections of their own to one store."""
    changes = {"deadline_default_s": 20, "shards": 4, **changes}
    first_journal = nodes.journal()
    first = await nodes.start(first_journal, **changes)
    second_journal = nodes.journal(first_journal.inner)
    second = await nodes.start(second_journal, **changes)
    return first, second, first_journal, second_journal


def pause(nodes: Nodes, seconds: float = 10) -> None:
    """As long as this, everybody's lease clock has gone on and nobody's timers have: as after a suspend."""
    nodes.clock.lease_offset_s += seconds


def shard(id: str) -> int:
    return shard_of(f"account/{id}", 4)


async def test_a_second_system_cannot_write_while_the_first_holds_the_lease(nodes: Nodes) -> None:
    first, second, *_ = await two(nodes)
    assert await first.get(Account, "a").put(1) == 1
    waiting = asyncio.ensure_future(second.get(Account, "a").put.options(deadline_s=8)(100))
    await asyncio.sleep(7)
    assert not waiting.done(), "the first one renews its lease"
    assert second.region.waiting_for == {shard("a"): str(first.node)}
    with pytest.raises(Unavailable):
        await waiting
    assert await first.get(Account, "a").balance() == 1
    assert (await first.state_at(Account, "a", version=1)).state.balance == 1


async def test_a_graceful_stop_releases_the_shards_at_once(nodes: Nodes) -> None:
    first, second, *_ = await two(nodes, lease_s=3000, lease_renew_s=1000)
    assert await first.get(Account, "a").put(1) == 1
    waiting = asyncio.ensure_future(second.get(Account, "a").put(2))
    await eventually(lambda: second.region.waiting_for)
    await first.stop()
    begun_s = asyncio.get_running_loop().time()
    assert await waiting == 3
    assert asyncio.get_running_loop().time() - begun_s < 1


async def test_after_the_lease_has_run_out_the_second_takes_over_under_a_higher_epoch(nodes: Nodes) -> None:
    first, second, *_ = await two(nodes)
    assert await first.get(Account, "a").put(1) == 1
    [before] = await first.store.status([shard("a")])
    pause(nodes)
    assert await second.get(Account, "a").put(2) == 3
    [after] = await second.store.status([shard("a")])
    assert after.epoch > before.epoch
    assert after.owner == str(second.node)


async def test_the_first_ones_appends_are_fenced_and_its_command_runs_at_the_second(nodes: Nodes) -> None:
    first, second, first_journal, _ = await two(nodes)
    assert await first.get(Account, "a").put(1) == 1
    pause(nodes)
    assert await second.get(Account, "a").put(2) == 3
    stale = asyncio.ensure_future(first.get(Account, "a").put(4))
    await eventually(lambda: len(first_journal.appends) == 2)
    [result] = await first_journal.inner.append(first_journal.appends[1])
    assert isinstance(result, Fenced)
    await asyncio.sleep(1)
    assert not stale.done()
    await second.stop()
    assert await stale == 7, "it saw what the second had written"


@pytest.mark.parametrize("what", ["query", "refusal", "no-op", "repeated key"])
async def test_the_first_gives_no_answer_from_memory_without_confirmation(nodes: Nodes, what: str) -> None:
    first, second, *_ = await two(nodes)
    account = first.get(Account, "a")
    keyed = account.put.options(idempotency_key="k")
    assert await keyed(1) == 1
    pause(nodes)
    assert await second.get(Account, "a").put(2) == 3
    calls = {
        "query": account.balance(),
        "refusal": account.take(50),
        "no-op": account.nothing(),
        "repeated key": keyed(1),
    }
    call = calls.pop(what)
    for other in calls.values():
        other.close()
    answer = asyncio.ensure_future(call)
    await asyncio.sleep(1)
    assert not answer.done(), "it would be stale"
    await second.stop()
    if what == "refusal":
        with pytest.raises(Broke) as broke:
            await answer
        assert broke.value.details == {"left": 3}
    else:
        assert await answer == {"query": 3, "no-op": 3, "repeated key": 1}[what]


async def test_after_a_pause_without_a_take_over_answers_are_confirmed_by_the_store(nodes: Nodes) -> None:
    first, _, journal, _ = await two(nodes)
    account = first.get(Account, "a")
    assert await account.put(1) == 1
    pause(nodes)
    recoveries = first.counters.recoveries
    assert await account.balance() == 1
    assert first.counters.recoveries == recoveries, "memory still counts: nobody else had the shard"
    assert len(journal.appends) == 1


async def test_answers_are_not_given_while_the_store_cannot_confirm_them(nodes: Nodes) -> None:

    first, _, journal, _ = await two(nodes)
    account = first.get(Account, "a")
    assert await account.put(1) == 1
    pause(nodes)
    journal.leases_fail = JournalUnavailable("cut off")
    with pytest.raises(Unavailable):
        await account.balance.options(deadline_s=2)()
    answer = asyncio.ensure_future(account.balance.options(deadline_s=60)())
    await asyncio.sleep(30)
    assert not answer.done()
    journal.leases_fail = None
    assert await answer == 1


async def test_memory_of_a_lost_shard_is_dropped(nodes: Nodes) -> None:
    first, second, *_ = await two(nodes)
    assert await first.get(Account, "a").put(1) == 1
    assert first.region.entities == 1
    pause(nodes)
    assert await second.get(Account, "a").put(2) == 3
    await eventually(lambda: first.region.entities == 0)
    await second.stop()
    assert await first.get(Account, "a").balance() == 3


async def test_a_confirmation_of_a_later_epoch_does_not_cover_an_older_answer(nodes: Nodes) -> None:
    """Paused, overtaken, and the owner again before the store could be asked."""

    first, second, journal, _ = await two(nodes)
    account = first.get(Account, "a")
    assert await account.put(1) == 1
    pause(nodes)
    assert await second.get(Account, "a").put(2) == 3
    journal.leases_fail = JournalUnavailable("cut off")
    stale = asyncio.ensure_future(account.balance())
    await turns()
    await second.stop()
    first.region._lost(first.region._by_number[shard("a")])
    journal.leases_fail = None
    assert await stale == 3


async def test_calls_that_move_to_another_owner_keep_their_order(nodes: Nodes) -> None:
    """P4: some were running, some waited in the mailbox, some came later; all run where the shard is, in order."""
    first, second, first_journal, _ = await two(nodes)
    account = first.get(Account, "a")
    assert await account.note("0") == ["0"]
    pause(nodes)
    assert await second.get(Account, "a").note("second") == ["0", "second"]
    first_journal.hold()
    calls = [asyncio.ensure_future(account.note(f"n{number}")) for number in range(200)]
    await turns()
    first_journal.let_go()
    calls += [asyncio.ensure_future(account.note(f"n{number}")) for number in range(200, 300)]
    await asyncio.sleep(1)
    calls += [asyncio.ensure_future(account.note(f"n{number}")) for number in range(300, 310)]
    await second.stop()
    await asyncio.gather(*calls)
    assert await account.notes() == ["0", "second", *(f"n{number}" for number in range(310))]


async def test_queries_and_commands_of_one_sender_keep_their_order_over_a_take_over(nodes: Nodes) -> None:
    first, second, *_ = await two(nodes)
    account = first.get(Account, "a")
    assert await account.put(1) == 1
    pause(nodes)
    assert await second.get(Account, "a").put(10) == 11
    calls = [asyncio.ensure_future(c) for c in (account.balance(), account.put(100), account.balance(), account.put(1))]
    await asyncio.sleep(1)
    await second.stop()
    assert await asyncio.gather(*calls) == [11, 111, 111, 112]


@pytest.mark.parametrize("seed", range(4))
async def test_the_owner_changes_to_and_fro_and_nothing_is_lost_or_doubled(nodes: Nodes, seed: int) -> None:

    print(f"seed {seed}")
    rng = random.Random(seed)
    systems = list((await two(nodes, deadline_default_s=60))[:2])
    ids = [f"a{number}" for number in range(6)]
    calls: dict[str, asyncio.Future[Any]] = {}
    for number in range(120):
        system = rng.choice(systems)
        id = rng.choice(ids)
        text = f"{id}-{number}"
        keyed = system.get(Account, id).note.options(idempotency_key=text)
        calls[text] = asyncio.ensure_future(keyed(text))
        if rng.random() < 0.1:
            pause(nodes)
        if rng.random() < 0.3:
            await asyncio.sleep(rng.choice([0, 0.01, 0.5]))
    results = await asyncio.gather(*calls.values(), return_exceptions=True)
    assert not [
        result
        for result in results
        if isinstance(result, Exception) and not isinstance(result, OutcomeUnknown | Unavailable)
    ]
    await systems[1].stop()
    for id in ids:
        notes = await systems[0].get(Account, id).notes()
        assert len(set(notes)) == len(notes)
        for text, result in zip(calls, results, strict=True):
            if text.startswith(f"{id}-") and isinstance(result, list):
                assert text in notes
                assert notes[: len(result)] == result
            elif text.startswith(f"{id}-") and isinstance(result, Unavailable):
                assert text not in notes


async def test_a_store_with_another_number_of_shards_is_refused(nodes: Nodes) -> None:
    first, *_ = await two(nodes)
    with pytest.raises(NamespaceMismatch):
        await nodes.start(ScriptedJournal(first.store.inner), shards=5)


async def test_own_all_shards_owns_all(nodes: Nodes) -> None:
    first, second, *_ = await two(nodes)
    await first.own_all_shards()
    assert {status.owner for status in await first.shards()} == {str(first.node)}
    waiting = asyncio.ensure_future(second.own_all_shards())
    await turns()
    assert not waiting.done()
    await first.stop()
    await waiting
    assert {status.owner for status in await second.shards()} == {str(second.node)}

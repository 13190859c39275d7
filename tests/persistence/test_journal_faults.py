"""Faults 16, 17, 19, 26, 27, 43, 44 of the promises page, each alone, with a check of everything afterwards.

After each fault: every acknowledged command is in the journal exactly once, none is there twice, what was called surely
not executed is not there, the live state equals a fresh recovery, and the entity goes on working.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from actorkit import ActorSystem, HandlerFailed, OutcomeUnknown, Unavailable
from actorkit.errors import JournalFailed, JournalUnavailable, RecoveryFailed
from actorkit.journal.protocols import Append, Appended, AppendResult, Fenced
from tests.persistence.actors import Account
from tests.persistence.kit import (
    Nodes,
    ScriptedJournal,
    eventually,
    late,
    lost_for_lack_of_space,
    lost_in_doubt,
    never_answered,
    stored_in_doubt,
    stored_without_answer,
    sync_failed,
    turns,
)


async def outcome(call: Any) -> Any:
    """The reply, or the exception."""
    return (await asyncio.gather(call, return_exceptions=True))[0]


async def stored_notes(journal: ScriptedJournal, id: str) -> list[str]:
    from actorkit.persistence.declaration import EntityType

    entity_type = Account.entity_type
    assert isinstance(entity_type, EntityType)
    records = await journal.inner.read_stream(f"account/{id}", after=0, limit=10_000)
    assert [record.sequence for record in records] == list(range(1, len(records) + 1))
    return [entity_type.codec.decode(record.type, record.version, record.payload).note for record in records]


async def check(nodes: Nodes, system: ActorSystem, journal: ScriptedJournal, id: str, outcomes: dict[str, Any]) -> None:
    """What must hold after any fault, for the commands ``note(text)`` with these outcomes."""
    account = system.get(Account, id)
    live = await account.notes()
    stored = await stored_notes(journal, id)
    assert live == stored
    assert max(Counter(stored).values(), default=1) == 1, f"done twice: {stored}"
    for text, result in outcomes.items():
        if isinstance(result, OutcomeUnknown):
            continue
        if isinstance(result, Exception):
            assert isinstance(result, Unavailable), result
            assert text not in stored, f"{text} was called not executed, and it is stored: {result}"
        else:
            assert text in stored, f"{text} was acknowledged, and it is not stored"
            assert result == stored[: stored.index(text) + 1]
    assert await account.note("afterwards") == [*stored, "afterwards"]
    past = await system.state_at(Account, id, version=len(stored) + 1)
    assert past.state.notes == [*stored, "afterwards"]
    async with nodes.running(ScriptedJournal(journal.inner), clock=nodes.clock) as fresh:
        await system.stop()
        assert await fresh.get(Account, id).notes() == [*stored, "afterwards"]


FAULTS = {
    "EIO, not stored": lost_in_doubt,
    "EIO, stored": stored_in_doubt,
    "ENOSPC": lost_for_lack_of_space,
    "no answer, stored": stored_without_answer,
    "no answer, not stored": never_answered,
}


@pytest.mark.parametrize("n", range(6))
@pytest.mark.parametrize("fault", FAULTS)
async def test_the_nth_append_fails_while_more_are_behind_it(nodes: Nodes, fault: str, n: int) -> None:
    """Faults 16, 17, 19. Commands are sent one per batch, so that later ones are on their way when the fault shows."""
    journal = nodes.journal()
    system = await nodes.start(journal, batch_max_appends=1, deadline_default_s=20)
    account = system.get(Account, "a")
    await account.notes()
    journal.script.extend([None] * n)
    journal.script.append(FAULTS[fault])
    texts = [f"n{number}" for number in range(6)]
    results = await asyncio.gather(*(outcome(account.note(text)) for text in texts))
    outcomes = dict(zip(texts, results, strict=True))
    assert not any(isinstance(result, Exception) for result in results), "there was time enough to settle each"
    assert await account.notes() == texts, "and to keep the sender's order"
    await check(nodes, system, journal, "a", outcomes)


@pytest.mark.parametrize("fault", FAULTS)
async def test_each_append_fails_twice_in_a_row(nodes: Nodes, fault: str) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal, deadline_default_s=20)
    account = system.get(Account, "a")
    await account.notes()
    outcomes: dict[str, Any] = {}
    for number in range(5):
        journal.script.extend([FAULTS[fault]] * 2)
        outcomes[f"n{number}"] = await outcome(account.note(f"n{number}"))
    await eventually(lambda: not journal.script or not system.writer.queued)
    journal.script.clear()
    await check(nodes, system, journal, "a", outcomes)


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_keyed_command_whose_append_failed_answers_its_repetitions_the_same(nodes: Nodes, fault: str) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal, deadline_default_s=20)
    account = system.get(Account, "a")
    await account.notes()
    journal.script.append(FAULTS[fault])
    keyed = account.note.options(idempotency_key="k")
    first, second = await asyncio.gather(keyed("once"), keyed("once"))
    assert first == second == ["once"]
    assert await keyed("once") == ["once"]
    await check(nodes, system, journal, "a", {"once": first})


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_keyed_refusal_whose_append_failed_is_settled_too(nodes: Nodes, fault: str) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal, deadline_default_s=20)
    account = system.get(Account, "a")
    await account.notes()
    journal.script.append(FAULTS[fault])
    keyed = account.take.options(idempotency_key="k")
    assert repr(await outcome(keyed(5))) == repr(await outcome(keyed(5)))
    assert await account.put(10) == 10
    assert (await outcome(keyed(5))).details == {"left": 0}
    records = [r for r in await journal.inner.recent_keys("account/a", since_us=0, limit=10) if r.key == "k"]
    assert len(records) == 1


async def test_an_append_that_was_given_up_and_arrives_later_is_dead(nodes: Nodes) -> None:
    """Fault 43: it reaches the store after the owner has read the journal, and must not be stored any more."""
    journal = nodes.journal()
    system = await nodes.start(journal, deadline_default_s=20)
    account = system.get(Account, "a")
    await account.notes()
    arrives = asyncio.Event()
    journal.script.append(late(arrives))
    outcomes = {"late": await outcome(account.note("late"))}
    assert outcomes["late"] == ["late"], "it was run again"
    arrives.set()
    await eventually(lambda: journal.late_results)
    [[result]] = journal.late_results
    assert isinstance(result, Fenced)
    await check(nodes, system, journal, "a", outcomes)


async def test_a_late_append_that_arrives_before_the_epoch_is_raised_counts_once(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal, deadline_default_s=20)
    account = system.get(Account, "a")
    await account.notes()
    arrives = asyncio.Event()
    journal.script.append(late(arrives))
    journal.leases_fail = JournalUnavailable("the leases cannot be reached")
    reply = asyncio.ensure_future(outcome(account.note("late")))
    await asyncio.sleep(2)
    assert not reply.done(), "nothing is said before the epoch was raised"
    arrives.set()
    await eventually(lambda: journal.late_results)
    assert isinstance(journal.late_results[0][0], Appended)
    journal.leases_fail = None
    assert await reply == ["late"]
    await check(nodes, system, journal, "a", {"late": await reply})


async def test_a_batch_in_which_one_shard_is_fenced_hurts_only_that_shard(nodes: Nodes) -> None:
    """Fault 44."""
    journal = nodes.journal()
    system = await nodes.start(journal, shards=4, deadline_default_s=20)
    await system.own_all_shards()
    ids = [f"a{number}" for number in range(12)]
    accounts = {id: system.get(Account, id) for id in ids}
    for account in accounts.values():
        await account.notes()
    fenced: set[int] = set()

    async def one_shard_fenced(journal: ScriptedJournal, batch: Any) -> list[AppendResult]:
        fenced.add(batch[0].shard)
        [raised] = await journal.inner.acquire(list(fenced), owner=str(system.node), duration_s=3)
        assert raised.shard == batch[0].shard
        results: list[AppendResult] = await journal.inner.append(batch)
        assert len({type(result) for result in results}) == 2
        return results

    journal.script.append(one_shard_fenced)
    settlements = system.counters.settlements
    results = await asyncio.gather(*(account.note("x") for account in accounts.values()))
    assert results == [["x"]] * 12
    hurt = [id for id in ids if any(a.shard in fenced and a.stream == f"account/{id}" for a in journal.appends[0])]
    assert 0 < len(hurt) < 12
    assert system.counters.settlements - settlements <= len(hurt)
    for id in ids:
        assert await stored_notes(journal, id) == ["x"]


async def test_a_batch_in_which_one_payload_is_refused_hurts_only_that_command(nodes: Nodes) -> None:
    """Fault 44."""
    journal = nodes.journal()
    system = await nodes.start(journal, deadline_default_s=20)
    large = "x" * (journal.capabilities.payload_max_bytes + 1)
    accounts = [system.get(Account, f"a{number}") for number in range(5)]
    for account in accounts:
        await account.notes()
    results = await asyncio.gather(*(outcome(a.note(large if n == 2 else "x")) for n, a in enumerate(accounts)))
    assert [type(result) for result in results] == [list, list, HandlerFailed, list, list]
    for number, account in enumerate(accounts):
        assert await account.notes() == ([] if number == 2 else ["x"])
        assert await account.note("y") == (["y"] if number == 2 else ["x", "y"])


async def test_a_refused_payload_in_the_middle_of_one_entitys_commands_is_left_out(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal, deadline_default_s=20)
    account = system.get(Account, "a")
    await account.notes()
    large = "x" * (journal.capabilities.payload_max_bytes + 1)
    calls = [account.note("1"), account.note("2"), account.note(large), account.note("4"), account.notes()]
    results = await asyncio.gather(*map(outcome, calls))
    assert isinstance(results[2], HandlerFailed)
    assert results[:2] == [["1"], ["1", "2"]]
    assert results[3:] == [["1", "2", "4"]] * 2
    await check(nodes, system, journal, "a", {"1": results[0], "2": results[1], large: results[2], "4": results[3]})


@pytest.mark.parametrize("seed", range(3))
async def test_another_writer_in_between_is_a_conflict_that_is_settled(nodes: Nodes, seed: int) -> None:
    """A conflict cannot come from a second owner, which is fenced; still, nothing may be lost by one."""
    journal = nodes.journal()
    system = await nodes.start(journal, deadline_default_s=20)
    account = system.get(Account, "a")
    await account.notes()
    await account.note("0")

    async def foreign_event_first(journal: ScriptedJournal, batch: Any) -> list[AppendResult]:
        first: Append = batch[0]
        foreign = Append(
            first.shard, first.epoch, first.stream, first.expected, first.events, first.time_us, b"\x92\xa1x\xa1y"
        )
        await journal.inner.append([foreign])
        results: list[AppendResult] = await journal.inner.append(batch)
        return results

    journal.script.extend([None] * seed)
    journal.script.append(foreign_event_first)
    results = [await outcome(account.note(f"n{number}")) for number in range(4)]
    assert not any(isinstance(result, Exception) for result in results)
    assert await account.notes() == results[-1]
    # What the other one wrote is there as well.
    assert len(results[-1]) == 6


async def test_after_a_failed_sync_nothing_is_acknowledged_and_the_process_is_told_to_end(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal, deadline_default_s=1)
    account = system.get(Account, "a")
    await account.notes()
    journal.script.append(sync_failed)
    results = await asyncio.gather(*(outcome(account.note(f"n{number}")) for number in range(3)))
    assert all(isinstance(result, OutcomeUnknown | Unavailable) for result in results), results
    assert isinstance(results[0], OutcomeUnknown)
    assert len(nodes.fatal) == 1
    assert isinstance(nodes.fatal[0], JournalFailed)
    assert system.ready is not None
    assert isinstance(await outcome(account.note("later")), OutcomeUnknown | Unavailable)
    assert "later" not in await stored_notes(journal, "a")


async def test_queries_that_saw_what_a_failed_sync_may_have_lost_are_not_answered(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal, deadline_default_s=1)
    account = system.get(Account, "a")
    await account.notes()
    journal.script.append(sync_failed)
    note, notes = await asyncio.gather(outcome(account.note("x")), outcome(account.notes()))
    assert isinstance(note, OutcomeUnknown)
    assert isinstance(notes, OutcomeUnknown | Unavailable)


async def test_a_store_that_cannot_be_read_when_an_entity_is_recovered_and_then_can(nodes: Nodes) -> None:
    journal = nodes.journal()
    async with nodes.running(ScriptedJournal(journal.inner)) as first:
        assert await first.get(Account, "a").note("1") == ["1"]
    system = await nodes.start(journal)
    journal.reads_fail = JournalUnavailable("cannot be reached")
    account = system.get(Account, "a")
    reply = asyncio.ensure_future(account.note.options(deadline_s=60)("2"))
    await asyncio.sleep(1)
    assert not reply.done()
    journal.reads_fail = None
    assert await reply == ["1", "2"]


async def test_calls_to_a_store_that_stays_unreadable_end_unavailable_in_time(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal)
    await system.own_all_shards()
    journal.reads_fail = JournalUnavailable("cannot be reached")
    loop = asyncio.get_running_loop()
    account = system.get(Account, "a")
    for deadline_s in (0.3, 2.0, 30.0):
        begun_s = loop.time()
        result = await outcome(account.note.options(deadline_s=deadline_s)(f"{deadline_s}"))
        assert isinstance(result, Unavailable)
        assert not isinstance(result, RecoveryFailed), "nothing is wrong with the entity"
        assert loop.time() - begun_s <= deadline_s + 0.1
    await asyncio.sleep(60)
    journal.reads_fail = None
    assert await account.note("x") == ["x"], "the first call after the store is back succeeds"


async def test_a_store_that_cannot_be_read_while_settling(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal, deadline_default_s=60)
    account = system.get(Account, "a")
    await account.notes()
    journal.script.append(stored_in_doubt)
    journal.reads_fail = JournalUnavailable("cannot be reached")
    first, second = (asyncio.ensure_future(outcome(account.note(text))) for text in ("1", "2"))
    await asyncio.sleep(2)
    assert not first.done()
    assert not second.done()
    journal.reads_fail = None
    assert [await first, await second] == [["1"], ["1", "2"]]
    await check(nodes, system, journal, "a", {"1": await first, "2": await second})


async def test_a_crash_while_a_snapshot_is_written_harms_nobody(nodes: Nodes) -> None:
    """Fault 26."""
    journal = nodes.journal()
    system = await nodes.start(journal, snapshot_every_events=2)
    account = system.get(Account, "a")
    journal.snapshots_fail = JournalUnavailable("input/output error")
    outcomes = {f"{number}": await account.note(f"{number}") for number in range(6)}
    await eventually(lambda: system.snapshots.failed == 3)
    assert await journal.inner.load_snapshots("account/a") == []
    journal.snapshots_fail = None
    outcomes |= {f"{number}": await account.note(f"{number}") for number in range(6, 10)}
    await eventually(lambda: system.snapshots.saved == 2)
    await check(nodes, system, journal, "a", outcomes)


async def test_two_entities_of_one_shard_in_doubt_at_once(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal, shards=1, deadline_default_s=20)
    accounts = [system.get(Account, f"a{number}") for number in range(5)]
    for account in accounts:
        await account.notes()
    for fault in (stored_in_doubt, lost_in_doubt, stored_without_answer, never_answered):
        journal.script.append(fault)
        await asyncio.gather(*(account.note("x") for account in accounts))
    await turns()
    for account in accounts:
        assert await account.notes() == ["x"] * 4
    # Each doubt raises the epoch once, not once for each entity.
    [status] = await system.shards()
    assert status.epoch <= 1 + 4

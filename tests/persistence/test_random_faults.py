"""Random scripts of faults over several entities and shards, against a model of what a caller may believe.

Each run prints its seed. ``ACTORKIT_SEEDS=1000`` tries more of them.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from actorkit import HandlerFailed, OutcomeUnknown, Overloaded, Unavailable
from actorkit.errors import JournalUnavailable
from actorkit.journal.protocols import Append, AppendResult
from tests.persistence.actors import Account, Broke
from tests.persistence.kit import (
    Nodes,
    ScriptedJournal,
    late,
    lost_for_lack_of_space,
    lost_in_doubt,
    never_answered,
    stored_in_doubt,
    stored_without_answer,
)

SEEDS = range(int(os.environ.get("ACTORKIT_SEEDS", "20")))
IDS = [f"a{number}" for number in range(5)]


async def partly_stored(journal: ScriptedJournal, batch: Sequence[Append]) -> list[AppendResult]:
    """Some shards' appends are stored, and then the answer is lost."""
    await journal.inner.append([append for append in batch if append.shard % 2])
    await asyncio.sleep(1)
    return await lost_in_doubt(journal, batch)


async def a_shard_is_fenced(journal: ScriptedJournal, batch: Sequence[Append]) -> list[AppendResult]:
    """Somebody with our name has raised the epoch of one shard."""
    [status] = await journal.inner.status([batch[0].shard])
    await journal.inner.acquire([batch[0].shard], owner=status.owner, duration_s=3)
    results: list[AppendResult] = await journal.inner.append(batch)
    return results


async def slow(journal: ScriptedJournal, batch: Sequence[Append]) -> list[AppendResult]:
    await asyncio.sleep(0.3)
    results: list[AppendResult] = await journal.inner.append(batch)
    return results


FAULTS = [
    None,
    slow,
    lost_in_doubt,
    stored_in_doubt,
    lost_for_lack_of_space,
    never_answered,
    stored_without_answer,
    partly_stored,
    a_shard_is_fenced,
]


class Model:
    """What was asked for, and how each call ended."""

    def __init__(self) -> None:
        self.sent: dict[str, list[str]] = {id: [] for id in IDS}
        self.results: dict[str, Any] = {}

    async def check(self, journal: ScriptedJournal, live: dict[str, list[str]]) -> None:
        entity_type = Account.entity_type
        assert entity_type is not None
        for id in IDS:
            records = await journal.inner.read_stream(f"account/{id}", after=0, limit=10_000)
            assert [record.sequence for record in records] == list(range(1, len(records) + 1))
            stored = [entity_type.codec.decode(r.type, r.version, r.payload).note for r in records]
            assert live[id] == stored
            doubled = [note for note, count in Counter(stored).items() if count > 1]
            assert not doubled
            order = [note for note in self.sent[id] if note in set(stored)]
            assert order == stored, "commands of one sender run in sending order"
            for note in self.sent[id]:
                result = self.results[note]
                if isinstance(result, list):
                    assert stored[: len(result)] == result, f"{note} was acknowledged with {result}"
                    assert result[-1] == note
                elif isinstance(result, Unavailable | Overloaded | Broke | HandlerFailed):
                    assert note not in stored, f"{note} was said not to be executed: {result!r}"
                else:
                    assert isinstance(result, OutcomeUnknown), repr(result)


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_fails_nothing_acknowledged_is_lost_and_nothing_acts_twice(
    nodes: Nodes, seed: int, keyed: bool
) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    journal = nodes.journal()
    changes: dict[str, Any] = {
        "shards": 3,
        "deadline_default_s": rng.choice([2.0, 10.0]),
        "batch_max_appends": rng.choice([1, 3, 100]),
        "snapshot_every_events": rng.choice([0, 2, 5]),
        "recovery_page_events": rng.choice([1, 3, 100]),
        "pending_max_answers": rng.choice([2, 1000]),
        "keys_in_memory": rng.choice([1, 3, 100]),
        "entities_max": rng.choice([2, 100]),
    }
    system = await nodes.start(journal, **changes)
    model = Model()
    tasks: list[asyncio.Future[Any]] = []
    arrivals: list[asyncio.Event] = []

    async def send(id: str, note: str) -> None:
        note_ = system.get(Account, id).note.options(idempotency_key=note if keyed else None)
        try:
            result = model.results[note] = await note_(note)
            while keyed and rng.random() < 0.3:
                assert await note_(note) == result, "its repetition is answered as it was"
        except (Unavailable, Overloaded, OutcomeUnknown) as error:
            # Where it is the repetition that fails, the first answer stands.
            model.results.setdefault(note, error)

    async def refuse(id: str) -> None:
        try:
            await rng.choice([system.get(Account, id).take, system.get(Account, id).put_then_reject])(10**6)
        except (Broke, Unavailable, Overloaded, OutcomeUnknown):
            return
        raise AssertionError("it was to be refused")

    for step in range(60):
        id = rng.choice(IDS)
        if rng.random() < 0.15:
            fault: Any = rng.choice(FAULTS)
            if rng.random() < 0.2:
                arrivals.append(asyncio.Event())
                fault = late(arrivals[-1])
            journal.script.append(fault)
        if rng.random() < 0.05:
            arrivals and rng.choice(arrivals).set()
        if rng.random() < 0.05:
            journal.reads_fail = rng.choice([None, JournalUnavailable("reads")])
            journal.leases_fail = rng.choice([None, None, JournalUnavailable("leases")])
        if rng.random() < 0.1:
            tasks.append(asyncio.ensure_future(refuse(id)))
        if rng.random() < 0.05:
            tasks.append(asyncio.ensure_future(asyncio.gather(system.get(Account, id).boom(), return_exceptions=True)))
        note = f"{id}-{step}"
        model.sent[id].append(note)
        tasks.append(asyncio.ensure_future(send(id, note)))
        if rng.random() < 0.4:
            await asyncio.sleep(rng.choice([0, 0.001, 0.1, 1.0]))
    await asyncio.sleep(1)
    for arrival in arrivals:
        arrival.set()
    journal.reads_fail = journal.leases_fail = None
    await asyncio.gather(*tasks)
    journal.script.clear()
    await asyncio.sleep(15)
    live = {id: await system.get(Account, id).notes() for id in IDS}
    await model.check(journal, live)
    for id in IDS:
        assert (await system.get(Account, id).note(f"{id}-last"))[:-1] == live[id], "the entity goes on working"
        model.sent[id].append(f"{id}-last")
        model.results[f"{id}-last"] = [*live[id], f"{id}-last"]
    await system.stop()
    fresh = await nodes.start(ScriptedJournal(journal.inner), snapshot_every_events=0)
    await model.check(journal, {id: await fresh.get(Account, id).notes() for id in IDS})
    for id in IDS:
        await journal.inner.delete_snapshots(f"account/{id}")
    await fresh.stop()
    last = await nodes.start(ScriptedJournal(journal.inner))
    await model.check(journal, {id: await last.get(Account, id).notes() for id in IDS})

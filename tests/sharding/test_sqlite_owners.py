"""Two systems on one SQLite file, each with a connection and a clock of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from actorkit import ActorSystem, Rejected
from actorkit.clock import SystemClock
from actorkit.errors import NamespaceMismatch
from actorkit.journal.sqlite import SqliteJournal
from tests.persistence.actors import Account, Broke
from tests.persistence.kit import Nodes, eventually


class MovableClock(SystemClock):
    def __init__(self) -> None:
        self.ahead_s = 0.0

    def lease_s(self) -> float:
        return super().lease_s() + self.ahead_s


async def system(nodes: Nodes, file: Path, clock: MovableClock, **changes: object) -> ActorSystem:
    changes = {"append_timeout_s": 10.0, "lease_s": 300.0, "lease_renew_s": 100.0, "acquire_retry_s": 0.05, **changes}
    how = {"shards": 2, "deadline_default_s": 20.0, **changes}
    return await nodes.start(SqliteJournal(file, clock=clock), clock=clock, **how)  # type: ignore[arg-type]


async def test_a_system_that_slept_longer_than_its_lease_is_fenced_and_forgets(nodes: Nodes, tmp_path: Path) -> None:
    clock = MovableClock()
    file = tmp_path / "journal.db"
    first, second = await system(nodes, file, clock), await system(nodes, file, clock)
    account = first.get(Account, "a")
    assert await account.put.options(idempotency_key="k")(1) == 1
    clock.ahead_s += 301
    assert await second.get(Account, "a").put(2) == 3
    epochs = {status.owner: status.epoch for status in await second.shards()}
    assert epochs[str(second.node)] >= 2
    put, balance = asyncio.ensure_future(account.put(4)), asyncio.ensure_future(account.balance())
    await eventually(lambda: first.region.waiting_for)
    assert not put.done()
    assert not balance.done()
    await second.stop()
    assert (await put, await balance) == (7, 7)
    assert await account.put.options(idempotency_key="k")(1) == 1


async def test_keys_refusals_and_events_survive_a_restart(nodes: Nodes, tmp_path: Path) -> None:
    clock = MovableClock()
    file = tmp_path / "journal.db"
    first = await system(nodes, file, clock, snapshot_every_events=3)
    account = first.get(Account, "a")
    replies = [await account.put.options(idempotency_key=f"k{number}")(1) for number in range(10)]
    with pytest.raises(Broke):
        await account.take.options(idempotency_key="refused")(100)
    await first.stop()
    second = await system(nodes, file, clock, keys_in_memory=2)
    account = second.get(Account, "a")
    assert await account.put(100) == 110
    assert [await account.put.options(idempotency_key=f"k{number}")(1) for number in range(10)] == replies
    with pytest.raises(Rejected) as refused:
        await account.take.options(idempotency_key="refused")(100)
    assert refused.value.details == {"left": 10}
    assert await account.balance() == 110


async def test_another_number_of_shards_is_refused(nodes: Nodes, tmp_path: Path) -> None:
    clock = MovableClock()
    await system(nodes, tmp_path / "journal.db", clock)
    with pytest.raises(NamespaceMismatch):
        await system(nodes, tmp_path / "journal.db", clock, shards=3)


async def test_a_thousand_commands_on_many_entities_share_commits(nodes: Nodes, tmp_path: Path) -> None:
    first = await system(nodes, tmp_path / "journal.db", MovableClock())
    ids = [f"a{number}" for number in range(50)]
    replies = await asyncio.gather(*(first.get(Account, id).put(1) for _ in range(20) for id in ids))
    assert sorted(replies) == sorted(list(range(1, 21)) * 50)
    assert first.writer.batches < 200
    await first.stop()
    second = await system(nodes, tmp_path / "journal.db", MovableClock())
    assert [await second.get(Account, id).balance() for id in ids] == [20] * 50

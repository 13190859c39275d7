"""The read model of one node: caught up from the journal, then fed by its entities."""

from __future__ import annotations

import asyncio

import pytest

from actorkit import PersistentActor, command, published
from actorkit.errors import DeclarationError, JournalUnavailable
from tests.persistence.actors import Account, AccountState, Put
from tests.persistence.kit import Nodes, ScriptedJournal, eventually


class Hidden(PersistentActor[AccountState, Put], name="hidden-when-empty"):
    @command
    def put(self, amount: int) -> int:
        self.emit(Put(amount))
        return self.state.balance

    @published
    def balance(self) -> int | None:
        return self.state.balance or None

    @published
    def described(self) -> str | None:
        return f"{self.entity_id} has {self.state.balance} at {self.version}"


async def test_a_view_is_rebuilt_from_the_journal_at_the_start(nodes: Nodes) -> None:
    journal = nodes.journal()
    async with nodes.running(journal) as system:
        for number in range(30):
            await system.get(Hidden, f"a{number}").put(number)
    system = await nodes.start(ScriptedJournal(journal.inner), recovery_page_events=2)
    view = system.view(Hidden.balance)
    described = system.view(Hidden.described)
    assert system.ready == "its read model is catching up with the journal"
    await eventually(lambda: system.ready is None)
    assert {id: entry.value for id, entry in view.items().items()} == {f"a{n}": n for n in range(1, 30)}
    assert described.get("a7") == ("a7 has 7 at 1", 1)
    assert len(described) == 30
    assert system.region.entities == 0, "nobody was woken for it"


async def test_a_value_that_becomes_none_disappears_and_its_version_stays(nodes: Nodes) -> None:
    system = await nodes.start()
    view = system.view(Hidden.balance)
    hidden = system.get(Hidden, "a")
    await hidden.put(5)
    assert view.get("a") == (5, 1)
    await hidden.put(-5)
    assert view.get("a") is None
    assert len(view) == 0
    await view.wait_for("a", version=2, deadline_s=1)


async def test_waiting_for_a_version(nodes: Nodes) -> None:
    system = await nodes.start()
    view = system.view(Account.total)
    account = system.get(Account, "a")
    await account.put(1)
    await view.wait_for("a", version=1, deadline_s=1)
    waiting = asyncio.ensure_future(view.wait_for("a", version=3, deadline_s=5))
    await account.put(1)
    assert not waiting.done()
    await account.put(1)
    await waiting
    with pytest.raises(TimeoutError):
        await view.wait_for("a", version=4, deadline_s=0.5)


async def test_what_is_published_while_the_view_is_rebuilt_wins(nodes: Nodes) -> None:
    journal = nodes.journal()
    async with nodes.running(journal) as system:
        await system.get(Account, "a").put(1)
    slow = ScriptedJournal(journal.inner)
    system = await nodes.start(slow)
    assert await system.get(Account, "a").balance() == 1
    slow.reads_gate = asyncio.Event()
    view = system.view(Account.total)
    assert await system.get(Account, "a").put(1) == 2
    assert view.get("a") == (2, 2)
    slow.reads_gate.set()
    await eventually(lambda: system.ready is None)
    assert view.get("a") == (2, 2)


async def test_a_rebuild_goes_on_when_the_journal_can_be_read_again(nodes: Nodes) -> None:
    journal = nodes.journal()
    async with nodes.running(journal) as system:
        await system.get(Account, "a").put(1)
    broken = ScriptedJournal(journal.inner)
    broken.reads_fail = JournalUnavailable("cut off")
    system = await nodes.start(broken)
    view = system.view(Account.total)
    await asyncio.sleep(5)
    assert system.ready is not None
    broken.reads_fail = None
    await asyncio.sleep(1)
    assert system.ready is None
    assert view.get("a") == (1, 1)


async def test_a_view_needs_a_published_method(nodes: Nodes) -> None:
    system = await nodes.start()

    def loose(self: object) -> int:
        return 1

    with pytest.raises(DeclarationError):
        system.view(published(loose))

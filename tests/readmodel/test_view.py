"""The read model of one node: caught up from the journal, then fed by its entities."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest

from actorkit import ActorSystem, PersistentActor, command, published
from actorkit.errors import DeclarationError, JournalFailed, JournalUnavailable
from actorkit.journal.memory import MemoryJournal
from actorkit.journal.protocols import ShardStatus
from actorkit.readmodel.lww_map import LwwMap
from actorkit.readmodel.view import View
from tests.persistence.actors import Account, AccountState, Broke, Put
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


class Moody(PersistentActor[AccountState, Put], name="moody"):
    fails: ClassVar[int] = 0
    """How many more constructions fail."""

    def __init__(self) -> None:
        if Moody.fails:
            Moody.fails -= 1
            raise ValueError("not today")

    @command
    def put(self, amount: int) -> int:
        self.emit(Put(amount))
        return self.state.balance

    @published
    def balance(self) -> int | None:
        return self.state.balance


async def test_a_defect_while_the_journal_is_read_ends_the_process_rather_than_the_view(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(shards: object = None) -> list[ShardStatus]:
        raise RuntimeError("the test says so")

    failures: list[JournalFailed] = []
    journal = MemoryJournal()
    system = ActorSystem(journal, on_fatal=failures.append)
    await system.start()
    monkeypatch.setattr(journal, "status", broken)
    system.view(Hidden.balance)
    await eventually(lambda: bool(failures))
    assert "actorkit.readmodel.follower crashed" in str(failures[0])
    await system.stop()


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
    with pytest.raises(
        TimeoutError, match=r"^the view account\.total shows version 3 of 'a', and did not show .* 4 within 0\.5 s"
    ):
        await view.wait_for("a", version=4, deadline_s=0.5)
    with pytest.raises(TimeoutError, match="knows of no event of 'b', and did not show version 1 within 2 s"):
        await view.wait_for("b", version=1, deadline_s=2)


async def test_whoever_waits_in_vain_is_told_which_view_it_was() -> None:
    view: View[int] = View(LwwMap(), "account.total")
    with pytest.raises(TimeoutError, match=r"^the view account\.total knows of no event of 'a'"):
        await view.wait_for("a", version=1, deadline_s=0)


async def test_what_comes_at_the_last_moment_is_no_timeout() -> None:
    values: LwwMap[int] = LwwMap()
    waiting = asyncio.ensure_future(View(values).wait_for("a", version=1, deadline_s=0))
    await asyncio.sleep(0)
    values.publish("a", 1, 5)
    await waiting


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


async def test_asking_for_an_id_does_not_make_it_one_that_the_view_shows(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal)
    view = system.view(Account.total)
    await system.get(Account, "real").put(1)
    for number in range(20):
        assert await system.get(Account, f"ghost{number}").balance() == 0
    with pytest.raises(Broke):
        await system.get(Account, "ghost").take.options(idempotency_key="k")(1)
    assert await journal.inner.streams("account", after="", limit=10) == ["account/ghost", "account/real"]
    assert dict(view.items()) == {"real": (1, 1)}
    restarted = await nodes.start(ScriptedJournal(journal.inner))
    view = restarted.view(Account.total)
    await eventually(lambda: restarted.ready is None)
    assert dict(view.items()) == {"real": (1, 1)}
    assert len(view._values._stamps) == 1


async def test_whoever_waits_for_a_view_leaves_nothing_behind(nodes: Nodes) -> None:
    system = await nodes.start()
    view = system.view(Account.total)
    for _ in range(10):
        with pytest.raises(TimeoutError):
            await view.wait_for("a", version=4, deadline_s=0.5)
    assert view._values._waiting == {}
    assert view._values._waiting_count == 0


async def test_an_actor_whose_constructor_fails_does_not_keep_the_read_model_from_catching_up(nodes: Nodes) -> None:
    journal = nodes.journal()
    async with nodes.running(journal) as system:
        await system.get(Moody, "a").put(1)
        await system.get(Moody, "b").put(2)
    system = await nodes.start(ScriptedJournal(journal.inner))
    Moody.fails = 1
    view = system.view(Moody.balance)
    await eventually(lambda: system.ready is None)
    assert dict(view.items()) == {"b": (2, 1)}


async def test_all_views_of_classes_named_at_the_start_are_rebuilt_by_one_reading(nodes: Nodes) -> None:
    journal = nodes.journal()
    async with nodes.running(journal) as system:
        await system.get(Hidden, "a").put(5)
    reader = ScriptedJournal(journal.inner)
    reads = 0

    async def streams(*args: Any, **how: Any) -> Any:
        nonlocal reads
        reads += 1
        return await journal.inner.streams(*args, **how)

    reader.streams = streams  # type: ignore[attr-defined]
    async with ActorSystem(reader, clock=nodes.clock, entities=[Hidden]) as system:
        await eventually(lambda: system.ready is None)
        assert system.view(Hidden.balance).get("a") == (5, 1)
        assert system.view(Hidden.described).get("a") == ("a has 5 at 1", 1)
        assert system.ready is None
    assert reads == 1


async def test_a_view_needs_a_published_method(nodes: Nodes) -> None:
    system = await nodes.start()

    def loose(self: object) -> int:
        return 1

    with pytest.raises(DeclarationError):
        system.view(published(loose))


async def test_what_others_wrote_before_a_take_over_is_read_again(nodes: Nodes) -> None:
    """The second node had read the journal when the first one still wrote it."""
    journal = nodes.journal()
    first, second = await nodes.start(journal), await nodes.start(journal)
    await first.get(Account, "a").put(1)
    view = second.view(Account.total)
    await eventually(lambda: second.ready is None)
    assert view.items()["a"].value == 1
    await first.get(Account, "a").put(2)
    await first.get(Account, "b").put(5)
    await first.stop()
    # Nobody asks for the entities themselves: owning their shards is what counts.
    await second.own_all_shards()
    await eventually(lambda: second.ready is None)
    assert {id: entry.value for id, entry in view.items().items()} == {"a": 3, "b": 5}

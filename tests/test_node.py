"""ActorSystem: starting, stopping, readiness, plain actors beside entities; also on uvloop."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Any

import pytest

from actorkit import (
    Actor,
    ActorSystem,
    PersistentActor,
    SystemSettings,
    Unavailable,
    run,
)
from actorkit.errors import ConfigurationError, DeclarationError, JournalUnavailable, NamespaceMismatch
from actorkit.journal.memory import MemoryJournal
from actorkit.journal.sqlite import SqliteJournal
from tests.persistence.actors import Account, AccountState, Put
from tests.persistence.kit import ScriptedJournal


class Echo(Actor[str]):
    def receive(self, message: str) -> str:
        return message


async def test_hello_world() -> None:
    async with ActorSystem() as system:
        assert await system.get(Account, "a").put(3) == 3
        assert await system.get(Account, "a").balance() == 3


async def test_what_was_acknowledged_is_there_after_a_restart(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/pools.db"
    async with ActorSystem(url, shards=8) as system:
        assert await system.get(Account, "a").put(3) == 3
    async with ActorSystem(url) as system:
        assert await system.get(Account, "a").balance() == 3
        assert len(await system.shards()) == 8
    with pytest.raises(NamespaceMismatch):
        await ActorSystem(url, shards=9).start()


@pytest.mark.parametrize("url", ["", "nonsense", "postgres://x", "sqlite:", "sqlite:///"])
async def test_a_url_that_is_none_is_said_to_be_none(url: str) -> None:
    with pytest.raises(ConfigurationError):
        await ActorSystem(url).start()


async def test_a_system_that_has_not_started_or_has_stopped_says_so() -> None:
    system = ActorSystem()
    assert system.ready == "it has not been started"
    with pytest.raises(ConfigurationError, match="has not been started"):
        system.get(Account, "a")
    with pytest.raises(ConfigurationError, match="has not been started"):
        system.view(Account.total)
    await system.stop()
    await system.start()
    assert system.ready is None
    account = system.get(Account, "a")
    assert await account.put(1) == 1
    await system.stop()
    assert system.ready == "it has stopped"
    with pytest.raises(Unavailable):
        await account.put(1)
    await system.start()
    assert await system.get(Account, "b").put(2) == 2, "also of a class that only the former life knew"
    await system.stop()


async def test_a_journal_that_cannot_be_opened_raises_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(JournalUnavailable, match="there is no directory"):
        await ActorSystem(f"sqlite:///{tmp_path}/missing/pools.db").start()


async def test_a_start_that_fails_closes_everything_again() -> None:
    class Other(PersistentActor[AccountState, Put], name="account"):
        """Has the name of another class."""

    tasks, journal = asyncio.all_tasks(), ScriptedJournal()
    system = ActorSystem(journal, entities=[Account, Other])
    with pytest.raises(DeclarationError, match="has the name 'account'"):
        await system.start()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() - tasks == set()
    assert not journal.is_open
    assert len(system.runtime) == 0
    assert system.ready == "it has not been started"
    with pytest.raises(ConfigurationError, match="has not been started"):
        system.get(Account, "a")
    await system.stop()


@pytest.mark.parametrize("deadline_s", [0, -1, float("inf"), float("nan"), 1e300, 24 * 3600 + 1])
async def test_a_deadline_is_a_time_that_passes_within_a_day(deadline_s: float) -> None:
    async with ActorSystem() as system:
        account = system.get(Account, "a")
        with pytest.raises(ValueError, match="at most 86400"):
            account.put.options(deadline_s=deadline_s)
        assert await account.put.options(deadline_s=24 * 3600)(1) == 1


async def test_the_views_of_entities_that_are_named_at_the_start_are_caught_up() -> None:
    journal = MemoryJournal()
    async with ActorSystem(journal) as system:
        await system.get(Account, "a").put(3)
    async with ActorSystem(journal, entities=[Account]) as system:
        view = system.view(Account.total)
        async with asyncio.timeout(5):
            while system.ready is not None:
                await asyncio.sleep(0)
        assert view.get("a") == (3, 1)


async def test_a_view_that_is_asked_for_after_the_stop_leaves_nothing_running() -> None:
    system = ActorSystem()
    await system.start()
    await system.stop()
    before = asyncio.all_tasks()
    view = system.view(Account.total)
    assert len(view) == 0
    assert asyncio.all_tasks() == before
    async with asyncio.timeout(5):
        assert [change async for change in view.changes()] == []


async def test_plain_actors_live_beside_entities() -> None:
    async with ActorSystem() as system:
        echo = system.spawn(Echo, "echo")
        assert await echo.ask("x") == "x"
    with pytest.raises(Unavailable):
        await echo.ask("y")


async def test_nothing_is_left_running_after_a_stop(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    system = ActorSystem(f"sqlite:///{tmp_path}/pools.db")
    await system.start()
    await asyncio.gather(*(system.get(Account, f"a{number}").put(1) for number in range(50)))
    await system.stop()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() - before == set()
    assert len(system.runtime) == 0
    gc.collect()


async def test_two_systems_in_one_process_do_not_share_anything(tmp_path: Path) -> None:
    async with ActorSystem("memory://") as one, ActorSystem("memory://") as other:
        assert await one.get(Account, "a").put(1) == 1
        assert await other.get(Account, "a").balance() == 0


async def test_the_counters_count() -> None:
    async with ActorSystem() as system:
        account = system.get(Account, "a")
        keyed = account.put.options(idempotency_key="k")
        await asyncio.gather(keyed(1), keyed(1), account.balance(), return_exceptions=True)
        await asyncio.gather(account.take(100), account.boom(), return_exceptions=True)
        counters = system.counters
        assert (counters.commands, counters.queries, counters.rejected) == (1, 1, 1)
        assert (counters.deduplicated, counters.handler_failures, counters.settlements) == (1, 1, 1)


def test_run_uses_uvloop_where_there_is_one() -> None:
    async def main() -> str:
        async with ActorSystem() as system:
            await system.get(Account, "a").put(1)
        return type(asyncio.get_running_loop()).__module__

    assert run(main()) == "uvloop"


def test_a_system_may_be_made_outside_of_a_loop_and_settings_are_frozen() -> None:
    settings = SystemSettings()
    system = ActorSystem(settings=settings)
    with pytest.raises(AttributeError):
        settings.persistence.keys_max = 1  # type: ignore[misc]

    async def main() -> Any:
        async with system:
            return await system.get(Account, "a").put(1)

    assert asyncio.run(main()) == 1


async def test_a_store_object_may_be_given(tmp_path: Path) -> None:
    async with ActorSystem(SqliteJournal(tmp_path / "pools.db")) as system:
        assert await system.get(Account, "a").put(1) == 1

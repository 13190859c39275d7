"""Singletons of one system: active without being called, again after whatever ended them, and never passivated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import ClassVar

import pytest

from actorkit import ActorSystem, Event, PersistentActor, State, SystemSettings, applies, command, query
from actorkit.errors import ConfigurationError, HandlerFailed
from actorkit.journal.memory import MemoryJournal
from actorkit.sharding.settings import ShardingSettings
from actorkit.testing.simulation.randomness import SeededRandomness, stream
from tests.persistence.kit import LoopClock


class Swept(Event, name="swept"):
    pass


class Sweeps(State):
    count: int = 0

    @applies(Swept)
    def swept(self, event: Swept) -> None:
        self.count += 1


class Janitor(PersistentActor[Sweeps, Swept], name="janitor"):
    calls: ClassVar[list[str]] = []
    fails: ClassVar[int] = 0

    @command
    def started(self) -> None:
        Janitor.calls.append("started")
        if Janitor.fails:
            Janitor.fails -= 1
            raise RuntimeError("not yet")
        self.context.every("sweep", 1.0, Janitor.sweep)

    @command
    def sweep(self) -> None:
        self.emit(Swept())

    @command
    def idle(self) -> None:
        self.context.cancel("sweep")

    @query
    def count(self) -> int:
        Janitor.calls.append("count")
        return self.state.count


class Nothing(PersistentActor[Sweeps, Swept], name="nothing"):
    @command
    def sweep(self) -> None:
        self.emit(Swept())


class Choosy(PersistentActor[Sweeps, Swept], name="choosy"):
    @command
    def started(self, how: str) -> None:
        self.emit(Swept())


def a_system(journal: MemoryJournal | None = None, **sharding: float) -> ActorSystem:
    clock = LoopClock()
    return ActorSystem(
        journal or MemoryJournal(clock=clock),
        name="one",
        shards=4,
        singletons=[Janitor],
        settings=SystemSettings(sharding=ShardingSettings(**sharding)),  # type: ignore[arg-type]
        clock=clock,
        randomness=SeededRandomness(stream(1, "one")),
    )


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Janitor.calls.clear()
    Janitor.fails = 0


@pytest.fixture
async def system() -> AsyncIterator[ActorSystem]:
    async with a_system() as system:
        yield system


async def test_it_runs_without_anybody_calling_it(system: ActorSystem) -> None:
    await asyncio.sleep(10.5)
    assert Janitor.calls == ["started"]
    assert await system.singleton(Janitor).count() == 10
    assert system.singletons.active == 1


async def test_it_is_started_before_any_call_whoever_is_first() -> None:
    async with a_system() as system:
        assert await system.singleton(Janitor).count() == 0
        assert Janitor.calls == ["started", "count"]


async def test_it_is_not_passivated_though_it_has_nothing_to_do() -> None:
    async with a_system(passivate_after_s=1.0, entities_max=1) as system:
        await system.singleton(Janitor).idle()
        for number in range(10):
            await system.get(Janitor, f"other {number}").count()
            await asyncio.sleep(2.0)
        assert Janitor.calls.count("started") == 1
        assert system.singletons.active == 1
        assert system.region.entities <= 2


async def test_it_goes_on_after_a_restart_of_its_system() -> None:
    first = a_system()
    async with first:
        await asyncio.sleep(3.5)
    assert isinstance(first.store, MemoryJournal)
    async with a_system(first.store) as second:
        await asyncio.sleep(2.5)
        assert await second.singleton(Janitor).count() == 5
    assert Janitor.calls.count("started") == 2


async def test_where_starting_fails_it_is_tried_again_less_and_less_often() -> None:
    Janitor.fails = 8
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    async with a_system(singleton_retry_max_s=5.0) as system:
        while not system.singletons.active:
            await asyncio.sleep(0.1)
        # 0.1, 0.2, ... 3.2 s, then the most; each till the next look.
        assert 0.1 * 63 + 2 * 5.0 < loop.time() - began_s < 0.1 * 63 + 2 * 5.0 + 8 * 0.5 + 0.2
        assert Janitor.calls == ["started"] * 9
        await asyncio.sleep(2.0)
        assert await system.singleton(Janitor).count() >= 1


async def test_what_has_ended_it_does_not_keep_it_away(system: ActorSystem) -> None:
    await asyncio.sleep(1.5)
    (pid,) = [pid for pid in system.region.memory.slots if pid.type == "janitor"]
    system.region.memory.passivate(pid)
    await asyncio.sleep(0.6)
    assert system.singletons.active == 1
    assert Janitor.calls == ["started"] * 2


async def test_a_handler_that_fails_ends_no_timer(system: ActorSystem) -> None:
    await asyncio.sleep(1.5)
    Janitor.fails = 1
    with pytest.raises(HandlerFailed):
        await system.singleton(Janitor).started()
    await asyncio.sleep(3.0)
    assert await system.singleton(Janitor).count() == 4


async def test_a_shard_that_another_owner_takes_takes_it_along_and_back(system: ActorSystem) -> None:
    await asyncio.sleep(1.5)
    clock = LoopClock()
    assert isinstance(system.store, MemoryJournal)
    for shard in system.store._shards:
        shard.owner, shard.epoch, shard.expires_s = "another", shard.epoch + 1, clock.lease_s() + 5.0
    await asyncio.sleep(4.0)
    assert system.singletons.active == 0
    await asyncio.sleep(2.5)
    assert system.singletons.active == 1
    assert Janitor.calls == ["started"] * 2


async def test_only_declared_ones_can_be_asked_for(system: ActorSystem) -> None:
    with pytest.raises(ConfigurationError, match=r"pass it as ActorSystem\(singletons"):
        system.singleton(Nothing)


@pytest.mark.parametrize("cls", [Nothing, Choosy])
def test_a_singleton_has_to_say_what_to_do_when_it_is_started(cls: type[PersistentActor[Sweeps, Swept]]) -> None:
    with pytest.raises(ConfigurationError, match="give it a command `def started"):
        ActorSystem(singletons=[cls])

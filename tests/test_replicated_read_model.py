"""The read model of a cluster: three systems of one process, over real sockets, on one journal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from actorkit import ActorSystem, ClusterNode, PersistentActor, SystemSettings, command, published
from actorkit.errors import AppendUncertain, ConfigurationError, JournalUnavailable, OutcomeUnknown
from actorkit.ids import shard_of
from actorkit.journal.protocols import Append, AppendResult, StoredSnapshot
from actorkit.persistence import settling
from actorkit.persistence.published import Published
from actorkit.readmodel.catalog import Catalog
from actorkit.readmodel.documents import Document
from actorkit.readmodel.messages import Updates
from actorkit.readmodel.replicator import Replicator
from actorkit.readmodel.settings import ReadModelSettings
from actorkit.readmodel.stamp import encode_value, stamp_of
from tests.persistence.actors import AccountState, Put
from tests.test_node_of_a_cluster import free_address

_SHARDS = 4
_SETTINGS = ReadModelSettings(check_s=0.2)


class Purse(PersistentActor[AccountState, Put], name="purse"):
    @command
    def put(self, amount: int) -> int:
        self.emit(Put(amount))
        return self.state.balance

    @published
    def balance(self) -> int | None:
        return self.state.balance or None


class Stranger(PersistentActor[AccountState, Put], name="stranger"):
    @published
    def balance(self) -> int:
        return self.state.balance


@asynccontextmanager
async def cluster(
    tmp_path: Path, nodes: int = 3, readmodel: ReadModelSettings = _SETTINGS
) -> AsyncGenerator[list[ActorSystem]]:
    seeds = tuple(free_address() for _ in range(nodes))
    systems = [
        ActorSystem(
            f"sqlite:///{tmp_path}/a.db",
            name=f"n{number}",
            shards=_SHARDS,
            entities=(Purse,),
            cluster=ClusterNode(remoting=address, seeds=seeds),
            settings=SystemSettings(readmodel=readmodel),
        )
        for number, address in enumerate(seeds)
    ]
    async with AsyncExitStack() as stack, asyncio.timeout(60):
        for system in systems:
            await stack.enter_async_context(system)
        await asyncio.gather(*(system.own_all_shards() for system in systems))
        await until(lambda: all(system.ready is None for system in systems))
        yield systems


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.005)


def replicator_of(system: ActorSystem) -> Replicator:
    replicator = system.read_model.replicator
    assert replicator is not None
    return replicator


def catalog_of(system: ActorSystem) -> Catalog:
    return replicator_of(system).catalog


def shows(system: ActorSystem, id: str) -> int | None:
    entry = system.view(Purse.balance).get(id)
    return None if entry is None else entry.value


def all_show(system: ActorSystem, value: int) -> bool:
    return all(shows(system, f"p{number}") == value for number in range(20))


def shows_value(system: ActorSystem, id: str, value: int) -> bool:
    return shows(system, id) == value


def is_younger(system: ActorSystem, age_s: float) -> bool:
    return system.read_model_age_s < age_s


def shows_nothing(system: ActorSystem, id: str) -> bool:
    return shows(system, id) is None


def shows_up_to(system: ActorSystem, heads: dict[int, int]) -> bool:
    return {shard: catalog_of(system).position(shard) for shard in heads} == heads


async def test_every_node_shows_what_any_has_committed_deletions_included(tmp_path: Path) -> None:
    async with cluster(tmp_path) as systems:
        for number in range(20):
            await systems[number % 3].get(Purse, f"p{number}").put(7)
        for system in systems:
            await until(partial(all_show, system, 7))
        await systems[0].get(Purse, "p3").put(-7)
        for system in systems:
            await until(partial(shows_nothing, system, "p3"))
            assert system.view(Purse.balance).get("p4") is not None


async def test_a_node_that_starts_alone_on_an_old_journal_reads_it(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=1) as (system,):
        for number in range(20):
            await system.get(Purse, f"p{number}").put(number + 1)
    async with cluster(tmp_path, nodes=1) as (system,):
        assert {id: entry.value for id, entry in system.view(Purse.balance).items().items()} == {
            f"p{number}": number + 1 for number in range(20)
        }
        # It is computed anew only some milliseconds after somebody has asked, as ``ready`` does.
        await until(lambda: system.read_model_age_s == 0)


async def test_a_node_alone_writes_only_the_newest_values_and_whoever_joins_is_told_all_of_them(tmp_path: Path) -> None:
    # An hour between two times that they are written while nobody is there, unless very many wait.
    settings, pools = ReadModelSettings(check_s=3600.0, flush_alone_s=3600.0), 1_500
    seeds = (free_address(), free_address())
    first, second = (
        ActorSystem(
            f"sqlite:///{tmp_path}/a.db",
            name=f"n{number}",
            shards=_SHARDS,
            entities=(Purse,),
            cluster=ClusterNode(remoting=address, seeds=seeds[:1]),
            settings=SystemSettings(readmodel=settings),
        )
        for number, address in enumerate(seeds)
    )
    async with asyncio.timeout(60), first:
        await first.own_all_shards()
        await until(lambda: first.ready is None)
        await first.get(Purse, "other").put(1)
        await asyncio.gather(*(first.get(Purse, f"p{number}").put(1) for number in range(pools)))
        assert 0 < pools + 1 - catalog_of(first).keys < 1_024
        for _ in range(2):
            await asyncio.gather(*(first.get(Purse, f"p{number}").put(1) for number in range(100)))
        assert shows(first, "p0") == 3
        assert catalog_of(first).replaced == 0, "nothing was written since"
        async with second:
            await until(
                lambda: all(shows(second, f"p{number}") == (3 if number < 100 else 1) for number in range(pools))
            )
            assert catalog_of(first).keys == pools + 1


async def test_what_an_owner_committed_and_told_nobody_its_successor_reads_from_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster(tmp_path) as systems:
        leaving, *staying = systems
        for number in range(20):
            await leaving.get(Purse, f"p{number}").put(1)
        for system in staying:
            await until(partial(all_show, system, 1))
        assert leaving.clustering is not None
        # From now on nothing is heard of what is published there; sharding goes on.
        monkeypatch.setattr(leaving.clustering.remoting, "send", lambda address, message: False)
        for number in range(20):
            await leaving.get(Purse, f"p{number}").put(1)
        await leaving.leave()
        for system in staying:
            await until(partial(all_show, system, 2))


async def test_no_answer_claims_to_be_younger_than_what_waits_to_be_sent(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=2, readmodel=ReadModelSettings(flush_s=30.0, round_s=0.05)) as (writer, reader):
        loop = asyncio.get_running_loop()
        for number in range(20):
            await writer.get(Purse, f"p{number}").put(1)
        committed_s = loop.time()
        await until(lambda: reader.read_model_age_s < loop.time() - committed_s - 0.01)
        assert all_show(reader, 1)


def lose_answers(system: ActorSystem, id: str, readable: asyncio.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the entity appends is stored without anybody hearing of it; it cannot be read until then."""
    store = system.store
    append, load_snapshots = store.append, store.load_snapshots
    lost: list[Append] = []

    async def append_and_say_nothing(appends: Sequence[Append]) -> list[AppendResult]:
        if lost:
            return await append(appends)
        lost.extend(appends)
        await append(appends)
        raise AppendUncertain("the test says so")

    async def load(
        stream: str, *, max_sequence: int | None = None, max_time_us: int | None = None
    ) -> list[StoredSnapshot]:
        if stream == f"purse/{id}" and not readable.is_set():
            raise JournalUnavailable("the test says so")
        return await load_snapshots(stream, max_sequence=max_sequence, max_time_us=max_time_us)

    monkeypatch.setattr(settling, "_ATTEMPTS", 2)
    monkeypatch.setattr(store, "append", append_and_say_nothing)
    monkeypatch.setattr(store, "load_snapshots", load)


async def test_what_its_entity_could_not_find_out_is_read_from_the_journal_and_until_then_ages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster(tmp_path, nodes=2) as systems:
        await systems[0].get(Purse, "p").put(7)
        readable = asyncio.Event()
        for system in systems:
            lose_answers(system, "p", readable, monkeypatch)
        with pytest.raises(OutcomeUnknown):
            await systems[0].get(Purse, "p").put(1)
        await asyncio.sleep(0.5)
        assert all(system.read_model_age_s > 0.4 for system in systems)
        readable.set()
        for system in systems:
            await until(partial(shows_value, system, "p", 8))
            await until(partial(is_younger, system, 0.4))


async def test_alone_too_what_its_entity_could_not_find_out_is_read_from_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ActorSystem(f"sqlite:///{tmp_path}/a.db", entities=(Purse,)) as system, asyncio.timeout(30):
        await system.get(Purse, "p").put(7)
        readable = asyncio.Event()
        lose_answers(system, "p", readable, monkeypatch)
        with pytest.raises(OutcomeUnknown):
            await system.get(Purse, "p").put(1)
        assert system.ready is not None
        readable.set()
        await until(lambda: system.ready is None)
        assert shows(system, "p") == 8


async def test_documents_say_how_much_of_the_log_they_show(tmp_path: Path) -> None:
    async with cluster(tmp_path) as systems:
        for number in range(20):
            await systems[0].get(Purse, f"p{number}").put(7)
        heads = {status.shard: status.head for status in await systems[0].shards()}
        assert sum(heads.values()) == 20
        for system in systems:
            await until(partial(shows_up_to, system, heads))


async def test_what_goes_further_than_the_log_is_taken_back(tmp_path: Path) -> None:
    """A member that has gone mad shows events that nobody has committed, in the name of the shard's owner."""
    async with cluster(tmp_path) as systems:
        shard = shard_of("purse/p", _SHARDS)
        owner = next(system for system in systems if catalog_of(system).written_here(shard) is not None)
        mad, reader = (system for system in systems if system is not owner)
        await owner.get(Purse, "p").put(7)
        await until(lambda: shows(reader, "p") == 7)
        true = catalog_of(owner).document(shard)
        assert true is not None
        forged = Document(shard, true.epoch, {"purse/balance/p": encode_value(stamp_of(99, 1), b"\x63")}, position=1)
        for _ in range(200):
            forged.reached(forged.position + 1)
        update = forged.missing(0, 0)
        assert update is not None
        assert mad.clustering is not None
        assert reader.clustering is not None
        message = Updates(mad.store.generation, 0, (update,))
        assert mad.clustering.remoting.send(reader.clustering.remoting.address, message)
        await until(lambda: reader.read_model.counters.updates_refused > 0)
        await until(lambda: shows(reader, "p") == 7)
        await owner.get(Purse, "p").put(1)
        await until(lambda: shows(reader, "p") == 8)


async def test_a_node_is_ready_only_once_it_can_say_how_old_its_answers_may_be(tmp_path: Path) -> None:
    addresses = (free_address(), free_address())
    async with AsyncExitStack() as stack, asyncio.timeout(60):
        for address in addresses:
            node = ClusterNode(remoting=address, seeds=addresses[:1])
            system = ActorSystem(f"sqlite:///{tmp_path}/a.db", name=address, entities=(Purse,), cluster=node)
            await stack.enter_async_context(system)
            while system.ready is not None:
                await asyncio.sleep(0)
            assert system.read_model_age_s < 60


async def test_a_node_that_stops_claims_nothing_of_shards_once_others_may_have_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ages: list[float] = []
    async with cluster(tmp_path, nodes=1) as (system,):
        release = system.store.release

        async def release_slowly(epochs: Mapping[int, int], *, owner: str) -> None:
            await release(epochs, owner=owner)
            await asyncio.sleep(0.2)
            ages.append(system.read_model_age_s)

        monkeypatch.setattr(system.store, "release", release_slowly)
    assert ages
    assert min(ages) >= 0.2


async def test_a_system_that_has_stopped_may_start_again_as_another_incarnation(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=2) as (staying, restarted):
        await staying.get(Purse, "p").put(7)
        node = restarted.node
        await restarted.stop()
        await restarted.start()
        assert (restarted.node.name, restarted.node == node) == (node.name, False)
        await restarted.own_all_shards()
        await until(partial(shows_value, restarted, "p", 7))


class NewerPurse(PersistentActor[AccountState, Put], name="purse"):
    @command
    def put(self, amount: int) -> int:
        self.emit(Put(amount))
        return self.state.balance

    @published(version=2)
    def balance(self) -> str | None:
        return f"{self.state.balance} coins"

    @published
    def cents(self) -> int | None:
        return self.state.balance * 100


async def test_once_all_nodes_are_upgraded_all_show_what_the_new_version_publishes(tmp_path: Path) -> None:
    seeds = (free_address(), free_address())

    async def start(
        stack: AsyncExitStack, address: str, entity: type[PersistentActor[AccountState, Put]]
    ) -> ActorSystem:
        node = ClusterNode(remoting=address, seeds=seeds)
        settings = SystemSettings(readmodel=_SETTINGS)
        journal = f"sqlite:///{tmp_path}/a.db"
        system = ActorSystem(journal, name=address, shards=_SHARDS, entities=(entity,), cluster=node, settings=settings)
        return await stack.enter_async_context(system)

    async with AsyncExitStack() as stack, asyncio.timeout(60):
        systems = await asyncio.gather(*(start(stack, address, Purse) for address in seeds))
        await asyncio.gather(*(system.own_all_shards() for system in systems))
        for number in range(20):
            await systems[0].get(Purse, f"p{number}").put(7)
        upgraded: list[ActorSystem] = []
        for system, address in zip(systems, seeds, strict=True):
            await until(partial(all_show, system, 7))
            await system.stop()
            upgraded.append(await start(stack, address, NewerPurse))
            await upgraded[-1].own_all_shards()
            await until(partial(is_ready, upgraded[-1]))
        for system in upgraded:
            for view, value in ((NewerPurse.balance, "7 coins"), (NewerPurse.cents, 700)):
                await until(partial(all_have, system, view, value))


def is_ready(system: ActorSystem) -> bool:
    return system.ready is None


def all_have(system: ActorSystem, view: Published[Any, Any], value: object) -> bool:
    entries = [system.view(view).get(f"p{number}") for number in range(20)]
    return all(entry is not None and entry.value == value for entry in entries)


async def test_a_class_that_was_not_named_is_not_replicated_and_says_so(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=1) as (system,):
        with pytest.raises(ConfigurationError, match=r"pass its class as ActorSystem\(entities="):
            system.view(Stranger.balance)

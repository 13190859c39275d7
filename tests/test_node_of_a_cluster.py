"""ActorSystem as a node of a cluster: two systems of one process, over real sockets, on one journal."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from actorkit import ActorSystem, ClusterNode, PersistentActor, command, published
from actorkit.cluster import JoinRefused
from tests.persistence.actors import AccountState, Put


class Purse(PersistentActor[AccountState, Put], name="purse"):
    @command
    def put(self, amount: int) -> int:
        self.emit(Put(amount))
        return self.state.balance

    @published
    def balance(self) -> int:
        return self.state.balance


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


@asynccontextmanager
async def two(tmp_path: Path) -> AsyncIterator[list[ActorSystem]]:
    seeds = (free_address(), free_address())
    systems = [
        ActorSystem(
            f"sqlite:///{tmp_path}/a.db",
            name=f"n{number}",
            shards=8,
            entities=(Purse,),
            cluster=ClusterNode(remoting=address, seeds=seeds, labels={"http": f"{number}"}),
        )
        for number, address in enumerate(seeds)
    ]
    async with AsyncExitStack() as stack, asyncio.timeout(60):
        for system in systems:
            await stack.enter_async_context(system)
        await asyncio.gather(*(system.own_all_shards() for system in systems))
        yield systems


async def owners(system: ActorSystem) -> set[str]:
    return {status.owner.partition("#")[0] for status in await system.shards()}


async def test_a_node_that_leaves_hands_over_its_shards_and_goes_on_answering(tmp_path: Path) -> None:
    async with two(tmp_path) as (leaving, staying):
        for number in range(20):
            assert await leaving.get(Purse, f"p{number}").put(1) == 1
        assert await owners(staying) == {"n0", "n1"}
        calls = [asyncio.ensure_future(leaving.get(Purse, f"p{number}").put(1)) for number in range(20)]
        await leaving.leave()
        # The last ones may not have been taken yet.
        assert "n0" not in await owners(staying)
        assert await asyncio.gather(*calls) == [2] * 20
        assert [await leaving.get(Purse, f"p{number}").put(1) for number in range(20)] == [3] * 20
        # Once more is no harm, and neither is stopping after it.
        await leaving.leave()
        await leaving.stop()
        assert [await staying.get(Purse, f"p{number}").put(1) for number in range(20)] == [4] * 20


async def test_the_read_model_shows_what_others_have_written_and_how_old_it_may_be(tmp_path: Path) -> None:
    async with two(tmp_path) as systems:
        for number in range(10):
            await systems[number % 2].get(Purse, f"p{number}").put(7)
        for system in systems:
            while system.ready is not None:
                await asyncio.sleep(0.01)
            for number in range(10):
                await system.view(Purse.balance).wait_for(f"p{number}", version=1, deadline_s=20)
            while system.ready is not None:
                await asyncio.sleep(0.005)
            assert 0 < system.read_model_age_s < 20
        assert [member.labels["http"] for member in systems[0].members] == ["0", "1"]


async def test_a_system_without_a_cluster_has_nobody_to_hand_anything_over_to(tmp_path: Path) -> None:
    async with ActorSystem(entities=(Purse,)) as system:
        assert await system.get(Purse, "p").put(1) == 1
        await system.leave()
        assert await system.get(Purse, "p").put(1) == 2
        assert system.members == ()
        while system.ready is not None:
            await asyncio.sleep(0)
        assert system.read_model_age_s == 0


async def test_a_node_with_another_journal_is_no_member_and_is_told_why(tmp_path: Path) -> None:
    async with two(tmp_path) as systems:
        clustering = systems[0].clustering
        assert clustering is not None
        stranger = ActorSystem(
            f"sqlite:///{tmp_path}/another.db",
            name="stranger",
            shards=8,
            entities=(Purse,),
            cluster=ClusterNode(remoting=free_address(), seeds=(clustering.remoting.address,)),
        )
        async with stranger:
            events = stranger.cluster_events()
            refused = await anext(event async for event in events if isinstance(event, JoinRefused))
            assert "all nodes of a cluster have the same journal" in refused.why
            assert stranger.ready is not None
            assert [member.node.name for member in systems[0].members] == ["n0", "n1"]
            assert await owners(systems[0]) == {"n0", "n1"}

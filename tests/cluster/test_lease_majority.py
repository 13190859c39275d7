"""Of two halves, the one that gets the lease in the journal store goes on: whole systems, in a simulated world."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from actorkit import SystemSettings
from actorkit.cluster.settings import ClusterSettings, DowningSettings
from actorkit.testing.simulation import NodeSettings, World
from tests.cluster.worlds import SHARDS, Tally, cut, formed, incarnations, owned_by, sees, surely, until

DOWNING = DowningSettings(strategy="lease-majority")
NODES = NodeSettings(
    entities=[Tally],
    shards=SHARDS,
    system=SystemSettings(cluster=ClusterSettings(downing=DOWNING)),
    clustered=True,
)
LOW, HIGH = ("node-1", "node-2"), ("node-3", "node-4")
TALLIES = [f"t{number}" for number in range(24)]
DECIDED_S = 3.0 + DOWNING.stable_after_s + DOWNING.lease_delay_s + DOWNING.lease_timeout_s
"""Suspicions have spread, the view has been stable, the smaller side has waited, and the store had its time."""


async def count_all(world: World, name: str, nodes: Sequence[str], counts: dict[str, int]) -> None:
    """Adds one to every tally, by way of these nodes. No answer may contradict an earlier one."""
    client = world.client(name, nodes=nodes)
    for tally in TALLIES:
        reply = await surely(world, client.get(Tally, tally).add.options(idempotency_key=name))
        assert reply == counts.get(tally, 0) + 1, tally
        counts[tally] = reply


async def split(
    world: World,
    winners: Sequence[str],
    losers: Sequence[str],
    *,
    without_store: Sequence[str] = (),
    refused: bool = True,
) -> None:
    """Until one side is downed; then the other side serves everything, and after the healing all nodes do."""
    nodes = {node.name: node for node in world.nodes}
    counts: dict[str, int] = {}
    await count_all(world, "before", [], counts)
    lives = {name: node.lives for name, node in nodes.items()}
    mend = cut(world, winners, losers)
    world.store.faults.unreachable.update(dict.fromkeys(without_store, refused))
    await until(world, lambda: all(nodes[name].lives > lives[name] for name in losers), "downed", within_s=DECIDED_S)
    await until(world, lambda: all(sees(nodes[name], winners) for name in winners), "agreed", within_s=DECIDED_S)
    surviving = {str(system.node) for name in winners if (system := nodes[name].system) is not None}
    await until(world, lambda: owned_by(world) == surviving, "taken over", within_s=10.0)
    await count_all(world, "during", winners, counts)
    mend()
    world.store.faults.unreachable.clear()
    await formed(world, within_s=30.0)
    for name in nodes:
        await count_all(world, f"after at {name}", [name], counts)
    assert {name: nodes[name].lives for name in winners} == {name: lives[name] for name in winners}
    assert owned_by(world) == incarnations(world)


@pytest.mark.parametrize("seed", range(8))
def test_of_two_halves_exactly_one_goes_on_and_serves_every_shard(seed: int) -> None:
    """Both reach the store: the half with the lowest name may ask first."""
    world = World(seed, NODES, nodes=4)

    async def story(world: World) -> None:
        await formed(world)
        await split(world, LOW, HIGH)

    world.run(story)
    assert not world.findings(), world.report()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("refused", [True, False])
def test_a_half_that_cannot_reach_the_store_leaves_it_to_the_other(seed: int, refused: bool) -> None:
    """Keep-majority would end both: one by its rule, and the other could own nothing."""
    world = World(seed, NODES, nodes=4)

    async def story(world: World) -> None:
        await formed(world)
        await split(world, HIGH, LOW, without_store=LOW, refused=refused)

    world.run(story)
    assert not world.findings(), world.report()


@pytest.mark.parametrize("seed", range(4))
def test_three_of_four_go_on_without_waiting_for_the_fourth(seed: int) -> None:
    world = World(seed, NODES, nodes=4)

    async def story(world: World) -> None:
        await formed(world)
        await split(world, ("node-2", "node-3", "node-4"), ("node-1",))

    world.run(story)
    assert not world.findings(), world.report()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("lost", ["node-1", "node-2"])
def test_of_two_nodes_either_may_be_lost(seed: int, lost: str) -> None:
    """Keep-majority would end both when the lower one is lost."""
    world = World(seed, NODES, nodes=2)

    async def story(world: World) -> None:
        await formed(world)
        counts: dict[str, int] = {}
        await count_all(world, "before", [], counts)
        world.node(lost).crash("by the test")
        (kept,) = [node for node in world.nodes if node.name != lost]
        await until(world, lambda: sees(kept, [kept.name]), "decided", within_s=DECIDED_S)
        await count_all(world, "during", [kept.name], counts)
        assert kept.lives == 1
        world.node(lost).start()
        await formed(world)
        await count_all(world, "after", [lost], counts)

    world.run(story)
    assert not world.findings(), world.report()

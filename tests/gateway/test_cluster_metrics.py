"""Metrics of a node of a cluster: they count what happens, and the page on operations has them all."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import pytest

from actorkit.gateway.cluster_metrics import cluster_readings
from actorkit.gateway.metrics import Metrics, Reading
from actorkit.gateway.read_model_metrics import read_model_readings
from actorkit.testing.simulation import NodeSettings, SimulatedLoop, World
from actorkit.testing.simulation.node import Node
from tests.cluster.test_singletons_in_clusters import Heart
from tests.cluster.worlds import SHARDS, Tally, cut, formed, surely, until

PAGE = (Path(__file__).parent.parent.parent / "docs" / "operations.md").read_text()
NODES = NodeSettings(entities=[Tally], singletons=[Heart], shards=SHARDS, clustered=True)


def readings_of(node: Node) -> list[Reading]:
    system = node.system
    assert system is not None
    assert system.clustering is not None
    clustering = system.clustering
    of_cluster = cluster_readings(
        clustering.remoting, clustering.cluster, clustering.sharding, system.region, system.singletons
    )
    return [*of_cluster, *read_model_readings(system.read_model)]


def values(node: Node) -> dict[str, float]:
    """By the names without their prefix, and the values of labels. Read there, by the clock of that node."""
    found: dict[str, float] = {}
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulatedLoop)
    with loop.inside(node.process):
        read = [(reading, reading.read()) for reading in readings_of(node)]
    for reading, value in read:
        name = reading.name.removeprefix("actorkit_")
        if isinstance(value, Mapping):
            assert reading.label
            found |= {f"{name}/{label}": number for label, number in value.items()}
        else:
            found[name] = value
    return found


def owned(world: World) -> float:
    return sum(values(node)["sharding_shards/owned"] for node in world.nodes if node.up)


@pytest.mark.parametrize("seed", range(4))
def test_what_happens_to_a_cluster_is_counted(seed: int) -> None:
    world = World(seed, NODES, nodes=3)

    async def story(world: World) -> None:
        await formed(world)
        first, second, third = world.nodes
        await until(world, lambda: owned(world) == SHARDS, "all shards are owned", within_s=5.0)
        await world.sleep_until(world.loop.now_s + 1.1)
        now = values(first)
        assert now["cluster_members/up"] == 3
        assert now["cluster_members/joining"] == now["cluster_members/leaving"] == 0
        assert now["cluster_unreachable_members"] == now["cluster_suspected_members"] == 0
        assert now["cluster_majority"] == 1
        assert now["cluster_events/member_up"] == 3
        assert now["remoting_connections"] == now["remoting_connects"] == 2
        assert now["remoting_reconnects"] == now["remoting_disconnects"] == 0
        for what in ("messages", "frames", "bytes"):
            assert now[f"remoting_sent_{what}"] > 0
            assert now[f"remoting_received_{what}"] > 0
        assert now["remoting_sent_bytes"] > now["remoting_sent_frames"]
        took = [values(node) for node in world.nodes]
        assert sum(each["sharding_takeovers"] + each["sharding_handovers"] for each in took) >= SHARDS
        assert sum(each["sharding_handoffs"] for each in took) == sum(each["sharding_handovers"] for each in took)
        assert sum(each["sharding_singletons"] for each in took) == 1
        for each in took:
            assert each["readmodel_documents"] == SHARDS
            assert each["readmodel_uncovered_shards"] == each["readmodel_refused_updates"] == 0
            assert 0 <= each["readmodel_lag_seconds"] < 3
            assert each["readmodel_rounds"] > 0
            assert each["readmodel_received_updates"] > 0
            assert each["readmodel_received_update_bytes"] > each["readmodel_received_updates"]

        client = world.client("test", nodes=["node-1"])
        for number in range(30):
            await surely(world, client.get(Tally, f"t{number}").add.options(idempotency_key="k"))
        now = values(first)
        received = sum(values(node)["sharding_received_calls"] for node in (second, third))
        assert now["sharding_sent_calls"] == received > 0
        assert now["sharding_pending_calls"] == now["sharding_buffered_calls"] == 0

        mend = cut(world, ["node-1", "node-2"], ["node-3"])
        await until(world, lambda: values(first)["cluster_suspected_members"] == 1, "suspected", within_s=4.0)
        waiting = [world.loop.create_task(surely(world, client.get(Tally, f"t{n}").count)) for n in range(30)]
        await until(world, lambda: values(first)["cluster_unreachable_members"] == 1, "unreachable", within_s=4.0)
        await until(world, lambda: values(third)["cluster_majority"] == 0, "no majority", within_s=4.0)
        before = values(first)
        assert before["sharding_pending_calls"] + before["sharding_buffered_calls"] > 0
        assert before["sharding_shards/wanted"] + values(second)["sharding_shards/wanted"] > 0
        for task in waiting:
            await task
        await world.sleep_until(world.loop.now_s + 1.1)
        taken = sum(values(node)["sharding_takeovers"] for node in (first, second))
        assert taken > sum(each["sharding_takeovers"] for each in took[:2])
        mend()
        await formed(world)
        assert values(first)["remoting_reconnects"] > 0
        assert values(first)["remoting_disconnects"] > 0

        handed = sum(values(node)["sharding_handovers"] for node in (first, second))
        await until(world, lambda: owned(world) == SHARDS, "all shards are owned", within_s=5.0)
        third.leave()
        await until(world, lambda: values(first)["cluster_events/member_left"] > 0, "left", within_s=10.0)

        def handed_over() -> bool:
            return sum(values(node)["sharding_handovers"] for node in (first, second)) > handed

        # Who takes a shard over counts it, which may be after the end of who has given it up.
        await until(world, handed_over, "handed over", within_s=2.0)

    world.run(story)
    assert not world.findings(), world.report()


def test_every_metric_has_a_help_text_and_a_name_as_prometheus_wants_it_and_is_on_the_page() -> None:
    world = World(1, NODES, nodes=1)
    found: list[Reading] = []

    async def story(world: World) -> None:
        await formed(world)
        found.extend(msgspec.structs.replace(each, read=_kept(each.read())) for each in readings_of(world.nodes[0]))

    world.run(story)
    metrics = Metrics(in_progress=lambda: 0)
    metrics.readings = found
    text = metrics.text()[0].decode()
    shown: dict[str, str] = {}
    for reading in found:
        name = f"{reading.name}_total" if reading.kind == "counter" else reading.name
        assert re.fullmatch(r"actorkit_(remoting|cluster|sharding|readmodel)_[a-z_]+", name)
        assert f"# TYPE {name} {reading.kind}\n" in text
        assert f"# HELP {name} {reading.help}\n" in text
        assert re.search(rf"^{name}(\{{{reading.label}=\"[a-z_ ]+\"\}})? (NaN|[0-9.e+-]+)$", text, re.MULTILINE), name
        shown[f"{name}{{{reading.label}}}" if reading.label else name] = reading.help
    ours = r"^\| `(actorkit_(?:remoting|cluster|sharding|readmodel)_\S+)` \| (.+) \|$"
    rows = dict(re.findall(ours, PAGE, re.MULTILINE))
    assert rows == shown


def _kept(value: float | Mapping[str, float]) -> Callable[[], float | Mapping[str, float]]:
    return lambda: value

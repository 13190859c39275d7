"""The shell of membership on the simulated loop, with a messenger that stands for remoting."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Sequence
from random import Random
from typing import Any

import msgspec
import pytest
import structlog

from actorkit.cluster import (
    Cluster,
    ClusterEvent,
    ClusterFormed,
    ClusterSettings,
    Downed,
    EventsDropped,
    MajorityGained,
    MemberDown,
    MemberJoined,
    MemberLeaving,
    MemberLeft,
    MemberUnreachable,
    MemberUp,
)
from actorkit.cluster.settings import DowningSettings
from actorkit.errors import ConfigurationError, NotJoined
from actorkit.ids import NodeId
from actorkit.remoting.events import Peer
from actorkit.testing.simulation import SimulatedLoop
from actorkit.testing.simulation.randomness import SeededRandomness
from actorkit.wire.codec import Codec


class Wire:
    """All messengers; messages arrive a millisecond later, as bytes."""

    def __init__(self) -> None:
        self.codec = Codec()
        self.listening: dict[str, FakeMessenger] = {}
        self.cut: set[str] = set()
        """Addresses that nothing reaches and nothing leaves."""

    def arrive(self, sender: Peer, address: str, data: bytes) -> None:
        messenger = self.listening.get(address)
        if messenger is None or sender.address in self.cut or address in self.cut:
            return
        message = self.codec.decode(data)
        messenger.receivers[type(message)](sender, message)


class FakeMessenger:
    def __init__(self, wire: Wire, node: NodeId, address: str) -> None:
        self.wire = wire
        self.peer = Peer(node, address)
        self.address = address
        self.receivers: dict[type, Callable[[Any, Any], None]] = {}
        self.full = False
        wire.listening[address] = self

    def register(self, message_type: type[Any], receive: Callable[[Any, Any], None]) -> None:
        self.wire.codec.declare(message_type)
        self.receivers[message_type] = receive

    def send(self, address: str, message: msgspec.Struct) -> bool:
        if self.full:
            return False
        data = self.wire.codec.encode(message)
        asyncio.get_running_loop().call_later(0.001, self.wire.arrive, self.peer, address, data)
        return True


class Lease:
    """Implements ``DowningLease``: the first that asks gets it."""

    def __init__(self, *, taken: bool = False, error: Exception | None = None) -> None:
        self.taken = taken
        self.error = error
        self.asked = 0

    async def acquire(self) -> bool:
        self.asked += 1
        await asyncio.sleep(0.01)
        if self.error is not None:
            raise self.error
        taken, self.taken = self.taken, True
        return not taken


class Nodes:
    """Nodes of one test."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.started: list[Cluster] = []
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        self.clock = loop.new_clock()

    def new(self, name: str, *seeds: str, incarnation: str = "1", **more: Any) -> Cluster:
        node = NodeId(name, incarnation)
        messenger = FakeMessenger(self.wire, node, f"{name}:9080")
        randomness = SeededRandomness(Random(f"{node}"))
        more.setdefault("resolve", _as_it_is)
        cluster = Cluster(messenger, node=node, clock=self.clock, randomness=randomness, seeds=seeds, **more)
        self.started.append(cluster)
        return cluster

    async def cluster(self, count: int, **more: Any) -> list[Cluster]:
        seeds = [f"n{number}:9080" for number in range(count)]
        clusters = [self.new(f"n{number}", *seeds, **more) for number in range(count)]
        for cluster in clusters:
            await cluster.start()
        for cluster in clusters:
            await cluster.join(within_s=5.0)
        await asyncio.sleep(2.0)
        return clusters

    def crash(self, cluster: Cluster) -> None:
        self.wire.cut.add(cluster.myself.address)


async def _as_it_is(seed: str) -> Sequence[str]:
    return (seed,)


@pytest.fixture
async def nodes() -> AsyncIterator[Nodes]:
    nodes = Nodes()
    yield nodes
    for cluster in nodes.started:
        await cluster.stop()


def names(cluster: Cluster) -> list[str]:
    return [member.node.name for member in cluster.up]


async def test_nodes_join_and_each_sees_all(nodes: Nodes) -> None:
    clusters = await nodes.cluster(3, roles=("worker",), weight=2.0, labels={"http": "127.0.0.1:8080"})
    for cluster in clusters:
        assert names(cluster) == ["n0", "n1", "n2"]
        assert cluster.majority
        assert cluster.joining_state == ""
        assert [(member.roles, member.weight) for member in cluster.members] == [(("worker",), 2.0)] * 3
        assert cluster.members[0].labels == {"http": "127.0.0.1:8080"}
    assert clusters[0].event_counts["ClusterFormed"] == 1
    assert "ClusterFormed" not in clusters[1].event_counts


async def test_subscribers_and_readers_hear_the_same_in_order(nodes: Nodes) -> None:
    told: list[ClusterEvent] = []
    first = nodes.new("n0", "n0:9080")
    end = first.subscribe(told.append)
    events = first.events()
    await first.start()
    second = nodes.new("n1", "n0:9080")
    await second.start()
    await second.join(within_s=5.0)
    await asyncio.sleep(1.0)
    kinds = [type(event) for event in told]
    assert kinds == [MemberUp, ClusterFormed, MajorityGained, MemberJoined, MemberUp]
    assert [await anext(events) for _ in told] == told
    end()
    end()
    nodes.crash(second)
    await asyncio.sleep(4.0)
    assert isinstance(await anext(events), MemberUnreachable)
    assert len(told) == len(kinds)


async def test_a_reader_that_is_too_slow_is_told_how_things_stand_and_goes_on_from_there(nodes: Nodes) -> None:
    first = nodes.new("n0", settings=ClusterSettings(events_max=4))
    events = first.events()
    await first.start()
    second = nodes.new("n1", "n0:9080")
    await second.start()
    await second.join()
    await asyncio.sleep(1.0)
    dropped = await anext(events)
    assert dropped == EventsDropped(5, first.members)
    assert [member.node.name for member in first.members] == ["n0", "n1"]
    second.leave()
    await asyncio.sleep(1.0)
    await second.stop()
    await first.stop()
    read = [event async for event in events]
    assert [type(event) for event in read] == [MemberLeaving, MemberLeft, MemberLeft]


async def test_as_many_events_as_the_setting_says_wait_for_a_reader(nodes: Nodes) -> None:
    first = nodes.new("n0", settings=ClusterSettings(events_max=3))
    events = first.events()
    await first.start()
    read = [type(await anext(events)) for _ in range(3)]
    assert read == [MemberUp, ClusterFormed, MajorityGained]
    await first.stop()
    assert [type(event) async for event in events] == [MemberLeft]


async def test_a_reader_that_is_behind_when_all_ends_still_reads_what_it_has_lost(nodes: Nodes) -> None:
    first = nodes.new("n0", settings=ClusterSettings(events_max=1))
    events = first.events()
    await first.start()
    await first.stop()
    assert [event async for event in events] == [EventsDropped(4, ())]


async def test_a_reader_that_has_gone_away_costs_nothing(nodes: Nodes) -> None:
    first = nodes.new("n0")
    reading, forgotten = first.events(), first.events()
    await first.start()
    async for event in forgotten:
        assert isinstance(event, MemberUp)
        break
    del forgotten
    gc.collect()
    assert len(first._streams._streams) == 1
    assert isinstance(await anext(reading), MemberUp)


async def test_who_reads_events_after_the_end_reads_none(nodes: Nodes) -> None:
    first = nodes.new("n0")
    await first.start()
    await first.stop()
    assert [event async for event in first.events()] == []


async def test_a_subscriber_that_raises_is_logged_and_harms_nobody(nodes: Nodes) -> None:
    def broken(event: ClusterEvent) -> None:
        raise ValueError("broken")

    first = nodes.new("n0")
    told: list[ClusterEvent] = []
    first.subscribe(broken)
    first.subscribe(told.append)
    with structlog.testing.capture_logs() as lines:
        await first.start()
    assert len(told) == 3
    assert [line["event"] for line in lines].count("cluster.subscriber_crashed") == 3
    assert "cluster.member_up" in [line["event"] for line in lines]


async def test_joining_that_does_not_come_about_says_what_it_waits_for(nodes: Nodes) -> None:
    alone = nodes.new("n1", "n0:9080")
    await alone.start()
    with pytest.raises(NotJoined, match="of the seeds n0:9080 these answer"):
        await alone.join(within_s=3.0)
    assert not alone.majority
    first = nodes.new("n0", "n0:9080")
    await first.start()
    await alone.join(within_s=3.0)
    assert names(alone) == ["n0", "n1"]


async def test_who_leaves_before_it_is_up_is_not_waited_for_and_never_was_up(nodes: Nodes) -> None:
    alone = nodes.new("n1", "n0:9080")
    await alone.start()
    joining = asyncio.create_task(alone.join())
    await asyncio.sleep(0.5)
    alone.leave()
    await joining
    await asyncio.sleep(30.0)
    assert names(alone) == []
    await alone.stop()
    assert alone.event_counts == {"MemberLeft": 1}


async def test_a_node_that_stops_has_left_and_nobody_is_alarmed(nodes: Nodes) -> None:
    clusters = await nodes.cluster(3)
    told: list[ClusterEvent] = []
    clusters[0].subscribe(told.append)
    clusters[2].leave()
    await asyncio.sleep(0.5)
    assert names(clusters[0]) == ["n0", "n1"]
    assert len(clusters[0].members) == 3
    await clusters[2].stop()
    await clusters[2].stop()
    assert [type(event) for event in told if not isinstance(event, MemberLeft)][-1].__name__ == "MemberLeaving"
    assert isinstance(told[-1], MemberLeft)
    await asyncio.sleep(10.0)
    assert len(clusters[0].members) == 2
    assert not any(isinstance(event, MemberUnreachable | MemberDown) for event in told)


async def test_the_side_that_loses_is_told_to_stop_and_loses_its_majority_before(nodes: Nodes) -> None:
    clusters = await nodes.cluster(3)
    nodes.crash(clusters[2])
    await asyncio.sleep(4.0)
    assert not clusters[2].majority
    assert clusters[2].downed is None
    await asyncio.sleep(6.0)
    assert clusters[2].downed is not None
    assert "only 1 of 3 members are reachable" in clusters[2].downed
    assert clusters[2].event_counts["Downed"] == 1
    with pytest.raises(NotJoined, match="only 1 of 3"):
        await clusters[2].join()
    assert names(clusters[0]) == names(clusters[1]) == ["n0", "n1"]
    nodes.wire.cut.clear()
    again = nodes.new("n2", "n0:9080", incarnation="2")
    await again.start()
    await again.join(within_s=2.0)
    await asyncio.sleep(1.0)
    assert names(clusters[0]) == ["n0", "n1", "n2"]


async def test_after_a_broken_connection_a_crash_is_known_by_the_next_probe(nodes: Nodes) -> None:
    clusters = await nodes.cluster(3)
    for _ in range(10):
        nodes.crash(clusters[2])
        for cluster in clusters[:2]:
            cluster.peer_lost("n2:9080")
        # The next probe, its second try through others, and the time to object.
        await asyncio.sleep(0.2 + 3 * 0.15 + 0.45 + 0.1)
        assert names(clusters[0]) == names(clusters[1]) == ["n0", "n1"]
        nodes.wire.cut.clear()
        await asyncio.sleep(5.0)
        assert names(clusters[0]) == ["n0", "n1", "n2"]


async def test_what_is_logged_says_who_could_not_reach_whom(nodes: Nodes) -> None:
    clusters = await nodes.cluster(3)
    nodes.crash(clusters[2])
    with structlog.testing.capture_logs() as lines:
        await asyncio.sleep(3.0)
    lost = [line for line in lines if line["event"] == "cluster.member_unreachable" and line["member"] == "n2#1"]
    assert {line["node"] for line in lost} == {"n0#1", "n1#1"}
    assert all(line["accusers"] == ["n0", "n1"] for line in lost)
    assert all(line["log_level"] == "warning" for line in lost)


async def test_another_incarnation_at_the_other_end_of_a_connection_replaces_the_old_one(nodes: Nodes) -> None:
    clusters = await nodes.cluster(3)
    nodes.wire.listening.pop("n2:9080")
    again = nodes.new("n2", "x:1", incarnation="2")
    await again.start()
    clusters[0].peer_connected(NodeId("n2", "2"), "n2:9080")
    await asyncio.sleep(0.1)
    assert names(clusters[0]) == ["n0", "n1"]
    assert clusters[0].event_counts["MemberDown"] == 1


async def test_messages_that_are_not_taken_are_counted_and_sent_again_later(nodes: Nodes) -> None:
    first, second = nodes.new("n0", "n0:9080"), nodes.new("n1", "n0:9080")
    messenger = nodes.wire.listening["n1:9080"]
    messenger.full = True
    await first.start()
    await second.start()
    await asyncio.sleep(1.0)
    assert second.unsent == second.sent > 2
    messenger.full = False
    await second.join(within_s=1.0)


async def test_names_of_seeds_are_looked_up_at_the_start_and_now_and_then(nodes: Nodes) -> None:
    known: dict[str, list[str]] = {}

    async def look_up(seed: str) -> Sequence[str]:
        if seed not in known:
            raise OSError("name or service not known")
        return known[seed]

    with structlog.testing.capture_logs() as lines:
        node = nodes.new("n5", "shop:9080", resolve=look_up)
        await node.start()
    assert [(line["event"], line["seed"]) for line in lines] == [("cluster.seed_not_resolved", "shop:9080")]
    first = nodes.new("n0", "n0:9080")
    await first.start()
    known["shop:9080"] = ["n0:9080", "n7:9080"]
    await node.join(within_s=31.0)


async def test_a_seed_that_is_no_address_is_an_error_at_the_start(nodes: Nodes) -> None:
    async def look_up(seed: str) -> Sequence[str]:
        raise ConfigurationError(f"the seed {seed!r} is not an address")

    node = nodes.new("n0", "nonsense", resolve=look_up)
    with pytest.raises(ConfigurationError, match="nonsense"):
        await node.start()


LEASE_MAJORITY = ClusterSettings(downing=DowningSettings(strategy="lease-majority"))


@pytest.mark.parametrize("error", [None, OSError("the store is away")])
async def test_of_two_nodes_the_one_that_gets_the_lease_goes_on(nodes: Nodes, error: Exception | None) -> None:
    lease = Lease(error=error)
    clusters = await nodes.cluster(2, settings=LEASE_MAJORITY, lease=lease)
    nodes.crash(clusters[0])
    await asyncio.sleep(15.0)
    assert lease.asked == 2
    if error is None:
        # The lower one has the majority of two, so that it may ask first.
        assert clusters[0].downed is None
        assert names(clusters[0]) == ["n0"]
    else:
        assert clusters[0].downed is not None
    assert clusters[1].downed is not None
    assert "could not get the lease" in clusters[1].downed


async def test_a_lease_and_its_strategy_go_together(nodes: Nodes) -> None:
    with pytest.raises(ConfigurationError, match="give both or neither"):
        nodes.new("n0", settings=LEASE_MAJORITY)
    with pytest.raises(ConfigurationError, match="give both or neither"):
        nodes.new("n0", lease=Lease())


async def test_downed_is_told_once_and_nothing_more_is_sent(nodes: Nodes) -> None:
    clusters = await nodes.cluster(3)
    told: list[ClusterEvent] = []
    clusters[2].subscribe(told.append)
    nodes.crash(clusters[2])
    await asyncio.sleep(12.0)
    sent = clusters[2].sent
    await asyncio.sleep(30.0)
    assert clusters[2].sent == sent
    assert sum(isinstance(event, Downed) for event in told) == 1

"""Events of the cluster, as users of a system read them."""

from __future__ import annotations

import pytest

from actorkit import ActorSystem, ClusterEvent
from actorkit.cluster import MemberJoined, MemberLeft, MemberUnreachable, MemberUp
from actorkit.errors import ConfigurationError
from actorkit.testing.simulation import NodeSettings, World
from tests.cluster.worlds import Tally, formed, until


def test_a_node_tells_its_program_of_those_that_come_and_go() -> None:
    world = World(1, NodeSettings(entities=[Tally], clustered=True), nodes=3)
    read: list[tuple[str, str]] = []

    async def follow(system: ActorSystem) -> None:
        async for event in system.cluster_events():
            if isinstance(event, MemberJoined | MemberUp | MemberUnreachable | MemberLeft):
                read.append((type(event).__name__, event.member.node.name))
                assert any(member.node == event.member.node for member in system.members) is not (
                    isinstance(event, MemberLeft)
                )

    async def story(world: World) -> None:
        await formed(world)
        first, second, third = world.nodes
        assert first.system is not None
        reading = world.loop.start_in(first.process, follow(first.system), name="reader")
        await world.sleep_until(world.loop.now_s + 0.1)
        second.crash("by the test")
        await until(world, lambda: ("MemberUnreachable", "node-2") in read, "lost", within_s=5.0)
        second.start()
        await formed(world)
        third.leave()
        await until(world, lambda: ("MemberLeft", "node-3") in read, "left", within_s=10.0)
        await first.system.stop()
        await until(world, reading.done, "the end", within_s=5.0)
        reading.result()

    world.run(story)
    assert read[:3] == [("MemberUnreachable", "node-2"), ("MemberJoined", "node-2"), ("MemberUp", "node-2")]
    assert read[-1] == ("MemberLeft", "node-1")


async def test_without_a_cluster_the_stream_ends_at_once() -> None:
    system = ActorSystem()
    with pytest.raises(ConfigurationError, match="has not been started"):
        system.cluster_events()
    async with system:
        events: list[ClusterEvent] = [event async for event in system.cluster_events()]
        assert events == []
    assert [event async for event in system.cluster_events()] == []

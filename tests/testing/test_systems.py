"""Systems on virtual time, probes, and clusters, as a test uses them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actorkit import Actor, Rejected
from actorkit.errors import CallError, HandlerFailed, OutcomeUnknown, Unavailable
from actorkit.testing import ActorSystems, Probe, SimulatedClusters
from actorkit.testing.simulation.faults import Fault, FaultPlan
from examples.capacity_service.domain import InsufficientCapacity, PoolChange
from examples.capacity_service.entity import Pool
from examples.capacity_service.model import PoolModel
from tests.testing.actors import Hall

DAY_S = 24 * 3600.0


async def test_hours_pass_at_once_and_an_entitys_timers_fire(actor_system: ActorSystems) -> None:
    system = await actor_system(Hall)
    hall = system.get(Hall, "h")
    await hall.add(seats=["a", "b"])
    assert await hall.take(1) == ["a"]
    began_us = actor_system.clock.wall_us()
    await asyncio.sleep(59)
    assert await hall.seats() == ["b"]
    await asyncio.sleep(2)
    assert await hall.seats() == ["b", "a"]
    await asyncio.sleep(DAY_S)
    assert actor_system.clock.wall_us() - began_us == (DAY_S + 61) * 1e6
    assert system.region.entities == 0


async def test_another_system_goes_on_where_the_first_one_was(actor_system: ActorSystems) -> None:
    first = await actor_system(Hall)
    await first.get(Hall, "h").add(seats=["a"])
    await first.stop()
    second = await actor_system(Hall, journal=first.store)
    assert await second.get(Hall, "h").seats() == ["a"]
    assert second.node.name == "system-2"


class Forwarder(Actor[Any]):
    """Passes on what it gets, a second later."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe

    def receive(self, message: Any) -> None:
        if isinstance(message, str):
            self.context.timers.once("later", 1.0, (message,))
        else:
            self.probe.ref.tell(message[0])


async def test_a_probe_records_and_expects(actor_system: ActorSystems) -> None:
    system = await actor_system()
    probe = Probe.spawn(system, "probe")
    forwarder = system.spawn(lambda: Forwarder(probe))
    forwarder.tell("hello")
    await probe.expect_nothing(for_s=0.9)
    assert await probe.expect(str, within_s=0.2) == "hello"
    forwarder.tell("again")
    assert await probe.expect("again") == "again"
    assert probe.received == ["hello", "again"]


async def test_what_a_probe_says_when_it_is_disappointed(actor_system: ActorSystems) -> None:
    probe = Probe.spawn(await actor_system(), "probe")
    with pytest.raises(AssertionError, match=r"/probe: expected any str, and nothing came within 3 s$"):
        await probe.expect(str)
    probe.ref.tell(5)
    with pytest.raises(AssertionError, match=r"another message came\n +expected  any str\n +received  5"):
        await probe.expect(str)
    with pytest.raises(AssertionError, match=r"expected 7, and nothing came within 1 s; before came\n +1\. 5"):
        await probe.expect(7, within_s=1.0)
    probe.ref.tell(6)
    with pytest.raises(AssertionError, match=r"expected nothing, and there came\n +1\. 6"):
        await probe.expect_nothing(for_s=1.0)


async def test_a_probe_answers_as_scripted_and_the_newest_script_counts(actor_system: ActorSystems) -> None:
    probe = Probe.spawn(await actor_system())
    assert await probe.ref.ask("ping") is None
    probe.answers(str, with_="any").answers("ping", with_=lambda message: message.upper())
    probe.answers("no", with_=Rejected("not now")).answers("broken", with_=ValueError("broken"))
    assert [await probe.ref.ask("ping"), await probe.ref.ask("pong")] == ["PING", "any"]
    with pytest.raises(Rejected, match="not now"):
        await probe.ref.ask("no")
    with pytest.raises(HandlerFailed):
        await probe.ref.ask("broken")
    assert probe.received == ["ping", "ping", "pong", "no", "broken"]


# ------------------------------------------------------------------------------------------------------------- clusters


async def test_a_crash_loses_nothing_that_was_answered(simulated_cluster: SimulatedClusters) -> None:
    cluster = await simulated_cluster(Pool, nodes=2)
    pool = cluster.get(Pool, "p")
    await cluster.surely(lambda: pool.change.options(idempotency_key="create")(PoolChange(capacity=4)))
    for number in range(5):
        cluster.crash("node-1")
        cluster.start("node-1")
        reserving = pool.reserve.options(idempotency_key=f"order-{number}")
        if number < 4:
            assert (await cluster.surely(lambda: reserving(1, None))).remaining == 3 - number  # noqa: B023
        else:
            with pytest.raises(InsufficientCapacity):
                await cluster.surely(lambda: reserving(1, None))  # noqa: B023
    cluster.check(PoolModel())
    assert cluster.node("node-1").lives == 6


async def test_what_the_test_begins_lasts_until_it_heals(simulated_cluster: SimulatedClusters) -> None:
    cluster = await simulated_cluster(Pool, nodes=1)
    pool, other = cluster.get(Pool, "p"), cluster.client("other").get(Pool, "p")
    await cluster.surely(lambda: pool.change.options(idempotency_key="create")(PoolChange(capacity=4)))
    cluster.partition("node-1")
    with pytest.raises(OutcomeUnknown):
        await pool.reserve.options(deadline_s=1.0)(1, None)
    with pytest.raises(Unavailable):
        await other.describe.options(deadline_s=1.0)()
    with pytest.raises(CallError):
        await cluster.surely(pool.describe, within_s=20.0)
    await cluster.heal()
    assert (await other.describe()).remaining == 4
    cluster.begin("store_unreachable", "node-1", intensity=0.2)
    with pytest.raises(CallError):
        await pool.reserve(1, None)
    await cluster.heal()
    assert (await cluster.surely(pool.describe)).capacity == 4
    cluster.check(PoolModel())
    assert {operation.client for operation in cluster.history.operations} == {"test", "other"}


async def test_a_plan_is_followed(simulated_cluster: SimulatedClusters) -> None:
    plan = FaultPlan((Fault("crash", 5.0, 10.0, "node-1"),), heal_at_s=30.0)
    cluster = await simulated_cluster(Pool, plan=plan)
    await asyncio.sleep(7)
    assert not cluster.node("node-1").up
    await cluster.heal()
    assert cluster.world.loop.now_s >= 30.0
    assert cluster.node("node-1").up


async def test_all_kinds_of_faults_and_a_checker(simulated_cluster: SimulatedClusters) -> None:
    cluster = await simulated_cluster(Pool, nodes=2, swarm_s=20.0)
    pool = cluster.get(Pool, "p")
    await cluster.surely(lambda: pool.change.options(idempotency_key="create")(PoolChange(capacity=50)))
    for number in range(30):
        reserving = pool.reserve.options(idempotency_key=f"order-{number}")
        await cluster.surely(lambda: reserving(1, None))  # noqa: B023
        await asyncio.sleep(0.5)
    await cluster.heal()
    assert (await cluster.surely(pool.describe)).reserved == 30
    cluster.check(PoolModel())


async def test_a_wrong_history_is_told(simulated_cluster: SimulatedClusters) -> None:
    cluster = await simulated_cluster(Pool)
    pool = cluster.get(Pool, "p")
    await pool.change(PoolChange(capacity=4))
    number = cluster.recorder.invoke("liar", "pool/p", "describe", (), at_us=10**9)
    seen = await pool.describe()
    wrong = {**{name: getattr(seen, name) for name in seen.__struct_fields__}, "capacity": 5}
    cluster.recorder.replied(number, wrong, at_us=10**9 + 1)
    with pytest.raises(AssertionError, match="pool/p: not linearizable"):
        cluster.check(PoolModel())


def test_a_history_without_calls_is_no_evidence() -> None:
    clusters = SimulatedClusters()

    async def story() -> None:
        (await clusters(Pool)).check(PoolModel())

    with pytest.raises(AssertionError, match="nothing to check"):
        clusters.run(story())

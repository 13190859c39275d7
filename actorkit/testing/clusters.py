"""Clusters for tests (a shell): nodes, their store and the network between them, in one process and from one seed.

A thin face of ``simulation.World`` for tests of one's own actors. Calls go through simulated clients, so they are lost
and delayed as a user's are, and each is recorded: afterwards a checker can say whether all answers fit together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar, cast

from actorkit.config import SystemSettings
from actorkit.errors import OutcomeUnknown, Overloaded, Unavailable
from actorkit.ids import PersistenceId
from actorkit.persistence.actor import PersistentActor, entity_type_of
from actorkit.persistence.calls import Handler
from actorkit.persistence.commands import EntityReference
from actorkit.testing.checkers import History, Model, Recorder, check_linearizable, render
from actorkit.testing.simulation.clients import Client
from actorkit.testing.simulation.faults import Fault, FaultPlan, swarm
from actorkit.testing.simulation.injection import INJECTIONS, Injector
from actorkit.testing.simulation.node import Node, NodeSettings
from actorkit.testing.simulation.world import World

__all__ = ["SimulatedClient", "SimulatedCluster", "SimulatedClusters"]

A = TypeVar("A", bound=PersistentActor[Any, Any])
R = TypeVar("R")

_POLL_S = 0.05
_SURELY_WITHIN_S = 60.0
_LINES_KEPT = 60


class SimulatedClient:
    """Calls entities as a program on another machine would, and takes down what it hears."""

    def __init__(self, client: Client, recorder: Recorder, now_us: Callable[[], int]) -> None:
        self.name = client.name
        self._client = client
        self._recorder = recorder
        self._now_us = now_us

    def get(self, cls: type[A], id: str) -> A:
        """A reference to an entity, as ``ActorSystem.get`` gives it."""
        declared = entity_type_of(cls)
        return cast("A", EntityReference(self, PersistenceId.checked(declared.name, id), declared.handlers))

    def call(
        self, pid: PersistenceId, handler: Handler, args: tuple[Any, ...], *, key: str | None, deadline_s: float | None
    ) -> asyncio.Future[Any]:
        """Sends a call on its way; for references."""
        number = self._recorder.invoke(
            self.name,
            str(pid),
            handler.name,
            args,
            at_us=self._now_us(),
            key=key,
            command_id=self._client.next_command_id,
        )
        future = self._client.call(pid, handler, args, key=key, deadline_s=deadline_s)
        future.add_done_callback(partial(self._ended, number))
        return future

    def _ended(self, number: int, future: asyncio.Future[Any]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            self._recorder.replied(number, future.result(), at_us=self._now_us())
        else:
            self._recorder.failed(number, error, at_us=self._now_us())


class SimulatedCluster:
    """A running cluster; made by ``SimulatedClusters``. Nodes are called ``node-1``, ``node-2``, ..."""

    def __init__(self, world: World) -> None:
        self.world = world
        """All of the simulation, for what is not offered here."""
        self.recorder = Recorder()
        self._test = self.client("test")
        self._ends: list[Callable[[], None]] = []

    # --------------------------------------------------------------------------------------------------------- calls

    def get(self, cls: type[A], id: str) -> A:
        """A reference to an entity, called by the client ``test``."""
        return self._test.get(cls, id)

    def client(self, name: str) -> SimulatedClient:
        """A further client, with connections of its own."""
        return SimulatedClient(self.world.client(name), self.recorder, self._now_us)

    async def surely(self, call: Callable[[], Awaitable[R]], *, within_s: float = _SURELY_WITHIN_S) -> R:
        """Repeats a call until its outcome is known: its reply, or ``Rejected``.

        ``lambda: pool.reserve.options(idempotency_key="k")(3)``: a command needs its key, or it may act twice. Raises
        the last error if that is still none after ``within_s`` seconds.
        """
        ends_s = self.world.loop.now_s + within_s
        while True:
            try:
                return await call()
            except (OutcomeUnknown, Overloaded, Unavailable):
                if self.world.loop.now_s >= ends_s:
                    raise
                await asyncio.sleep(_POLL_S)

    # -------------------------------------------------------------------------------------------------------- faults

    def node(self, name: str) -> Node:
        """A node, by its name."""
        return self.world.node(name)

    def crash(self, node: str) -> None:
        """The node's process is gone, at once. It stays down until ``start``, or ``heal``."""
        self.world.node(node).crash("by the test")

    def start(self, node: str) -> None:
        """Starts a node that is down, under its name."""
        self.world.node(node).start()

    def partition(self, node: str) -> None:
        """Nothing reaches the node and nothing leaves it, except to the store. Until ``heal``."""
        self.begin("partition", node)

    def begin(self, kind: str, node: str = "", *, intensity: float = 0.5) -> None:
        """Any fault of ``simulation.faults.CATALOGUE`` begins, and lasts until ``heal``."""
        end = INJECTIONS[kind](self.world, Fault(kind, self.world.loop.now_s, 0.0, node, intensity))
        if end is not None:
            self._ends.append(end)

    async def heal(self) -> None:
        """Ends what the test has begun, starts what is down, and waits until the plan is over and all nodes are up."""
        while self._ends:
            self._ends.pop()()
        for node in self.world.nodes:
            node.process.at_step = None
        await self.world.healed()
        for node in self.world.nodes:
            node.start()
        while not all(node.up for node in self.world.nodes):
            await asyncio.sleep(_POLL_S)

    # -------------------------------------------------------------------------------------------------------- checks

    def allow_errors(self, pattern: str) -> None:
        """For what fails on purpose: logged errors in which this regular expression is found do not fail the test.

        ``cluster.allow_errors(r"entity.handler_failed .*handler=reserve")``; see ``World.allow_errors``.
        """
        self.world.allow_errors(pattern)

    @property
    def history(self) -> History:
        """All calls up to now."""
        return self.recorder.history(seed=self.world.seed, ran=self.world.repeat)

    def check(self, model: Model[Any]) -> None:
        """Raises ``AssertionError``, with the answers that contradict each other, unless one order of all calls
        explains every answer."""
        __tracebackhide__ = True
        verdicts = check_linearizable(self.history, model)
        if not verdicts or not all(verdict.ok for verdict in verdicts):
            raise AssertionError(render(verdicts))

    def _now_us(self) -> int:
        return int(self.world.loop.now_s * 1_000_000)


class SimulatedClusters:
    """Makes the cluster of one test. The fixture ``simulated_cluster`` is one::

    async def test_a_pool_survives(simulated_cluster: SimulatedClusters) -> None:
        cluster = await simulated_cluster(Pool, nodes=2, swarm_s=20.0)
        pool = cluster.get(Pool, "p")
        reserved = await cluster.surely(lambda: pool.reserve.options(idempotency_key="k")(3))
        cluster.crash("node-1")
        await cluster.heal()
        assert await cluster.surely(pool.free) == 7
    """

    def __init__(self, seed: int = 0, *, repeat: str = "") -> None:
        """``repeat`` is the command that runs this again, for reports."""
        self.seed = seed
        self._world = World(seed, nodes=0, lines_kept=_LINES_KEPT, repeat=repeat)

    async def __call__(
        self,
        *entities: type[PersistentActor[Any, Any]],
        nodes: int = 1,
        settings: SystemSettings = SystemSettings(),  # noqa: B008 - frozen
        shards: int = 8,
        plan: FaultPlan | None = None,
        swarm_s: float = 0.0,
    ) -> SimulatedCluster:
        """A cluster whose nodes are up.

        ``plan`` is what goes wrong, and when; ``swarm_s`` makes one from the seed, of all kinds of faults, for so many
        seconds. Without either, what goes wrong is what the test does.
        """
        world = self._world
        if world.nodes:
            raise RuntimeError("a test has one simulated cluster: give it as many nodes as you need")
        node = NodeSettings(entities=entities, shards=shards, system=settings)
        world.nodes.extend(Node(world, f"node-{number}", node) for number in range(1, nodes + 1))
        for each in world.nodes:
            each.start()
        cluster = SimulatedCluster(world)
        while not all(each.up for each in world.nodes):
            await asyncio.sleep(_POLL_S)
        if plan is None and swarm_s:
            plan = swarm(self.seed, [each.name for each in world.nodes], duration_s=swarm_s)
        if plan is not None:
            world.plan = plan
            Injector(world, plan)
        return cluster

    def run(self, test: Coroutine[Any, Any, R]) -> R:
        """Runs a test to its end, within the simulation.

        Raises what the test raises, ``SimulationEscape`` if something reached for the real world, and
        ``AssertionError`` if something else was wrong with the run: an error that was logged and is neither due to a
        fault nor allowed (``SimulatedCluster.allow_errors``), a call that ended after its deadline.
        """
        __tracebackhide__ = True
        result = self._world.run(lambda _: test)
        if findings := self._world.findings():
            raise AssertionError("the run has found:\n" + "\n".join(f"  - {each}" for each in findings))
        return result

    def report(self) -> str:
        """The last of what has happened."""
        return self._world.report().rstrip()

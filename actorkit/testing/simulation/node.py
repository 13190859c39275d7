"""Node: one simulated machine, on which an ``ActorSystem`` runs, dies and is started again under its name."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from actorkit.config import ClusterNode, SystemSettings
from actorkit.errors import JournalError, JournalFailed
from actorkit.node import ActorSystem
from actorkit.persistence.actor import PersistentActor
from actorkit.testing.simulation.clients import Door
from actorkit.testing.simulation.connection import Connection
from actorkit.testing.simulation.process import MachineClock, Process
from actorkit.testing.simulation.randomness import SeededRandomness, stream
from actorkit.testing.simulation.transport import SimulatedTransport

if TYPE_CHECKING:
    from random import Random

    from actorkit.testing.simulation.world import World

__all__ = ["Node", "NodeSettings"]

_REMOTING_PORT = 9080
_SECRET = "the same on all simulated nodes"  # noqa: S105 - keeps nobody out


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What runs on every node."""

    entities: Sequence[type[PersistentActor[Any, Any]]] = ()
    singletons: Sequence[type[PersistentActor[Any, Any]]] = ()
    shards: int = 8
    system: SystemSettings = SystemSettings()
    clustered: bool = False
    """Whether the nodes form a cluster. Else each takes the shards that it is asked for, when it can have them."""
    restart_s: tuple[float, float] = (0.05, 1.0)
    """How long whatever watches over a process takes to start it again, once it has ended by itself."""


class Node:
    """A machine with its clocks, and the process that runs on it at the moment."""

    def __init__(self, world: World, name: str, settings: NodeSettings) -> None:
        self.name = name
        self.lives = 0
        """How often a process was started."""
        self._world = world
        self._settings = settings
        self._random: Random = stream(world.seed, name)
        self.clock: MachineClock = world.loop.new_clock(
            started_s=self._random.random() * 1000, booted_s=self._random.random() * 100_000
        )
        self.process: Process = world.loop.new_process(name, self.clock)
        """The newest one; it may be dead."""
        self.process.kill()
        self.system: ActorSystem | None = None
        """While it is up: what runs there."""
        self.doors: list[Door] = []
        self.left = False
        """It is stopping, or has stopped, in an orderly way."""

    @property
    def up(self) -> bool:
        """Whether it takes calls, as far as anybody can see from outside."""
        return self.process.alive and self.system is not None

    def start(self) -> None:
        """Starts a process, unless one is alive."""
        if self.process.alive:
            return
        world, settings = self._world, self._settings
        self.lives += 1
        self.left = False
        self.clock.wake()
        process = self.process = world.loop.new_process(self.name, self.clock)
        world.trace.note(f"{self.name}: starts, life {self.lives}")
        with world.loop.inside(process):
            system = Context().run(
                partial(
                    ActorSystem,
                    Connection(world.store, node=self.name, process=process),
                    name=self.name,
                    shards=settings.shards,
                    entities=settings.entities,
                    singletons=settings.singletons,
                    cluster=self._cluster_node() if settings.clustered else None,
                    transport=SimulatedTransport(world.loop, world.network, self.address),
                    settings=settings.system,
                    clock=self.clock,
                    randomness=SeededRandomness(stream(world.seed, f"{self.name}/{self.lives}")),
                    on_fatal=partial(self._fatal, process),
                    on_downed=partial(self._ended, process),
                )
            )
        world.loop.start_in(process, self._live(process, system), name=f"{self.name}.main")

    @property
    def address(self) -> str:
        """Where the other nodes reach it."""
        return f"{self.name}:{_REMOTING_PORT}"

    def _cluster_node(self) -> ClusterNode:
        return ClusterNode(
            remoting=self.address, seeds=tuple(node.address for node in self._world.nodes), secret=_SECRET
        )

    async def _live(self, process: Process, system: ActorSystem) -> None:
        world = self._world
        try:
            await system.start()
        except JournalError as error:
            self._ended(process, f"cannot start: {error}")
            return
        self.system = system
        door = Door(world.loop, world.network, self.name, process)
        self.doors.append(door)
        door.open(system)
        world.trace.note(f"{self.name}: is up")

    def _fatal(self, process: Process, error: JournalFailed) -> None:
        self._ended(process, f"ends: {error}")

    def _ended(self, process: Process, why: str) -> None:
        """It ends by itself, and is started again before long."""
        if process is self.process and process.alive:
            self.crash(why)
            shortest_s, longest_s = self._settings.restart_s
            delay_s = shortest_s + (longest_s - shortest_s) * self._random.random()
            self._world.loop.call_in(self._world.loop.world, delay_s, self.start)

    def crash(self, why: str) -> None:
        """The process is gone, at once. ``start`` starts another one."""
        if self.process.alive:
            self._world.trace.note(f"{self.name}: dies, {why}")
            self._world.loop.crash(self.process)
            self.clock.wake()
            self.system = None

    def leave(self) -> None:
        """Stops in an orderly way. ``start`` starts it again, once it has stopped."""
        system, process = self.system, self.process
        if system is not None and process.alive and not self.left:
            self.left = True
            self._world.trace.note(f"{self.name}: leaves")
            self._world.loop.start_in(process, self._stop(system, process), name=f"{self.name}.stop")

    async def _stop(self, system: ActorSystem, process: Process) -> None:
        await system.stop()
        self._ended(process, "has stopped")

"""Whole systems that form a cluster in a simulated world, for tests of what only all parts together can show."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from actorkit import Event, PersistentActor, State, applies, command, query
from actorkit.cluster.member import Status
from actorkit.errors import CallError
from actorkit.journal.protocols import ShardStatus
from actorkit.testing.simulation import World
from actorkit.testing.simulation.node import Node

R = TypeVar("R")

SHARDS = 8
SERVED_AGAIN_S = 30.0


class Added(Event, name="added"):
    pass


class Sum(State):
    count: int = 0

    @applies(Added)
    def added(self, event: Added) -> None:
        self.count += 1


class Tally(PersistentActor[Sum, Added], name="tally"):
    """Counts what was committed."""

    @command
    def add(self) -> int:
        self.emit(Added())
        return self.state.count

    @query
    def count(self) -> int:
        return self.state.count


async def until(world: World, holds: Callable[[], bool], what: str, *, within_s: float) -> float:
    """Waits in true time; returns how long it took."""
    began_s = world.loop.now_s
    while not holds():
        assert world.loop.now_s - began_s < within_s, f"{what}: not within {within_s:g} s"
        await world.sleep_until(world.loop.now_s + 0.02)
    return world.loop.now_s - began_s


def sees(node: Node, others: Iterable[str]) -> bool:
    """Whether exactly these are members as that node sees it, and all of them up."""
    members = () if node.system is None else node.system.members
    return {(member.node.name, member.status, member.reachable) for member in members} == {
        (name, Status.UP, True) for name in others
    }


async def formed(world: World, *, within_s: float = 20.0) -> None:
    """Until all nodes see each other, and every shard has an owner that lives."""
    names = {node.name for node in world.nodes}
    await until(world, lambda: all(sees(node, names) for node in world.nodes), "one cluster", within_s=within_s)
    await until(world, lambda: owned_by(world) <= incarnations(world), "owners", within_s=within_s)


def incarnations(world: World) -> set[str]:
    """Those that run, as the store names them."""
    return {str(node.system.node) for node in world.nodes if node.up and node.system is not None}


def statuses(world: World) -> list[ShardStatus]:
    """What the store has, without asking it by a request."""
    disk = world.store.disk
    return [disk.read("status", ([number],), {}, world.store._lease_s())[0] for number in range(disk.shards)]


def owned_by(world: World) -> set[str]:
    """Owners of shards, by the store; empty for one that has none."""
    return {status.owner for status in statuses(world)}


def cut(world: World, one: Iterable[str], other: Iterable[str]) -> Callable[[], None]:
    """A partition; returns what ends it."""
    pairs = [pair for a in one for b in other for pair in ((a, b), (b, a))]
    for pair in pairs:
        world.network.cut(*pair)

    def mend() -> None:
        for pair in pairs:
            world.network.mend(*pair)

    return mend


async def surely(world: World, call: Callable[[], Awaitable[R]], *, within_s: float = SERVED_AGAIN_S) -> R:
    """Repeats a call, which has to bear that, until there is an answer."""
    ends_s = world.loop.now_s + within_s
    while True:
        try:
            return await call()
        except CallError:
            if world.loop.now_s >= ends_s:
                raise
            await world.sleep_until(world.loop.now_s + 0.05)

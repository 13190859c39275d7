"""Injection: does to a world what its plan of faults says, and undoes it.

One function for each kind of fault; it returns how to end the fault, if there is anything to end.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from actorkit.testing.simulation.faults import Fault, FaultPlan

if TYPE_CHECKING:
    from actorkit.testing.simulation.node import Node
    from actorkit.testing.simulation.world import World

__all__ = ["INJECTIONS", "Injector"]

End: TypeAlias = Callable[[], None] | None

_STEPS = 400
_SYNCS = 20
_LEASE_S = 3.0
_FLAP_S = (0.02, 2.0)


def _node(world: World, fault: Fault) -> Node:
    return world.node(fault.target) if fault.target else world.nodes[0]


def _pairs(world: World, target: str, *, to: bool, back: bool) -> list[tuple[str, str]]:
    others = [address for address in world.network.machines if address != target]
    ways = [(other, target) for other in others] if to else []
    return ways + ([(target, other) for other in others] if back else [])


def _cut(world: World, fault: Fault, pairs: list[tuple[str, str]]) -> End:
    for pair in pairs:
        world.network.cut(*pair, fault.kind)

    def mend() -> None:
        for pair in pairs:
            world.network.mend(*pair, fault.kind)

    return mend


def _partition(world: World, fault: Fault) -> End:
    node = _node(world, fault)
    return _cut(world, fault, _pairs(world, node.name, to=True, back=True))


def _one_way_partition(world: World, fault: Fault) -> End:
    to = fault.intensity >= 0.5
    return _cut(world, fault, _pairs(world, _node(world, fault).name, to=to, back=not to))


def _member_partition(world: World, fault: Fault) -> End:
    member = _node(world, fault).name
    others = [node.name for node in world.nodes if node.name != member]
    to = [(other, member) for other in others] if fault.intensity > 1 / 3 else []
    back = [(member, other) for other in others] if fault.intensity < 2 / 3 else []
    return _cut(world, fault, [*to, *back])


def _non_transitive_links(world: World, fault: Fault) -> End:
    first, _, third = (node.name for node in world.nodes[:3])
    return _cut(world, fault, [(first, third), (third, first)])


def _flapping_links(world: World, fault: Fault) -> End:
    shortest_s, longest_s = _FLAP_S
    every_s = longest_s * (shortest_s / longest_s) ** fault.intensity
    pairs = _pairs(world, _node(world, fault).name, to=True, back=True)
    mend: End = None
    over = False

    def flap() -> None:
        nonlocal mend
        if mend is None:
            mend = None if over else _cut(world, fault, pairs)
        else:
            mend()
            mend = None
        if not over:
            world.loop.call_in(world.loop.world, every_s, flap)

    def end() -> None:
        nonlocal over, mend
        over = True
        if mend is not None:
            mend()
            mend = None

    flap()
    return end


def _slow_network(world: World, fault: Fault) -> End:
    world.network.faults.delay_s = 5.0 * fault.intensity**2
    return partial(setattr, world.network.faults, "delay_s", 0.0)


def _repeated_requests(world: World, fault: Fault) -> End:
    world.network.faults.duplicates = fault.intensity
    return partial(setattr, world.network.faults, "duplicates", 0.0)


def _lost_messages(world: World, fault: Fault) -> End:
    world.network.faults.loss = fault.intensity / 2
    return partial(setattr, world.network.faults, "loss", 0.0)


def _of_store(name: str) -> Callable[[World, Fault], End]:
    """A fault that is a probability, up to a half, at the store."""

    def inject(world: World, fault: Fault) -> End:
        setattr(world.store.faults, name, fault.intensity / 2)
        return partial(setattr, world.store.faults, name, 0.0)

    return inject


def _pause(world: World, fault: Fault) -> End:
    process = _node(world, fault).process
    world.did["pause"] += process.alive
    world.loop.pause(process)
    return partial(world.loop.resume, process)


def _pause_at_step(world: World, fault: Fault) -> End:
    process = _node(world, fault).process
    paused = over = False

    def pause() -> None:
        nonlocal paused
        paused = True
        world.did["pause_at_step"] += 1
        world.loop.pause(process)
        if over:
            # Many steps take longer than a short fault, which lasts for as long as was said all the same.
            lasts_s = min(fault.duration_s, world.heal_at_s - world.loop.now_s)
            world.loop.call_in(world.loop.world, max(0.0, lasts_s), world.loop.resume, process)

    def end() -> None:
        nonlocal over
        over = True
        if paused:
            world.loop.resume(process)

    process.at_step = (process.steps + int(_STEPS * fault.intensity), pause)
    return end


def _suspend(world: World, fault: Fault) -> End:
    node = _node(world, fault)
    process = node.process
    if not process.alive:
        return None
    world.did["suspend"] += 1
    node.clock.sleep()
    world.loop.pause(process)

    def wake() -> None:
        # A machine that was switched off meanwhile is awake already.
        node.clock.wake()
        world.loop.retime(node.clock)
        world.loop.resume(process)

    return wake


def _wall_jump(world: World, fault: Fault) -> End:
    world.did["wall_jump"] += fault.intensity != 0.5
    _node(world, fault).clock.jump(3600.0 * (2 * fault.intensity - 1))
    return None


def _clock_rate(world: World, fault: Fault) -> End:
    clock = _node(world, fault).clock

    def run_at(rate: float) -> None:
        clock.set_rate(rate)
        world.loop.retime(clock)

    world.did["clock_rate"] += fault.intensity != 0.5
    run_at(1 + 0.05 * (2 * fault.intensity - 1))
    return partial(run_at, 1.0)


def _crash(world: World, fault: Fault) -> End:
    node = _node(world, fault)
    world.did["crash"] += node.process.alive
    node.crash("by plan")
    return node.start


def _crash_at_step(world: World, fault: Fault) -> End:
    node = _node(world, fault)
    process = node.process

    def crash() -> None:
        if node.process is process:
            world.did["crash_at_step"] += 1
            node.crash("by plan")
            world.loop.call_in(world.loop.world, fault.duration_s, node.start)

    process.at_step = (process.steps + int(_STEPS * fault.intensity), crash)
    return None


def _store_crash(world: World, fault: Fault) -> End:
    world.did["store_crash"] += world.store.up
    world.store.crash()
    return world.store.start


def _machine_crash(world: World, fault: Fault) -> End:
    node = _node(world, fault)
    world.did["machine_crash"] += node.process.alive and world.store.up
    node.crash("with its store")
    world.store.crash()

    def boot() -> None:
        world.store.start()
        node.start()

    return boot


def _sync_error(world: World, fault: Fault) -> End:
    faults, number = world.store.faults, world.store.syncs + 1 + int(_SYNCS * fault.intensity)
    faults.fail_sync.add(number)
    return partial(faults.fail_sync.discard, number)


def _disk_full(world: World, fault: Fault) -> End:
    world.store.faults.full = True
    return partial(setattr, world.store.faults, "full", False)


def _slow_disk(world: World, fault: Fault) -> End:
    world.store.faults.slowness = 300.0**fault.intensity
    return partial(setattr, world.store.faults, "slowness", 1.0)


def _store_unreachable(world: World, fault: Fault) -> End:
    targets = [fault.target] if fault.target else [node.name for node in world.nodes]
    for target in targets:
        world.store.faults.unreachable[target] = fault.intensity >= 0.5

    def end() -> None:
        for target in targets:
            world.store.faults.unreachable.pop(target, None)

    return end


def _stolen_shards(world: World, fault: Fault) -> End:
    if world.store.up and world.store.disk.created:
        count = world.store.disk.shards
        shards = list(range(count))[: max(1, int(count * fault.intensity))]
        # It dies before it has renewed its lease.
        lease_s = min(fault.duration_s, _LEASE_S)
        world.store.steal(shards, owner=f"thief#{world.loop.now_s:.6f}", duration_s=lease_s)
    return None


def _leave(world: World, fault: Fault) -> End:
    node = _node(world, fault)
    world.did["leave"] += node.up and not node.left
    node.leave()
    return node.start


def _corrupt_snapshots(world: World, fault: Fault) -> End:
    found = world.store.disk.corrupt_snapshots(part=fault.intensity)
    world.did["corrupt_snapshots"] += found
    world.trace.note(f"store: {found} snapshots are corrupt now")
    return None


def _crash_in_snapshot(world: World, fault: Fault) -> End:
    world.store.faults.crash_in_snapshot = fault.intensity
    return partial(setattr, world.store.faults, "crash_in_snapshot", 0.0)


def _store_goes_back(world: World, fault: Fault) -> End:
    length = world.store.disk.length
    world.did["store_goes_back"] += int(length * fault.intensity)
    world.store.restore(length - int(length * fault.intensity))
    return None


INJECTIONS: dict[str, Callable[[World, Fault], End]] = {
    "partition": _partition,
    "one_way_partition": _one_way_partition,
    "non_transitive_links": _non_transitive_links,
    "flapping_links": _flapping_links,
    "slow_network": _slow_network,
    "repeated_requests": _repeated_requests,
    "lost_messages": _lost_messages,
    "lost_store_answers": _of_store("lost_answer"),
    "pause": _pause,
    "pause_at_step": _pause_at_step,
    "suspend": _suspend,
    "wall_jump": _wall_jump,
    "clock_rate": _clock_rate,
    "crash": _crash,
    "crash_at_step": _crash_at_step,
    "store_crash": _store_crash,
    "machine_crash": _machine_crash,
    "read_errors": _of_store("read_error"),
    "write_errors": _of_store("write_error"),
    "sync_error": _sync_error,
    "disk_full": _disk_full,
    "slow_disk": _slow_disk,
    "store_unreachable": _store_unreachable,
    "stolen_shards": _stolen_shards,
    "leave": _leave,
    "corrupt_snapshots": _corrupt_snapshots,
    "crash_in_snapshot": _crash_in_snapshot,
    "store_goes_back": _store_goes_back,
    "late_appends": _of_store("late_append"),
    "refused_payloads": _of_store("refused_payload"),
    "member_partition": _member_partition,
}
"""How each kind of fault begins."""


class Injector:
    """Follows a plan, from the moment it is made until the world is healed."""

    def __init__(self, world: World, plan: FaultPlan) -> None:
        self._world = world
        self._ends: dict[int, Callable[[], None]] = {}
        world.heal_at_s = world.loop.now_s + plan.heal_at_s
        self.healed = False
        self.begun: list[Fault] = []
        """The faults that have begun, in order."""
        loop = world.loop
        for number, fault in enumerate(plan.faults):
            loop.call_in(loop.world, fault.start_s, self._begin, number, fault)
        loop.call_in(loop.world, plan.heal_at_s, self.heal)

    def _begin(self, number: int, fault: Fault) -> None:
        if self.healed:
            return
        world = self._world
        self.begun.append(fault)
        world.trace.note(
            f"fault: {fault.kind} {fault.target} for {fault.duration_s:.3f} s, intensity {fault.intensity:.3f}"
        )
        end = INJECTIONS[fault.kind](world, fault)
        if end is not None:
            self._ends[number] = end
            world.loop.call_in(world.loop.world, fault.duration_s, self._end, number, fault)

    def _end(self, number: int, fault: Fault) -> None:
        end = self._ends.pop(number, None)
        if end is not None:
            self._world.trace.note(f"fault: {fault.kind} {fault.target} is over")
            end()

    def heal(self) -> None:
        """Ends all faults, and begins no more."""
        if self.healed:
            return
        self.healed = True
        self._world.trace.note("fault: all is healed")
        for number in list(self._ends):
            self._ends.pop(number)()
        self._world.store.heal()
        for node in self._world.nodes:
            node.process.at_step = None
            node.start()

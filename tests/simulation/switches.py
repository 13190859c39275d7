"""The checkers are checked: protections that a test turns off, one at a time, to see that the simulation notices.

Each switch says what it turns off and which faults make that matter; its plans are biased to these kinds, and drawn
from the seed like any other. Three are settings of the simulated store; the others replace a method of the product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import msgspec

from actorkit.persistence.admission import Admission
from actorkit.persistence.deduplication import KeyMemory
from actorkit.persistence.entity import Entity
from actorkit.persistence.gate import Answer
from actorkit.persistence.settling import Settling
from actorkit.sharding.handoff import Handoffs, Input, Phase
from actorkit.sharding.ownership import Ownership
from actorkit.sharding.routing import Routing
from actorkit.sharding.shard import Shard
from actorkit.testing.simulation.search import attempt
from actorkit.testing.simulation.store import StoreSettings
from actorkit.testing.simulation.trial import Finding
from tests.simulation.trials import CapacitySimulation, Load

__all__ = ["SWITCHES", "Switch", "seeds_needed"]

Patches = Callable[[], list[Any]]


class Switch(NamedTuple):
    """One protection."""

    name: str
    turns_off: str
    kinds: tuple[str, ...]
    """The faults that its plans are made of."""
    nodes: int | None
    """None: three to seven, which form a cluster."""
    finds: frozenset[str]
    """Findings of these kinds count: what it is there to prevent."""
    patches: Patches = list
    store: StoreSettings = StoreSettings()
    share: float = 0.66
    """How likely each kind is to be in a plan: two thirds of them are, since there are few."""
    lasts_min_s: float = 0.0
    heals_after_s: float | None = None
    load: Load = Load()

    @property
    def simulation(self) -> CapacitySimulation:
        """The trials under the switch."""
        return self._simulation(self.store)

    @property
    def protected(self) -> CapacitySimulation:
        """The same trials on a store that neglects nothing."""
        return self._simulation(StoreSettings())

    def _simulation(self, store: StoreSettings) -> CapacitySimulation:
        load = msgspec.structs.replace(self.load, store=store, clustered=self.load.clustered or self.nodes is None)
        return CapacitySimulation(
            kinds=self.kinds,
            share=self.share,
            nodes=self.nodes,
            load=load,
            lasts_min_s=self.lasts_min_s,
            heals_after_s=self.heals_after_s,
        )

    @contextmanager
    def off(self) -> Iterator[None]:
        """Within, it is turned off."""
        begun = list(self.patches())
        try:
            for each in begun:
                each.start()
            yield
        finally:
            for each in reversed(begun):
                each.stop()


def _answers_leave_at_once() -> list[Any]:
    submit = Entity._submit

    def submitted(self: Entity, answer: Answer, append: Any) -> None:
        self.leave_now(answer)
        # What has left cannot leave again; the rest goes on as ever.
        answer.effects, answer.views, answer.snapshot = (), (), None
        submit(self, answer, append)

    return [
        patch.object(Entity, "_submit", submitted),
        patch.object(Entity, "answer_from_memory", lambda self, answer: self.leave_now(answer)),
    ]


def _nothing_was_done_before() -> list[Any]:
    async def run(self: Admission, call: Any, *_: Any) -> None:
        step = self._entity.run(call)
        if step is not None:
            await step

    async def nothing(self: Settling, command_id: str) -> None:
        return None

    return [
        patch.object(KeyMemory, "find", lambda self, key, now_us: None),
        patch.object(Admission, "_look_up_key", run),
        patch.object(Settling, "find_command", nothing),
    ]


def _every_lease_is_valid() -> list[Any]:
    return [patch.object(Shard, "lease_is_valid", lambda self: True)]


def _epochs_are_not_raised() -> list[Any]:
    async def believe(self: Shard, epoch: int) -> bool:
        return self.ready

    return [patch.object(Shard, "settle_doubt", believe)]


def _shards_are_given_up_at_once() -> list[Any]:
    drain = Handoffs.transitions[Phase.OWNED, Input.ITS_TURN]
    go_on = Routing._go_on

    def drained(self: Handoffs, now: float, each: Any) -> None:
        drain(self, now, each)
        self._release(now, each)

    async def released(self: Ownership, shard: Shard) -> None:
        await self._leases.release([shard])
        self._entities.invalidate(shard)
        shard.settled(owned=False)
        self._take_back(shard)
        self._core.released(self._loop.time(), shard.shard)
        self._carry_out()

    def gone_on(self: Routing[Any], location: Any, lane: Any) -> None:
        out, lane.out, lane.busy = lane.out, 0, False
        go_on(self, location, lane)
        lane.out += out

    return [
        patch.dict(Handoffs.transitions, {(Phase.OWNED, Input.ITS_TURN): drained}),
        patch.object(Ownership, "_release", released),
        patch.object(Routing, "_go_on", gone_on),
    ]


_ANSWERS = frozenset({"A", "B", "C", "D", "F", "G", "I", "P2", "P3", "P10", "E"})
_OWNERS = ("stolen_shards", "pause", "suspend", "late_appends", "store_unreachable", "slow_disk")
_MEMBERS = ("pause", "suspend", "late_appends", "store_unreachable", "slow_disk", "partition", "one_way_partition")
"""No shards are stolen: members take over from each other, because one is paused, or cut off from the others only, or
from the store only."""

SWITCHES: tuple[Switch, ...] = (
    Switch(
        "epoch fence",
        "appends under an old epoch are stored",
        _OWNERS,
        2,
        _ANSWERS,
        store=StoreSettings(fence=False),
    ),
    Switch(
        "epoch fence in clusters",
        "appends under an old epoch are stored",
        _MEMBERS,
        None,
        _ANSWERS,
        store=StoreSettings(fence=False),
        # Longer than a lease lasts.
        lasts_min_s=4.0,
    ),
    Switch(
        "expected sequence",
        "appends are stored whatever the stream's sequence is",
        (*_OWNERS, "write_errors", "lost_store_answers"),
        2,
        _ANSWERS,
        store=StoreSettings(expect=False),
    ),
    Switch(
        "sync",
        "the store acknowledges what a crash may take away",
        ("store_crash", "machine_crash", "crash_in_snapshot"),
        1,
        _ANSWERS,
        store=StoreSettings(sync=False),
    ),
    Switch(
        "output gate",
        "answers leave before their events are stored",
        ("crash", "store_crash", "write_errors", "lost_store_answers", "refused_payloads", "slow_disk"),
        1,
        _ANSWERS,
        _answers_leave_at_once,
    ),
    Switch(
        "deduplication",
        "keys and command ids are never found again",
        ("lost_messages", "repeated_requests", "lost_store_answers", "crash", "partition"),
        1,
        _ANSWERS,
        _nothing_was_done_before,
    ),
    Switch(
        "lease of answers from memory",
        "queries and refusals leave without a valid lease",
        ("store_unreachable", "pause", "suspend"),
        2,
        _ANSWERS,
        _every_lease_is_valid,
        # Clients go to the other node after their deadline; only then is anything stale.
        lasts_min_s=9.0,
        heals_after_s=30.0,
        load=Load(operations=300, hazards=0, readers=4),
    ),
    Switch(
        "lease of answers from memory in clusters",
        "queries and refusals leave without a valid lease",
        ("store_unreachable", "pause", "suspend"),
        None,
        _ANSWERS,
        _every_lease_is_valid,
        lasts_min_s=9.0,
        heals_after_s=30.0,
        load=Load(operations=300, hazards=0, readers=4),
    ),
    Switch(
        "raising the epoch in doubt",
        "an append that got no answer is believed lost while it may still arrive",
        ("late_appends",),
        1,
        _ANSWERS,
        _epochs_are_not_raised,
        share=1.0,
        lasts_min_s=4.0,
        # So that what is late arrives before the end.
        heals_after_s=30.0,
        load=Load(pools=10, capacity=2, hazards=0),
    ),
    Switch(
        "hand-off order",
        "a shard is given up before its calls have ended, and later ones do not wait for them",
        ("leave", "slow_disk"),
        3,
        frozenset({"P4"}),
        _shards_are_given_up_at_once,
        lasts_min_s=2.0,
        load=Load(clustered=True, operations=30, hazards=1, streams=2),
    ),
)


def seeds_needed(switch: Switch, *, first: int, seeds_max: int) -> tuple[int, Finding] | None:
    """How many seeds it takes from ``first`` until something is found with the protection off, and what."""
    simulation = switch.simulation
    with switch.off():
        for number in range(seeds_max):
            trial = simulation.trial(first + number)
            found = attempt(simulation, msgspec.structs.replace(trial), limit_s=0).findings
            counting = [finding for finding in found if finding.kind in switch.finds]
            if counting:
                return number + 1, counting[0]
    return None

"""The capacity service under all that can go wrong: what ``make simulate`` and the tests of seeds run.

``python -m tests.simulation.trials --seed 7`` runs one seed and shows what has happened.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from actorkit import SystemSettings
from actorkit.errors import CallError
from actorkit.journal.settings import WriterSettings
from actorkit.persistence.actor import entity_type_of
from actorkit.persistence.settings import PersistenceSettings
from actorkit.sharding.settings import ShardingSettings
from actorkit.testing.checkers import Reading, Seen, Violation, check_converged, read_contents, read_published
from actorkit.testing.simulation.faults import FaultPlan, swarm
from actorkit.testing.simulation.randomness import stream
from actorkit.testing.simulation.store import StoreSettings
from actorkit.testing.simulation.trial import Case, Finding, Result, Trial
from actorkit.testing.simulation.world import World
from examples.capacity_service.entity import Pool
from tests.simulation.capacity import Capacity, CapacitySettings
from tests.simulation.hazards import Hazards, Meter, Sink
from tests.simulation.judging import judge

__all__ = ["CAPACITY", "CLUSTER", "STREAMS", "CapacitySimulation", "Load"]

_LOOK_EVERY_S = 0.25
_CONVERGED_AFTER_S = {False: 10.0, True: 20.0}
"""How long after the last call, at the latest, by whether it is a cluster: there a node may have been declared gone in
the end, and has to start again and to join."""
_MAILBOX, _PENDING, _QUEUE, _ENTITIES = 40, 30, 60, 4


class Load(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How much is asked of the service, and of which store."""

    nodes: int = 1
    clustered: bool = False
    """Whether the nodes form a cluster. Else each takes what it can get."""
    clients: int = 4
    operations: int = 120
    pools: int = 3
    capacity: int = 12
    think_max_s: float = 0.6
    hazards: int = 15
    """Operations of each of the callers in ``hazards``."""
    streams: int = 0
    """Callers in each node that send commands at a steady pace."""
    burst: int = 150
    """How many operations are sent at once."""
    readers: int = 1
    """Clients that only look, each at one node whatever becomes of it."""
    store: StoreSettings = StoreSettings()


class _Run(Capacity):
    """One run, with everything taken down that the checkers want."""

    entities: ClassVar[list[type[Any]]] = [Pool, Meter, Sink]

    def __init__(self, trial: Trial[Load], *, repeat: str) -> None:
        load = trial.settings
        settings = CapacitySettings(
            nodes=load.nodes,
            clustered=load.clustered,
            clients=load.clients,
            operations=load.operations,
            pools=load.pools,
            capacity=load.capacity,
            think_s=(0.0, load.think_max_s),
            store=load.store,
            system=_SYSTEM,
        )
        super().__init__(trial.seed, trial.plan, settings)
        self.load = load
        self.world.repeat = repeat
        # Meters fail because they are told to.
        self.world.allow_errors(r"entity\.handler_failed .*entity=meter/")
        self.seen: list[Seen] = []
        self.readings: list[Reading] = []
        self.converged: list[Violation] = []

    async def _story(self, world: World) -> None:
        looking = world.loop.create_task(self._look())
        hazards = Hazards(
            world, self.recorder, operations=self.load.hazards, burst=self.load.burst, streams=self.load.streams
        )
        beside = world.loop.create_task(hazards.story())
        reading = [
            world.loop.create_task(self._read(f"reader-{n}", world.nodes[n % len(world.nodes)].name))
            for n in range(self.load.readers)
        ]
        await super()._story(world)
        await beside
        for task in (looking, *reading):
            task.cancel()
        await self._converge()

    async def _read(self, name: str, node: str) -> None:
        """Looks at one pool after the other, through one node."""
        world = self.world
        random = stream(world.seed, f"{name}/work")
        client = world.client(name, nodes=[node])
        while True:
            await self._sleep(0.6 * random.random())
            pool = random.choice(list(self._parts))
            looked = self._attempt(client, pool, "describe", (), None, deadline_s=1.0)
            with suppress(CallError):
                await world.spawn(client.process, looked, name=name)

    async def _look(self) -> None:
        while True:
            await self._sleep(_LOOK_EVERY_S)
            for node in self.world.nodes:
                system = node.system
                if not node.up or system is None or system.ready == "it is stopping":
                    continue
                at_us = self._now_us()
                life = f"{node.name}/{node.lives}"
                self.seen += Seen.all_of(life, system.view(Pool.availability).items(), at_us=at_us)
                slots = system.region._slots.values()
                self.readings += [
                    Reading(at_us, "appends queued", system.writer.queued),
                    Reading(at_us, "entities", system.region.entities),
                    Reading(at_us, "mailbox", max((len(slot.cell.mailbox) for slot in slots), default=0)),
                    Reading(at_us, "gate", max((len(slot.entity.gate) for slot in slots if slot.entity), default=0)),
                ]

    async def _converge(self) -> None:
        """E, of a node that is the only one and of all of a cluster: in the end they show what the journal has."""
        nodes = self.world.nodes
        if len(nodes) > 1 and not self.load.clustered:
            # Each shows what it has written itself.
            return
        ends_s = self.world.loop.now_s + _CONVERGED_AFTER_S[self.load.clustered]
        wrong = await self._not_converged()
        while wrong and self.world.loop.now_s < ends_s:
            await self._sleep(0.25)
            wrong = await self._not_converged()
        self.converged += wrong

    async def _not_converged(self) -> list[Violation]:
        published = await read_published(self.world.store.disk.store, entity_type_of(Pool), "availability")
        wrong: list[Violation] = []
        for node in self.world.nodes:
            system = node.system
            if system is None or system.ready is not None:
                why = "it is down" if system is None else system.ready
                wrong.append(Violation("H", node.name, f"long after the last call it is not ready: {why}"))
            else:
                wrong += check_converged(node.name, system.view(Pool.availability).items(), published)
        return wrong


_SYSTEM = SystemSettings(
    persistence=PersistenceSettings(
        snapshot_every_events=20,
        keys_in_memory=16,
        recovery_page_events=30,
        mailbox_max_calls=_MAILBOX,
        pending_max_answers=_PENDING,
        handler_timeout_s=1.0,
    ),
    writer=WriterSettings(queue_max_appends=_QUEUE, append_timeout_s=3.0, close_timeout_s=2.0),
    sharding=ShardingSettings(entities_max=_ENTITIES, passivate_after_s=2.0, drain_timeout_s=3.0),
)
_LIMITS = {
    "appends queued": _QUEUE,
    "entities": 2 * _ENTITIES,
    # What was decided on a state that is no more goes back to the front, beyond the bound, with the order to settle.
    "mailbox": _MAILBOX + _PENDING + 2,
    # Those that were taken in one turn, and what is decided again.
    "gate": _PENDING + 1,
}


class CapacitySimulation:
    """Implements ``Simulation``.

    ``kinds``: faults of these kinds only; ``share``: how likely each is to be in a plan; ``lasts_min_s``: how long each
    fault lasts at least; ``heals_after_s``: when the world is healed. What a seed does not decide is as ``load`` says.
    """

    settings = Load

    def __init__(
        self,
        *,
        kinds: Collection[str] | None = None,
        share: float = 0.2,
        lasts_min_s: float = 0.0,
        heals_after_s: float | None = None,
        nodes: int | None = None,
        load: Load = Load(),  # noqa: B008 - frozen
    ) -> None:
        self._kinds = kinds
        self._share = share
        self._lasts_min_s = lasts_min_s
        self._heals_after_s = heals_after_s
        self._nodes = nodes
        self._load = load

    def trial(self, seed: int) -> Trial[Load]:
        """One to three nodes, or three to seven of a cluster; few or many clients, slow and quick ones."""
        random = stream(seed, "trial")
        nodes = random.randint(3, 7) if self._load.clustered else random.randint(1, 3)
        load = msgspec.structs.replace(
            self._load,
            nodes=nodes if self._nodes is None else self._nodes,
            clients=random.randint(2, 8),
            think_max_s=random.choice([0.1, 0.6, 1.2]),
            burst=random.choice([0, 0, 150]),
        )
        names = [f"node-{number}" for number in range(1, load.nodes + 1)]
        duration_s = random.choice([10.0, 20.0]) if self._heals_after_s is None else self._heals_after_s
        plan = swarm(seed, names, duration_s=duration_s, kinds=self._kinds, share=self._share)
        faults = (
            msgspec.structs.replace(fault, duration_s=max(fault.duration_s, self._lasts_min_s)) for fault in plan.faults
        )
        return Trial(seed, load, FaultPlan(tuple(faults), plan.heal_at_s))

    def run(self, trial: Trial[Load], *, watch: bool = False) -> Result:
        return self.ran(trial, watch=watch)[0]

    def ran(self, trial: Trial[Load], *, watch: bool = False) -> tuple[Result, _Run]:
        """The result, and the run itself for whoever wants to look at it."""
        run = _Run(trial, repeat=self.repeat(trial.seed))
        if watch:
            run.world.trace.watch = lambda at_s, line: print(f"{at_s:12.6f}  {line}")
        history = run.run()
        contents = asyncio.run(read_contents(run.world.store.disk.store))
        findings = [
            *(Finding("H", what) for what in run.findings if "is not served" in what),
            *(Finding("run", what) for what in run.world.findings()),
            *judge(
                history,
                contents,
                seen=run.seen,
                converged=run.converged,
                readings=run.readings,
                limits=_LIMITS,
            ),
        ]
        result = Result(
            findings=findings,
            digest=run.world.digest,
            simulated_s=run.world.loop.now_s,
            operations=dict(Counter(operation.outcome.value for operation in history.operations)),
            faults=dict(Counter(fault.kind for fault in trial.plan.faults)),
            did=dict(run.world.did),
            trace=run.world.trace.lines,
        )
        return result, run

    def simpler(self, load: Load) -> Iterator[Load]:
        for name in ("hazards", "burst", "readers"):
            if getattr(load, name):
                yield msgspec.structs.replace(load, **{name: 0})
        for name, least in (
            ("operations", 1),
            ("hazards", 0),
            ("burst", 0),
            ("clients", 1),
            ("pools", 1),
            ("nodes", 1),
        ):
            value = getattr(load, name)
            for less in dict.fromkeys((value // 2, value * 3 // 4, value - 1)):
                if least <= less < value:
                    yield msgspec.structs.replace(load, **{name: less})

    def repeat(self, seed: int) -> str:
        which = " --streams" if self._load.streams else " --cluster" if self._load.clustered else ""
        return f"python -m tests.simulation.trials --seed {seed}{which}"


CAPACITY = CapacitySimulation()
CLUSTER = CapacitySimulation(load=Load(clustered=True))
STREAMS = CapacitySimulation(load=Load(clustered=True, streams=1))
"""To search with: a trial takes four times as long, for callers whose order is looked at all the time."""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.trials", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--seed", type=int, help="run the trial of this seed")
    which.add_argument("--case", type=Path, help="run the trial in this file, as shrinking has written it")
    parser.add_argument("--cluster", action="store_true", help="of the trials in which the nodes form a cluster")
    parser.add_argument("--streams", action="store_true", help="of those, and with callers in each node")
    parser.add_argument("--watch", action="store_true", help="print everything that happens")
    parser.add_argument("--history", type=Path, help="where to write the operations, as JSON lines")
    chosen = parser.parse_args(argv)
    if chosen.case is None:
        trial = (STREAMS if chosen.streams else CLUSTER if chosen.cluster else CAPACITY).trial(chosen.seed)
    else:
        trial = Case.decode(chosen.case.read_bytes(), Load).trial
    result, run = CAPACITY.ran(trial, watch=chosen.watch)
    if chosen.history is not None:
        chosen.history.write_text("".join(run.history.lines()))
    print(f"{trial.settings}\n{len(trial.plan.faults)} faults: {result.faults}\n{result.operations}")
    print(f"{result.simulated_s:.3f} s, trace {result.digest}")
    for finding in result.findings:
        print(f"found: {finding}")
    return 1 if result.findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The capacity workload: clients reserve, release and look, with retries under their keys, while things go wrong."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import msgspec

from actorkit import SystemSettings
from actorkit.errors import CallError, OutcomeUnknown, Overloaded, Rejected, Unavailable
from actorkit.persistence.settings import PersistenceSettings
from actorkit.testing.checkers.history import History, Recorder
from actorkit.testing.simulation.clients import Client
from actorkit.testing.simulation.faults import FaultPlan, swarm
from actorkit.testing.simulation.node import NodeSettings
from actorkit.testing.simulation.randomness import stream
from actorkit.testing.simulation.store import StoreSettings
from actorkit.testing.simulation.world import World
from examples.capacity_service.domain import PoolChange
from examples.capacity_service.entity import Pool

__all__ = ["Capacity", "CapacitySettings"]


class CapacitySettings(msgspec.Struct, frozen=True, kw_only=True):
    """How much is asked, and how quickly."""

    nodes: int = 1
    clustered: bool = False
    clients: int = 5
    operations: int = 200
    """By all clients together."""
    pools: int = 3
    capacity: int = 12
    think_s: tuple[float, float] = (0.0, 0.5)
    attempts_max: int = 6
    serve_again_s: float = 5.0
    """How long after healing, at most, every pool must be served again."""
    system: SystemSettings = SystemSettings(
        persistence=PersistenceSettings(snapshot_every_events=20, keys_in_memory=16, recovery_page_events=30)
    )
    store: StoreSettings = StoreSettings()


class Capacity:
    """One run of the workload. ``run`` it, then look at ``world``, ``history`` and ``findings``."""

    entities: ClassVar[list[type[Any]]] = [Pool]

    def __init__(
        self,
        seed: int,
        plan: FaultPlan = FaultPlan(),  # noqa: B008 - frozen
        settings: CapacitySettings = CapacitySettings(),  # noqa: B008 - frozen
    ) -> None:
        self.settings = settings
        self.world = World(
            seed,
            NodeSettings(entities=self.entities, shards=4, system=settings.system, clustered=settings.clustered),
            nodes=settings.nodes,
            plan=plan,
            store=settings.store,
            repeat=f"python -m tests.simulation.capacity --seed {seed} --nodes {settings.nodes}"
            + (" --clustered" if settings.clustered else ""),
        )
        self.recorder = Recorder()
        self.findings: list[str] = []
        self._parts: dict[str, list[str]] = {f"p{n}": [] for n in range(settings.pools)}
        self._left = settings.operations

    def run(self) -> History:
        """Everything, from the first call to the last check that all is served again."""
        self.world.run(self._story)
        self.findings += self.world.findings()
        return self.history

    @property
    def history(self) -> History:
        return self.recorder.history(seed=self.world.seed, ran=self.world.repeat)

    async def _story(self, world: World) -> None:
        clients = [world.client(f"client-{n}") for n in range(1, self.settings.clients + 1)]
        tasks = [world.spawn(client.process, self._client(client), name=client.name) for client in clients]
        running = [world.loop.create_task(task) for task in tasks]
        for task in running:
            await task
        await world.healed()
        healed_s = world.loop.now_s
        asking = [world.client(f"client-last-{pool}") for pool in self._parts]
        last = [
            world.loop.create_task(
                world.spawn(client.process, self._served_again(client, pool, healed_s), name=client.name)
            )
            for client, pool in zip(asking, self._parts, strict=True)
        ]
        for task in last:
            await task

    async def _client(self, client: Client) -> None:
        random = stream(self.world.seed, f"{client.name}/work")
        for pool in self._parts:
            await self._call(
                client, pool, "change", (PoolChange(capacity=self.settings.capacity),), random, keyed=False
            )
        while self._left > 0:
            self._left -= 1
            low_s, high_s = self.settings.think_s
            await self._sleep(low_s + (high_s - low_s) * random.random())
            pool = random.choice(list(self._parts))
            known = self._parts[pool]
            kind = random.random()
            if kind < 0.4:
                await self._call(client, pool, "reserve", (random.randint(1, 4), None), random, keyed=True)
            elif kind < 0.5:
                part = f"{client.name}-{random.randint(1, 5)}"
                await self._call(
                    client, pool, "reserve", (random.randint(1, 2), part), random, keyed=random.random() < 0.5
                )
            elif kind < 0.8 and known:
                part = known[int(random.random() * len(known))]
                quantity = None if random.random() < 0.5 else 1
                await self._call(client, pool, "release", (part, quantity), random, keyed=True)
            else:
                await self._call(client, pool, "describe", (), random, keyed=False)

    async def _sleep(self, seconds: float) -> None:
        await self.world.sleep_until(self.world.loop.now_s + seconds)

    async def _call(
        self, client: Client, pool: str, name: str, args: tuple[Any, ...], random: Random, *, keyed: bool
    ) -> None:
        """One command or query; a keyed one is repeated until its outcome is known, or its client has had enough."""
        key = random.randbytes(6).hex() if keyed else None
        for _ in range(self.settings.attempts_max):
            try:
                reply = await self._attempt(client, pool, name, args, key)
            except Rejected:
                return
            except (OutcomeUnknown, Overloaded, Unavailable) as error:
                if key is None and isinstance(error, OutcomeUnknown):
                    return
                await self._sleep(0.05 + random.random())
            else:
                if name == "reserve" and reply.quantity:
                    self._parts[pool].append(reply.reservation_id.partition("~")[2])
                return

    async def _attempt(
        self, client: Client, pool: str, name: str, args: tuple[Any, ...], key: str | None, deadline_s: float = 5.0
    ) -> Any:
        number = self.recorder.invoke(
            client.name,
            f"pool/{pool}",
            name,
            args,
            at_us=self._now_us(),
            key=key,
            command_id=client.next_command_id,
        )
        call = getattr(client.get(Pool, pool), name)
        try:
            reply = await call.options(idempotency_key=key, deadline_s=deadline_s)(*args)
        except CallError as error:
            self.recorder.failed(number, error, at_us=self._now_us())
            raise
        self.recorder.replied(number, reply, at_us=self._now_us())
        return reply

    def _now_us(self) -> int:
        return int(self.world.loop.now_s * 1e6)

    async def _served_again(self, client: Client, pool: str, healed_s: float) -> None:
        """Progress: after healing every pool gives an answer before long."""
        random = stream(self.world.seed, client.name)
        while True:
            try:
                await self._attempt(client, pool, "describe", (), None, deadline_s=0.5)
            except Rejected:
                return
            except CallError as error:
                late_s = self.world.loop.now_s - healed_s
                if late_s > self.settings.serve_again_s:
                    self.findings.append(f"{pool} is not served {late_s:.1f} s after healing: {error}")
                    return
                await self._sleep(0.1 * random.random())
            else:
                return


def main(argv: list[str]) -> int:
    """``python -m tests.simulation.capacity --seed 7``: runs one seed, and shows what has happened."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--clustered", action="store_true", help="the nodes form a cluster")
    parser.add_argument("--no-faults", action="store_true", help="nothing goes wrong")
    parser.add_argument("--plan", help="a file with the plan of faults, rather than the one drawn from the seed")
    parser.add_argument("--history", help="where to write the operations, as JSON lines")
    parser.add_argument("--watch", action="store_true", help="print everything that happens")
    chosen = parser.parse_args(argv)
    names = [f"node-{number}" for number in range(1, chosen.nodes + 1)]
    plan = swarm(chosen.seed, names) if chosen.plan is None else FaultPlan.decode(Path(chosen.plan).read_bytes())
    if chosen.no_faults:
        plan = FaultPlan()
    capacity = Capacity(chosen.seed, plan, CapacitySettings(nodes=chosen.nodes, clustered=chosen.clustered))
    if chosen.watch:
        capacity.world.trace.watch = lambda at_s, line: print(f"{at_s:12.6f}  {line}")
    history = capacity.run()
    if chosen.history is not None:
        Path(chosen.history).write_text("".join(history.lines()))
    outcomes = Counter(operation.outcome.value for operation in history.operations)
    print(f"seed {chosen.seed}: {len(plan.faults)} faults, {dict(outcomes)}, {capacity.world.loop.now_s:.3f} s")
    for finding in capacity.findings:
        print(f"found: {finding}")
    print(f"trace {capacity.world.digest}")
    return 1 if capacity.findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

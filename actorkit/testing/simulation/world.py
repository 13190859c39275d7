"""World (a shell): nodes, their store, the network between them and what goes wrong, in one process and from one seed.

::

    world = World(seed, NodeSettings(entities=[Pool]), nodes=2, plan=swarm(seed, ["node-1", "node-2"]))

    async def story(world: World) -> None:
        pools = world.client("client-1")
        await pools.get(Pool, "p1").reserve.options(idempotency_key="k")(3, None)
        await world.healed()

    world.run(story)
    assert not world.findings()

The same seed gives the same run, wherever and how often it runs: ``digest`` says so. In a world that was run nothing
remains of it but what it has recorded.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import structlog

from actorkit.testing.simulation.clients import Client
from actorkit.testing.simulation.faults import FaultPlan
from actorkit.testing.simulation.guards import guarded
from actorkit.testing.simulation.injection import Injector
from actorkit.testing.simulation.loop import SimulatedLoop
from actorkit.testing.simulation.network import Network, NetworkSettings
from actorkit.testing.simulation.node import Node, NodeSettings
from actorkit.testing.simulation.process import Process
from actorkit.testing.simulation.randomness import stream
from actorkit.testing.simulation.store import SimulatedStore, StoreSettings
from actorkit.testing.simulation.trace import Trace

__all__ = ["World"]

T = TypeVar("T")

_POLL_S = 0.001
_EXPECTED = frozenset({"journal.failed", "entity.recovery_failed", "entity.no_snapshot"})
"""Errors that are logged because of the faults; any other one is a finding."""


class World:
    """One run. Make it, ``run`` it once, and look at what it has found."""

    def __init__(
        self,
        seed: int,
        node: NodeSettings = NodeSettings(),  # noqa: B008 - frozen
        *,
        nodes: int = 1,
        plan: FaultPlan = FaultPlan(),  # noqa: B008 - frozen
        store: StoreSettings = StoreSettings(),  # noqa: B008 - frozen
        network: NetworkSettings = NetworkSettings(),  # noqa: B008 - frozen
        time_max_s: float = 24 * 3600.0,
        lines_kept: int = 200,
        repeat: str = "",
    ) -> None:
        """``repeat`` is the command that runs this again, for reports; ``lines_kept`` of the trace stay readable."""
        self.seed = seed
        self.plan = plan
        self.heal_at_s = 0.0
        """When the plan that is being followed, which begins when the nodes are up, is over."""
        self.repeat = repeat
        self.loop = SimulatedLoop(time_max_s=time_max_s)
        self.trace = Trace(lambda: self.loop.now_s, kept=lines_kept)
        self.loop.on_crumbs = self.trace.crumbs
        note = self.trace.note
        self.did: Counter[str] = Counter()
        """What each kind of fault has really done: messages lost, processes ended, writes failed, clocks set."""
        self.network = Network(self.loop, stream(seed, "network"), settings=network, note=note, did=self.did)
        self.store = SimulatedStore(self.loop, stream(seed, "store"), settings=store, note=note, did=self.did)
        self.store.on_crash = self._store_crashed
        self.nodes = [Node(self, f"node-{number}", node) for number in range(1, nodes + 1)]
        self.complaints: list[str] = []
        """Errors that were logged and are not due to the faults, also those that are allowed."""
        self._allowed: list[re.Pattern[str]] = []
        self._deadline_s = node.system.persistence.deadline_default_s
        self._store_random = stream(seed, "store/restart")

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    # -------------------------------------------------------------------------------------------------------- running

    def run(self, story: Callable[[World], Coroutine[Any, Any, T]]) -> T:
        """Starts the nodes, then the plan, runs ``story`` to its end, and throws everything away.

        Raises what ``story`` raises, ``SimulationEscape`` if something reached for the real world (also where that
        was caught), and ``SimulationStuck`` if it would never end.
        """
        collecting = gc.isenabled()
        # A collection at another moment would run finalizers at another moment.
        gc.disable()
        try:
            with self._logs(), guarded(self.loop.escaped):
                try:
                    result = self.loop.run_until_complete(self._main(story))
                finally:
                    self.loop.close()
        finally:
            if collecting:
                gc.enable()
        if self.loop.escapes:
            raise self.loop.escapes[0]
        return result

    async def _main(self, story: Callable[[World], Coroutine[Any, Any, T]]) -> T:
        for node in self.nodes:
            node.start()
        await self.up()
        Injector(self, self.plan)
        return await story(self)

    def _store_crashed(self) -> None:
        self.loop.call_in(self.loop.world, 0.05 + self._store_random.random(), self.store.start)

    async def up(self) -> None:
        """Waits until all nodes are up."""
        while not all(node.up for node in self.nodes):
            await asyncio.sleep(_POLL_S)

    async def healed(self) -> None:
        """Waits until the plan's faults have had their time. Then they all have ended, and whatever was down is up."""
        await self.sleep_until(self.heal_at_s)

    async def sleep_until(self, true_s: float) -> None:
        """Until so much true time has passed since the beginning."""
        future = self.loop.create_future()
        process = self.loop.current
        call = self.loop.call_in(process, max(0.0, true_s - self.loop.now_s), future.set_result, None)
        try:
            await future
        finally:
            call.cancel()

    # ------------------------------------------------------------------------------------------------------- clients

    def client(self, name: str, *, nodes: Sequence[str] = ()) -> Client:
        """A new client, with a process of its own, of these nodes or of all. It begins with one of its own choice."""
        names = list(nodes) or [node.name for node in self.nodes]
        first = int(stream(self.seed, name).random() * len(names))
        process = self.loop.new_process(name)
        return Client(self.loop, self.network, process, names, first=first, deadline_s=self._deadline_s)

    async def spawn(self, process: Process, coroutine: Coroutine[Any, Any, T], *, name: str) -> T:
        """Runs a coroutine in a process, and waits here for its end."""
        future: Awaitable[T] = self.loop.create_future()
        task = self.loop.start_in(process, coroutine, name=name)
        task.add_done_callback(lambda task: self.loop.call_in(self.loop.world, 0.0, _pass_on, task, future))
        return await future

    # ------------------------------------------------------------------------------------------------------- findings

    def allow_errors(self, pattern: str) -> None:
        """Logged errors in whose line this regular expression is found are meant to be: they are no findings.

        A line is the event's name, its facts and its exception, as in
        ``entity.handler_failed actor=/$1 entity=pool/p handler=reserve ValueError('...')``. Those of earlier count too.
        """
        self._allowed.append(re.compile(pattern))

    def findings(self) -> list[str]:
        """What was wrong with the run itself, whatever its operations say. Empty: nothing."""
        found = [
            f"an error was logged: {line}"
            for line in self.complaints
            if not any(allowed.search(line) for allowed in self._allowed)
        ]
        found += [f"nobody handled: {each.get('exception') or each.get('message')!r}" for each in self.loop.unhandled]
        found += [
            f"{node.name} answered after the deadline: {late}"
            for node in self.nodes
            for door in node.doors
            for late in door.late
        ]
        return found

    @property
    def digest(self) -> str:
        """The hash of all that has happened: equal for equal runs."""
        return self.trace.digest

    def report(self) -> str:
        """The last of what has happened, and how to see it again."""
        return "\n".join([*self.trace.lines, f"seed {self.seed}, trace {self.digest}", self.repeat])

    @contextmanager
    def _logs(self) -> Generator[None]:
        """Log lines become lines of the trace."""
        configured, before = structlog.is_configured(), structlog.get_config()
        structlog.configure(
            processors=[self._log],
            wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
            logger_factory=structlog.ReturnLoggerFactory(),
            cache_logger_on_first_use=False,
        )
        try:
            yield
        finally:
            if configured:
                structlog.configure(**before)
            else:
                structlog.reset_defaults()

    def _log(self, _logger: Any, level: str, line: MutableMapping[str, Any]) -> Any:
        process = self.loop.current
        if self.loop.is_closed() or not process.alive:
            raise structlog.DropEvent
        event = str(line.pop("event", ""))
        self.trace.note(f"{process.name}: {level} {event}")
        error = line.pop("exc_info", None)
        facts = " ".join(f"{name}={value}" for name, value in line.items())
        self.trace.aside(f"{process.name}:     {facts} {error!r}" if error else f"{process.name}:     {facts}")
        if level in ("error", "critical") and event not in _EXPECTED:
            self.complaints.append(f"{self.loop.now_s:.6f} {process.name}: {event} {facts} {error!r}")
        raise structlog.DropEvent


def _pass_on(task: Any, future: Any) -> None:
    # Looked at also where whoever waited has given up: then it is of no interest to anybody.
    error = None if task.cancelled() else task.exception()
    if future.done():
        return
    if task.cancelled():
        future.cancel()
    elif error is not None:
        future.set_exception(error)
    else:
        future.set_result(task.result())

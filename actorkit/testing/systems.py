"""Systems for tests (a shell): whole ``ActorSystem``s on virtual time, each on a journal in memory.

Time stands still while anything can run, and jumps to the next timer when nothing can: a test that waits two hours for
an entity to leave memory takes milliseconds. Wall clock, leases and ids are the loop's and the seed's, so a run can be
repeated. What runs here must not use threads or sockets, which the loop refuses.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import structlog

from actorkit import logs
from actorkit.config import SystemSettings
from actorkit.errors import JournalFailed
from actorkit.journal.memory import MemoryJournal
from actorkit.journal.protocols import Store
from actorkit.node import ActorSystem
from actorkit.persistence.actor import PersistentActor
from actorkit.testing.simulation.loop import SimulatedLoop
from actorkit.testing.simulation.randomness import SeededRandomness, stream

__all__ = ["ActorSystems"]

R = TypeVar("R")

_TIME_MAX_S = 48 * 3600.0
_SHARDS = 8


class ActorSystems:
    """Starts systems for one test. The fixture ``actor_system`` is one::

        async def test_a_pool_remembers(actor_system: ActorSystems) -> None:
            system = await actor_system(Pool)
            await system.get(Pool, "p").reserve(3)
            await system.stop()
            again = await actor_system(Pool, journal=system.store)
            assert await again.get(Pool, "p").free() == 7

    Time ends after two days: a test that is not over by then waits for what will never happen.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.loop = SimulatedLoop(time_max_s=_TIME_MAX_S)
        self.clock = self.loop.world.clock
        """What the systems take for time; its wall clock may be made to jump."""
        self._systems: list[ActorSystem] = []
        self._failures: list[JournalFailed] = []

    async def __call__(
        self,
        *entities: type[PersistentActor[Any, Any]],
        singletons: Sequence[type[PersistentActor[Any, Any]]] = (),
        journal: Store | None = None,
        settings: SystemSettings = SystemSettings(),  # noqa: B008 - frozen
        shards: int = _SHARDS,
    ) -> ActorSystem:
        """A system that has been started. It is stopped when the test ends, unless the test has done so.

        ``journal`` is a new one in memory unless given; give that of a stopped system to go on where it was.
        """
        number = len(self._systems) + 1
        system = ActorSystem(
            MemoryJournal(clock=self.clock) if journal is None else journal,
            name=f"system-{number}",
            shards=shards,
            entities=entities,
            singletons=singletons,
            settings=settings,
            clock=self.clock,
            randomness=SeededRandomness(stream(self.seed, f"system-{number}")),
            on_fatal=self._failures.append,
        )
        await system.start()
        self._systems.append(system)
        return system

    def run(self, test: Coroutine[Any, Any, R]) -> R:
        """Runs a test to its end, stops its systems, and looks for what it has left behind.

        Raises what the test raises; else ``AssertionError`` for tasks that still run, for exceptions that nobody has
        handled, and for a journal that has failed.
        """
        __tracebackhide__ = True
        try:
            with _logs():
                try:
                    result = self.loop.run_until_complete(test)
                finally:
                    self.loop.run_until_complete(self._stop())
            left = self._left()
        finally:
            self.loop.close()
        if left:
            raise AssertionError("the test has left behind:\n" + "\n".join(f"  - {each}" for each in left))
        return result

    async def _stop(self) -> None:
        for system in self._systems:
            await system.stop()

    def _left(self) -> list[str]:
        left = [f"a task: {line}" for line in self.loop.waiting()]
        left += [
            f"an exception that nobody handled: {each.get('exception') or each.get('message')!r}"
            for each in self.loop.unhandled
        ]
        return left + [f"a journal that has failed: {failure}" for failure in self._failures]

    def report(self) -> str:
        """What is known of the run, for a test that has failed."""
        return f"virtual time at the end: {self.loop.now_s:.6f} s"


@contextmanager
def _logs() -> Generator[None]:
    """Where nobody has configured structlog, a system would do so for good, with the test's own captured stderr."""
    configured = structlog.is_configured()
    if not configured:
        logs.configure()
    try:
        yield
    finally:
        if not configured:
            structlog.reset_defaults()

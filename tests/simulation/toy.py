"""A simulation that takes no time, for tests of what searches and shrinks: it finds what its trial says it must."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator

import msgspec

from actorkit.testing.simulation.faults import Fault, FaultPlan
from actorkit.testing.simulation.trial import Finding, Result, Trial

__all__ = ["QUIET", "RAISING", "SLOW", "TELLING", "TOY", "Asked", "Toy"]


class Asked(msgspec.Struct, frozen=True):
    """How much is asked of nobody."""

    operations: int = 20
    clients: int = 3


class Toy:
    """Seeds that divide by ten fail: a crash and a partition that are strong enough, and five operations."""

    settings = Asked

    def trial(self, seed: int) -> Trial[Asked]:
        faults = [Fault(kind, 1.0 * number, 4.0, "", 0.8) for number, kind in enumerate(("pause", "crash", "leave"))]
        if seed % 10 == 0:
            faults.append(Fault("partition", 5.0, 4.0, "", 0.8))
        return Trial(seed, Asked(), FaultPlan(tuple(faults), 20.0))

    def run(self, trial: Trial[Asked]) -> Result:
        strong = {fault.kind for fault in trial.plan.faults if fault.intensity > 0.3}
        findings = []
        if strong >= {"crash", "partition"} and trial.settings.operations >= 5:
            findings = [
                Finding("G", f"the toy of seed {trial.seed} is broken"),
                Finding("F", "and an event is missing"),
            ]
        return Result(
            findings=findings,
            digest=f"{trial.seed:08x}",
            simulated_s=3600.0,
            operations={"replied": trial.settings.operations},
            faults={"crash": 1},
            did={"crash": 1},
        )

    def simpler(self, settings: Asked) -> Iterator[Asked]:
        for less in (settings.operations // 2, settings.operations - 1):
            if less:
                yield msgspec.structs.replace(settings, operations=less)
        if settings.clients > 1:
            yield msgspec.structs.replace(settings, clients=1)

    def repeat(self, seed: int) -> str:
        return f"run the toy with seed {seed}"


class _Raising(Toy):
    def trial(self, seed: int) -> Trial[Asked]:
        if seed % 2:
            raise LookupError("the toy has no such trial")
        return super().trial(seed)

    def run(self, trial: Trial[Asked]) -> Result:
        raise RuntimeError("the toy falls apart")


class _Slow(Toy):
    """Interrupts whoever searches once it has run for a while, as Ctrl-C at a terminal does."""

    def run(self, trial: Trial[Asked]) -> Result:
        if trial.seed == 20:
            os.kill(os.getppid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        return super().run(trial)


class _Quiet(_Slow):
    """The same, and finds nothing."""

    def trial(self, seed: int) -> Trial[Asked]:
        return msgspec.structs.replace(super().trial(seed), plan=FaultPlan())


class _Telling(Toy):
    """Says by which process it is run, and goes on for a long time."""

    def run(self, trial: Trial[Asked]) -> Result:
        if trial.seed == 0:
            sys.stderr.write(f"{os.getpid()}\n")
            sys.stderr.flush()
        time.sleep(0.05)
        return super().run(trial)


TOY, RAISING, SLOW, QUIET, TELLING = Toy(), _Raising(), _Slow(), _Quiet(), _Telling()

"""Trials: one run of a simulation as data, and what came of it.

A trial is all that a run depends on (its seed, how much is asked of the system, what goes wrong), so that it can be
written down, repeated anywhere and made smaller. ``search`` runs many, ``shrink`` makes a failing one small, and a
``Case`` is one in a file, for a test to run again.

Pure: running a trial is the ``Simulation``'s business.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from actorkit.testing.simulation.faults import FaultPlan

__all__ = ["Case", "Finding", "Result", "Simulation", "Tally", "Trial"]

S = TypeVar("S", bound=msgspec.Struct)


class Trial(msgspec.Struct, Generic[S], frozen=True):
    """What a run depends on; equal trials of one program have equal traces."""

    seed: int
    settings: S
    """How much is asked of the system, and by whom."""
    plan: FaultPlan = FaultPlan()


class Finding(msgspec.Struct, frozen=True):
    """Something that must not be."""

    kind: str
    """The invariant or promise that it breaks, or what was wrong with the run itself. Shrinking keeps to it."""
    what: str

    def __str__(self) -> str:
        return f"[{self.kind}] {self.what}"


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a trial."""

    findings: Sequence[Finding] = ()
    digest: str = ""
    """The hash of the run's trace."""
    simulated_s: float = 0.0
    operations: dict[str, int] = {}
    """How many ended in which way."""
    faults: dict[str, int] = {}
    """How often each kind of fault was injected."""
    did: dict[str, int] = {}
    """What each kind has really done: messages lost, processes ended, writes failed (``World.did``)."""
    trace: Sequence[str] = ()
    """The last lines of it."""

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset(finding.kind for finding in self.findings)


class Simulation(Protocol[S]):
    """A program under test, its workload and its checkers: makes trials from seeds, and runs them."""

    settings: type[S]

    def trial(self, seed: int) -> Trial[S]:
        """The trial of a seed: how much is asked, and a plan of faults."""
        ...

    def run(self, trial: Trial[S]) -> Result:
        """Runs it and judges it. May raise whatever the run raises: that is a finding too."""
        ...

    def simpler(self, settings: S) -> Iterable[S]:
        """Settings that ask for less, the boldest first: what shrinking tries."""
        ...

    def repeat(self, seed: int) -> str:
        """The command that runs the trial of a seed again, and shows what happens."""
        ...


class Case(msgspec.Struct, Generic[S], frozen=True, kw_only=True):
    """A trial that has found something once."""

    found: str
    """In a person's words: what was wrong, and since when it is right."""
    trial: Trial[S]
    findings: Sequence[Finding]
    """What it found then."""
    digest: str
    """Of the trace of then; it is another one once the program has changed."""

    def encode(self) -> bytes:
        """As JSON for a file."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    @classmethod
    def decode(cls, data: bytes, settings: type[S]) -> Case[S]:
        """Raises ``msgspec.ValidationError`` where it is none, or names a kind of fault that does not exist."""
        case_type: Any = Case[settings]  # type: ignore[valid-type]
        case: Case[S] = msgspec.json.decode(data, type=case_type)
        FaultPlan.decode(case.trial.plan.encode())
        return case


class Tally(msgspec.Struct):
    """What many trials add up to."""

    seeds: int = 0
    failing: int = 0
    simulated_s: float = 0.0
    operations: Counter[str] = msgspec.field(default_factory=Counter[str])
    faults: Counter[str] = msgspec.field(default_factory=Counter[str])
    did: Counter[str] = msgspec.field(default_factory=Counter[str])
    kinds: Counter[str] = msgspec.field(default_factory=Counter[str])
    """In how many trials each kind of finding was found."""

    def add(self, result: Result) -> None:
        self.seeds += 1
        self.failing += bool(result.findings)
        self.simulated_s += result.simulated_s
        self.operations.update(result.operations)
        self.faults.update(result.faults)
        self.did.update(result.did)
        self.kinds.update(result.kinds)

    def merge(self, other: Tally) -> None:
        """Adds what another process has counted."""
        self.seeds += other.seeds
        self.failing += other.failing
        self.simulated_s += other.simulated_s
        self.operations.update(other.operations)
        self.faults.update(other.faults)
        self.did.update(other.did)
        self.kinds.update(other.kinds)

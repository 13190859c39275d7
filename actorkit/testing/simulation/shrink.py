"""Shrinking: makes a failing trial smaller for as long as it goes on to find the same.

First it leaves faults out, in halves and then one by one; then it asks for less; then it makes what is left shorter and
weaker; and all of that again until nothing helps any more (Zeller and Hildebrandt, "Simplifying and isolating
failure-inducing input", 2002). A smaller trial is another run, in which chance falls differently, so each is run.

Pure: the caller runs the trials, and says when there have been enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import msgspec

from actorkit.testing.simulation.faults import Fault, FaultPlan
from actorkit.testing.simulation.trial import Result, Trial

__all__ = ["shrink"]

S = TypeVar("S", bound=msgspec.Struct)

_SHORTEST_S = 0.02
_WEAKEST = 0.05
_HEAL_MIN_S = 1.0


def shrink(
    trial: Trial[S],
    kind: str,
    *,
    run: Callable[[Trial[S]], Result],
    simpler: Callable[[S], Iterable[S]],
    more: Callable[[int], bool],
) -> tuple[Trial[S], Result]:
    """The smallest trial that was found to have a finding of this kind, and its result.

    ``more(tries)`` is asked before each run. Raises ``ValueError`` where the trial itself does not find it (then the
    run depends on more than the trial).
    """
    result = run(trial)
    if kind not in result.kinds:
        raise ValueError(f"run again, the trial of seed {trial.seed} has no finding of the kind {kind}")
    steps: list[Callable[[Trial[S]], Iterator[Trial[S]]]] = [_fewer_faults, _less_asked(simpler), _weaker_faults]
    tries = 1
    progress = True
    while progress:
        progress = False
        for step in steps:
            candidates = step(trial)
            while (candidate := next(candidates, None)) is not None:
                if not more(tries):
                    return trial, result
                tries += 1
                found = run(candidate)
                if kind in found.kinds:
                    trial, result, progress = candidate, found, True
                    candidates = step(trial)
    return trial, result


def _with(trial: Trial[S], faults: Iterable[Fault]) -> Trial[S]:
    plan = FaultPlan(tuple(faults), trial.plan.heal_at_s)
    return msgspec.structs.replace(trial, plan=plan)


def _fewer_faults(trial: Trial[S]) -> Iterator[Trial[S]]:
    faults = trial.plan.faults
    size = len(faults)
    while size:
        for first in range(0, len(faults), size):
            yield _with(trial, (*faults[:first], *faults[first + size :]))
        size //= 2


def _less_asked(simpler: Callable[[S], Iterable[S]]) -> Callable[[Trial[S]], Iterator[Trial[S]]]:
    def step(trial: Trial[S]) -> Iterator[Trial[S]]:
        for settings in simpler(trial.settings):
            yield msgspec.structs.replace(trial, settings=settings)

    return step


def _weaker_faults(trial: Trial[S]) -> Iterator[Trial[S]]:
    plan = trial.plan
    last_s = max((fault.start_s + fault.duration_s for fault in plan.faults), default=0.0)
    for heal_at_s in (last_s, plan.heal_at_s / 2):
        if _HEAL_MIN_S < heal_at_s < 0.9 * plan.heal_at_s:
            yield msgspec.structs.replace(trial, plan=FaultPlan(plan.faults, round(heal_at_s, 3)))
    for place, fault in enumerate(plan.faults):
        for weaker in _weaker(fault):
            yield _with(trial, (*plan.faults[:place], weaker, *plan.faults[place + 1 :]))


def _weaker(fault: Fault) -> Iterator[Fault]:
    changes: list[dict[str, Any]] = []
    if fault.duration_s > 2 * _SHORTEST_S:
        changes.append({"duration_s": round(fault.duration_s / 2, 3)})
    if fault.intensity > 2 * _WEAKEST:
        changes.append({"intensity": round(fault.intensity / 2, 3)})
    for change in changes:
        yield msgspec.structs.replace(fault, **change)

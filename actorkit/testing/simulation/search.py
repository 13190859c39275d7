"""Search (a shell): runs the trials of many seeds, on all cores, and collects what they find.

Seeds are independent of each other, so each process takes a few at a time and sends back counts, and what the failing
ones have found. An interrupt ends it after the seed that each process is running, and nothing of what was run is lost.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import TYPE_CHECKING, Any

import msgspec

from actorkit.testing.simulation.shrink import shrink
from actorkit.testing.simulation.trial import Case, Finding, Result, Simulation, Tally, Trial

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event

__all__ = ["Failure", "attempt", "search", "shrunk", "simulation_named"]

_SEEDS_AT_ONCE = 8
_AHEAD = 3
"""How many pieces of work wait for each process, so that none is idle."""
_TRIAL_MAX_S = 120.0
"""A trial that takes this long in real time hangs: the usual ones take a fifth of a second."""


class Failure(msgspec.Struct, frozen=True):
    """A seed whose trial has found something."""

    seed: int
    findings: Sequence[Finding]
    digest: str


def simulation_named(name: str) -> Simulation[Any]:
    """The simulation of that name, as ``package.module:name``."""
    module, _, attribute = name.partition(":")
    simulation: Simulation[Any] = getattr(importlib.import_module(module), attribute)
    return simulation


def attempt(simulation: Simulation[Any], trial: Trial[Any], *, limit_s: float = _TRIAL_MAX_S) -> Result:
    """Runs a trial; what the run raises is a finding, and so is that it has not ended after so much real time.

    0: no limit, for whoever has an alarm of its own, as pytest-timeout has.
    """
    try:
        with _limited(limit_s):
            return simulation.run(trial)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with a run is what is looked for
        return Result(findings=[Finding(type(error).__name__, str(error))])


@contextmanager
def _limited(seconds: float) -> Generator[None]:
    if not seconds:
        yield
        return

    def ring(*_: object) -> None:
        raise TimeoutError(f"the run has not ended after {seconds:g} s of real time")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


_stop: Event | None = None
"""In a process that searches: set once no more seeds are to be run."""


def _begin(path: list[str], stop: Event) -> None:
    """In a new process."""
    global _stop
    _stop = stop
    sys.path[:] = path
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Whoever collects may be killed; nobody would ever end those who wait for more seeds from it."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(name: str, seeds: range) -> tuple[Tally, list[Failure]]:
    simulation = simulation_named(name)
    tally, failures = Tally(), list[Failure]()
    for seed in seeds:
        if _stop is not None and _stop.is_set():
            break
        try:
            trial = simulation.trial(seed)
        except Exception as error:  # noqa: BLE001 - as in attempt
            result = Result(findings=[Finding(type(error).__name__, str(error))])
        else:
            result = attempt(simulation, trial)
        tally.add(result)
        if result.findings:
            failures.append(Failure(seed, result.findings, result.digest))
    return tally, failures


@contextmanager
def _interrupt_kept() -> Generator[None]:
    """Processes that are started here never see Ctrl-C, which is for the one that collects; it sees it afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _interrupt_sets(stop: Event) -> Generator[None]:
    def interrupted(*_: object) -> None:
        stop.set()

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def search(
    name: str,
    seeds: range,
    *,
    processes: int | None = None,
    progress: Callable[[Tally, list[Failure]], None] = lambda tally, failures: None,
) -> tuple[Tally, list[Failure], bool]:
    """Runs the trials of ``seeds`` of the simulation of that name, on so many processes (else one for each core).

    ``progress`` gets the counts up to now, and the newest failures, every now and then. Returns the counts, the failing
    seeds in order, and whether it was interrupted (``SIGINT``). To be called in the main thread.
    """
    count = processes or os.cpu_count() or 1
    context = get_context("spawn")
    tally, failures, stop = Tally(), list[Failure](), context.Event()
    pieces = (seeds[first : first + _SEEDS_AT_ONCE] for first in range(0, len(seeds), _SEEDS_AT_ONCE))
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=(sys.path[:], stop))
    running: set[Future[tuple[Tally, list[Failure]]]] = set()
    with _interrupt_sets(stop), pool:
        while True:
            while len(running) < count * _AHEAD and not stop.is_set() and (piece := next(pieces, None)) is not None:
                with _interrupt_kept():
                    running.add(pool.submit(_work, name, piece))
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                counted, found = future.result()
                tally.merge(counted)
                failures += found
                progress(tally, found)
    failures.sort(key=lambda failure: failure.seed)
    return tally, failures, tally.seeds < len(seeds)


def shrunk(
    simulation: Simulation[Any], trial: Trial[Any], kind: str, *, tries_max: int = 400, time_max_s: float = 120.0
) -> Case[Any]:
    """The trial made as small as that many tries make it, as a case for a file."""
    ends_s = time.monotonic() + time_max_s
    smallest, result = shrink(
        trial,
        kind,
        run=lambda each: attempt(simulation, each),
        simpler=simulation.simpler,
        more=lambda tries: tries < tries_max and time.monotonic() < ends_s,
    )
    what = next(finding.what for finding in result.findings if finding.kind == kind)
    return Case(found=what, trial=smallest, findings=result.findings, digest=result.digest)

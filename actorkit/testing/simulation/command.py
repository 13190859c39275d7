"""The command (a shell): ``python -m actorkit.testing.simulation.command package.module:simulation --seeds 1000``.

Searches that many seeds on all cores, shows how far it is, and says what was tried and what was found. Each failing
seed comes with the command that repeats it; the first of each kind is made smaller and written to a file.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from actorkit.testing.simulation.faults import CATALOGUE
from actorkit.testing.simulation.search import Failure, search, shrunk, simulation_named
from actorkit.testing.simulation.trial import Simulation, Tally

__all__ = ["main"]

_FAILURES_SHOWN = 50
_KINDS_SHRUNK = 5
_LINE_EVERY_S = 60.0
_INTERRUPTED_STATUS = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """0: nothing was found; 1: something was; 130: interrupted before the end, with nothing found until then."""
    parser = argparse.ArgumentParser(
        prog="python -m actorkit.testing.simulation.command", description="Runs the trials of many seeds."
    )
    parser.add_argument("simulation", help="what to run, as package.module:name of a Simulation")
    parser.add_argument("--seeds", type=int, default=1_000, help="how many (default: 1000)")
    parser.add_argument("--first", type=int, help="the first of them (default: one by the time, another each time)")
    parser.add_argument("--processes", type=int, help="on how many processes (default: one for each core)")
    parser.add_argument("--cases", type=Path, help="a directory for the failing trials that were made smaller")
    parser.add_argument("--digests", action="store_true", help="only print the hash of each seed's trace")
    options = parser.parse_args(arguments)
    first: int = int(time.time()) * 1_000 if options.first is None else options.first
    seeds = range(first, first + options.seeds)
    simulation = simulation_named(options.simulation)
    if options.digests:
        for seed in seeds:
            sys.stdout.write(f"{seed} {simulation.run(simulation.trial(seed)).digest}\n")
        return 0
    console = Console()
    console.print(
        f"Seeds {seeds.start} to {seeds.stop - 1} of {options.simulation}; Ctrl-C ends it, with what is known."
    )
    began_s = time.monotonic()
    tally, failures, interrupted = _searched(console, options.simulation, seeds, options.processes)
    if interrupted:
        console.print(f"Interrupted after {tally.seeds:,} of {len(seeds):,} seeds.")
    _report(console, tally, time.monotonic() - began_s)
    _report_failures(console, simulation, failures)
    if failures and options.cases is not None and not interrupted:
        _shrink(console, simulation, failures, options.cases)
    if failures:
        return 1
    return _INTERRUPTED_STATUS if interrupted else 0


def _searched(console: Console, name: str, seeds: range, processes: int | None) -> tuple[Tally, list[Failure], bool]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as shown:
        bar = shown.add_task("nothing found", total=len(seeds))
        next_line_s = time.monotonic() + _LINE_EVERY_S

        def progress(tally: Tally, newest: list[Failure]) -> None:
            nonlocal next_line_s
            found = f"{tally.failing} failing" if tally.failing else "nothing found"
            shown.update(bar, completed=tally.seeds, description=found)
            if not console.is_terminal and time.monotonic() > next_line_s:
                # A log has no bar.
                shown.print(f"{tally.seeds:,} of {len(seeds):,} seeds, {found}")
                next_line_s = time.monotonic() + _LINE_EVERY_S
            for failure in newest:
                shown.print(f"seed {failure.seed}: {_short(str(failure.findings[0]))}", markup=False)

        return search(name, seeds, processes=processes, progress=progress)


def _report(console: Console, tally: Tally, took_s: float) -> None:
    faults = Table("fault", "numbers", "times", "hits", title="Faults that were injected", title_justify="left")
    for kind in sorted(CATALOGUE):
        numbers = ", ".join(str(number) for number in CATALOGUE[kind].numbers)
        faults.add_row(kind, numbers, f"{tally.faults[kind]:,}", f"{tally.did[kind]:,}")
    console.print(faults)
    outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(tally.operations.items()))
    console.print(f"Operations: {outcomes or 'none'}")
    if took_s > 0:
        console.print(
            f"{tally.seeds:,} seeds in {took_s:,.1f} s, {tally.seeds / took_s:,.1f} a second; "
            f"{tally.simulated_s / 3600:,.1f} simulated hours, {tally.simulated_s / took_s:,.0f} an hour"
        )


def _report_failures(console: Console, simulation: Simulation[Any], failures: Sequence[Failure]) -> None:
    if not failures:
        console.print("Nothing was found.")
        return
    console.print(f"{len(failures):,} seeds have failed:")
    for failure in failures[:_FAILURES_SHOWN]:
        console.print(f"  {simulation.repeat(failure.seed)}", markup=False, soft_wrap=True)
        for kind, what in _first_of_each_kind(failure):
            console.print(f"    [{kind}] {_short(what)}", markup=False, highlight=False, soft_wrap=True)
    if len(failures) > _FAILURES_SHOWN:
        console.print(f"  and {len(failures) - _FAILURES_SHOWN:,} more")


def _first_of_each_kind(failure: Failure) -> Iterable[tuple[str, str]]:
    found: dict[str, str] = {}
    for finding in failure.findings:
        found.setdefault(finding.kind, finding.what)
    return found.items()


def _short(what: str) -> str:
    line = what.partition("\n")[0]
    return line if len(line) <= 200 else line[:199] + "…"


def _shrink(console: Console, simulation: Simulation[Any], failures: Sequence[Failure], directory: Path) -> None:
    seeds: dict[str, int] = {}
    for failure in failures:
        for finding in failure.findings:
            seeds.setdefault(finding.kind, failure.seed)
    directory.mkdir(parents=True, exist_ok=True)
    for kind, seed in list(seeds.items())[:_KINDS_SHRUNK]:
        console.print(f"Making seed {seed} smaller, for what is of the kind {kind} ...", markup=False)
        try:
            case = shrunk(simulation, simulation.trial(seed), kind)
        except (ValueError, KeyboardInterrupt) as error:
            console.print(f"  {error!r}", markup=False)
            continue
        path = directory / f"{kind.replace(' ', '-').lower()}-{seed}.json"
        path.write_bytes(case.encode())
        console.print(f"  {len(case.trial.plan.faults)} faults are left: {path}", markup=False)


if __name__ == "__main__":
    sys.exit(main())

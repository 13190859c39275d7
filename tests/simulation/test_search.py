"""Searching: many seeds on several processes, the same result as one after the other, and an end at any time."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from actorkit.testing.simulation.search import Failure, attempt, search, simulation_named
from actorkit.testing.simulation.trial import Result, Tally, Trial
from tests.simulation.toy import RAISING, TOY, Asked, Toy

NAME = "tests.simulation.toy:TOY"


@pytest.mark.parametrize("processes", [1, 3])
def test_all_seeds_are_run_once_and_what_they_found_comes_in_their_order(processes: int) -> None:
    shown: list[int] = []
    newest: list[int] = []

    def progress(tally: Tally, failures: list[Failure]) -> None:
        shown.append(tally.seeds)
        newest.extend(failure.seed for failure in failures)

    tally, failures, interrupted = search(NAME, range(1, 102), processes=processes, progress=progress)
    assert (tally.seeds, tally.failing, interrupted) == (101, 10, False)
    assert (tally.simulated_s, tally.operations["replied"], tally.faults["crash"]) == (101 * 3600, 2020, 101)
    assert tally.kinds == {"G": 10, "F": 10}
    assert [failure.seed for failure in failures] == list(range(10, 101, 10))
    assert failures[0].findings == list(TOY.run(TOY.trial(10)).findings)
    assert shown == sorted(shown)
    assert shown[-1] == 101
    assert sorted(newest) == list(range(10, 101, 10))


@pytest.mark.parametrize("processes", [1, 2])
def test_an_interrupt_ends_it_soon_with_all_that_was_run(processes: int) -> None:
    before = signal.getsignal(signal.SIGINT)
    tally, failures, interrupted = search("tests.simulation.toy:SLOW", range(100_000), processes=processes)
    assert interrupted
    assert tally.seeds < 1000
    failing = {failure.seed for failure in failures}
    if processes == 1:
        assert {0, 10, 20} <= failing
        assert tally.seeds > 20
    # How far the other process has come by then is for the system to say.
    assert 20 in failing
    assert tally.failing == len(failures)
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="platform: there is no way to wait for a process")
def test_where_it_is_killed_its_processes_end_too() -> None:
    code = "from actorkit.testing.simulation.search import search; search('tests.simulation.toy:TELLING', range(9999))"
    project = Path(__file__).parent.parent.parent
    with subprocess.Popen([sys.executable, "-c", code], cwd=project, stderr=subprocess.PIPE, text=True) as searching:
        assert searching.stderr is not None
        worker = os.pidfd_open(int(searching.stderr.readline()))
        try:
            searching.kill()
            ended, _, _ = select.select([worker], [], [], 60)
            assert ended
        finally:
            os.close(worker)


def test_what_a_trial_raises_is_what_it_has_found() -> None:
    [finding] = attempt(RAISING, TOY.trial(1)).findings
    assert str(finding) == "[RuntimeError] the toy falls apart"
    tally, failures, _ = search("tests.simulation.toy:RAISING", range(4), processes=1)
    assert tally.kinds == {"RuntimeError": 2, "LookupError": 2}
    assert len(failures) == 4


def test_a_trial_that_never_ends_is_ended() -> None:
    class Endless(Toy):
        def run(self, trial: Trial[Asked]) -> Result:
            while True:
                time.sleep(0.001)

    [finding] = attempt(Endless(), TOY.trial(1), limit_s=0.05).findings
    assert str(finding) == "[TimeoutError] the run has not ended after 0.05 s of real time"
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_a_simulation_is_found_by_its_name() -> None:
    assert simulation_named(NAME) is TOY

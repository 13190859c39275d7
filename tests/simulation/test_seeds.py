"""Many runs of the capacity service under faults: always the same ones, fresh ones, and those that once found a bug."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from actorkit.testing.simulation.search import attempt
from actorkit.testing.simulation.trial import Case, Finding, Trial
from tests.simulation.trials import CAPACITY, CLUSTER, CapacitySimulation, Load

PROJECT = Path(__file__).parent.parent.parent
REGRESSIONS = sorted((Path(__file__).parent / "regressions").glob("*.json"))
TESTS, SEEDS_EACH = 20, 13
"""Twice 260 seeds, in pieces of a few seconds, which pytest-xdist spreads over the cores."""
CLUSTER_TESTS, CLUSTER_FRESH_TESTS, CLUSTER_SEEDS_EACH = 8, 3, 5
"""Of a cluster 40 and 15: each takes several times as long."""


def findings_of(trial: Trial[Load]) -> list[Finding]:
    return list(attempt(CAPACITY, trial, limit_s=0).findings)


def assert_nothing_found(seeds: range, simulation: CapacitySimulation = CAPACITY) -> None:
    for seed in seeds:
        found = findings_of(simulation.trial(seed))
        assert not found, "\n".join([*map(str, found), f"repeat with: {simulation.repeat(seed)}"])


@pytest.mark.parametrize("number", range(TESTS))
def test_fixed_seeds_find_nothing(number: int) -> None:
    assert_nothing_found(range(1 + number * SEEDS_EACH, 1 + (number + 1) * SEEDS_EACH))


@pytest.mark.parametrize("number", range(TESTS))
def test_fresh_seeds_find_nothing(number: int, sim_seed: int) -> None:
    first = sim_seed + number * SEEDS_EACH
    assert_nothing_found(range(first, first + SEEDS_EACH))


@pytest.mark.parametrize("number", range(CLUSTER_TESTS))
def test_fixed_seeds_of_a_cluster_find_nothing(number: int) -> None:
    first = 1 + number * CLUSTER_SEEDS_EACH
    assert_nothing_found(range(first, first + CLUSTER_SEEDS_EACH), CLUSTER)


@pytest.mark.parametrize("number", range(CLUSTER_FRESH_TESTS))
def test_fresh_seeds_of_a_cluster_find_nothing(number: int, sim_seed: int) -> None:
    first = sim_seed + number * CLUSTER_SEEDS_EACH
    assert_nothing_found(range(first, first + CLUSTER_SEEDS_EACH), CLUSTER)


@pytest.mark.parametrize("path", REGRESSIONS, ids=lambda path: path.stem)
def test_what_was_found_once_is_not_found_again(path: Path) -> None:
    case = Case.decode(path.read_bytes(), Load)
    found = findings_of(case.trial)
    assert not found, "\n".join([case.found, *map(str, found)])


def test_one_seed_gives_one_run_in_processes_with_other_hashes(sim_seed: int) -> None:
    command = [
        *(sys.executable, "-m", "actorkit.testing.simulation.command", "tests.simulation.trials:CAPACITY"),
        *("--digests", "--seeds", "6", "--first", str(sim_seed)),
    ]
    digests = [
        subprocess.run(
            command, cwd=PROJECT, env={**os.environ, "PYTHONHASHSEED": hashes}, capture_output=True, check=True
        ).stdout
        for hashes in ("1", "2")
    ]
    assert digests[0].count(b"\n") == 6
    assert digests[0] == digests[1]
    # And in this process, which has run others before.
    last = digests[0].splitlines()[-1].split()
    assert CAPACITY.run(CAPACITY.trial(int(last[0]))).digest == last[1].decode()

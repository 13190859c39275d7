"""The checkers are checked: with a protection turned off, the simulation finds what it prevents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from actorkit.testing.simulation.search import attempt
from tests.simulation.switches import SWITCHES, Switch, seeds_needed

SEEDS_MAX = 100
"""The table in ``docs/guarantees.md`` says how many it takes."""
CONTROLS = 12

by_name = pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: switch.name.replace(" ", "-"))


def test_the_guarantees_name_every_switch() -> None:
    text = (Path(__file__).parent.parent.parent / "docs" / "guarantees.md").read_text()
    table = text[text.index("| switch | what is turned off |") :].partition("\n\n")[0]
    assert re.findall(r"^\| ([a-z][a-z -]*) \| ([^|]*) \| [\d.]+ \| \d+ \|$", table, re.MULTILINE) == [
        (switch.name, switch.turns_off) for switch in SWITCHES
    ]


@by_name
def test_without_a_protection_its_violation_is_found(switch: Switch, sim_seed: int) -> None:
    assert seeds_needed(switch, first=sim_seed, seeds_max=SEEDS_MAX) is not None


@by_name
def test_with_the_protection_the_same_plans_find_nothing(switch: Switch, sim_seed: int) -> None:
    simulation = switch.protected
    for seed in range(sim_seed, sim_seed + CONTROLS):
        found = attempt(simulation, simulation.trial(seed), limit_s=0).findings
        assert not found, f"seed {seed}: {'; '.join(map(str, found))}"

"""Shrinking: what is left of a failing trial is what it needs, it is written down, and a test runs it again."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from actorkit.testing.simulation.faults import Fault, FaultPlan
from actorkit.testing.simulation.search import attempt, shrunk
from actorkit.testing.simulation.shrink import shrink
from actorkit.testing.simulation.trial import Case, Result, Trial
from tests.simulation.switches import SWITCHES
from tests.simulation.test_seeds import findings_of
from tests.simulation.toy import TOY, Asked
from tests.simulation.trials import CapacitySimulation, Load


def test_only_what_a_finding_needs_is_left() -> None:
    smallest, result = shrink(TOY.trial(30), "G", run=TOY.run, simpler=TOY.simpler, more=lambda tries: True)
    assert [fault.kind for fault in smallest.plan.faults] == ["crash", "partition"]
    assert smallest.settings == Asked(operations=5, clients=1)
    assert all(0.3 < fault.intensity <= 0.6 for fault in smallest.plan.faults)
    assert all(fault.duration_s <= 0.04 for fault in smallest.plan.faults)
    assert smallest.plan.heal_at_s < 20
    assert "G" in result.kinds
    assert TOY.run(smallest) == result


def test_it_stops_when_there_were_enough_tries_with_the_best_so_far() -> None:
    ran: list[Trial[Asked]] = []

    def run(trial: Trial[Asked]) -> Result:
        ran.append(trial)
        return TOY.run(trial)

    smallest, result = shrink(TOY.trial(30), "F", run=run, simpler=TOY.simpler, more=lambda tries: tries < 9)
    assert len(ran) == 9
    assert smallest in ran
    assert "F" in result.kinds


def test_what_is_not_found_again_is_an_error() -> None:
    with pytest.raises(ValueError, match="seed 31 has no finding of the kind G"):
        shrink(TOY.trial(31), "G", run=TOY.run, simpler=TOY.simpler, more=lambda tries: True)


def test_a_case_outlives_the_process_as_json() -> None:
    case = shrunk(TOY, TOY.trial(50), "F")
    assert case.found == "and an event is missing"
    assert Case.decode(case.encode(), Asked) == case
    nonsense = FaultPlan((Fault("nonsense", 1.0, 1.0),), 2.0)
    broken = msgspec.structs.replace(case, trial=msgspec.structs.replace(case.trial, plan=nonsense))
    with pytest.raises(msgspec.ValidationError, match="no faults of the kind nonsense"):
        Case.decode(broken.encode(), Asked)


def test_a_failing_run_is_made_smaller_kept_in_a_file_and_found_again_until_it_is_mended(tmp_path: Path) -> None:
    """The whole way, on the capacity service with its deduplication turned off."""
    switch = next(switch for switch in SWITCHES if switch.name == "deduplication")
    load = Load(operations=60, hazards=0, readers=0)
    simulation, path = CapacitySimulation(kinds=switch.kinds, share=0.66, nodes=1, load=load), tmp_path / "found.json"
    with switch.off():
        for seed in range(1, 100):
            trial = simulation.trial(seed)
            kinds = attempt(simulation, trial, limit_s=0).kinds & switch.finds
            if kinds:
                break
        else:
            pytest.fail("99 seeds have not found that keys are forgotten")
        kind = min(kinds)
        case = shrunk(simulation, trial, kind, tries_max=40)
        path.write_bytes(case.encode())

        # As ``test_what_was_found_once_is_not_found_again`` does it, which knows nothing of the switch.
        replayed = Case.decode(path.read_bytes(), Load)
        again = findings_of(replayed.trial)
        assert again == list(case.findings)
        assert kind in {finding.kind for finding in again}
        assert len(replayed.trial.plan.faults) <= len(trial.plan.faults)
        assert replayed.trial.settings.operations < trial.settings.operations
    assert findings_of(replayed.trial) == []

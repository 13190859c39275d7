"""Faults, kind by kind: each one alone really does something and no harm, and a healed world serves again."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from pathlib import Path

import pytest

from actorkit import SystemSettings
from actorkit.persistence.settings import PersistenceSettings
from actorkit.sharding.settings import ShardingSettings
from actorkit.testing.checkers import check_linearizable
from actorkit.testing.simulation import CATALOGUE, Fault, FaultPlan
from actorkit.testing.simulation.injection import INJECTIONS
from examples.capacity_service.model import PoolModel
from tests.simulation.capacity import Capacity, CapacitySettings
from tests.simulation.trials import CAPACITY

PROJECT = Path(__file__).parent.parent.parent
SEEDS = 3
BUSY = SystemSettings(
    persistence=PersistenceSettings(snapshot_every_events=5, keys_in_memory=8, recovery_page_events=10),
    sharding=ShardingSettings(entities_max=2, passivate_after_s=0.2),
)
"""Entities leave memory all the time, so that much is read, and snapshots are stored."""
NODES = ("node-1", "node-2", "node-3")
BETWEEN_MEMBERS = frozenset({"non_transitive_links", "member_partition"})
"""These leave clients alone, so that they matter only where nodes form a cluster."""


def strong_plan(kind: str, intensity: float) -> FaultPlan:
    """Long enough for what is rare, at each node in turn."""
    hits = CATALOGUE[kind].hits
    faults = [
        Fault(kind, 1.0 + 2.5 * number, 2.0, name if hits == "node" else "", intensity)
        for number, name in enumerate(NODES[: max(2, CATALOGUE[kind].nodes_min)])
    ]
    return FaultPlan(tuple(faults), 10.0)


def test_every_kind_of_fault_can_be_injected() -> None:
    assert INJECTIONS.keys() == CATALOGUE.keys()


def test_the_guarantees_say_which_kind_is_which_fault() -> None:
    text = (PROJECT / "docs" / "guarantees.md").read_text()
    table = text[text.index("| fault | kinds of fault in the simulation |") :].partition("\n\n")[0]
    told: dict[str, set[int]] = {kind: set() for kind in CATALOGUE}
    for number, kinds in re.findall(r"^\| (\d+) [^|]*\| ([^|]*) \|$", table, re.MULTILINE):
        for kind in set(re.findall(r"`(\w+)`", kinds)) & CATALOGUE.keys():
            told[kind].add(int(number))
    assert told == {kind: set(known.numbers) for kind, known in CATALOGUE.items()}


@pytest.mark.parametrize("intensity", [0.3, 1.0])
@pytest.mark.parametrize("kind", [kind for kind, known in CATALOGUE.items() if known.in_swarm])
def test_each_kind_of_fault_alone_does_something_and_no_harm(kind: str, intensity: float) -> None:
    did: Counter[str] = Counter()
    for seed in range(SEEDS):
        nodes = max(2, CATALOGUE[kind].nodes_min)
        settings = CapacitySettings(
            nodes=nodes,
            clustered=kind in BETWEEN_MEMBERS,
            clients=8,
            operations=300,
            think_s=(0.0, 0.3),
            system=BUSY,
        )
        capacity = Capacity(seed, strong_plan(kind, intensity), settings)
        history = capacity.run()
        # Among them: a pool that is not served 5 s after healing.
        assert capacity.findings == [], capacity.world.report()
        assert [verdict for verdict in check_linearizable(history, PoolModel()) if not verdict.ok] == []
        did += capacity.world.did
    assert set(did) <= {kind}
    assert did[kind] >= SEEDS


def test_what_users_do_wrong_is_done() -> None:
    """Faults 27 to 29, which are in the workload: handlers fail and overrun, callers hang up, readers are slow."""
    outcomes: Counter[str] = Counter()
    for seed in range(1, 13):
        _, run = CAPACITY.ran(CAPACITY.trial(seed))
        for operation in run.history.operations:
            said = str(operation.value).partition(":")[0] if operation.completed_us is not None else "never heard"
            outcomes[f"{operation.name} {said}"] += 1
            outcomes[said] += 1
    for name in ("raise_after_emit", "emit_unapplicable", "overrun", "raise_at_once"):
        assert outcomes[f"{name} HandlerFailed"] > 0, outcomes
    assert outcomes["show RecoveryFailed"] > 0
    assert outcomes["add never heard"] > 0
    assert outcomes["Overloaded"] > 0, outcomes


def small() -> Capacity:
    return Capacity(
        5, FaultPlan(heal_at_s=6.0), CapacitySettings(operations=40, clients=3, pools=1, think_s=(0.0, 0.05))
    )


def assert_no_harm(capacity: Capacity) -> None:
    history = capacity.run()
    assert capacity.findings == [], capacity.world.report()
    assert [verdict for verdict in check_linearizable(history, PoolModel()) if not verdict.ok] == []


def test_an_io_error_on_each_single_write_does_no_harm() -> None:
    for number in itertools.count(1):
        capacity = small()
        capacity.world.store.faults.fail_write.add(number)
        assert_no_harm(capacity)
        if not capacity.world.did["write_errors"]:
            break
    assert number > 30


def test_an_io_error_on_each_single_sync_ends_the_process_and_does_no_harm() -> None:
    for number in itertools.count(1):
        capacity = small()
        capacity.world.store.faults.fail_sync.add(number)
        assert_no_harm(capacity)
        if not capacity.world.did["sync_error"]:
            break
        assert capacity.world.nodes[0].lives >= 2
    assert number > 30


def test_a_store_that_goes_back_ends_every_process_and_what_is_left_is_served() -> None:
    """What only the lost part knew is lost; nobody goes on with a state that the journal does not have any more."""
    for seed in range(SEEDS):
        plan = FaultPlan((Fault("store_goes_back", 4.0, 0.0, "", 0.4),), 5.0)
        capacity = Capacity(seed, plan, CapacitySettings(nodes=2, operations=100))
        history = capacity.run()
        assert capacity.findings == [], capacity.world.report()
        assert capacity.world.did["store_goes_back"] > 0
        assert [node.lives for node in capacity.world.nodes] == [2, 2]
        lost_us = 4_000_000
        told_since = [each for each in history.operations if each.invoked_us > lost_us + 2_000_000]
        assert {each.outcome.value for each in told_since} >= {"replied"}

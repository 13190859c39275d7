"""All checkers on one run: the invariants A to I, and the promises about answers, memory and time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from actorkit.persistence.actor import entity_type_of
from actorkit.testing.checkers import (
    Contents,
    History,
    Reading,
    Seen,
    Verdict,
    Violation,
    audit_journal,
    check_acknowledged,
    check_limits,
    check_linearizable,
    check_seen,
    check_snapshots,
    render,
)
from actorkit.testing.simulation.trial import Finding
from examples.capacity_service.entity import Pool
from examples.capacity_service.invariants import PoolFacts, check_pools, pools_of
from examples.capacity_service.model import PoolModel
from tests.simulation.hazards import CROWDED, UNREADABLE, Meter, MeterModel, Sink, check_meters

__all__ = ["judge"]

_ANEW = ("pool-not-found", "reservation-not-found", "invalid-request", "overloaded")


def judge(
    history: History,
    contents: Contents,
    *,
    seen: Sequence[Seen] = (),
    converged: Sequence[Violation] = (),
    readings: Sequence[Reading] = (),
    limits: dict[str, float] | None = None,
) -> Iterator[Finding]:
    """Everything that is wrong with what callers were told, what the journal holds and what the views showed."""
    exact = [each for each in history.operations if each.entity not in CROWDED]
    for verdict in check_linearizable(exact, {"pool": PoolModel(), "meter": MeterModel()}):
        if verdict.verdict is Verdict.GAVE_UP:
            yield Finding("gave up", f"{verdict.entity}: no verdict after {verdict.steps} steps")
        elif not verdict.ok:
            yield Finding("G", render([verdict]))
    records = [record for events in contents.streams.values() for record in events]
    pools, beyond = pools_of(records)
    answered = [each for each in history.operations if each.entity != UNREADABLE]
    violations = [
        *beyond,
        *check_pools(history, pools),
        *audit_journal(contents),
        *check_acknowledged(contents, answered, refusals_decided_anew=_ANEW),
        *check_snapshots(contents, [entity_type_of(each) for each in (Pool, Meter, Sink)]),
        *check_meters(contents.streams, history.operations),
        *check_seen(seen),
        *_check_shown(seen, pools),
        *converged,
        *check_limits(readings, limits or {}),
        *_check_unreadable(history),
    ]
    for violation in violations:
        yield Finding(violation.invariant, f"{violation.subject}: {violation.what}")


def _check_shown(seen: Sequence[Seen], pools: dict[str, PoolFacts]) -> Iterator[Violation]:
    """E: what a view showed at a version is what the journal has at that version."""
    for each in seen:
        facts = pools.get(f"pool/{each.key}", PoolFacts())
        if each.version >= len(facts.remaining):
            what = f"{each.node} showed version {each.version}, and the journal ends with {len(facts.remaining) - 1}"
            yield Violation("I", each.key, what)
        elif each.value["remaining"] != facts.remaining[each.version]:
            right = facts.remaining[each.version]
            what = f"{each.node} showed {each.value['remaining']} remaining in version {each.version}, not {right}"
            yield Violation("E", each.key, what)


def _check_unreadable(history: History) -> Iterator[Violation]:
    """An entity that cannot be rebuilt answers nobody."""
    for operation in history.operations:
        if operation.entity == UNREADABLE and operation.value is not None and operation.outcome.value == "replied":
            yield Violation(
                "P7", UNREADABLE, f"operation {operation.number} was answered from a state that is no state"
            )

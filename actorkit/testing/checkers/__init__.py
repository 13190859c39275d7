"""Checkers: was what the callers saw, and what the journal holds, right?

They judge what a run left behind and know nothing of how it ran, so they work on a simulation and on real processes
alike. Each returns what it found rather than raising it. After a run::

    history = recorder.history(seed=seed, ran=command)        # what callers did and were told
    contents = await read_contents(store)                     # what the store holds
    verdicts = check_linearizable(history, PoolModel())       # G, and A to D by the model
    violations = [
        *audit_journal(contents),                             # F
        *check_acknowledged(contents, history),               # I
        *check_snapshots(contents, [entity_type]),            # P7
        *check_seen(seen),                                    # E, while it ran
        *check_converged(node, view.items(), await read_published(store, entity_type, "availability")),
        *check_limits(readings, limits),                      # P9
    ]
    assert all(verdict.ok for verdict in verdicts) and not violations, render(verdicts, violations)

``python -m actorkit.testing.checkers history.jsonl --model package.module:Model`` judges a recorded history.
"""

from actorkit.testing.checkers.bounds import Reading, check_growth, check_limits
from actorkit.testing.checkers.contents import Contents, read_contents
from actorkit.testing.checkers.history import History, HistoryError, Operation, Outcome, Recorder
from actorkit.testing.checkers.journal_audit import audit_journal, check_acknowledged, check_snapshots
from actorkit.testing.checkers.linearizability import EntityVerdict, Verdict, check_entity, check_linearizable
from actorkit.testing.checkers.model import Model
from actorkit.testing.checkers.persistent_map import PersistentMap
from actorkit.testing.checkers.read_model import Seen, check_converged, check_seen, read_published
from actorkit.testing.checkers.report import render
from actorkit.testing.checkers.violation import Violation

__all__ = [
    "Contents",
    "EntityVerdict",
    "History",
    "HistoryError",
    "Model",
    "Operation",
    "Outcome",
    "PersistentMap",
    "Reading",
    "Recorder",
    "Seen",
    "Verdict",
    "Violation",
    "audit_journal",
    "check_acknowledged",
    "check_converged",
    "check_entity",
    "check_growth",
    "check_limits",
    "check_linearizable",
    "check_seen",
    "check_snapshots",
    "read_contents",
    "read_published",
    "render",
]

"""Checkers: was what the callers saw, and what the journal holds, right?

They judge what a run left behind and know nothing of how it ran, so they work on a simulation and on real processes
alike: a *history* of operations as the callers saw them (``Recorder``, ``History``), the journal's records, readings of
the read model. All of them are pure; each returns what it found rather than raising it.
"""

from actorkit.testing.checkers.history import History, HistoryError, Operation, Outcome, Recorder
from actorkit.testing.checkers.linearizability import EntityVerdict, Verdict, check_entity, check_linearizable
from actorkit.testing.checkers.model import Model
from actorkit.testing.checkers.persistent_map import PersistentMap
from actorkit.testing.checkers.report import render
from actorkit.testing.checkers.violation import Violation

__all__ = [
    "EntityVerdict",
    "History",
    "HistoryError",
    "Model",
    "Operation",
    "Outcome",
    "PersistentMap",
    "Recorder",
    "Verdict",
    "Violation",
    "check_entity",
    "check_linearizable",
    "render",
]

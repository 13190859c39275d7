"""Checkers: was what the callers saw, and what the journal holds, right?

They judge what a run left behind and know nothing of how it ran, so they work on a simulation and on real processes
alike: a *history* of operations as the callers saw them (``Recorder``, ``History``), the journal's records, readings of
the read model. All of them are pure; each returns what it found rather than raising it.
"""

from actorkit.testing.checkers.history import History, HistoryError, Operation, Outcome, Recorder

__all__ = ["History", "HistoryError", "Operation", "Outcome", "Recorder"]

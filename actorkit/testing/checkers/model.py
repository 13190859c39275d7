"""What an entity is supposed to do, one operation after the other: the specification that a history is held against.

A model is written from what callers were promised, not from the code under test. It is a small pure state machine: from
a state and an operation with its outcome to the states in which the entity may be afterwards::

    class Register(Model[int]):
        reads = frozenset({"read"})

        def initial(self) -> int:
            return 0

        def step(self, state: int, operation: Operation) -> Collection[int]:
            if operation.name == "write":
                return (operation.arguments[0],)
            return (state,) if operation.value == state else ()

What the entity chose freely (generated ids, times) the model takes from the reply. Where the outcome is unknown there
is no reply to take it from: the model then returns states with something nameless in them, which a later operation that
names it may bind (see ``examples/capacity_service/model.py``).
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import Protocol, TypeVar

from actorkit.testing.checkers.history import Operation

__all__ = ["Model"]

S = TypeVar("S", bound=Hashable)


class Model(Protocol[S]):
    """Subclass it; ``initial`` and ``step`` are enough. States are immutable and hashable.

    For states that hold much, ``PersistentMap`` keeps a step cheap.
    """

    reads: frozenset[str] = frozenset()
    """Names of the operations that never change the state. Saying so makes checking fast and reports short."""
    refusals_decided_anew: frozenset[str] = frozenset()
    """Codes of refusals that are not remembered under an idempotency key (``remembered=False``)."""

    def initial(self) -> S:
        """The state of an entity that nobody has asked for anything."""
        ...

    def step(self, state: S, operation: Operation) -> Collection[S]:
        """The states that the entity may be in after it has executed the operation in ``state`` and given this answer.

        None of them: it cannot have answered that. For ``Outcome.UNKNOWN``, which says nothing of the answer: every
        state that the execution may have led to; that it did not happen at all is not the model's business. A refusal
        (``Outcome.REJECTED``) leaves the state as it is. Operations that were not executed never come here.
        """
        ...

    def describe(self, state: S) -> str:
        """The state, for a report."""
        return repr(state)

    def expected(self, state: S, operation: Operation) -> str:
        """What the right answer would have been, for a report; empty: not said."""
        return ""

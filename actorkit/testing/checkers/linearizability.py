"""Linearizability: is there one order of operations, each within its interval, that explains every answer?

Entity by entity, since a history is linearizable if each object's part of it is (Herlihy and Wing's locality).
``search`` looks for the order, ``minimise`` finds out which answers contradict each other where there is none, and
``report`` says it to a person. The problem is NP-complete: in bad cases the search gives up after a number of steps,
and says so; that is no verdict.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from actorkit.testing.checkers.attempts import effects_of
from actorkit.testing.checkers.history import History, Operation
from actorkit.testing.checkers.minimise import WrongHistory, minimise
from actorkit.testing.checkers.model import Model
from actorkit.testing.checkers.search import search
from actorkit.testing.checkers.violation import Violation

__all__ = ["EntityVerdict", "Verdict", "check_entity", "check_linearizable"]

_STEPS_MAX: Final = 500_000
"""Some 400 bytes of memory and 5 µs each, at most."""


class Verdict(enum.Enum):
    """What became of the search."""

    LINEARIZABLE = "linearizable"
    WRONG = "not linearizable"
    GAVE_UP = "gave up"
    """Neither: the steps were used up."""


class EntityVerdict(msgspec.Struct, frozen=True):
    """Whether one entity's part of a history can be explained."""

    entity: str
    verdict: Verdict
    operations: int
    steps: int
    """How often the model was asked."""
    order: list[int]
    """The numbers of the operations in an order that explains everything, where there is one."""
    wrong: WrongHistory | None = None
    contradictions: list[Violation] = []
    """What the answers under one idempotency key contradict each other in."""

    @property
    def ok(self) -> bool:
        return self.verdict is Verdict.LINEARIZABLE and not self.contradictions


def check_linearizable(
    history: History | Iterable[Operation],
    model: Model[Any] | Mapping[str, Model[Any]],
    *,
    steps_max: int = _STEPS_MAX,
    only: Callable[[Operation], bool] | None = None,
) -> list[EntityVerdict]:
    """A verdict for each entity in the history, in the order of their names.

    ``model`` is for all entities, or by entity type; entities of other types are left alone. ``only`` picks the
    operations that are promised to be linearizable: leave out reads of a read model. ``steps_max`` is for each entity.
    """
    parts: dict[str, list[Operation]] = {}
    for operation in history.operations if isinstance(history, History) else history:
        if only is None or only(operation):
            parts.setdefault(operation.entity, []).append(operation)
    verdicts: list[EntityVerdict] = []
    for entity, operations in sorted(parts.items()):
        chosen = model.get(entity.partition("/")[0]) if isinstance(model, Mapping) else model
        if chosen is not None:
            verdicts.append(check_entity(entity, operations, chosen, steps_max=steps_max))
    return verdicts


def check_entity(
    entity: str, operations: Iterable[Operation], model: Model[Any], *, steps_max: int = _STEPS_MAX
) -> EntityVerdict:
    """The verdict on one entity's operations."""
    effects, contradictions = effects_of(operations, model)
    found = search(effects, model, steps_max=steps_max)
    verdict = {True: Verdict.LINEARIZABLE, False: Verdict.WRONG, None: Verdict.GAVE_UP}[found.linearizable]
    return EntityVerdict(
        entity=entity,
        verdict=verdict,
        operations=len(effects),
        steps=found.steps,
        order=[effect.operation.number for effect in found.order],
        wrong=minimise(effects, model, found, steps_max=steps_max) if verdict is Verdict.WRONG else None,
        contradictions=contradictions,
    )

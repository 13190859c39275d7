"""From what callers sent to what may have taken effect: the attempts under one idempotency key are one effect.

All attempts with one key get the answer of the one that was executed, whichever that was. So they are joined into one
operation, which took effect between the first of them being sent and the first answer to any of them. This loses
nothing: wherever in that interval the effect lies, the first attempt may have caused it, and every later answer is a
repetition. The model then knows nothing of keys, and an attempt of unknown outcome whose retry was answered is known.

What was surely not executed (``Overloaded``, ``Unavailable``) has no effect and is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from actorkit.testing.checkers.history import Operation, Outcome
from actorkit.testing.checkers.model import Model
from actorkit.testing.checkers.violation import Violation

__all__ = ["Effect", "effects_of"]

KEY_REUSED: Final = frozenset({"actorkit.idempotency-key-reused", "idempotency-key-reused"})


class Effect(msgspec.Struct, frozen=True, eq=False):
    """Something that happened at one moment from ``began`` to ``ended``."""

    operation: Operation
    """What was asked and answered; of several attempts the one that was answered first."""
    began: tuple[int, int]
    ended: tuple[int, int] | None
    """``None``: at any later time, or never."""
    optional: bool = False
    """It may also not have happened at all, although it has an end."""
    attempts: int = 1


def effects_of(operations: Iterable[Operation], model: Model[Any]) -> tuple[list[Effect], list[Violation]]:
    """The effects of one entity's operations, and what the answers under one key contradict each other in."""
    effects: list[Effect] = []
    violations: list[Violation] = []
    keyed: dict[str, list[Operation]] = {}
    for operation in operations:
        if operation.outcome is Outcome.NOT_EXECUTED:
            continue
        if operation.key is None or _decided_anew(operation, model):
            effects.append(Effect(operation, operation.began, operation.ended))
        else:
            keyed.setdefault(operation.key, []).append(operation)
    for key, attempts in keyed.items():
        joined, wrong = _join(key, attempts)
        effects += joined
        violations += wrong
    effects.sort(key=lambda effect: effect.began)
    return effects, violations


def _decided_anew(operation: Operation, model: Model[Any]) -> bool:
    return operation.code in model.refusals_decided_anew


def _join(key: str, attempts: Sequence[Operation]) -> tuple[list[Effect], list[Violation]]:
    variants: dict[bytes, list[Operation]] = {}
    misused: list[Operation] = []
    for attempt in attempts:
        if attempt.code in KEY_REUSED:
            misused.append(attempt)
        else:
            variants.setdefault(_digest(attempt), []).append(attempt)
    answered = {digest: _answered(variant) for digest, variant in variants.items()}
    subject = f"{attempts[0].entity}, key {key!r}"
    violations = [
        Violation("P3", subject, f"operation {attempt.number} was told that its key was used otherwise: it was not")
        for attempt in misused
        if not variants.keys() - {_digest(attempt)}
    ]
    with_answer = [digest for digest, answers in answered.items() if answers]
    if len(with_answer) > 1:
        numbers = ", ".join(str(answered[digest][0].number) for digest in with_answer)
        violations.append(Violation("P3", subject, f"several different commands were executed: operations {numbers}"))
    for digest in with_answer:
        first, *others = answered[digest]
        violations += [
            Violation("P3", subject, f"operation {other.number} was answered otherwise than operation {first.number}")
            for other in others
            if (other.outcome, other.value) != (first.outcome, first.value)
        ]
    # Once one of the variants was executed, the key stands for that one, and the others never are.
    chosen = with_answer or list(variants)
    return [_one(variants[digest], answered[digest]) for digest in chosen], violations


def _answered(variant: Sequence[Operation]) -> list[Operation]:
    return sorted((each for each in variant if each.ended is not None), key=lambda each: (each.ended, each.number))


def _one(variant: Sequence[Operation], answered: Sequence[Operation]) -> Effect:
    operation = answered[0] if answered else variant[0]
    began = min(each.began for each in variant)
    return Effect(operation, began, operation.ended, attempts=len(variant))


def _digest(operation: Operation) -> bytes:
    return msgspec.json.encode((operation.name, operation.arguments), order="deterministic")

"""Says to a person what a checker found: a time line of the answers that contradict each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from actorkit.testing.checkers.attempts import Effect
from actorkit.testing.checkers.history import Operation, Outcome
from actorkit.testing.checkers.linearizability import EntityVerdict, Verdict
from actorkit.testing.checkers.minimise import WrongHistory
from actorkit.testing.checkers.violation import Violation

__all__ = ["render", "render_verdict"]

_BAR_COLUMNS: Final = 24
_VALUE_CHARS: Final = 120
_STATES_SHOWN: Final = 3


def render(verdicts: Iterable[EntityVerdict], violations: Iterable[Violation] = ()) -> str:
    """A summary, and a report of everything that is not all right."""
    verdicts = list(verdicts)
    by_verdict = {kind: sum(each.verdict is kind for each in verdicts) for kind in Verdict}
    said = ", ".join(f"{count} {kind.value}" for kind, count in by_verdict.items() if count) or "nothing to check"
    operations, steps = sum(each.operations for each in verdicts), sum(each.steps for each in verdicts)
    parts = [f"{len(verdicts)} entities, {operations} operations, {steps} steps: {said}"]
    parts += [render_verdict(each) for each in verdicts if not each.ok]
    parts += [str(violation) for violation in violations]
    return "\n\n".join(parts)


def render_verdict(verdict: EntityVerdict) -> str:
    """The report of one entity."""
    lines = [f"{verdict.entity}: {verdict.verdict.value} ({verdict.operations} operations, {verdict.steps} steps)"]
    if verdict.verdict is Verdict.GAVE_UP:
        lines.append("  The search used up its steps: this says nothing. Allow it more, or make the history shorter.")
    lines += [f"  {contradiction}" for contradiction in verdict.contradictions]
    if verdict.wrong is not None:
        lines += _wrong(verdict.wrong)
    return "\n".join(lines)


def _wrong(wrong: WrongHistory) -> Iterator[str]:
    count = len(wrong.contradiction)
    yield f"  The answers marked ! contradict each other ({count} of them). The one that fits nowhere is marked >."
    if any(effect.operation.number not in wrong.contradiction for effect in wrong.effects):
        yield "  Those marked ? may have happened or not, whatever they were told: it does not help."
    if wrong.left_out:
        yield f"  {wrong.left_out} more operations are left out: whatever became of them, it does not help."
    for state in wrong.before[:_STATES_SHOWN]:
        yield f"  possible after the earlier ones of those: {state}"
    if len(wrong.before) > _STATES_SHOWN:
        yield f"  … or one of {len(wrong.before) - _STATES_SHOWN} other states"
    yield ""
    yield from _timeline(wrong)
    yield ""
    yield f"  When it came to operation {wrong.culprit.operation.number}, this was possible:"
    for state, expected in wrong.possible:
        yield f"    {state}" + (f"; it should have answered {expected}" if expected else "")


def _timeline(wrong: WrongHistory) -> Iterator[str]:
    times = [effect.began[0] for effect in wrong.effects]
    times += [effect.ended[0] for effect in wrong.effects if effect.ended is not None]
    origin_us, last_us = min(times), max(times)
    # By rank rather than by time: intervals of microseconds and of hours stand in one history.
    moments = sorted({moment for effect in wrong.effects for moment in (effect.began, effect.ended) if moment})
    columns = {moment: rank * (_BAR_COLUMNS - 1) // max(1, len(moments) - 1) for rank, moment in enumerate(moments)}
    client_width = max(len(effect.operation.client) for effect in wrong.effects)
    yield f"  times in µs since {origin_us}, over {last_us - origin_us} µs"
    for effect in wrong.effects:
        operation = effect.operation
        mark = "?"
        if operation.number in wrong.contradiction:
            mark = ">" if operation.number == wrong.culprit.operation.number else "!"
        end = "…" if effect.ended is None else str(effect.ended[0] - origin_us)
        when = f"{effect.began[0] - origin_us} to {end}"
        again = f" ({effect.attempts} attempts)" if effect.attempts > 1 else ""
        yield (
            f"  {mark} {operation.client:<{client_width}} {_bar(effect, columns)} {when:>18}  "
            f"#{operation.number} {_call(operation)} → {_answer(operation)}{again}"
        )


def _bar(effect: Effect, columns: dict[tuple[int, int], int]) -> str:
    first = columns[effect.began]
    last = _BAR_COLUMNS - 1 if effect.ended is None else columns[effect.ended]
    bar = "├" + "─" * (last - first - 1) + ("┄" if effect.ended is None else "┤") if last > first else "│"
    return (" " * first + bar).ljust(_BAR_COLUMNS)


def _call(operation: Operation) -> str:
    arguments = ", ".join(_short(argument) for argument in operation.arguments)
    key = f" key={operation.key!r}" if operation.key is not None else ""
    return f"{operation.name}({arguments}){key}"


def _answer(operation: Operation) -> str:
    if operation.outcome is Outcome.REPLIED:
        return _short(operation.value)
    if operation.outcome is Outcome.REJECTED:
        details = f" {_short(dict(operation.details))}" if operation.details else ""
        return f"refused: {operation.code}{details}"
    return f"unknown ({operation.value})" if operation.value else "unknown"


def _short(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _VALUE_CHARS else text[: _VALUE_CHARS - 1] + "…"

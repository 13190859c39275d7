"""Linearizability: what can be explained is accepted, what cannot is found, and the report shows the contradiction."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actorkit.testing.checkers import (
    History,
    Model,
    Operation,
    Outcome,
    Verdict,
    check_entity,
    check_linearizable,
    render,
)
from actorkit.testing.checkers.attempts import Effect, effects_of
from actorkit.testing.checkers.search import search
from tests.checkers.models import Counter, KeyedCounter, Register, Shelf, brute_force, mutated, right_history

MODELS: list[Model[Any]] = [Register(), Counter(), Shelf()]
seeds = st.integers(0, 1 << 32)


def verdict(operations: list[Operation], model: Model[Any]) -> Verdict:
    return check_entity("thing/1", operations, model).verdict


def made(*rows: tuple[str, str, tuple[Any, ...], int, int | None, Any], **changed: Any) -> list[Operation]:
    """Operations by client, name, arguments, beginning, end (``None``: unknown) and value."""
    return [
        Operation(
            number=number,
            client=client,
            entity="thing/1",
            name=name,
            arguments=arguments,
            invoked_us=invoked_us,
            completed_us=completed_us,
            outcome=Outcome.UNKNOWN if completed_us is None else Outcome.REPLIED,
            value=value,
            **changed,
        )
        for number, (client, name, arguments, invoked_us, completed_us, value) in enumerate(rows, 1)
    ]


# ------------------------------------------------------------------------------------------------------- by definition


@settings(deadline=None)
@given(seeds, st.sampled_from(MODELS), st.integers(1, 60), st.integers(1, 5))
def test_what_was_right_is_accepted(seed: int, model: Model[Any], operations: int, clients: int) -> None:
    history = right_history(Random(seed), model, operations=operations, clients=clients, unknown=0.15, not_executed=0.1)
    found = check_entity("thing/1", history, model)
    assert found.verdict is Verdict.LINEARIZABLE
    assert set(found.order) >= {each.number for each in history if each.ended and each.outcome is Outcome.REPLIED}


@settings(max_examples=300, deadline=None)
@given(seeds, st.sampled_from(MODELS), st.integers(1, 6), st.integers(1, 3))
def test_it_agrees_with_trying_every_order(seed: int, model: Model[Any], operations: int, clients: int) -> None:
    random = Random(seed)
    history = right_history(random, model, operations=operations, clients=clients, unknown=0.2, not_executed=0.1)
    history = mutated(random, history)
    expected = Verdict.LINEARIZABLE if brute_force(history, model) else Verdict.WRONG
    assert verdict(history, model) is expected


@settings(max_examples=300, deadline=None)
@given(seeds, st.sampled_from(MODELS), st.integers(4, 14))
def test_what_the_report_calls_a_contradiction_is_one(seed: int, model: Model[Any], operations: int) -> None:
    random = Random(seed)
    history = mutated(random, right_history(random, model, operations=operations, clients=3, unknown=0.1))
    wrong = check_entity("thing/1", history, model).wrong
    if wrong is None:
        return
    effects, _ = effects_of(history, model)
    weakened: list[Effect] = []
    for effect in effects:
        operation = effect.operation
        if operation.number in wrong.contradiction or operation.outcome is Outcome.UNKNOWN:
            weakened.append(effect)
        elif operation.name not in model.reads and operation.outcome is Outcome.REPLIED:
            free = msgspec.structs.replace(operation, outcome=Outcome.UNKNOWN, value=None)
            weakened.append(msgspec.structs.replace(effect, operation=free, optional=True))
    assert wrong.culprit.operation.number in wrong.contradiction
    assert search(weakened, model, steps_max=100_000).linearizable is False


# ---------------------------------------------------------------------------------------------------------- by example


def test_a_stale_read_is_found() -> None:
    history = made(
        ("a", "write", (1,), 0, 10, None),
        ("b", "read", (), 20, 30, 0),
    )
    assert verdict(history, Register()) is Verdict.WRONG


def test_a_read_during_a_write_may_see_either() -> None:
    for seen in (0, 1):
        history = made(("a", "write", (1,), 0, 10, None), ("b", "read", (), 5, 8, seen))
        assert verdict(history, Register()) is Verdict.LINEARIZABLE


def test_two_reads_during_a_write_do_not_go_back() -> None:
    history = made(
        ("a", "write", (1,), 0, 100, None),
        ("b", "read", (), 10, 20, 1),
        ("b", "read", (), 30, 40, 0),
    )
    assert verdict(history, Register()) is Verdict.WRONG


def test_an_unknown_write_may_happen_much_later_once() -> None:
    late = made(
        ("a", "write", (1,), 0, None, None),
        ("b", "read", (), 10, 20, 0),
        ("b", "read", (), 30, 40, 1),
    )
    assert verdict(late, Register()) is Verdict.LINEARIZABLE
    twice = [
        *late,
        *(
            msgspec.structs.replace(each, number=each.number + 3)
            for each in made(("c", "write", (2,), 50, 60, None), ("c", "read", (), 70, 80, 1))
        ),
    ]
    assert verdict(twice, Register()) is Verdict.WRONG


def test_what_was_not_executed_never_happened() -> None:
    history = made(("a", "write", (1,), 0, 10, None), ("b", "read", (), 20, 30, 1))
    history[0] = msgspec.structs.replace(history[0], outcome=Outcome.NOT_EXECUTED)
    assert verdict(history, Register()) is Verdict.WRONG


def test_operations_within_one_microsecond_are_ordered_where_the_recorder_knows() -> None:
    history = made(("a", "write", (1,), 5, 5, None), ("a", "read", (), 5, 5, 0))
    assert verdict(history, Register()) is Verdict.LINEARIZABLE
    ordered = [
        msgspec.structs.replace(each, invoked_order=2 * n + 1, completed_order=2 * n + 2)
        for n, each in enumerate(history)
    ]
    assert verdict(ordered, Register()) is Verdict.WRONG


def test_each_entity_is_held_against_the_model_of_its_type() -> None:
    right, wrong = made(("a", "read", (), 0, 1, 0)), made(("a", "read", (), 0, 1, 5))
    wrong = [msgspec.structs.replace(each, entity="thing/2", number=2) for each in wrong]
    other = [msgspec.structs.replace(each, entity="other/1", number=3) for each in wrong]
    history = History((*right, *wrong, *other))
    verdicts = check_linearizable(history, {"thing": Register()})
    assert [(each.entity, each.verdict) for each in verdicts] == [
        ("thing/1", Verdict.LINEARIZABLE),
        ("thing/2", Verdict.WRONG),
    ]
    assert check_linearizable(history, Register(), only=lambda each: each.entity == "thing/1")[0].ok


def test_it_gives_up_after_its_steps() -> None:
    history = right_history(Random(1), Register(), operations=50, clients=4)
    found = check_entity("thing/1", history, Register(), steps_max=10)
    assert found.verdict is Verdict.GAVE_UP
    assert not found.ok
    assert "says nothing" in render([found])


def test_an_empty_history_is_right() -> None:
    assert verdict([], Register()) is Verdict.LINEARIZABLE
    assert "nothing to check" in render([])


# ---------------------------------------------------------------------------------------------------------------- keys


@st.composite
def keyed_attempts(draw: st.DrawFn) -> list[Operation]:
    """Calls on a counter, some of them attempts under one of two keys, with answers that may be right."""
    made: list[Operation] = []
    for number in range(1, draw(st.integers(1, 5)) + 1):
        key = draw(st.sampled_from([None, "k", "l"]))
        began_us, lasts_us = draw(st.integers(0, 12)), draw(st.integers(0, 6))
        known = draw(st.integers(0, 3)) > 0
        made.append(
            Operation(
                number=number,
                client=f"c{number}",
                entity="thing/1",
                name="add",
                arguments=(2 if key == "l" else 1,),
                key=key,
                invoked_us=began_us,
                completed_us=began_us + lasts_us if known else None,
                outcome=Outcome.REPLIED if known else Outcome.UNKNOWN,
                value=draw(st.integers(1, 4)) if known else None,
            )
        )
    return made


@settings(max_examples=300, deadline=None)
@given(keyed_attempts())
def test_joining_attempts_loses_nothing_and_adds_nothing(history: list[Operation]) -> None:
    assert check_entity("thing/1", history, Counter()).ok == brute_force(history, KeyedCounter())


def with_key(operations: list[Operation], key: str = "k") -> list[Operation]:
    return [msgspec.structs.replace(each, key=key) if each.name == "add" else each for each in operations]


def test_attempts_under_one_key_are_one_effect() -> None:
    attempts = with_key(
        made(
            ("a", "add", (1,), 0, None, None),
            ("a", "add", (1,), 10, 20, 1),
            ("a", "add", (1,), 30, 40, 1),
        )
    )
    found = check_entity("thing/1", attempts, Counter())
    assert found.ok
    assert found.operations == 1


def test_two_effects_under_one_key_are_found() -> None:
    attempts = with_key(made(("a", "add", (1,), 0, 5, 1), ("a", "add", (1,), 10, 20, 2)))
    found = check_entity("thing/1", attempts, Counter())
    assert [violation.invariant for violation in found.contradictions] == ["P3"]
    assert "answered otherwise" in render([found])


def test_a_second_effect_that_nobody_was_told_of_is_found() -> None:
    attempts = with_key(
        made(("a", "add", (1,), 0, None, None), ("a", "add", (1,), 10, 20, 1)),
    )
    after = made(("b", "add", (1,), 30, 40, 3))
    history = [*attempts, msgspec.structs.replace(after[0], number=3)]
    assert verdict(history, Counter()) is Verdict.WRONG


def test_one_key_for_two_commands_is_found() -> None:
    attempts = with_key(made(("a", "add", (1,), 0, 5, 1), ("a", "add", (2,), 10, 20, 3)))
    (violation,) = check_entity("thing/1", attempts, Counter()).contradictions
    assert "several different commands" in violation.what


def test_being_told_that_a_key_was_used_otherwise_must_be_true() -> None:
    told = {"code": "actorkit.idempotency-key-reused", "details": {}}
    attempts = with_key(made(("a", "add", (1,), 0, 5, 1), ("a", "add", (2,), 10, 20, told)))
    attempts[1] = msgspec.structs.replace(attempts[1], outcome=Outcome.REJECTED)
    assert check_entity("thing/1", attempts, Counter()).ok
    alone = check_entity("thing/1", attempts[1:], Counter())
    assert ["it was not" in violation.what for violation in alone.contradictions] == [True]


# -------------------------------------------------------------------------------------------------------------- report


def test_the_report_shows_the_contradiction_and_nothing_else() -> None:
    random = Random(3)
    history = right_history(random, Register(), operations=40, clients=3)
    last_us = max(each.completed_us or 0 for each in history)
    history += [
        msgspec.structs.replace(each, number=each.number + 100)
        for each in made(
            ("x", "write", (7,), last_us + 10, last_us + 20, None),
            ("y", "read", (), last_us + 30, last_us + 40, 3),
        )
    ]
    found = check_entity("thing/1", history, Register())
    assert found.wrong is not None
    assert found.wrong.contradiction == {101, 102}
    assert found.wrong.culprit.operation.number == 102
    assert found.wrong.left_out == 40
    report = render([found])
    assert "> y" in report
    assert "#102 read() → 3" in report
    assert "7; it should have answered 7" in report


def test_a_lost_update_is_pinned_down_to_the_two_answers() -> None:
    history = made(
        ("a", "add", (5,), 0, 10, 5),
        ("a", "add", (3,), 20, 30, 8),
        ("b", "add", (2,), 22, 40, 7),
        ("c", "add", (0,), 50, 60, 8),
    )
    found = check_entity("thing/1", history, Counter())
    assert found.wrong is not None
    assert found.wrong.contradiction == {2, 3}


def test_what_explains_an_answer_stays_in_the_report() -> None:
    history = made(
        ("a", "write", (5,), 0, 10, None),
        ("a", "swap", (5, 6), 20, 30, None),
        ("a", "read", (), 40, 50, 5),
    )
    found = check_entity("thing/1", history, Register())
    assert found.wrong is not None
    assert found.wrong.contradiction == {2, 3}
    # The swap would look impossible without the write.
    assert [effect.operation.number for effect in found.wrong.effects] == [1, 2, 3]
    assert "  ? a" in render([found])


def test_a_long_wrong_history_is_reported_from_a_quiet_moment_on() -> None:
    history = right_history(Random(5), Counter(), operations=500, clients=1)
    history[400] = msgspec.structs.replace(history[400], value=1)
    found = check_entity("thing/1", history, Counter())
    assert found.wrong is not None
    assert found.wrong.culprit.operation.number == 401
    assert len(found.wrong.effects) <= 3
    assert found.wrong.before


# --------------------------------------------------------------------------------------------------------- performance


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_a_thousand_operations_take_few_steps(model: Model[Any]) -> None:
    history = right_history(Random(11), model, operations=1_000, clients=8, unknown=0.01)
    found = check_entity("thing/1", history, model)
    assert found.verdict is Verdict.LINEARIZABLE
    assert found.steps < 50_000

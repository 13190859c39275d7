"""Histories: what is recorded comes back, and what cannot be read is said with its line."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from actorkit import OutcomeUnknown, Overloaded, Rejected, Unavailable
from actorkit.testing.checkers import History, HistoryError, Operation, Outcome, Recorder


def recorded() -> History:
    recorder = Recorder()
    first = recorder.invoke("a", "pool/p", "reserve", (3, None), at_us=10, key="k")
    second = recorder.invoke("b", "pool/p", "release", ("x", None), at_us=11, command_id="c-1")
    recorder.replied(first, {"remaining": 7, "tuple": (1, 2)}, at_us=12)
    recorder.rejected(second, "not-found", {"id": "x"}, at_us=12)
    recorder.invoke("a", "pool/p", "describe", at_us=12)
    return recorder.history(seed=7, ran="make simulate SEED=7")


def test_a_history_comes_back_as_it_was_written() -> None:
    history = recorded()
    assert History.from_lines(list(history.lines())) == history
    assert history.operations[0].value == {"remaining": 7, "tuple": [1, 2]}
    assert (history.seed, history.ran) == (7, "make simulate SEED=7")


def test_what_happened_within_one_microsecond_keeps_its_order() -> None:
    first, second, third = recorded().operations
    assert first.ended is not None
    assert second.ended is not None
    assert first.ended < second.ended < third.began


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Rejected("no", n=1), Outcome.REJECTED),
        (Overloaded("a queue", limit=1), Outcome.NOT_EXECUTED),
        (Unavailable("pool/p", "gone"), Outcome.NOT_EXECUTED),
        (OutcomeUnknown("pool/p", "who knows"), Outcome.UNKNOWN),
        (TimeoutError(), Outcome.UNKNOWN),
        (KeyError("a defect"), Outcome.UNKNOWN),
    ],
)
def test_how_a_call_may_end(error: Exception, outcome: Outcome) -> None:
    recorder = Recorder()
    recorder.failed(recorder.invoke("a", "pool/p", "reserve", at_us=1), error, at_us=2)
    (operation,) = recorder.history().operations
    assert operation.outcome is outcome
    if outcome is Outcome.REJECTED:
        assert (operation.code, operation.details) == ("rejected", {"n": 1})


def test_an_unknown_outcome_never_ends() -> None:
    recorder = Recorder()
    recorder.unknown(recorder.invoke("a", "pool/p", "reserve", at_us=1), "lost", at_us=2)
    (operation,) = recorder.history().operations
    assert operation.ended is None
    assert operation.completed_us == 2


def test_an_operation_ends_once() -> None:
    recorder = Recorder()
    number = recorder.invoke("a", "pool/p", "reserve", at_us=1)
    recorder.replied(number, None, at_us=2)
    with pytest.raises(ValueError, match="operation 1 has ended already"):
        recorder.replied(number, None, at_us=3)


def test_a_recorder_is_bounded() -> None:
    recorder = Recorder(operations_max=1)
    recorder.invoke("a", "pool/p", "reserve", at_us=1)
    with pytest.raises(OverflowError):
        recorder.invoke("a", "pool/p", "reserve", at_us=1)


HEADER = '{"format":1}'


def line(**changed: Any) -> str:
    operation = Operation(number=1, client="a", entity="pool/p", name="reserve", invoked_us=5)
    return msgspec.json.encode({**msgspec.to_builtins(operation), **changed}).decode()


@pytest.mark.parametrize(
    ("lines", "number", "why"),
    [
        ([], 1, "a header, at least"),
        (["{"], 1, "no header"),
        (['{"format":2}'], 1, "format 2"),
        ([HEADER, "nonsense"], 2, "no operation"),
        ([HEADER, '{"number":1}'], 2, "missing required field"),
        ([HEADER, "", line(), line()], 4, "there before"),
        ([HEADER, line(outcome="replied")], 2, "completed_us is missing"),
        ([HEADER, line(completed_us=4)], 2, "before it was invoked"),
        ([HEADER, line(outcome="rejected", completed_us=9, value="no")], 2, "code"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(lines: list[str], number: int, why: str) -> None:
    with pytest.raises(HistoryError) as caught:
        History.from_lines(lines)
    assert caught.value.line == number
    assert why in str(caught.value)


def test_histories_of_several_recorders_are_one() -> None:
    merged = History.merged([recorded(), recorded()])
    assert [operation.number for operation in merged.operations] == [1, 2, 3, 4, 5, 6]
    # Nobody knows which of two recorders was first within a microsecond.
    assert {operation.ended for operation in merged.operations} == {(12, 0), None}
    assert all(operation.began[1] == 0 for operation in merged.operations)

"""given/when/then: what it runs as production does, and what it says when an expectation does not hold."""

from __future__ import annotations

from typing import Any

import pytest

from actorkit.errors import (
    CallCycle,
    CallingOutAfterEmit,
    DeclarationError,
    Rejected,
    Unavailable,
    UndecodableEvent,
)
from actorkit.testing import given
from actorkit.testing.given import START_US
from examples.capacity_service.domain import InsufficientCapacity, PoolCreated, Released, Reserved
from examples.capacity_service.entity import Pool
from tests.testing.actors import Added, Hall, HallState, Removed, Renamed, SoldOut, Ticket, Wrong, WrongState

HALL = given(Hall, Added(["a", "b", "c"]))


def failing(broken: pytest.ExceptionInfo[AssertionError]) -> str:
    return str(broken.value)


# ---------------------------------------------------------------------------------------------------------- sentences


def test_a_command_emits_and_replies() -> None:
    outcome = HALL.when(lambda hall: hall.take(2))
    outcome.emits(Removed("a"), Removed("b")).replies(["a", "b"]).replies(lambda seats: len(seats) == 2)
    outcome.emits(Removed, Removed("b")).state(lambda state: state.free == ["c"]).state_equals(HallState(["c"]))
    assert outcome.events == (Removed("a"), Removed("b"))
    assert outcome.reply == ["a", "b"]
    assert outcome.state_after.free == ["c"]


def test_a_refusal_is_told_by_class_code_reason_and_details() -> None:
    outcome = given(Hall).when(lambda hall: hall.take(3))
    outcome.rejects(SoldOut).rejects(SoldOut, asked=3).rejects("tests.testing.sold-out").rejects("no seat")
    assert outcome.rejection.details == {"asked": 3}


def test_a_refusal_after_emitting_keeps_nothing() -> None:
    outcome = HALL.when(lambda hall: hall.refuse_late()).rejects("after all").state(lambda s: s.free == ["a", "b", "c"])
    outcome.and_when(lambda hall: hall.seats()).replies(["a", "b", "c"]).emits_nothing()


def test_steps_follow_each_other_and_a_sentence_can_go_on_in_several_ways() -> None:
    one = HALL.when(lambda hall: hall.take(3)).and_when(lambda hall: hall.take()).rejects(SoldOut)
    one.and_when(lambda hall: hall.add(seats=["d"])).replies(1).and_when(lambda hall: hall.take()).replies(["d"])
    HALL.when(lambda hall: hall.seats()).replies(["a", "b", "c"])


def test_events_of_the_past_that_are_only_applied_are_a_history_too() -> None:
    given(Hall, Renamed("Aula")).when(lambda hall: hall.seats()).state(lambda state: state.name == "Aula")


def test_a_failure_is_no_refusal_and_keeps_nothing() -> None:
    outcome = HALL.when(lambda hall: hall.fail()).fails(LookupError, "key")
    outcome.and_when(lambda hall: hall.seats()).replies(["a", "b", "c"])


def test_time_and_ids_are_as_the_test_says() -> None:
    outcome = given(Hall).when(lambda hall: hall.token()).replies((f"{1:032x}", f"{2:032x}", START_US, None))
    outcome = outcome.later(1.5).and_when(lambda hall: hall.token())
    outcome.replies((f"{3:032x}", f"{4:032x}", START_US + 1_500_000, None))
    keyed = given(Hall).with_ids("r1").at(5).when(lambda hall: hall.token.options(idempotency_key="k")())
    keyed.replies(("r1", f"{1:032x}", 5, "k"))


def test_an_entitys_time_never_decreases() -> None:
    given(Hall, Added(["a"]), at=1000).at(10).when(lambda hall: hall.token()).replies(lambda reply: reply[2] == 1000)


def test_the_id_of_the_entity() -> None:
    ticket = given(Ticket, id="t").when(lambda ticket: ticket.call_self())
    ticket.fails(CallCycle, "tests.ticket/t → tests.ticket/t")


def test_what_is_published() -> None:
    outcome = HALL.when(lambda hall: hall.take(1)).publishes(Hall.left, 2).publishes(Hall.left, lambda left: left == 2)
    outcome.and_when(lambda hall: hall.take(2)).publishes(Hall.left, None)
    with pytest.raises(AssertionError, match=r"left:\s+expected  5\s+actual    2"):
        outcome.publishes(Hall.left, 5)


def test_what_cannot_be_published_is_the_commands_failure() -> None:
    given(Wrong).when(lambda wrong: wrong.keep("abc")).publishes(Wrong.longest, 3)
    given(Wrong).when(lambda wrong: wrong.keep("unspeakable")).fails(ValueError, "cannot be shown")


def test_timers_are_noted_and_fire_when_the_test_says() -> None:
    outcome = HALL.when(lambda hall: hall.take(2)).starts_timer("remind", 60.0).cancels_timer("other")
    fired = outcome.and_when_timer("remind").emits(Added(["a", "b"]))
    fired.and_when(lambda hall: hall.token()).replies(lambda reply: reply[2] == START_US + 60_000_000)
    with pytest.raises(AssertionError, match="has no timer 'remind' running; running are: none"):
        fired.and_when_timer("remind")
    with pytest.raises(
        AssertionError, match=r"expected a timer 'remind' after 5 s, and it started:\s+'remind' after 60 s"
    ):
        outcome.starts_timer("remind", 5.0)
    with pytest.raises(AssertionError, match="it cancelled: 'other'"):
        outcome.cancels_timer("another")


def test_a_repeating_timer_fires_again_and_a_refused_command_starts_none() -> None:
    beating = HALL.when(lambda hall: hall.beat()).and_when_timer("beat").replies(3).and_when_timer("beat").replies(3)
    beating.and_when(lambda hall: hall.token()).replies(lambda reply: reply[2] == START_US + 10_000_000)
    assert HALL.when(lambda hall: hall.refuse_late()).rejects("no").setting.timers == {}


# ---------------------------------------------------------------------------------------------------- other entities


def test_a_handler_calls_others_and_gets_what_was_prepared() -> None:
    ticket = given(Ticket).calling(Hall, "h", lambda hall: hall.take(at_most=1)).answers(["a7"])
    ticket.when(lambda ticket: ticket.buy("h")).emits(Removed("a7")).replies("a7")
    waits = given(Ticket).calling(Hall, "h", lambda hall: hall.take()).raises(SoldOut("no"))
    waits.when(lambda ticket: ticket.buy_or_wait("h")).replies("wait").emits_nothing()


def test_an_error_of_another_that_is_let_through_is_a_failure() -> None:
    ticket = (
        given(Ticket).calling(Hall, "h", lambda hall: hall.take()).raises(Unavailable("tests.hall/h", "it is down"))
    )
    outcome = ticket.when(lambda ticket: ticket.buy("h")).fails(Unavailable)
    with pytest.raises(AssertionError, match="failure of its own"):
        outcome.replies("a7")


def test_a_call_that_is_not_prepared_fails_the_test_although_the_handler_catches_errors() -> None:
    with pytest.raises(AssertionError) as broken:
        given(Ticket).calling(Hall, "h", lambda hall: hall.take(2)).answers([]).when(lambda t: t.buy_or_wait("h"))
    assert "calls take(1) of tests.hall/h, for which no answer is prepared" in failing(broken)
    assert "prepared is\n    tests.hall/h take(2)" in failing(broken)


def test_an_answer_that_nobody_asks_for_fails_the_test() -> None:
    prepared = given(Hall).calling(Ticket, "t", lambda ticket: ticket.buy("h")).answers("a")
    with pytest.raises(AssertionError, match=r"nobody asked for: buy\('h'\) of tests\.ticket/t"):
        prepared.when(lambda hall: hall.seats())


def test_an_answer_that_does_not_fit_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Hall\.take cannot answer 'a7'"):
        given(Ticket).calling(Hall, "h", lambda hall: hall.take()).answers("a7")  # type: ignore[arg-type]


def test_calling_after_emitting_is_the_error_that_it_is_in_production() -> None:
    given(Ticket).when(lambda ticket: ticket.emit_first("h")).fails(CallingOutAfterEmit)


@pytest.mark.parametrize("delay_s", [0.0, 1.0])
def test_awaiting_anything_real_says_so(delay_s: float) -> None:
    with pytest.raises(AssertionError, match=r"awaits something real, and there is no event loop here"):
        given(Ticket).when(lambda ticket: ticket.sleep(delay_s))


async def test_awaiting_anything_real_says_so_within_a_loop_too() -> None:
    with pytest.raises(AssertionError, match=r"awaits <Future.*there is no event loop here"):
        given(Ticket).when(lambda ticket: ticket.sleep(1.0))


def test_the_rest_of_the_system_is_not_there_and_says_so() -> None:
    with pytest.raises(AssertionError, match=r"uses context\.system\.view: here are only calls"):
        given(Ticket).when(lambda ticket: ticket.look_at_view())


# ----------------------------------------------------------------------------------------------------------- mistakes


def test_a_state_that_is_changed_without_an_event_is_found() -> None:
    with pytest.raises(AssertionError) as broken:
        given(Wrong).when(lambda wrong: wrong.assign())
    assert "the state in memory is not the one that the events give" in failing(broken)
    assert "count\n        the events give  0\n        in memory is     7" in failing(broken)
    for call in (
        lambda wrong: wrong.assign_and_emit(),
        lambda wrong: wrong.assigning_query(),
        lambda wrong: wrong.assign_and_refuse(),
    ):
        with pytest.raises(AssertionError, match="not the one that the events give"):
            given(Wrong).when(call)
    given(Wrong).when(lambda wrong: wrong.assign_and_refuse_after_emitting()).rejects("memory is thrown away")


def test_an_apply_method_that_looks_elsewhere_is_found_and_the_event_named() -> None:
    with pytest.raises(AssertionError) as broken:
        given(Wrong).when(lambda wrong: wrong.keep_many()).and_when(lambda wrong: wrong.count())
    assert "applying event 4 ('tests.counted') twice to the same state gave two different states" in failing(broken)
    assert "WrongState that applies it depends on something other than state and event" in failing(broken)


def test_sets_in_another_order_are_the_same_state() -> None:
    given(Wrong).when(lambda wrong: wrong.keep_many()).state_equals(WrongState(0, {"a", "b", "c"}))


def test_a_state_that_no_snapshot_can_hold_is_found() -> None:
    with pytest.raises(AssertionError, match="its snapshots cannot be read: Expected `int`, got `str`"):
        given(Wrong).when(lambda wrong: wrong.break_state())


def test_what_production_would_refuse_is_refused() -> None:
    given(Wrong).when(lambda wrong: wrong.wrong_reply()).fails(TypeError, "does not fit what it declares")
    given(Wrong).when(lambda wrong: wrong.emitting()).fails(RuntimeError, "only commands emit events")
    given(Wrong).when(lambda wrong: wrong.undeclared()).fails(DeclarationError, "which it does not declare")
    given(Pool, PoolCreated(3)).when(lambda pool: pool.reserve(1, "a" * 3)).emits(Reserved)


def test_a_refusal_whose_details_cannot_travel_is_a_failure() -> None:
    HALL.when(lambda hall: hall.refuse_with_what_cannot_travel()).fails(TypeError)


def test_after_its_handler_has_ended_an_actor_can_do_nothing() -> None:
    HALL.when(lambda hall: hall.let_out()).emits_nothing()
    for late in (lambda: Hall.escaped.emit(Removed("a")), lambda: Hall.escaped.context.now_us):
        with pytest.raises(RuntimeError, match=r"no handler of tests\.hall/id is in progress"):
            late()
    Hall.escaped = None


def test_arguments_that_do_not_fit_are_refused_before_anything_runs() -> None:
    with pytest.raises(TypeError, match="Expected `int`, got `str`"):
        given(Hall).when(lambda hall: hall.take("two"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Missing required argument"):
        given(Hall).when(lambda hall: hall.add())  # type: ignore[call-arg]


@pytest.mark.parametrize("call", [lambda hall: hall, lambda hall: None, lambda hall: hall.take])
def test_a_lambda_that_makes_no_call_is_refused(call: Any) -> None:
    with pytest.raises(TypeError, match=r"expected one call of a command or query, as in lambda hall: hall\.add"):
        given(Hall).when(call)


def test_a_coroutine_of_ones_own_is_refused() -> None:
    async def both(hall: Hall) -> None:
        await hall.take()
        await hall.take()

    with pytest.raises(TypeError, match="expected one call"):
        given(Hall).when(both)


def test_a_history_that_cannot_be_is_refused() -> None:
    with pytest.raises(UndecodableEvent, match=r"event 1 of tests\.hall/id"):
        given(Hall, Removed("a"))
    with pytest.raises(DeclarationError, match="PoolCreated is not among the declared events"):
        given(Hall, PoolCreated(3))
    with pytest.raises(DeclarationError, match="is no event"):
        given(Hall, Added)  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------------------------------- messages

POOL = given(Pool, PoolCreated(10))


def test_the_message_shows_expected_and_emitted_events_and_where_they_differ() -> None:
    with pytest.raises(AssertionError) as broken:
        POOL.when(lambda pool: pool.reserve(3, "a")).emits(Reserved("a", 3))
    assert failing(broken).startswith(
        "pool/id (after 1 event), reserve(3, 'a'):\n"
        "    expected:\n"
        "        1. Reserved(part='a', quantity=3, forget_before_us=0)\n"
        "    emitted:\n"
        "        1. Reserved(part='a', quantity=3, forget_before_us=1767139200000000)\n"
        "    event 1 differs in:\n"
        "        forget_before_us\n"
        "            expected  0\n"
        "            emitted   1767139200000000\n"
        "  the state afterwards:\n"
        "    version = 2\n"
    )


def test_messages_of_events_that_are_missing_or_too_many() -> None:
    with pytest.raises(AssertionError, match=r"expected:\n +1\. any Released\n +emitted:\n +1\. Reserved"):
        POOL.when(lambda pool: pool.reserve(3, "a")).emits(Released)
    with pytest.raises(AssertionError, match=r"expected:\n +nothing\n +emitted:\n +1\. Reserved"):
        POOL.when(lambda pool: pool.reserve(3, "a")).emits_nothing()
    with pytest.raises(
        AssertionError, match=r"it never emits Added, only PoolChanged, PoolCreated, Released, Reserved"
    ):
        POOL.when(lambda pool: pool.reserve(3, "a")).emits(Added)  # type: ignore[arg-type]


def test_messages_of_replies_refusals_and_states() -> None:
    reserved = POOL.when(lambda pool: pool.reserve(3, "a"))
    refused = POOL.when(lambda pool: pool.reserve(30, "a"))
    with pytest.raises(
        AssertionError, match=r"(?s)it was refused:.*InsufficientCapacity \(code 'insufficient-capacity'\)"
    ):
        refused.emits(Reserved)
    with pytest.raises(AssertionError, match=r"expected a refusal, and it was not refused:\s+emitted:\s+1\. Reserved"):
        reserved.rejects(InsufficientCapacity)
    with pytest.raises(AssertionError, match=r"expected a refusal with 'sold out', and it was refused otherwise"):
        refused.rejects("sold out")
    with pytest.raises(AssertionError, match=r"\['remaining'\]\s+expected  9\s+actual    10"):
        refused.rejects(InsufficientCapacity, remaining=9)
    with pytest.raises(
        AssertionError, match=r"(?s)the reply is not as expected:\s+ReserveAnswer\(.*the state afterwards:"
    ):
        reserved.replies(lambda answer: answer.remaining == 8)
    with pytest.raises(AssertionError, match=r"remaining\s+expected reply  8\s+actual reply    7"):
        reserved.replies(type(reserved.reply)("id~a", "id", 3, 8, 2))
    with pytest.raises(AssertionError, match=r"the state is not as expected:\s+version = 2\s+capacity = 10"):
        reserved.state(lambda state: state.capacity == 11)
    with pytest.raises(AssertionError, match=r"reservations\['a'\]\s+expected  \(absent\)\s+actual    Reservation"):
        reserved.state_equals(type(reserved.state_after)(version=2, capacity=10, reserved=3))


def test_messages_of_failures() -> None:
    failed = HALL.when(lambda hall: hall.fail())
    with pytest.raises(
        AssertionError, match=r"it failed: LookupError\('lost the key'\); its caller would get HandlerFailed"
    ):
        failed.emits_nothing()
    with pytest.raises(AssertionError, match="expected a refusal, and it failed"):
        failed.rejects(SoldOut)
    with pytest.raises(AssertionError, match="expected ValueError, and it failed with LookupError") as broken:
        failed.fails(ValueError)
    assert isinstance(broken.value.__cause__, LookupError)
    with pytest.raises(AssertionError, match="expected it to fail with ValueError, and it did not"):
        HALL.when(lambda hall: hall.seats()).fails(ValueError)


def test_a_refusal_or_failure_that_nobody_expected_does_not_pass_unnoticed() -> None:
    with pytest.raises(AssertionError, match="it was refused") as broken:
        given(Hall).when(lambda hall: hall.take()).and_when(lambda hall: hall.seats())
    assert isinstance(broken.value.__cause__, Rejected)
    with pytest.raises(AssertionError, match="it failed"):
        HALL.when(lambda hall: hall.fail()).and_when_timer("x")


def test_long_values_are_cut() -> None:
    with pytest.raises(AssertionError, match=r"\.\.\. \(\d{4} characters\)"):
        given(Hall, Added(["x" * 4000])).when(lambda hall: hall.seats()).replies([])

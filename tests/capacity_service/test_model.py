"""The pool's model and its invariants: held against the domain itself, and against answers that are wrong."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actorkit import Rejected
from actorkit.journal.protocols import Recorded
from actorkit.testing.checkers import Operation, Recorder, Verdict, check_entity, render
from examples.capacity_service.domain import PoolChange, PoolState, Reserved, change, release, reserve
from examples.capacity_service.invariants import check_pools, pools_of
from examples.capacity_service.model import PoolModel

ENTITY = "pool/p"


class Run:
    """A pool by the service's own rules, its journal, and what its callers are told. Time goes on with each call."""

    def __init__(self) -> None:
        self.state = PoolState()
        self.records: list[Recorded] = []
        self.recorder = Recorder()
        self.now_us = 0
        self.made = 0

    def call(self, client: str, name: str, *arguments: Any, heard: bool = True) -> Any:
        self.now_us += 1
        number = self.recorder.invoke(client, ENTITY, name, arguments, at_us=self.now_us)
        self.now_us += 1
        try:
            reply = getattr(self, name)(*arguments)
        except Rejected as refusal:
            if heard:
                self.recorder.failed(number, refusal, at_us=self.now_us)
            return None
        if heard:
            self.recorder.replied(number, reply, at_us=self.now_us)
        return reply

    def emit(self, event: Any) -> None:
        if event is None:
            return
        self.state.appliers[type(event)](self.state, event)
        version, payload = self.state.version, msgspec.msgpack.encode(event)
        self.records.append(
            Recorded(0, version, ENTITY, version, event.event_name, 1, payload, self.now_us, 1, b"", None, None)
        )

    def numbers(self) -> dict[str, Any]:
        state = self.state
        return {
            "pool_id": "p",
            "capacity": state.capacity,
            "reserved": state.reserved,
            "remaining": state.remaining,
            "version": state.version,
        }

    def change(self, wanted: dict[str, Any]) -> dict[str, Any]:
        self.emit(change(self.state, PoolChange(**wanted)))
        return self.numbers()

    def reserve(self, quantity: int, part: str | None) -> dict[str, Any]:
        if part is None:
            self.made += 1
            part = f"~{self.made}"
        self.emit(reserve(self.state, part, quantity, forget_before_us=0, reservations_max=1_000))
        granted = self.state.reservations[part]
        return {
            "reservation_id": f"p~{part}",
            "pool_id": "p",
            "quantity": quantity,
            "remaining": granted.remaining,
            "version": granted.version,
        }

    def release(self, part: str, quantity: int | None) -> dict[str, Any]:
        event = release(self.state, "p", part, quantity, now_us=self.now_us, forget_before_us=0)
        self.emit(event)
        return {
            "reservation_id": f"p~{part}",
            "pool_id": "p",
            "released": 0 if event is None else event.quantity,
            "held": self.state.reservations[part].held,
            "remaining": self.state.remaining,
            "version": self.state.version,
        }

    def describe(self) -> dict[str, Any]:
        if not self.state.exists:
            raise Rejected.rebuild("pool-not-found", "", {})
        labels = self.state.labels
        return {**self.numbers(), "region": self.state.region, "starts_at": None, "ends_at": None, "labels": labels}

    def reservation(self, part: str) -> dict[str, Any]:
        known = self.state.reservations.get(part)
        if known is None:
            raise Rejected.rebuild("reservation-not-found", "", {})
        status = "held" if known.held else "released"
        return {
            "reservation_id": f"p~{part}",
            "pool_id": "p",
            "quantity": known.quantity,
            "held": known.held,
            "status": status,
        }

    @property
    def operations(self) -> list[Operation]:
        return list(self.recorder.history().operations)


def random_run(seed: int, calls: int) -> Run:
    random, run = Random(seed), Run()
    for _ in range(calls):
        parts = [*run.state.reservations, "a", "b", "~unheard-of"]
        name, arguments = random.choice(
            [
                ("change", ({"capacity": random.randint(0, 12)},)),
                ("change", ({"region": random.choice(["x", None]), "labels": {"k": random.choice("vw")}},)),
                ("reserve", (random.randint(1, 4), None)),
                ("reserve", (random.randint(1, 4), random.choice("abc"))),
                ("release", (random.choice(parts), random.choice([None, 1, 2]))),
                ("describe", ()),
                ("reservation", (random.choice(parts),)),
            ]
        )
        run.call(random.choice("xyz"), name, *arguments, heard=random.random() > 0.15)
    return run


@settings(deadline=None)
@given(st.integers(0, 1 << 32), st.integers(1, 25))
def test_the_model_accepts_what_the_domain_does(seed: int, calls: int) -> None:
    run = random_run(seed, calls)
    found = check_entity(ENTITY, run.operations, PoolModel())
    assert found.verdict is Verdict.LINEARIZABLE, render([found])
    pools, violations = pools_of(run.records)
    assert not violations + check_pools(run.operations, pools)


def granted_twice() -> Run:
    run = Run()
    run.call("x", "change", {"capacity": 10})
    run.call("x", "reserve", 7, "a")
    run.state.capacity = 20
    run.call("y", "reserve", 7, "b")
    run.state.capacity = 10
    return run


def test_granting_beyond_the_capacity_is_found_by_both() -> None:
    run = granted_twice()
    found = check_entity(ENTITY, run.operations, PoolModel())
    assert found.verdict is Verdict.WRONG
    assert "insufficient-capacity" in render([found])
    _, violations = pools_of(run.records)
    assert [violation.invariant for violation in violations] == ["A"]


def test_a_lost_reservation_is_found_by_both() -> None:
    run = Run()
    run.call("x", "change", {"capacity": 10})
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(run.state), type=PoolState)
    run.call("x", "reserve", 3, "a")
    run.records.pop()
    run.state = state
    run.call("x", "describe")
    found = check_entity(ENTITY, run.operations, PoolModel())
    assert found.wrong is not None
    assert found.wrong.contradiction == {2, 3}
    pools, _ = pools_of(run.records)
    assert {violation.invariant for violation in check_pools(run.operations, pools)} == {"I"}
    # Something else has taken its place since.
    run.call("y", "reserve", 3, "b")
    pools, _ = pools_of(run.records)
    assert {violation.invariant for violation in check_pools(run.operations, pools)} == {"B"}


def test_a_lost_release_is_found_by_both() -> None:
    run = Run()
    run.call("x", "change", {"capacity": 10})
    run.call("x", "reserve", 3, "a")
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(run.state), type=PoolState)
    run.call("x", "release", "a", None)
    run.records.pop()
    run.state = state
    run.call("x", "reserve", 3, "b")
    assert check_entity(ENTITY, run.operations, PoolModel()).verdict is Verdict.WRONG
    pools, _ = pools_of(run.records)
    assert {violation.invariant for violation in check_pools(run.operations, pools)} == {"C", "D"}


def test_a_reservation_that_is_there_twice_is_found() -> None:
    run = Run()
    run.call("x", "change", {"capacity": 10})
    run.call("x", "reserve", 3, "a")
    run.emit(Reserved("a", 3))
    assert {violation.invariant for violation in pools_of(run.records)[1]} == {"B"}


def test_a_wrong_remaining_is_found_by_both() -> None:
    run = Run()
    run.call("x", "change", {"capacity": 10})
    run.call("x", "reserve", 3, "a")
    operations = run.operations
    reply = {**operations[1].value, "remaining": 8}
    operations[1] = msgspec.structs.replace(operations[1], value=reply)
    assert check_entity(ENTITY, operations, PoolModel()).verdict is Verdict.WRONG
    assert {violation.invariant for violation in check_pools(operations, pools_of(run.records)[0])} == {"D"}


def test_what_was_not_executed_has_left_nothing() -> None:
    run = Run()
    run.call("x", "change", {"capacity": 10})
    run.call("x", "reserve", 3, "a", heard=False)
    pools, _ = pools_of(run.records)
    assert not check_pools(run.operations, pools)
    number = run.recorder.pending
    assert number == 1
    run.recorder.not_executed(2, "Overloaded", at_us=run.now_us)
    assert {violation.invariant for violation in check_pools(run.operations, pools)} == {"B"}
    run.call("x", "reserve", 3, "a")
    # A later attempt was executed: it may have been that one.
    assert not check_pools(run.operations, pools_of(run.records)[0])


def test_a_reservation_that_nobody_was_told_of_may_be_named_later() -> None:
    run = Run()
    run.call("x", "change", {"capacity": 10})
    run.call("x", "reserve", 3, None, heard=False)
    assert run.call("y", "release", "~1", None)["released"] == 3
    run.call("y", "describe")
    assert check_entity(ENTITY, run.operations, PoolModel()).verdict is Verdict.LINEARIZABLE
    # It cannot have been two.
    second = msgspec.structs.replace(run.operations[2], number=9, invoked_us=90, completed_us=91)
    second = msgspec.structs.replace(
        second, arguments=("~2", None), value={**second.value, "reservation_id": "p~~2", "version": 4}
    )
    assert check_entity(ENTITY, [*run.operations, second], PoolModel()).verdict is Verdict.WRONG


def test_a_released_reservation_may_be_forgotten_after_its_time_only() -> None:
    run = Run()
    run.call("x", "change", {"capacity": 10})
    run.call("x", "reserve", 3, "a")
    run.call("x", "release", "a", None)
    run.now_us += 50
    number = run.recorder.invoke("x", ENTITY, "reservation", ("a",), at_us=run.now_us)
    run.recorder.rejected(number, "reservation-not-found", {}, at_us=run.now_us)
    assert check_entity(ENTITY, run.operations, PoolModel()).verdict is Verdict.WRONG
    assert check_entity(ENTITY, run.operations, PoolModel(forget_after_us=50)).verdict is Verdict.LINEARIZABLE


@pytest.mark.parametrize("member", ["version", "held", "released", "reservation_id", "pool_id"])
def test_every_member_of_an_answer_counts(member: str) -> None:
    run = Run()
    run.call("x", "change", {"capacity": 10})
    run.call("x", "reserve", 3, "a")
    run.call("x", "release", "a", 1)
    operations = run.operations
    wrong = "other" if isinstance(operations[2].value[member], str) else 99
    operations[2] = msgspec.structs.replace(operations[2], value={**operations[2].value, member: wrong})
    assert check_entity(ENTITY, operations, PoolModel()).verdict is Verdict.WRONG

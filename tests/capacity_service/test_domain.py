"""The rules of pools and reservations, without a loop: any history of commands against what must hold after each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from actorkit.errors import Rejected
from examples.capacity_service import domain
from examples.capacity_service.domain import (
    InsufficientCapacity,
    InvalidChange,
    PoolChange,
    PoolChanged,
    PoolCreated,
    PoolNotFound,
    PoolState,
    PoolTooLarge,
    Released,
    ReservationConflict,
    ReservationNotFound,
    Reserved,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
DAY_US = 86_400_000_000


def apply(state: PoolState, event: Any) -> Any:
    if event is not None:
        state.appliers[type(event)](state, event)
    return event


def pool(capacity: int = 10, **attributes: Any) -> PoolState:
    state = PoolState()
    apply(state, domain.change(state, PoolChange(capacity=capacity, **attributes)))
    return state


def reserve(
    state: PoolState, part: str, quantity: int = 1, *, forget_before_us: int = 0, reservations_max: int = 1000
) -> Reserved | None:
    event: Reserved | None = apply(
        state,
        domain.reserve(state, part, quantity, forget_before_us=forget_before_us, reservations_max=reservations_max),
    )
    return event


def release(
    state: PoolState, part: str, quantity: int | None = None, *, now_us: int = 0, forget_before_us: int = 0
) -> Released | None:
    event: Released | None = apply(
        state, domain.release(state, "p", part, quantity, now_us=now_us, forget_before_us=forget_before_us)
    )
    return event


# ------------------------------------------------------------------------------------------------------------- pools


def test_a_pool_does_not_exist_before_its_creation() -> None:
    state = PoolState()
    assert not state.exists
    with pytest.raises(PoolNotFound):
        reserve(state, "a")
    assert state == PoolState()


def test_creation_needs_a_capacity_and_nothing_else() -> None:
    with pytest.raises(InvalidChange):
        domain.change(PoolState(), PoolChange(region="north"))
    assert domain.change(PoolState(), PoolChange(capacity=0)) == PoolCreated(0)


def test_a_change_changes_the_given_members_only() -> None:
    state = pool(5, region="north", labels={"a": "b"})
    event = apply(state, domain.change(state, PoolChange(capacity=7)))
    assert event == PoolChanged(capacity=7)
    assert (state.capacity, state.region, state.labels, state.version) == (7, "north", {"a": "b"}, 2)


def test_none_removes_an_attribute_and_labels_are_replaced_whole() -> None:
    state = pool(5, region="north", starts_at=NOON, labels={"a": "b", "c": "d"})
    apply(state, domain.change(state, PoolChange(region=None, starts_at=None, labels={"c": "e"})))
    assert (state.region, state.starts_at, state.labels, state.version) == (None, None, {"c": "e"}, 2)


@pytest.mark.parametrize(
    "again",
    [
        PoolChange(),
        PoolChange(capacity=5),
        PoolChange(region="north", labels={"a": "b"}),
        PoolChange(ends_at=None),
        PoolChange(starts_at=NOON),
    ],
)
def test_setting_what_is_set_is_no_event(again: PoolChange) -> None:
    state = pool(5, region="north", starts_at=NOON, labels={"a": "b"})
    assert domain.change(state, again) is None


@pytest.mark.parametrize("ends_at", [NOON, NOON - timedelta(microseconds=1)])
def test_starts_at_is_before_ends_at_also_where_only_one_is_given(ends_at: datetime) -> None:
    with pytest.raises(InvalidChange):
        pool(1, starts_at=NOON, ends_at=ends_at)
    with pytest.raises(InvalidChange):
        domain.change(pool(1, starts_at=NOON), PoolChange(ends_at=ends_at))
    with pytest.raises(InvalidChange):
        domain.change(pool(1, ends_at=ends_at), PoolChange(starts_at=NOON))
    assert domain.change(pool(1, starts_at=NOON), PoolChange(starts_at=None, ends_at=ends_at)) is not None


def test_a_pool_shrinks_below_what_is_reserved_and_takes_nothing_away() -> None:
    state = pool(5)
    reserve(state, "a", 4)
    apply(state, domain.change(state, PoolChange(capacity=1)))
    assert (state.reserved, state.remaining) == (4, 0)
    with pytest.raises(InsufficientCapacity):
        reserve(state, "b")
    release(state, "a", 1)
    assert state.remaining == 0


# ------------------------------------------------------------------------------------------------------ reservations


def test_a_refusal_says_what_remains() -> None:
    with pytest.raises(InsufficientCapacity) as refusal:
        reserve(pool(3), "a", 4)
    assert refusal.value.details == {"remaining": 3, "requested": 4, "version": 1}


def test_the_same_reservation_again_is_a_retry_and_another_quantity_a_conflict() -> None:
    state = pool(5)
    reserve(state, "a", 2)
    first = msgspec.structs.replace(state.reservations["a"])
    reserve(state, "b", 3)
    assert reserve(state, "a", 2) is None
    assert (state.reservations["a"], state.version) == (first, 3)
    with pytest.raises(ReservationConflict):
        reserve(state, "a", 1)


def test_a_retry_is_recognised_also_when_the_pool_is_full_and_after_the_release() -> None:
    state = pool(2)
    reserve(state, "a", 2)
    assert reserve(state, "a", 2) is None
    release(state, "a")
    assert reserve(state, "a", 2) is None
    assert state.remaining == 2


def test_a_release_frees_at_most_what_is_held() -> None:
    state = pool(9)
    reserve(state, "a", 5)
    assert release(state, "a", 2) == Released("a", 2, 0)
    assert release(state, "a", 100) == Released("a", 3, 0)
    assert release(state, "a", 100) is None
    assert release(state, "a") is None
    assert (state.remaining, state.version) == (9, 4)


def test_an_unknown_reservation_is_not_found() -> None:
    for state in (PoolState(), pool(1)):
        with pytest.raises(ReservationNotFound):
            release(state, "a")
        with pytest.raises(ReservationNotFound):
            domain.find(state, "p", "a")


def test_released_reservations_are_forgotten_only_when_old_and_in_order() -> None:
    state = pool(9)
    for at, part in enumerate("abcd"):
        reserve(state, part)
        release(state, part, now_us=at)
    reserve(state, "e", forget_before_us=2)
    assert sorted(state.reservations) == ["c", "d", "e"]
    reserve(state, "f", forget_before_us=100)
    assert sorted(state.reservations) == ["e", "f"]
    release(state, "e", now_us=99, forget_before_us=99)
    assert sorted(state.reservations) == ["e", "f"]


def test_a_forgotten_reservation_id_may_be_used_anew() -> None:
    state = pool(9)
    reserve(state, "a", 2)
    release(state, "a", now_us=1)
    reserve(state, "b", forget_before_us=2)
    assert reserve(state, "a", 3) is not None
    release(state, "b", now_us=3, forget_before_us=3)
    assert state.reservations["a"].held == 3


def test_the_memory_of_a_pool_is_bounded() -> None:
    state = pool(9)
    reserve(state, "a", reservations_max=1)
    with pytest.raises(PoolTooLarge):
        reserve(state, "b", reservations_max=1)
    assert reserve(state, "a", reservations_max=1) is None


# -------------------------------------------------------------------------------------------------------- properties


class AnyHistory(RuleBasedStateMachine):
    """A pool beside a model of it that is as simple as can be: a dict of who holds how much."""

    @initialize(capacity=st.integers(0, 20))
    def create(self, capacity: int) -> None:
        self.state = pool(capacity)
        self.capacity = capacity
        self.held: dict[str, int] = {}
        self.first: dict[str, tuple[int, int]] = {}
        self.events: list[Any] = [PoolCreated(capacity)]
        self.now_us = 10 * DAY_US
        self.released_us: dict[str, int] = {}

    def may_be_forgotten(self, part: str) -> bool:
        if part not in self.held:
            return True
        return not self.held[part] and self.released_us[part] < self.now_us - DAY_US

    def record(self, before: int, event: Any) -> None:
        assert self.state.version == before + (event is not None)
        if event is not None:
            self.events.append(event)

    @rule(part=st.sampled_from("abcdef"), quantity=st.integers(1, 8))
    def reserve(self, part: str, quantity: int) -> None:
        before, remaining = self.state.version, self.state.remaining
        try:
            event = reserve(self.state, part, quantity, forget_before_us=self.now_us - DAY_US)
        except InsufficientCapacity:
            assert quantity > remaining
            assert self.may_be_forgotten(part)
            return
        except ReservationConflict:
            assert self.first[part][0] != quantity
            return
        self.record(before, event)
        if event is None:
            assert self.first[part] == (quantity, self.state.reservations[part].version)
        else:
            assert quantity <= remaining
            self.first[part] = (quantity, self.state.version)
            self.held[part] = quantity

    @rule(part=st.sampled_from("abcdef"), quantity=st.none() | st.integers(1, 8))
    def release(self, part: str, quantity: int | None) -> None:
        before = self.state.version
        try:
            event = release(self.state, part, quantity, now_us=self.now_us, forget_before_us=self.now_us - DAY_US)
        except ReservationNotFound:
            assert self.may_be_forgotten(part)
            return
        self.record(before, event)
        held = self.held[part]
        freed = held if quantity is None else min(quantity, held)
        assert (event.quantity if event else 0) == freed
        self.held[part] = held - freed
        if event is not None and held == freed:
            self.released_us[part] = self.now_us

    @rule(capacity=st.integers(0, 20))
    def resize(self, capacity: int) -> None:
        before = self.state.version
        event = apply(self.state, domain.change(self.state, PoolChange(capacity=capacity)))
        assert (event is None) == (capacity == self.capacity)
        self.capacity = capacity
        self.record(before, event)

    @rule(days=st.sampled_from([0.25, 0.9, 1.1, 3.0]))
    def time_passes(self, days: float) -> None:
        self.now_us += int(days * DAY_US)

    @invariant()
    def adds_up(self) -> None:
        held = sum(self.held.values())
        assert self.state.reserved == held
        assert self.state.remaining == max(0, self.capacity - held)
        assert {part: r.held for part, r in self.state.reservations.items() if r.held} == {
            part: held for part, held in self.held.items() if held
        }

    def teardown(self) -> None:
        if not hasattr(self, "state"):
            return
        again = PoolState()
        for event in self.events:
            apply(again, event)
        assert again == self.state
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(self.state), type=PoolState) == self.state


AnyHistory.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAnyHistory = AnyHistory.TestCase


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 5), st.booleans()), max_size=60), st.integers(0, 9))
def test_never_more_is_granted_than_there_is(steps: list[tuple[str, int, bool]], capacity: int) -> None:
    state = pool(capacity)
    for part, quantity, taking in steps:
        try:
            reserve(state, part, quantity) if taking else release(state, part, quantity)
        except Rejected:
            pass
        assert 0 <= state.reserved <= capacity
        assert sum(reservation.held for reservation in state.reservations.values()) == state.reserved

"""Promise P6: the merge does not care about order, repetition or ways, and never lowers a stamp."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorkit.errors import Overloaded
from actorkit.readmodel.lww_map import LwwMap

KEYS = ["a", "b", "c"]


def value(key: str, version: int) -> str | None:
    """One value for each stamp, as the journal guarantees; some are deletions."""
    return None if version % 4 == 3 else f"{key}{version}"


@given(st.lists(st.tuples(st.sampled_from(KEYS), st.integers(0, 12)), max_size=40), st.randoms(use_true_random=False))
def test_any_order_and_any_repetition_give_the_same(puts: list[tuple[str, int]], rng: object) -> None:
    straight: LwwMap[str] = LwwMap()
    for key, version in puts:
        straight.put(key, version, value(key, version))
    mixed = [*puts, *puts[::2]]
    rng.shuffle(mixed)  # type: ignore[attr-defined]
    other: LwwMap[str] = LwwMap()
    stamps = dict.fromkeys(KEYS, 0)
    for key, version in mixed:
        other.put(key, version, value(key, version))
        assert other.version(key) >= stamps[key], "a stamp never goes down"
        stamps[key] = other.version(key)
    assert dict(other.entries) == dict(straight.entries)
    for key in KEYS:
        newest = max((version for known, version in puts if known == key), default=None)
        entry = straight.entries.get(key)
        expected = None if newest is None else value(key, newest)
        assert (entry.value if entry else None) == expected
        assert straight.version(key) == (newest or 0)


def test_an_older_value_does_not_bring_back_what_was_deleted() -> None:
    values: LwwMap[int] = LwwMap()
    assert values.put("a", 1, 1)
    assert values.put("a", 2, None)
    assert not values.put("a", 1, 1)
    assert "a" not in values.entries
    assert values.version("a") == 2


def test_whoever_waits_for_a_version_is_told_once_it_is_there() -> None:
    values: LwwMap[int] = LwwMap()
    told: list[str] = []
    values.put("a", 3, 3)
    values.when("a", 3, lambda: told.append("at once"))
    values.when("a", 5, lambda: told.append("five"))
    values.when("a", 4, lambda: told.append("four"))
    values.put("a", 4, None)
    assert told == ["at once", "four"]
    values.put("a", 9, 9)
    assert told == ["at once", "four", "five"]
    values.put("a", 10, 10)
    assert told == ["at once", "four", "five"]


def test_whoever_has_stopped_waiting_is_not_told() -> None:
    values: LwwMap[int] = LwwMap()
    told: list[str] = []

    def first() -> None:
        told.append("first")

    def second() -> None:
        told.append("second")

    values.when("a", 1, first)
    values.when("a", 1, second)
    values.forget("a", first)
    values.forget("unheard of", first)
    values.put("a", 1, 1)
    assert told == ["second"]


def test_those_who_wait_are_bounded_and_make_room_when_they_leave_or_are_told() -> None:
    values: LwwMap[int] = LwwMap(waiting_max=3)
    told: list[str] = []
    waiters = {name: partial(told.append, name) for name in "abcdef"}
    for name in "abc":
        values.when("key " + name, 1, waiters[name])
    with pytest.raises(Overloaded) as overloaded:
        values.when("key d", 1, waiters["d"])
    assert overloaded.value.limit == 3
    values.forget("key a", waiters["a"])
    values.forget("key a", waiters["a"])
    values.when("key d", 1, waiters["d"])
    values.put("key b", 1, 1)
    values.when("key e", 1, waiters["e"])
    with pytest.raises(Overloaded):
        values.when("key f", 1, waiters["f"])
    values.when("key b", 1, waiters["f"])
    assert told == ["b", "f"], "who need not wait takes up no room"

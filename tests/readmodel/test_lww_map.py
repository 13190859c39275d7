"""Promise P6: the merge does not care about order, repetition or ways, and never lowers a stamp."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorkit.errors import Overloaded
from actorkit.readmodel.lww_map import LwwMap

KEYS = ["a", "b", "c"]
STAMPS = st.sampled_from([sequence << 16 | view_version for sequence in range(7) for view_version in (1, 2)])


def value(key: str, stamp: int) -> str | None:
    """One value for each stamp, as the journal guarantees; some are deletions."""
    return None if stamp % 3 == 0 else f"{key}{stamp}"


@given(st.lists(st.tuples(st.sampled_from(KEYS), STAMPS), max_size=40), st.randoms(use_true_random=False))
def test_any_order_and_any_repetition_give_the_same(puts: list[tuple[str, int]], rng: object) -> None:
    straight: LwwMap[str] = LwwMap()
    for key, stamp in puts:
        straight.put(key, stamp, value(key, stamp))
    mixed = [*puts, *puts[::2]]
    rng.shuffle(mixed)  # type: ignore[attr-defined]
    other: LwwMap[str] = LwwMap()
    stamps = dict.fromkeys(KEYS, 0)
    for key, stamp in mixed:
        assert other.put(key, stamp, value(key, stamp)) == (stamp > stamps[key])
        stamps[key] = max(stamps[key], stamp)
        assert other.stamp(key) == stamps[key], "a stamp never goes down"
    assert dict(other.entries) == dict(straight.entries)
    for key in KEYS:
        newest = max((stamp for known, stamp in puts if known == key), default=None)
        entry = straight.entries.get(key)
        expected = None if newest is None else value(key, newest)
        assert (entry.value if entry else None) == expected
        assert straight.stamp(key) == (newest or 0)
        assert straight.version(key) == (newest or 0) >> 16


def test_of_two_views_of_one_event_that_of_the_newer_program_counts() -> None:
    old: LwwMap[str] = LwwMap(view_version=1)
    new: LwwMap[str] = LwwMap(view_version=2)
    assert old.publish("a", 5, "old")
    assert new.publish("a", 5, "new")
    assert old.put("a", new.stamp("a"), "new")
    assert not new.put("a", 5 << 16 | 1, "old")
    assert old.entries == new.entries == {"a": ("new", 5)}
    assert old.publish("a", 6, "old again"), "a newer event counts more than a newer program"


def test_an_older_value_does_not_bring_back_what_was_deleted() -> None:
    values: LwwMap[int] = LwwMap()
    assert values.publish("a", 1, 1)
    assert values.publish("a", 2, None)
    assert not values.publish("a", 1, 1)
    assert "a" not in values.entries
    assert values.version("a") == 2


def test_whoever_waits_for_a_version_is_told_once_it_is_there() -> None:
    values: LwwMap[int] = LwwMap()
    told: list[str] = []
    values.publish("a", 3, 3)
    values.when("a", 3, lambda: told.append("at once"))
    values.when("a", 5, lambda: told.append("five"))
    values.when("a", 4, lambda: told.append("four"))
    values.publish("a", 4, None)
    assert told == ["at once", "four"]
    values.publish("a", 9, 9)
    assert told == ["at once", "four", "five"]
    values.publish("a", 10, 10)
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
    values.publish("a", 1, 1)
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
    values.publish("key b", 1, 1)
    values.when("key e", 1, waiters["e"])
    with pytest.raises(Overloaded):
        values.when("key f", 1, waiters["f"])
    values.when("key b", 1, waiters["f"])
    assert told == ["b", "f"], "who need not wait takes up no room"

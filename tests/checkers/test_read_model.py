"""The read model's and the bounds' checkers: what is right passes, and each thing that must not be is found."""

from __future__ import annotations

import pytest

from actorkit import ActorSystem
from actorkit.journal.memory import MemoryJournal
from actorkit.persistence.actor import entity_type_of
from actorkit.readmodel.lww_map import Entry
from actorkit.testing.checkers import (
    Reading,
    Seen,
    Violation,
    check_converged,
    check_growth,
    check_limits,
    check_seen,
    read_published,
)
from examples.capacity_service.domain import PoolChange
from examples.capacity_service.entity import Pool


def invariants(violations: list[Violation]) -> list[str]:
    return [violation.invariant for violation in violations]


def test_what_a_node_shows_never_goes_back() -> None:
    seen = [Seen("n1", "a", 1, 10), Seen("n2", "a", 2, 20), Seen("n1", "a", 1, 10), Seen("n1", "a", 2, 20)]
    assert check_seen(seen) == []
    assert invariants(check_seen([*seen, Seen("n1", "a", 1, 10)])) == ["E"]
    # Another life of the node may begin with less.
    assert check_seen([*seen, Seen("n1#2", "a", 1, 10)]) == []


def test_a_version_has_one_value_everywhere() -> None:
    (violation,) = check_seen([Seen("n1", "a", 1, 10), Seen("n2", "a", 1, 11)])
    assert "version 1 is 11 on n2, and was 10 on n1" in str(violation)


def test_a_view_that_has_converged_shows_the_journal() -> None:
    published = {"a": (3, {"n": 1}), "gone": (2, None)}
    assert check_converged("n1", {"a": Entry({"n": 1}, 3)}, published) == []
    assert invariants(check_converged("n1", {}, published)) == ["E"]
    assert invariants(check_converged("n1", {"a": Entry({"n": 1}, 2)}, published)) == ["E"]
    assert invariants(check_converged("n1", {"a": Entry({"n": 2}, 3)}, published)) == ["E"]
    assert invariants(check_converged("n1", {"a": Entry({"n": 1}, 3), "gone": Entry(1, 1)}, published)) == ["E"]
    # More than was ever stored is worse than being late.
    assert invariants(check_converged("n1", {"a": Entry({"n": 1}, 4)}, published)) == ["I"]
    assert invariants(check_converged("n1", {"a": Entry({"n": 1}, 3), "b": Entry(1, 1)}, published)) == ["I"]


async def test_a_real_view_has_converged() -> None:
    journal = MemoryJournal()
    async with ActorSystem(journal=journal, entities=[Pool], shards=4) as system:
        for n in range(5):
            await system.get(Pool, f"p{n}").change(PoolChange(capacity=n))
            await system.get(Pool, f"p{n % 3}").change(PoolChange(capacity=n + 10))
        entries = dict(system.view(Pool.availability).items())
        seen = Seen.all_of("n1", entries)
    await journal.open(None)
    published = await read_published(journal, entity_type_of(Pool), "availability", page=2)
    assert len(published) == 5
    assert check_converged("n1", entries, published) == []
    assert check_seen(seen) == []


def test_limits_hold() -> None:
    readings = [Reading(1, "queue", 3), Reading(2, "queue", 9), Reading(3, "queue", 7), Reading(3, "other", 99)]
    assert check_limits(readings, {"queue": 9}) == []
    (violation,) = check_limits(readings, {"queue": 5})
    assert "it was 9 at 2 µs, and the limit is 5" in str(violation)


def test_a_rising_floor_is_growth_and_going_up_and_down_is_not() -> None:
    up_and_down = [Reading(n, "memory", 100 + n % 10) for n in range(80)]
    leaking = [Reading(n, "memory", 100 + n % 10 + n / 4) for n in range(80)]
    assert check_growth(up_and_down, allowed={"memory": 1}) == []
    assert invariants(check_growth(leaking, allowed={"memory": 1})) == ["P9"]
    assert check_growth(leaking, allowed={"memory": 50}) == []
    # What is filled once, while warming up, is no growth.
    filled = [Reading(n, "memory", min(n, 20) * 10) for n in range(80)]
    assert check_growth(filled, allowed={"memory": 1}) == []


def test_too_few_readings_say_nothing() -> None:
    with pytest.raises(ValueError, match="memory has 3 readings"):
        check_growth([Reading(n, "memory", 1) for n in range(4)], allowed={"memory": 1})

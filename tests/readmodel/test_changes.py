"""Following a view: each entity's newest value is told in the end, versions never go back, and memory is bounded."""

from __future__ import annotations

import asyncio
import gc
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from actorkit.errors import Overloaded
from actorkit.persistence.indexes import by, declared_indexes
from actorkit.readmodel.change_log import ChangeLog
from actorkit.readmodel.changes import Change
from actorkit.readmodel.lww_map import LwwMap
from actorkit.readmodel.view import View
from tests.persistence.actors import Account
from tests.persistence.kit import Nodes

KEYS = [f"k{number}" for number in range(6)]


class Slot(Struct, frozen=True):
    region: str
    number: int


INDEXED = declared_indexes("Slot", Slot, [by("region")])


@given(st.lists(st.sampled_from(KEYS), max_size=60))
def test_a_log_has_one_record_for_each_key_in_the_order_of_last_changes(changed: list[str]) -> None:
    log = ChangeLog()
    for key in changed:
        log.note(key)
    last = {key: number for number, key in enumerate(changed, 1)}
    in_order = sorted(last, key=last.__getitem__)
    for number in range(len(changed) + 1):
        assert log.since(number) == [key for key in in_order if last[key] > number]
    assert all(log.number(key) == last.get(key, 0) for key in KEYS)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(KEYS), st.sampled_from(["eu", "us", None])),
        st.tuples(st.just("read"), st.integers(1, 4), st.none()),
    ),
    max_size=80,
)


@given(STEPS, st.booleans(), st.sampled_from([{}, {"region": "eu"}]), st.booleans())
def test_a_reader_of_any_speed_knows_in_the_end_what_there_is(
    steps: list[tuple[str, Any, Any]], present: bool, conditions: dict[str, Any], by_where: bool
) -> None:
    values: LwwMap[Slot] = LwwMap(indexed=INDEXED)
    for number, key in enumerate(KEYS[:3]):
        values.publish(key, 1, Slot(["eu", "us"][number % 2], 0))
    view = View(values)
    if by_where and conditions:
        changes = view.changes(present=present, where=lambda slot: slot.region == "eu")
    else:
        changes = view.changes(present=present, **conditions)
    shown = {} if present else dict(view.find(**conditions).entries)
    told = 0
    for number, (action, what, region) in enumerate([*steps, *[("read", 50, None)] * 3], 2):
        if action == "put":
            values.publish(what, number, None if region is None else Slot(region, number))
            continue
        for change in changes.ready(what):
            told += 1
            known = shown.get(change.id)
            if change.entry is None:
                assert known is not None or not conditions, "nothing is told of what never passed the filter"
                shown.pop(change.id, None)
            else:
                assert known is None or known.version < change.entry.version, "versions only grow, and none comes twice"
                assert change.entry == view.get(change.id), "what is told is the newest"
                shown[change.id] = change.entry
        assert len(changes._left) <= len(KEYS)
        assert len(changes._told) <= len(KEYS)
    assert shown == view.find(**conditions).entries
    assert told <= 3 + sum(action == "put" for action, _, _ in steps)
    assert changes.position == values.subscribe().newest


@given(STEPS, st.sampled_from([{}, {"region": "eu"}]), st.integers(0, 80))
def test_a_reader_that_comes_back_goes_on_where_it_was(
    steps: list[tuple[str, Any, Any]], conditions: dict[str, Any], away_at: int
) -> None:
    values: LwwMap[Slot] = LwwMap(indexed=INDEXED)
    values.publish("k0", 1, Slot("eu", 0))
    view = View(values)
    changes = view.changes(present=True, **conditions)
    shown: dict[str, Any] = {}

    def read(most: int) -> None:
        for change in changes.ready(most):
            shown.pop(change.id, None)
            if change.entry is not None:
                shown[change.id] = change.entry

    position: int | None = None
    for number, (action, what, region) in enumerate(steps, 2):
        if action == "put":
            values.publish(what, number, None if region is None else Slot(region, number))
        elif number < away_at:
            read(what)
            position = changes.position
    changes.close()
    changes = view.changes(present=True, after=position, **conditions)
    assert changes.resumed == (position is not None)
    if not changes.resumed:
        shown.clear()
    for _ in range(3):
        read(50)
    assert shown == view.find(**conditions).entries


def test_a_position_that_this_view_never_had_begins_anew() -> None:
    values: LwwMap[int] = LwwMap()
    values.publish("a", 1, 1)
    for after in (5, -1):
        changes = View(values).changes(present=True, after=after)
        assert not changes.resumed
        assert changes.position is None
        assert [change.id for change in changes.ready(5)] == ["a"]
        assert changes.position == 0


def test_an_entity_that_changes_all_the_time_is_told_to_a_slow_reader_too() -> None:
    values: LwwMap[int] = LwwMap()
    changes = View(values).changes()
    told: list[str] = []
    for number in range(1, 40):
        for key in KEYS:
            values.publish(key, number, number)
        told += [change.id for change in changes.ready(1)]
    assert {told.count(key) for key in KEYS} <= {6, 7}


async def test_changes_come_as_they_happen(nodes: Nodes) -> None:
    system = await nodes.start()
    view = system.view(Account.total)
    await system.get(Account, "a").put(1)
    told: list[Change[int]] = []

    async def follow() -> None:
        async for change in view.changes(present=True):
            told.append(change)  # noqa: PERF401 - looked at meanwhile

    following = asyncio.ensure_future(follow())
    await asyncio.sleep(1)
    assert told == [("a", (1, 1))]
    await system.get(Account, "a").put(1)
    await asyncio.sleep(1)
    await system.get(Account, "b").put(5)
    await asyncio.sleep(1)
    assert told == [("a", (1, 1)), ("a", (2, 2)), ("b", (5, 1))]
    await system.stop()
    await asyncio.wait_for(following, 1)


async def test_a_reader_that_is_cancelled_leaves_nothing_behind_and_may_go_on() -> None:
    values: LwwMap[int] = LwwMap()
    changes = View(values).changes()
    waiting = asyncio.ensure_future(changes.batch(5))
    await asyncio.sleep(0)
    assert len(changes._log._sleepers) == 1
    waiting.cancel()
    await asyncio.wait([waiting])
    assert changes._log._sleepers == set()
    values.publish("a", 1, 1)
    assert await changes.batch(5) == [("a", (1, 1))]


async def test_whoever_closes_the_iterator_ends_it_also_while_somebody_waits() -> None:
    values: LwwMap[int] = LwwMap()
    async with aclosing(View(values).changes()) as changes:
        waiting = asyncio.ensure_future(changes.batch(5))
        await asyncio.sleep(0)
    assert await waiting == []
    with pytest.raises(StopAsyncIteration):
        await anext(changes)
    assert changes._log._sleepers == set()


async def test_a_batch_of_no_changes_is_refused_since_it_would_never_come() -> None:
    values: LwwMap[Slot] = LwwMap()
    changes = View(values).changes()
    values.publish("a", 1, Slot("eu", 1))
    for most in (0, -1):
        with pytest.raises(ValueError, match=f"1 or more: it cannot be {most}"):
            await changes.batch(most)
        with pytest.raises(ValueError, match=f"1 or more: it cannot be {most}"):
            changes.ready(most)
    assert [change.id for change in await changes.batch(1)] == ["a"]


async def test_what_was_told_before_the_end_is_the_newest() -> None:
    values: LwwMap[int] = LwwMap()
    changes = View(values).changes()
    values.publish("a", 1, 1)
    values.close()
    assert [change async for change in changes] == [("a", (1, 1))]
    assert [change async for change in View(values).changes(present=True)] == [("a", (1, 1))]


def test_those_who_follow_are_bounded_and_make_room_when_they_leave() -> None:
    values: LwwMap[int] = LwwMap(subscribers_max=2)
    view = View(values)
    first, second = view.changes(), view.changes()
    with pytest.raises(Overloaded):
        view.changes()
    first.close()
    first.close()
    third = view.changes()
    del second
    gc.collect()
    fourth = view.changes()
    with pytest.raises(Overloaded):
        view.changes()
    third.close()
    fourth.close()


def test_a_view_that_nobody_follows_pays_for_nothing() -> None:
    values: LwwMap[int] = LwwMap()
    view = View(values)
    values.publish("a", 1, 1)
    assert not values._watchers
    view.changes().close()
    values.publish("a", 2, 2)
    assert len(values._watchers) == 1

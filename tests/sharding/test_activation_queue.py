"""P9, P11: who comes into memory next where many wait: shards in turns, fresh calls soon, nobody overtaken for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from actorkit.ids import PersistenceId
from actorkit.persistence.actor import entity_type_of
from actorkit.persistence.calls import OUTSIDE, EntityCall, Progress
from actorkit.sharding.activation_queue import ActivationQueue
from tests.persistence.actors import Account

BALANCE = entity_type_of(Account).handlers["balance"]


class Calls:
    """Makes calls without a system."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def to(self, name: str, *, deadline: float = 1000.0) -> EntityCall:
        future: asyncio.Future[object] = self._loop.create_future()
        pid = PersistenceId("Account", name)
        return EntityCall(pid, BALANCE, (), "c", None, deadline, future, {}, OUTSIDE, 1)


def queue(*, calls_max: int = 10_000, entity_calls_max: int = 100) -> ActivationQueue:
    return ActivationQueue(calls_max=calls_max, entity_calls_max=entity_calls_max)


def any_shard(shard: int) -> bool:
    return True


def taken(waiting: ActivationQueue, number: int) -> list[str]:
    found = [waiting.next(any_shard) for _ in range(number)]
    return [each[1].id for each in found if each is not None]


def test_the_newest_and_the_oldest_come_in_turns() -> None:
    calls, waiting = Calls(), queue()
    for number in range(6):
        assert waiting.add(0, calls.to(f"{number}")) == []
    assert taken(waiting, 3) == ["5", "0", "4"]
    waiting.add(0, calls.to("fresh"))
    assert taken(waiting, 9) == ["1", "fresh", "2", "3"]
    assert not waiting


def test_shards_take_turns_however_many_wait_in_each() -> None:
    calls, waiting = Calls(), queue()
    for number in range(1_000):
        waiting.add(1, calls.to(f"herd {number}"))
    waiting.add(2, calls.to("single"))
    assert "single" in taken(waiting, 2)


def test_a_fresh_call_waits_for_two_rounds_of_the_shards_at_most() -> None:
    calls, waiting, shards = Calls(), queue(), 20
    for shard in range(shards):
        for number in range(100):
            waiting.add(shard, calls.to(f"{shard} {number}"))
    taken(waiting, 30)
    waiting.add(7, calls.to("fresh"))
    assert "fresh" in taken(waiting, 2 * shards)


def test_calls_of_one_entity_stay_together_and_in_order() -> None:
    calls, waiting = Calls(), queue()
    sent = [calls.to("a") for _ in range(3)]
    for call in sent:
        waiting.add(0, call)
        waiting.add(0, calls.to("b"))
    found = [waiting.next(any_shard) for _ in range(2)]
    assert [each[2] for each in found if each is not None and each[1].id == "a"] == [sent]


def test_shards_that_are_not_ready_are_passed_over_and_keep_what_they_have() -> None:
    calls, waiting = Calls(), queue()
    waiting.add(0, calls.to("a"))
    waiting.add(1, calls.to("b"))
    assert waiting.next(lambda shard: shard == 1) is not None
    assert waiting.next(lambda shard: shard == 1) is None
    assert [call.pid.id for call in waiting.take(0)] == ["a"]
    assert not waiting


def test_entities_of_which_all_calls_have_ended_are_passed_over() -> None:
    calls, waiting = Calls(), queue()
    ended = [calls.to(f"{number}") for number in range(3)]
    for call in ended:
        waiting.add(0, call)
        call.expire()
        assert call.future.exception() is not None
    waiting.add(0, calls.to("living"))
    assert taken(waiting, 2) == ["living"]
    assert not waiting


def test_what_waits_is_bounded_and_the_one_with_the_longest_wait_makes_way() -> None:
    calls, waiting = Calls(), queue(calls_max=5, entity_calls_max=2)
    for number in range(5):
        assert waiting.add(0, calls.to(f"{number}")) == []
    assert [call.pid.id for call in waiting.add(0, calls.to("fresh"))] == ["2"]
    assert waiting.add(0, calls.to("fresh")) != []
    third = calls.to("fresh")
    assert waiting.add(0, third) == [third]


def test_whose_turn_will_not_come_in_time_is_told_and_the_others_are_not() -> None:
    """The rate is 100 a second. Of 1,000 that have 5 s left half can be served; both ends are."""
    calls, waiting = Calls(), queue()
    for number in range(1_000):
        waiting.add(number % 10, calls.to(f"{number}", deadline=8.0))
    assert waiting.tick(0.0) == []
    told: list[EntityCall] = []
    for tenth in range(1, 31):
        taken(waiting, 10)
        told += waiting.tick(tenth / 10)
    left = len(waiting)
    assert left <= 520, "what can be served in the 5 s that are left, and one of each shard and side"
    assert left >= 480, "and no fewer"
    assert len(told) == 1_000 - 300 - left
    fresh = calls.to("fresh", deadline=8.0)
    assert waiting.add(3, fresh) == []
    assert fresh not in waiting.tick(3.05)
    assert "fresh" in taken(waiting, 20)


def test_nobody_is_told_so_while_nothing_comes_at_all_or_for_what_lies_far_ahead() -> None:
    calls, waiting = Calls(), queue()
    for number in range(1_000):
        waiting.add(0, calls.to(f"{number}", deadline=60.0))
    assert [waiting.tick(tenth / 10) for tenth in range(20)] == [[]] * 20
    taken(waiting, 1)
    assert waiting.tick(2.0) == [], "the store may just have come back"


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.sampled_from(["add", "next", "tick", "end"]))))
def test_every_call_comes_out_once(steps: Sequence[tuple[int, int, str]]) -> None:
    calls, waiting = Calls(), queue(calls_max=6, entity_calls_max=3)
    added: list[EntityCall] = []
    out: list[EntityCall] = []
    for now, (shard, entity, step) in enumerate(steps):
        if step == "add":
            added.append(calls.to(f"{shard} {entity}", deadline=float(now + entity)))
            out += waiting.add(shard, added[-1])
        elif step == "next":
            found = waiting.next(lambda number, skipped=shard: number != skipped)  # type: ignore[misc]
            out += [] if found is None else found[2]
        elif step == "tick":
            out += waiting.tick(float(now))
        elif added:
            ended = added[entity % len(added)]
            ended.expire()
            assert ended.future.exception() is not None
    for shard in range(4):
        assert set(waiting.of(shard)) == {pid for pid in waiting.of(shard) if waiting.has(shard, pid)}
        out += waiting.take(shard)
    assert not waiting
    assert len(out) == len({id(call) for call in out})
    left_out = {id(call) for call in added} - {id(call) for call in out}
    assert all(call.progress is Progress.ENDED for call in added if id(call) in left_out)

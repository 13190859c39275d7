"""Routing: calls find the owner of their shard, in order, wherever it moves."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec

from actorkit.errors import Overloaded
from actorkit.sharding.messages import ShardAnswer, Standing
from actorkit.sharding.routing import Ask, Deliver, Fail, Routing, Send
from actorkit.sharding.settings import ShardingSettings

SETTINGS = ShardingSettings()
SHARD = 3


class Chance:
    """Randomness from a seed."""

    def __init__(self, seed: int = 0) -> None:
        self._random = Random(seed)

    def token(self, size_bytes: int) -> bytes:
        return self._random.randbytes(size_bytes)

    def uniform(self) -> float:
        return self._random.random()


class Bench:
    """A region on node "me", next to "x", "y" and "z"; ``x`` should own everything. Calls are their own names."""

    def __init__(self, owner: str | None = "x", **changes: Any) -> None:
        settings = msgspec.structs.replace(SETTINGS, **changes)
        self.ended: set[str] = set()
        self.routing: Routing[str] = Routing(
            "me", 8, settings=settings, randomness=Chance(), ended=self.ended.__contains__
        )
        self.now = 0.0
        self._order = 0
        self.numbers: dict[str, int] = {}
        self.place(owner)

    def place(self, owner: str | None, members: str = "me x y z") -> list[str]:
        self.routing.placed(self.now, [owner] * 8, members.split())
        return self.seen()

    def submit(self, *calls: str, entity: str = "e", order: int = 0, query: bool = False) -> list[str]:
        for call in calls:
            self._order += 1
            self.routing.submit(self.now, call, entity, SHARD, order=order or self._order, query=query)
        return self.seen()

    def seen(self) -> list[str]:
        """What is to be done, in short; several attempts, and all but the first tenure, are marked."""
        seen: list[str] = []
        for effect in self.routing.poll():
            match effect:
                case Send():
                    self.numbers[effect.call] = effect.number
                    seen.append(f"{effect.call}>{effect.node}{effect.tenure}" + "!" * (effect.attempt - 1))
                case Deliver():
                    seen.append(effect.call + "!" * (effect.attempt - 1))
                case Ask():
                    seen.append(f"?{effect.node}")
                case Fail():
                    assert isinstance(effect.error, Overloaded)
                    seen.append(f"{effect.call} fails")
        return seen

    def told(self, node: str, standing: Standing, tenure: int = 0, ask: str = "") -> list[str]:
        self.routing.told(self.now, node, ShardAnswer(SHARD, standing, tenure, ask))
        return self.seen()

    def owned(self, node: str, tenure: int) -> list[str]:
        return self.told(node, Standing.OWNED, tenure)

    def answered(self, node: str, call: str) -> list[str]:
        assert self.routing.answered(node, self.numbers[call]) == call
        return self.seen()

    def returned(self, node: str, *calls: str, ask: str = "", tenure: int = 0, acted: str = "") -> list[str]:
        numbers = [self.numbers[call] for call in calls]
        standing = Standing.OWNED if ask == node else Standing.ELSEWHERE
        answer = ShardAnswer(SHARD, standing, tenure, "" if ask == node else ask)
        self.routing.returned(self.now, node, numbers, answer, [self.numbers[call] for call in acted.split()])
        return self.seen()

    def later(self, by_s: float) -> list[str]:
        self.now += by_s
        self.routing.tick(self.now)
        return self.seen()


def test_calls_wait_until_a_node_says_that_it_owns_their_shard() -> None:
    bench = Bench()
    assert bench.submit("a", "b") == ["?x"]
    assert bench.submit("c", entity="f") == []
    assert bench.owned("x", 5) == ["a>x5", "b>x5", "c>x5"]
    assert bench.submit("d") == ["d>x5"]
    assert bench.routing.count == 4


def test_whoever_is_pointed_to_is_asked_at_once() -> None:
    bench = Bench()
    assert bench.submit("a") == ["?x"]
    assert bench.told("x", Standing.ELSEWHERE, ask="y") == ["?y"]
    assert bench.owned("y", 2) == ["a>y2"]


def test_nodes_that_point_to_each_other_are_asked_again_later_and_later() -> None:
    bench = Bench()
    asked, at = bench.submit("a"), [0.0]
    while len(at) < 200 and bench.now < 20:
        node = asked[-1][1:]
        asked = bench.told(node, Standing.ELSEWHERE, ask="y" if node == "x" else "x")
        if not asked:
            assert bench.routing.wake_s is not None
            asked = bench.later(bench.routing.wake_s - bench.now)
        at.append(bench.now)
    assert bench.now >= 199 / 4 * 0.1 * 0.8, "at most 4 questions in 0.1 to 0.2 s, in the end"


def test_a_call_that_comes_back_keeps_its_place() -> None:
    bench = Bench()
    bench.submit("first")
    bench.owned("x", 1)
    bench.answered("x", "first")
    bench.submit("a", "b", "c")
    assert bench.returned("x", "b", ask="y", tenure=1) == ["?y"]
    assert bench.submit("d") == []
    assert bench.owned("y", 2) == [], "a and c are still out"
    assert bench.submit("other", entity="f") == ["other>y2"], "which is no matter to other entities"
    assert bench.answered("x", "a") == []
    assert bench.returned("x", "c", ask="y", tenure=1) == ["b>y2", "c>y2", "d>y2"]


def test_an_undone_call_that_had_called_others_goes_out_as_a_further_attempt() -> None:
    bench = Bench()
    bench.submit("a", "b")
    bench.owned("x", 1)
    bench.returned("x", "a", "b", ask="y", tenure=1, acted="a")
    assert bench.owned("y", 2) == ["a>y2!", "b>y2"]


def test_what_was_out_when_the_connection_was_lost_goes_out_again_as_a_further_attempt_in_order() -> None:
    bench = Bench()
    bench.submit("a", "b")
    bench.submit("q", query=True)
    bench.owned("x", 1)
    first = bench.numbers["a"]
    bench.routing.disconnected(bench.now, "x")
    assert bench.submit("c") == []
    assert bench.later(SETTINGS.ask_backoff_min_s) == ["?x"]
    assert bench.owned("x", 1) == ["a>x1!", "b>x1!", "q>x1", "c>x1"]
    assert bench.routing.answered("x", first) is None, "that is an answer to the first sending"


def test_what_is_out_at_a_node_that_is_no_member_any_more_is_as_good_as_lost() -> None:
    bench = Bench()
    bench.submit("a")
    bench.owned("x", 1)
    bench.place("y", members="me y")
    assert bench.later(SETTINGS.ask_backoff_min_s) == ["?y"]
    assert bench.told("y", Standing.AWAITED) == []
    assert bench.owned("y", 2) == ["a>y2!"]


def test_what_is_said_of_an_earlier_tenure_never_counts() -> None:
    bench = Bench()
    bench.submit("a")
    bench.owned("y", 7)
    bench.answered("y", "a")
    bench.routing.disconnected(bench.now, "y")
    bench.submit("b")
    assert bench.owned("x", 6) == []
    assert bench.routing.owner(SHARD) == (None, 7)
    assert bench.owned("y", 7) == ["b>y7"]


def test_an_owner_that_others_have_overtaken_is_left_as_soon_as_its_answers_are_in() -> None:
    bench = Bench()
    bench.submit("a")
    bench.owned("x", 1)
    assert bench.owned("y", 2) == []
    assert bench.submit("b") == []
    assert bench.answered("x", "a") == ["b>y2"]


def test_an_owner_that_returns_what_it_should_take_is_not_asked_again_at_once() -> None:
    bench = Bench()
    bench.submit("a")
    bench.owned("x", 1)
    assert bench.returned("x", "a", ask="x", tenure=1) == []
    assert bench.later(0.1) == ["?x"]
    assert bench.owned("x", 1) == ["a>x1"]


def test_an_owner_of_a_newer_tenure_gets_what_it_returned_at_once() -> None:
    bench = Bench()
    bench.submit("a")
    bench.owned("x", 1)
    assert bench.returned("x", "a", ask="x", tenure=3) == ["a>x3"]


def test_that_there_is_no_connection_to_oneself_does_not_matter() -> None:
    bench = Bench("me")
    bench.routing.acquired(SHARD, 1)
    bench.routing.disconnected(bench.now, "me")
    assert bench.submit("a") == ["a"]


def test_calls_are_delivered_where_the_shard_is_owned_here() -> None:
    bench = Bench(owner="me")
    assert bench.submit("a", "b") == []
    bench.routing.acquired(SHARD, 4)
    assert bench.seen() == ["a", "b"]
    assert not bench.routing.has_lane("e")
    assert bench.submit("c") == ["c"]
    assert bench.routing.count == 0


def test_what_was_delivered_here_is_settled_before_later_calls_go_elsewhere() -> None:
    bench = Bench(owner="me")
    bench.routing.acquired(SHARD, 1)
    bench.submit("a", "b")
    bench.routing.released(bench.now, SHARD, "y", ["e"])
    assert bench.seen() == ["?y"]
    bench.submit("c")
    assert bench.owned("y", 2) == []
    assert bench.submit("other", entity="f") == ["other>y2"]
    assert bench.submit("b", order=2) == [], "undone, and back"
    bench.routing.settled("e")
    assert bench.seen() == ["b>y2", "c>y2"]


def test_the_owner_hears_from_its_own_lease_that_it_is_none_any_more() -> None:
    """Calls are in progress here, and nobody else knows which."""
    bench = Bench(owner="me")
    bench.routing.acquired(SHARD, 1)
    bench.submit("a")
    assert bench.owned("y", 2) == []
    assert bench.submit("b") == ["b"]


def test_calls_that_have_ended_are_forgotten_where_they_are_held_back() -> None:
    bench = Bench()
    bench.submit("a", "b")
    bench.ended.add("a")
    assert bench.owned("x", 1) == ["b>x1"]
    bench.ended.add("b")
    bench.returned("x", "b", ask="y", tenure=1)
    assert bench.routing.count == 0
    assert bench.later(1) == []
    assert bench.routing.wake_s is None, "nobody wants to know any more"


def test_buffers_are_bounded_and_room_is_made_of_what_has_ended() -> None:
    bench = Bench(buffer_max_calls=3, calls_max=5)
    assert bench.submit("a", "b", "c") == ["?x"]
    assert bench.submit("d") == ["d fails"]
    bench.ended.add("b")
    bench.now = 1.0
    assert bench.submit("e") == []
    assert bench.owned("x", 1) == ["a>x1", "c>x1", "e>x1"]
    assert bench.submit("f", "g", "h") == ["f>x1", "g>x1", "h fails"]
    bench.answered("x", "a")
    assert bench.submit("i") == ["i>x1"]


def test_a_call_that_could_not_be_sent_is_given_back_and_the_next_ones_go_on() -> None:
    bench = Bench()
    bench.submit("a", "b")
    bench.owned("x", 1)
    assert bench.routing.unsent("x", bench.numbers["a"]) == "a"
    assert bench.routing.count == 1


def test_a_region_that_stops_gives_up_what_it_holds_back() -> None:
    bench = Bench()
    bench.submit("a")
    bench.owned("x", 1)
    bench.returned("x", "a", ask="y")
    bench.submit("b", entity="f")
    bench.submit("c")
    assert bench.routing.give_up() == ["a", "b", "c"]
    assert bench.routing.count == 0
    assert bench.routing.wake_s is None


def test_the_lease_store_helps_to_find_the_owner() -> None:
    bench = Bench(owner="me")
    assert bench.submit("a") == []
    bench.routing.hinted(bench.now, SHARD, "z")
    assert bench.seen() == ["?z"]
    assert bench.owned("z", 9) == ["a>z9"]
    bench.answered("z", "a")
    bench.routing.disconnected(bench.now, "z")
    bench.routing.hinted(bench.now, SHARD, "y")
    assert bench.submit("b") == ["?y"], "it is remembered for as long as the shard is wanted here"
    bench.place("me", members="me x z")
    assert bench.later(1) == ["?z"], "that is no member any more"


def test_a_new_placement_is_asked_at_once() -> None:
    bench = Bench(owner=None)
    assert bench.submit("a") == []
    assert bench.place("y") == ["?y"]

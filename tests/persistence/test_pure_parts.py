"""The pure parts of an entity: the gate, what it remembers, and signatures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorkit.errors import JournalUnavailable
from actorkit.persistence.deduplication import KeyMemory
from actorkit.persistence.gate import Answer, Gate
from actorkit.persistence.published import published
from actorkit.persistence.signatures import Signature, is_value


def answer(sequence: int, *, from_memory: bool = False) -> Answer:
    call: Any = object()
    return Answer(call, None, None, sequence, 1, from_memory, from_memory)


# ----------------------------------------------------------------------------------------------------------------- gate


@given(st.lists(st.booleans(), max_size=20), st.data())
def test_what_is_at_the_head_of_the_gate_is_durable_exactly_when_all_before_it_has_landed(
    kinds: list[bool], data: st.DataObject
) -> None:
    gate = Gate()
    line = [answer(number, from_memory=kind) for number, kind in enumerate(kinds, 1)]
    for each in line:
        gate.hold(each)
    own = [each for each in line if not each.from_memory]
    assert gate.outstanding == len(own)
    landed = data.draw(st.integers(0, len(own)))
    for each in own[:landed]:
        gate.landed(each)
    left = []
    while gate.waiting and gate.waiting[0].durable:
        left.append(gate.waiting.popleft())
    expected = line if landed == len(own) else line[: line.index(own[landed])]
    assert left == expected
    assert gate.outstanding == len(own) - landed
    assert gate.committed == max((each.sequence for each in own[:landed]), default=0)


def test_what_lands_behind_a_failure_does_not_count_as_committed() -> None:
    """The failed one may be stored; whoever looks for it reads from what is known to be durable."""
    gate = Gate()
    first, second, third = (answer(number) for number in (1, 2, 3))
    for each in (first, second, third):
        gate.hold(each)
    gate.landed(first)
    gate.failed(second, JournalUnavailable("x"))
    gate.landed(third)
    assert (gate.committed, gate.outstanding) == (1, 0)
    assert gate.drain() == [first, second, third]
    assert not gate
    fourth = answer(4)
    gate.hold(fourth)
    gate.landed(fourth)
    assert gate.committed == 4


# ----------------------------------------------------------------------------------------------------------------- keys


@given(
    in_memory=st.integers(1, 5),
    window_us=st.integers(1, 30),
    steps=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 10)), max_size=60),
)
def test_a_key_within_the_window_is_found_or_known_to_be_elsewhere(
    in_memory: int, window_us: int, steps: list[tuple[int, int]]
) -> None:
    """Compared with a memory that keeps everything: never a wrong answer, and never a wrong "new"."""
    keys = KeyMemory(in_memory=in_memory, window_us=window_us)
    keys.load([], 0)
    everything: dict[str, tuple[bytes, int]] = {}
    now_us = 0
    for number, (name, later_us) in enumerate(steps):
        now_us += later_us
        key = f"k{name}"
        known = keys.find(key, now_us)
        stored = everything.get(key)
        alive = stored is not None and stored[1] >= now_us - window_us
        if known is not None:
            assert alive
            assert known == stored
        else:
            assert not (alive and keys.complete)
        alive_keys = sum(time_us >= now_us - window_us for _, time_us in everything.values())
        assert keys.count >= alive_keys
        if not alive:
            outcome = b"%d" % number
            keys.remember(key, outcome, now_us, pending=0)
            everything[key] = (outcome, now_us)


@given(st.integers(1, 5), st.integers(0, 20), st.integers(0, 20))
def test_keys_that_may_not_be_stored_yet_are_never_dropped(in_memory: int, stored: int, pending: int) -> None:
    keys = KeyMemory(in_memory=in_memory, window_us=100)
    keys.load([], 0)
    for number in range(stored):
        keys.remember(f"s{number}", b"", 0, pending=0)
    for number in range(pending):
        keys.remember(f"p{number}", b"", 0, pending=number + 1)
    assert all(keys.find(f"p{number}", 0) is not None for number in range(pending))
    keys.remember("last", b"", 0, pending=0)
    assert sum(keys.find(f"{kind}{n}", 0) is not None for kind in "sp" for n in range(20)) <= in_memory


def test_loading_keeps_what_was_remembered_before() -> None:
    from actorkit.persistence.deduplication import Remembered

    keys = KeyMemory(in_memory=5, window_us=100)
    keys.remember("pending", b"p", 50, pending=1)
    keys.load([("old", Remembered(b"o", 10))], 1)
    assert keys.find("pending", 60) == (b"p", 50)
    assert keys.find("old", 60) == (b"o", 10)
    assert (keys.complete, keys.count) == (True, 2)
    keys.forget_all()
    assert keys.find("pending", 60) is None
    assert not keys.loaded


# ----------------------------------------------------------------------------------------------------------- signatures


class Color(Enum):
    RED = "red"


class Point(msgspec.Struct, frozen=True):
    x: int
    y: int = 0


class Path(msgspec.Struct, frozen=True):
    points: list[Point]


Seconds = Annotated[int, {"unit": "s"}]


class Link(msgspec.Struct, frozen=True):
    number: int
    rest: Link | None = None


class Knot(msgspec.Struct, frozen=True):
    """Only what it contains besides itself makes it changeable."""

    rest: tuple[Knot, ...] = ()
    numbers: list[int] = []


class Handlers:
    def plain(self, units: int, note: str = "", *, force: bool = False) -> str:
        return f"{units} {note} {force}"

    def other(self, units: int, note: str = "", *, force: bool = False) -> str:
        return ""

    def values(self, a: int, b: str | None = None) -> None: ...

    def to(self, point: Point) -> None: ...

    def many(
        self,
        a: int | str | None,
        b: int | str | float | None,
        c: int | str | float | None,
        d: int | bytes | float | bool | None,
    ) -> None: ...

    def price(self, amount: float) -> None: ...

    def rich(self, path: Path, color: Color, when: datetime, amounts: dict[str, Decimal]) -> None: ...

    async def later(self, units: int) -> list[int]:
        return [units]

    def chain(self, link: Link) -> Link:
        return link

    def annotated(self, seconds: Seconds) -> None: ...


def signature(function: Callable[..., Any]) -> Signature:
    return Signature("Handlers", function, {})


@given(st.integers(-(2**63), 2**63 - 1), st.text(), st.booleans())
def test_however_a_call_is_written_it_is_bound_the_same(units: int, note: str, force: bool) -> None:
    plain = signature(Handlers.plain)
    bound = plain.bind((units, note), {"force": force})
    assert bound == (units, note, force)
    assert plain.bind((), {"note": note, "force": force, "units": units}) == bound
    assert plain.decode(plain.encode(bound)) == bound
    assert plain.taking_bound(Handlers.plain)(Handlers(), *bound) == f"{units} {note} {force}"
    assert plain.bind((units,), {}) == (units, "", False)


@given(st.tuples(st.integers(), st.text()), st.tuples(st.integers(), st.text()))
def test_digests_differ_exactly_where_calls_do(one: tuple[int, str], two: tuple[int, str]) -> None:
    plain = signature(Handlers.plain)
    inside = [each for each in (one, two) if -(2**63) <= each[0] < 2**63]
    digests = [plain.digest(plain.bind(each, {})) for each in inside]
    if len(digests) == 2:
        assert (digests[0] == digests[1]) == (one == two)
    for each, digest in zip(inside, digests, strict=True):
        assert signature(Handlers.other).digest(plain.bind(each, {})) != digest


@pytest.mark.parametrize("units", [2**64, 10**30, -(2**63) - 1])
def test_a_number_that_no_message_can_hold_is_told_to_the_caller(units: int) -> None:
    for args, kwargs in (((units,), {}), ((), {"units": units}), ((units, "é"), {})):
        with pytest.raises(TypeError, match=r"Handlers\.plain: .*2\*\*63"):
            signature(Handlers.plain).bind(args, kwargs)
    assert signature(Handlers.plain).bind((2**64 - 1,), {}) == (2**64 - 1, "", False)


def test_text_that_is_no_utf_8_is_told_to_the_caller() -> None:
    with pytest.raises(TypeError, match=r"Handlers\.plain: .*surrogates"):
        signature(Handlers.plain).bind((1, "\ud800"), {})


def test_a_record_may_hold_others_of_its_kind() -> None:
    chain = signature(Handlers.chain)
    assert chain.arguments_are_values
    assert chain.reply_is_value
    assert chain.bind((Link(1, Link(2)),), {}) == (Link(1, Link(2)),)
    assert not is_value(Knot)


def test_an_annotation_that_cannot_be_hashed_is_taken_as_it_is() -> None:
    assert not is_value(Seconds)
    assert signature(Handlers.annotated).bind((1,), {}) == (1,)


def test_bound_arguments_share_nothing_mutable_with_the_caller() -> None:
    rich = signature(Handlers.rich)
    points, amounts = [Point(1)], {"a": Decimal("1.50")}
    when = datetime(2026, 1, 1, tzinfo=UTC)
    bound = rich.bind((Path(points), Color.RED, when, amounts), {})
    points.append(Point(2))
    amounts["b"] = Decimal(2)
    assert bound == (Path([Point(1)]), Color.RED, when, {"a": Decimal("1.50")})
    assert rich.decode(rich.encode(bound)) == bound


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), ((1, "n", True), {}), ((1,), {"units": 2}), ((1,), {"unheard_of": 2}), ((1, 2), {"force": "maybe"})],
)
def test_a_call_that_does_not_fit_is_a_type_error_that_names_the_handler(args: Any, kwargs: Any) -> None:
    with pytest.raises(TypeError, match=r"Handlers\.plain"):
        signature(Handlers.plain).bind(args, kwargs)


@pytest.mark.parametrize(
    ("function", "args", "words"),
    [
        (Handlers.plain, ("1",), "Expected `int`, got `str` - in the argument `units`"),
        (Handlers.values, (1, 2), "Expected `str | null`, got `int` - in the argument `b`"),
        (Handlers.values, (True,), "Expected `int`, got `bool` - in the argument `a`"),
        (Handlers.to, (Point(1, "2"),), "Expected `int`, got `str` - in the argument `point.y`"),
        (Handlers.to, ("here",), "Expected `object`, got `str` - in the argument `point`"),
    ],
)
def test_a_value_of_another_type_than_declared_is_named_to_the_caller(
    function: Callable[..., Any], args: Any, words: str
) -> None:
    with pytest.raises(TypeError) as raised:
        signature(function).bind(args, {})
    assert str(raised.value) == f"Handlers.{function.__name__}: {words}"


def test_a_value_that_stands_for_the_declared_type_becomes_one() -> None:
    class Units(IntEnum):
        THREE = 3

    assert signature(Handlers.price).bind((2,), {}) == (2.0,)
    bound = signature(Handlers.values).bind((Units.THREE,), {})
    assert bound == (3, None)
    assert type(bound[0]) is int


def test_many_alternatives_are_looked_at_more_closely_and_not_enumerated() -> None:
    many = signature(Handlers.many)
    assert many.bind((1, "a", None, b"x"), {}) == (1, "a", None, b"x")
    with pytest.raises(TypeError, match="in the argument `c`"):
        many.bind((1, "a", True, b"x"), {})


@given(st.binary(max_size=40))
def test_arbitrary_bytes_are_arguments_that_fit_or_a_type_error(junk: bytes) -> None:
    """P13: whatever comes from the wire."""
    for function in (Handlers.plain, Handlers.rich, Handlers.values):
        handler = signature(function)
        try:
            decoded = handler.decode(junk)
        except TypeError:
            continue
        assert handler.decode(handler.encode(decoded)) == decoded


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (int, True), (str | None, True), (tuple[int, ...], True), (Color, True), (Point, True), (frozenset[str], True),
        (list[int], False), (dict[str, int], False), (Path, False), (tuple[list[int], int], False), (Any, False),
        (bytearray, False), (set[int], False),
    ],
)  # fmt: skip
def test_only_what_is_immutable_throughout_is_a_value(declared: Any, value: bool) -> None:
    assert is_value(declared) is value


def test_a_coroutine_functions_reply_is_what_it_gives_when_awaited() -> None:
    later = signature(Handlers.later)
    assert later.returns == list[int]
    assert asyncio.run(later.taking_bound(Handlers.later)(Handlers(), 3)) == [3]


class _Shown(msgspec.Struct, frozen=True):
    name: str
    labels: dict[str, str]
    sizes: list[int]
    nested: dict[str, list[int]]


@pytest.mark.parametrize("empty", [True, False])
def test_what_is_published_shares_no_container_with_the_state(empty: bool) -> None:
    labels, sizes, nested = ({}, [], {}) if empty else ({"a": "b"}, [1], {"c": [2]})
    shown = _Shown("x", labels, sizes, nested)
    value = published(lambda actor: shown).value(None)
    before = msgspec.json.encode(value)
    labels["a"] = "changed"
    sizes.append(3)
    nested.setdefault("c", []).append(4)
    assert msgspec.json.encode(value) == before
    assert type(value) is _Shown


def test_what_is_published_may_be_of_a_class_that_cannot_be_seen_from_elsewhere() -> None:
    class Inner(msgspec.Struct, frozen=True):
        sizes: list[int]

    class Outer(msgspec.Struct, frozen=True):
        inner: Inner

    shown = Outer(Inner([1]))
    value = published(lambda actor: shown).value(None)
    assert value == shown
    assert value.inner.sizes is not shown.inner.sizes

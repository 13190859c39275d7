"""What is found by indexes is what looking at all entries finds, whatever has changed before, in the order of ids."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from actorkit import PersistentActor, published
from actorkit.errors import DeclarationError
from actorkit.persistence.indexes import Index, by, by_range, by_window, declared_indexes
from actorkit.readmodel.conditions import Range, after, at_least, at_most, before, between
from actorkit.readmodel.lww_map import LwwMap
from actorkit.readmodel.ordered import Keys, Order
from actorkit.readmodel.view import View
from tests.persistence.actors import AccountState, Put

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
NAIVE = NOON.replace(tzinfo=None)


class Slot(Struct, frozen=True):
    region: str | None = None
    price: int | float | None = None
    starts_at: datetime | None = None
    ends_at: datetime | None = None


INDEXED = declared_indexes("Slot", Slot, [by("region"), by_range("price"), by_window("starts_at", "ends_at")])
KEYS = [f"k{number}" for number in range(12)]
TIMES = st.integers(0, 40).map(lambda hours: NOON + timedelta(hours=hours))
SLOTS = st.builds(
    Slot,
    region=st.sampled_from(["eu", "us", None]),
    price=st.none() | st.integers(-3, 3) | st.sampled_from([0.5, float("nan"), float("inf")]),
    starts_at=st.none() | TIMES,
    ends_at=st.none() | TIMES,
)
CHANGES = st.lists(st.tuples(st.sampled_from(KEYS), st.none() | SLOTS), max_size=60)


def ranges(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    conditions = [values.map(condition) for condition in (before, after, at_most, at_least)]
    return st.one_of(values, *conditions, st.tuples(values, values).map(lambda bounds: between(*bounds)))


QUESTIONS = st.fixed_dictionaries(
    {},
    optional={
        "region": st.sampled_from(["eu", "us", "nowhere", None]),
        "price": ranges(st.integers(-4, 4) | st.just(0.5)),
        "starts_at": ranges(TIMES),
        "ends_at": ranges(TIMES),
    },
)


def meets(value: Any, wanted: Any) -> bool:
    if not isinstance(wanted, Range):
        return bool(value is not None and value == wanted)
    if value is None:
        return False
    low, high = wanted.low, wanted.high
    above = low is None or value > low or (wanted.low_included and value == low)
    return bool(above and (high is None or value < high or (wanted.high_included and value == high)))


def all_that_meet(values: LwwMap[Slot], question: dict[str, Any]) -> list[str]:
    return [
        key
        for key, entry in sorted(values.entries.items())
        if all(wanted is None or meets(getattr(entry.value, name), wanted) for name, wanted in question.items())
    ]


@given(CHANGES, st.lists(QUESTIONS, max_size=4), st.integers(0, 13), st.sets(st.sampled_from([*KEYS, "unknown"])))
def test_what_is_found_is_what_looking_at_everything_finds(
    changes: list[tuple[str, Slot | None]], questions: list[dict[str, Any]], limit: int, ids: set[str]
) -> None:
    values: LwwMap[Slot] = LwwMap(indexed=INDEXED)
    for number, (key, slot) in enumerate(changes, 1):
        values.publish(key, number, slot)
        question = questions[number % len(questions)] if questions else {}
        expected = all_that_meet(values, question)
        assert list(values.find(question).entries) == expected
        assert values.find(question, limit=limit) == (
            {key: values.entries[key] for key in expected[:limit]},
            len(expected) > limit,
        )
        among = [key for key in expected if key in ids]
        assert list(values.find(question, ids=ids).entries) == among
        assert list(values.find(question, ids=ids, limit=limit).entries) == among[:limit]
        cheap = [key for key in expected if values.entries[key].value.price in (0, 1)]
        assert list(values.find(question, where=lambda slot: slot.price in (0, 1)).entries) == cheap


@given(CHANGES)
def test_nothing_is_left_of_what_has_gone(changes: list[tuple[str, Slot | None]]) -> None:
    values: LwwMap[Slot] = LwwMap(indexed=INDEXED)
    for number, (key, slot) in enumerate(changes, 1):
        values.publish(key, number, slot)
    for key in KEYS:
        if values.stamp(key) % 2:
            values.take_back(key)
        else:
            values.publish(key, len(changes) + 1, None)
    indexes: Any = values._indexes
    assert indexes._by_field["region"]._keys == {}
    assert indexes._by_field["price"].values == {}
    assert indexes._windows[0]._class_of == indexes._windows[0]._starts_by_class == {}
    for question in ({}, {"region": "eu"}, {"price": at_least(-9)}, {"starts_at": after(NOON), "ends_at": after(NOON)}):
        assert values.find(question) == ({}, False)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 50), st.booleans()), max_size=200))
def test_an_order_is_that_of_its_members_whenever_somebody_looks(steps: list[tuple[bool, int, bool]]) -> None:
    keys, members = Keys(), set[str]()
    for adds, number, looks in steps:
        key = f"{number:02}"
        (keys.add if adds else keys.discard)(key)
        (members.add if adds else members.discard)(key)
        if looks:
            assert list(keys.in_order()) == sorted(members)
        assert len(keys) == len(members)


def test_an_order_at_which_nobody_looks_is_not_kept() -> None:
    order = Order()
    assert order.of(range(100)) == list(range(100))
    for number in range(100, 120):
        order.add(number)
    assert order._members is None
    assert order.of(range(120)) == list(range(120))


def filled(count: int) -> View[Slot]:
    values: LwwMap[Slot] = LwwMap(indexed=INDEXED)
    for number in range(count):
        start = NOON + timedelta(hours=number)
        values.publish(f"k{number:05}", 1, Slot(f"r{number % 200}", number, start, start + timedelta(hours=2)))
    return View(values)


class Counted:
    """A filter that knows how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, slot: Slot) -> bool:
        self.asked += 1
        return True


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        ({"region": "r7"}, 50),
        ({"price": between(100, 150)}, 50),
        ({"starts_at": before(NOON + timedelta(hours=5_050)), "ends_at": after(NOON + timedelta(hours=5_002))}, 49),
        ({"starts_at": after(NOON), "region": "r7"}, 50),
    ],
)
def test_only_what_an_index_names_is_looked_at(conditions: dict[str, Any], found: int) -> None:
    view, counted = filled(10_000), Counted()
    looked_at: list[str] = []

    class Looking(dict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            looked_at.append(key)
            return super().__getitem__(key)

    indexes: Any = view._values._indexes
    indexes._entries = Looking(view.items())
    assert len(view.find(where=counted, **conditions).entries) == found
    assert counted.asked == found
    assert len(looked_at) == found


def test_a_window_finds_what_overlaps_without_going_through_the_past_and_the_future() -> None:
    view = filled(10_000)
    index: Any = view._values._indexes
    starts, ends = before(NOON + timedelta(hours=5_050)), after(NOON + timedelta(hours=5_002))
    window = index._windows[0]
    candidates = window.select(index._ranges["starts_at"].range_of(starts), index._ranges["ends_at"].range_of(ends))
    assert 49 <= len(candidates) <= 60


def test_times_of_any_zone_compare_and_those_without_one_are_taken_for_utc() -> None:
    values: LwwMap[Slot] = LwwMap(indexed=INDEXED)
    values.publish("east", 1, Slot(starts_at=NOON.astimezone(timezone(timedelta(hours=5)))))
    values.publish("naive", 1, Slot(starts_at=NAIVE))
    assert list(values.find({"starts_at": NOON}).entries) == ["east", "naive"]
    assert list(values.find({"starts_at": before(NOON)}).entries) == []


def test_times_are_found_by_value_whatever_their_zone() -> None:
    values: LwwMap[Slot] = LwwMap(indexed=declared_indexes("it", Slot, [by("starts_at")]))
    values.publish("east", 1, Slot(starts_at=NOON.astimezone(timezone(timedelta(hours=5)))))
    values.publish("naive", 1, Slot(starts_at=NAIVE))
    assert list(values.find({"starts_at": NOON.astimezone(timezone(timedelta(hours=-3)))}).entries) == ["east", "naive"]
    values.publish("naive", 2, Slot())
    assert list(values.find({"starts_at": NOON}).entries) == ["east"]


class NoOffset(tzinfo):
    """A zone that does not say how far from UTC it is: Python takes its times for such as have none."""

    def utcoffset(self, time: datetime | None, /) -> None:
        return None

    def dst(self, time: datetime | None, /) -> None:
        return None

    def tzname(self, time: datetime | None, /) -> None:
        return None


@pytest.mark.parametrize("time", [NAIVE, NOON.replace(tzinfo=NoOffset())])
def test_a_question_with_a_time_without_a_zone_is_refused_since_it_may_be_meant_for_any(time: datetime) -> None:
    by_value: View[Slot] = View(LwwMap(indexed=declared_indexes("it", Slot, [by("starts_at")])))
    questions = [time, before(time), at_most(time), after(time), at_least(time), between(NOON, time)]
    for view, question in [(by_value, time), *((filled(3), question) for question in questions)]:
        for ask in (view.find, view.changes):
            with pytest.raises(
                TypeError, match=r"starts_at is a time with a zone, and datetime\..* has none: say which"
            ):
                ask(starts_at=question)


class Local(Struct, frozen=True):
    opens_at: Annotated[datetime, Meta(tz=False)] | None


@pytest.mark.parametrize("index", [by, by_range])
def test_where_times_are_declared_to_have_no_zone_questions_have_none_either(index: Callable[[str], Index]) -> None:
    values: LwwMap[Local] = LwwMap(indexed=declared_indexes("it", Local, [index("opens_at")]))
    values.publish("k", 1, Local(NAIVE))
    assert list(values.find({"opens_at": NAIVE}).entries) == ["k"]
    with pytest.raises(TypeError, match=r"opens_at is declared as a time without a zone, and datetime\..* has one"):
        values.find({"opens_at": NOON})


def test_a_value_that_is_not_of_its_declared_type_is_found_without_conditions_only() -> None:
    values: LwwMap[Any] = LwwMap(indexed=INDEXED)
    strange: list[Any] = [Slot(["eu"], "dear", "noon", 5), Slot(price=True), Slot("eu", Decimal("nan")), "no slot", 5]  # type: ignore[arg-type]
    for number, value in enumerate(strange):
        values.publish(f"k{number}", 1, value)
    assert len(values.find({}).entries) == len(strange)
    assert list(values.find({"region": "eu"}).entries) == ["k2"]
    assert list(values.find({"price": at_least(-9)}).entries) == ["k1"]
    assert values.find({"starts_at": after(NOON)}).entries == {}
    for number in range(len(strange)):
        values.publish(f"k{number}", 2, None)
    assert values.find({}).entries == {}


@pytest.mark.parametrize(
    ("conditions", "error", "says"),
    [
        ({"colour": "red"}, DeclarationError, "no index on 'colour', only on region, price, starts_at, ends_at"),
        ({"region": before("eu")}, TypeError, r"region has no order: declare by_range\('region'\)"),
        ({"region": 5}, TypeError, "region is str, not 5"),
        ({"price": "5"}, TypeError, "price is Decimal or float or int, not '5'"),
        ({"price": at_most(float("nan"))}, TypeError, "not nan"),
        ({"starts_at": before("noon")}, TypeError, "starts_at is datetime, not 'noon'"),
        ({"limit": -1}, ValueError, "limit is how many to find at most, 0 or more, or None for all: it cannot be -1"),
        ({"ids": "k00001"}, TypeError, r"ids are several, .* give ids=\['k00001'\]"),
    ],
)
def test_a_question_that_cannot_be_answered_says_why(
    conditions: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        filled(3).find(**conditions)


def test_scanning_takes_any_predicate_and_a_limit() -> None:
    view = filled(10)
    assert list(view.scan(lambda slot: slot.price in (2, 5, 7), limit=2).entries) == ["k00002", "k00005"]
    assert view.scan(lambda slot: slot.price in (2, 5, 7), limit=2).truncated
    assert not view.scan(lambda slot: slot.price in (2, 5, 7), limit=3).truncated
    assert view.scan(lambda slot: True, limit=0) == ({}, True)
    with pytest.raises(ValueError, match="limit"):
        view.scan(lambda slot: True, limit=-1)
    with pytest.raises(ZeroDivisionError):
        view.scan(lambda slot: 1 // 0)


class Mixed(NamedTuple):
    name: str | int
    kind: Literal["a", "b"]
    day: date
    lasts: timedelta
    size: Annotated[int, Meta(ge=0, description="in litres")]
    tags: list[str]


@pytest.mark.parametrize(
    ("type", "index", "says"),
    [
        (Slot, by("colour"), "has an index on 'colour', which its value lacks: it has region, price"),
        (int, by("real"), "it is no record with fields"),
        (Slot, by("region", "region"), "there is another one on it"),
        (Mixed, by("tags"), "by value on 'tags': its type does not allow it"),
        (Mixed, by_range("kind"), "by range on 'kind': its type does not allow it"),
        (Mixed, by_range("name"), "values of its types do not compare"),
        (Mixed, by_window("lasts", "lasts"), "by window on 'lasts'"),
    ],
)
def test_an_index_that_cannot_be_is_refused(type: Any, index: Index, says: str) -> None:
    with pytest.raises(DeclarationError, match=says):
        declared_indexes("it", type, [index])


def test_fields_of_these_kinds_can_be_indexed() -> None:
    declared = declared_indexes("it", Mixed, [by("name", "kind"), by_range("day", "lasts", "size")])
    assert [field.name for field in declared.fields] == ["name", "kind", "day", "lasts", "size"]
    values: LwwMap[Mixed] = LwwMap(indexed=declared)
    values.publish("k", 1, Mixed("n", "a", date(2026, 1, 1), timedelta(1), 5, []))
    assert len(values.find({"name": "n"}).entries) == 1
    assert len(values.find({"day": at_most(date(2026, 1, 1)), "lasts": timedelta(1)}).entries) == 1
    assert len(values.find({"day": before(date(2026, 1, 1))}).entries) == 0


def test_a_time_is_no_date() -> None:
    for index in (by, by_range):
        values: LwwMap[Mixed] = LwwMap(indexed=declared_indexes("it", Mixed, [index("day")]))
        with pytest.raises(TypeError, match="day is date, not datetime"):
            values.find({"day": NOON})


def test_a_field_that_is_called_like_a_parameter_of_find_is_refused() -> None:
    class Limited(Struct):
        limit: int

    with pytest.raises(DeclarationError, match="a parameter of that name"):
        declared_indexes("it", Limited, [by("limit")])


def test_indexes_are_declared_with_what_is_published() -> None:
    class Indexed(PersistentActor[AccountState, Put], name="indexed"):
        @published(indexes=[by("region"), by_window("starts_at", "ends_at")])
        def slot(self) -> Slot | None:
            return None

    assert [field.name for field in Indexed.slot.indexed.fields] == ["region", "starts_at", "ends_at"]
    with pytest.raises(DeclarationError, match=r"Wrong\.slot has an index on 'regoin'"):

        class Wrong(PersistentActor[AccountState, Put], name="wrong"):
            @published(indexes=[by("regoin")])
            def slot(self) -> Slot | None:
                return None


@given(CHANGES)
def test_what_is_derived_is_that_of_the_present_values_and_computed_once_for_each(
    changes: list[tuple[str, Slot | None]],
) -> None:
    values: LwwMap[Slot] = LwwMap()
    view = View(values)
    computed: list[Slot] = []

    def shown(slot: Slot) -> str:
        computed.append(slot)
        return repr(slot)

    derived = view.derive(shown)
    for number, (key, slot) in enumerate(changes, 1):
        values.publish(key, number, slot)
        entries = view.find().entries
        assert derived.of(entries) == derived.of(entries) == [repr(entry.value) for entry in entries.values()]
    assert len(computed) == sum(slot is not None for _, slot in changes)
    old = dict(view.items())
    for key in old:
        values.publish(key, len(changes) + 1, Slot("elsewhere"))
    derived.of(old)
    assert derived.of(view.find().entries) == [repr(Slot("elsewhere"))] * len(old), "what is old is not kept"


def test_what_nobody_holds_is_not_kept_up_to_date() -> None:
    values: LwwMap[Slot] = LwwMap()
    make: Callable[[], object] = lambda: View(values).derive(repr)  # noqa: E731
    held = make()
    make()
    assert len(values._watchers) == 1
    del held
    assert not values._watchers

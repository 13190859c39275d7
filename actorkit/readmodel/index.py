"""Indexes: which entries of a map have a certain value of a declared field, or one within a range.

An index by value keeps the set of keys for each value; an index by range keeps pairs of value and key in order. A
question takes the condition that the fewest entries meet, goes through these in the order of their keys, and looks up
the others for each. What an index costs a change of an entry is a comparison, unless the field itself has changed.

An entry lacks a field whose value is ``None``, or not of the declared type: it meets no condition on it. A time that
was published without a zone is taken for UTC; in a question it is refused, since whoever asks may have meant another.

Pure.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from operator import attrgetter, itemgetter
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from actorkit.errors import DeclarationError
from actorkit.persistence.indexes import NOTHING_INDEXED, Declared, IndexedField
from actorkit.readmodel.conditions import Range
from actorkit.readmodel.entry import Entry
from actorkit.readmodel.ordered import Keys, Order, Selection

__all__ = ["Found", "Indexes"]

V = TypeVar("V")

_EPOCH_UTC: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_SORTING: Final = 3
"""Sorting a key takes about so many times what looking at it does."""


class Found(NamedTuple, Generic[V]):
    """Entries by key, in the order of the keys; ``truncated``: there are more than the limit."""

    entries: dict[str, Entry[V]]
    truncated: bool


_NO_KEYS: Final = Keys()


class _KeysInRange:
    """Those keys whose value lies in a range."""

    __slots__ = ("_first", "_last", "_pairs", "_range", "_values")

    def __init__(
        self, pairs: Sequence[tuple[Any, str]], first: int, last: int, values: Mapping[str, Any], range: Range
    ) -> None:
        self._pairs = pairs
        self._first = first
        self._last = max(first, last)
        self._values = values
        self._range = range

    def __len__(self) -> int:
        return self._last - self._first

    def __contains__(self, key: object, /) -> bool:
        value = self._values.get(key)  # type: ignore[call-overload]
        if value is None:
            return False
        low, high, low_included, high_included = self._range
        if low is not None and not (value > low or (low_included and value == low)):
            return False
        return high is None or value < high or (high_included and value == high)

    def steps(self, total: int, limit: int) -> int:
        return _SORTING * len(self)

    def in_order(self) -> Sequence[str]:
        return sorted([key for _, key in self._pairs[self._first : self._last]])


class _Index(Protocol):
    def put(self, key: str, before: Any, after: Any) -> None:
        """The entry's value was ``before`` and is ``after`` now; ``None``: there was or is no entry."""
        ...

    def select(self, wanted: Any) -> Selection:
        """Raises ``TypeError`` for a condition that the field cannot meet."""
        ...


class _ByValue:
    """Keys by value of one field."""

    def __init__(self, field: IndexedField) -> None:
        self._field = field
        self._name = field.name
        self._keys: dict[Any, Keys] = {}

    def put(self, key: str, before: Any, after: Any) -> None:
        old, new = self._value(before), self._value(after)
        if old is new or old == new:
            return
        if old is not None and (keys := self._keys.get(old)) is not None:
            keys.discard(key)
            if not keys:
                del self._keys[old]
        if new is not None:
            self._keys.setdefault(new, Keys()).add(key)

    def _value(self, shown: Any) -> Any:
        value = getattr(shown, self._name, None)
        if not _fits(self._field, value):
            return None
        return _in_utc(value) if isinstance(value, datetime) else value

    def select(self, wanted: Any) -> Selection:
        if isinstance(wanted, Range):
            raise TypeError(f"{self._field.name} has no order: declare by_range({self._field.name!r})")
        if not _fits(self._field, wanted):
            raise TypeError(_of_another_kind(self._field, wanted))
        _check_zone(self._field, wanted)
        return self._keys.get(_in_utc(wanted) if isinstance(wanted, datetime) else wanted, _NO_KEYS)


class _ByRange:
    """Keys in the order of one field."""

    def __init__(self, field: IndexedField) -> None:
        self.field = field
        self._name = field.name
        self.values: dict[str, Any] = {}
        self._order = Order()

    def put(self, key: str, before: Any, after: Any) -> None:
        old, new = getattr(before, self._name, None), getattr(after, self._name, None)
        if old is new or (type(old) is type(new) and old == new):
            return
        value = _comparable(self.field, new)
        known = self.values.pop(key, None)
        if known is not None:
            self._order.discard((known, key))
        if value is not None:
            self.values[key] = value
            self._order.add((value, key))

    def range_of(self, wanted: Any) -> Range:
        """The condition in terms of what is compared. Raises ``TypeError`` where the field cannot meet it."""
        range = wanted if isinstance(wanted, Range) else Range(wanted, wanted, low_included=True, high_included=True)
        return range._replace(low=self._bound(range.low), high=self._bound(range.high))

    def select(self, wanted: Any) -> Selection:
        range = self.range_of(wanted)
        low, high = range.low, range.high
        pairs = self._order.of((value, key) for key, value in self.values.items())
        first, last = 0, len(pairs)
        if low is not None:
            first = (bisect_left if range.low_included else bisect_right)(pairs, low, key=itemgetter(0))
        if high is not None:
            last = (bisect_right if range.high_included else bisect_left)(pairs, high, key=itemgetter(0))
        return _KeysInRange(pairs, first, last, self.values, range)

    def _bound(self, value: Any) -> Any:
        if value is None:
            return None
        comparable = _comparable(self.field, value)
        if comparable is None:
            raise TypeError(_of_another_kind(self.field, value))
        _check_zone(self.field, value)
        return comparable


class _ByWindow:
    """Keys in the order of the starts of their windows, apart for each length up to a power of two.

    Of the windows shorter than 2**n those that end after ``low`` start after ``low - 2**n``: so what overlaps with a
    stretch of time is found by two searches for each power.
    """

    def __init__(self, start: _ByRange, end: _ByRange) -> None:
        self.start = start.field.name
        self.end = end.field.name
        self._starts = start.values
        self._ends = end.values
        self._class_of: dict[str, tuple[int, int]] = {}
        self._starts_by_class: dict[int, tuple[set[tuple[int, str]], Order]] = {}

    def refresh(self, key: str) -> None:
        """The entry has changed; the fields' own indexes know already."""
        start, end = self._starts.get(key), self._ends.get(key)
        new = None if start is None or end is None else (max(0, end - start).bit_length(), start)
        old = self._class_of.get(key)
        if old == new:
            return
        if old is not None:
            length_class, start = old
            members, order = self._starts_by_class[length_class]
            members.discard((start, key))
            order.discard((start, key))
            if not members:
                del self._starts_by_class[length_class]
            del self._class_of[key]
        if new is not None:
            length_class, start = self._class_of[key] = new
            members, order = self._starts_by_class.setdefault(length_class, (set(), Order()))
            members.add((start, key))
            order.add((start, key))

    def select(self, starts: Range, ends: Range) -> Candidates | None:
        """All that may start and end so, and a few more; ``None`` where that would not say much."""
        if starts.high is None or ends.low is None:
            return None
        found: list[tuple[Sequence[tuple[int, str]], int, int]] = []
        for length_class, (members, order) in self._starts_by_class.items():
            pairs = order.of(members)
            first = bisect_left(pairs, ends.low - (1 << length_class), key=itemgetter(0))
            last = bisect_right(pairs, starts.high, key=itemgetter(0))
            if first < last:
                found.append((pairs, first, last))
        return Candidates(found)


class Candidates:
    """Keys among which are all that are looked for; those of other selections are to be asked about each."""

    __slots__ = ("_found",)

    def __init__(self, found: Sequence[tuple[Sequence[tuple[int, str]], int, int]]) -> None:
        self._found = found

    def __len__(self) -> int:
        return sum(last - first for _, first, last in self._found)

    def steps(self) -> int:
        """About how many it takes to go through them in order."""
        return _SORTING * len(self)

    def in_order(self) -> Sequence[str]:
        return sorted([key for pairs, first, last in self._found for _, key in pairs[first:last]])


def _comparable(field: IndexedField, value: Any) -> Any:
    """The value so that it compares with all others of its field; ``None`` if it is not of the field's type."""
    if not _fits(field, value):
        return None
    if isinstance(value, datetime):
        return (_in_utc(value) - _EPOCH_UTC) // _MICROSECOND
    if isinstance(value, date):
        return value.toordinal()
    if isinstance(value, Decimal):
        return None if value.is_nan() else value
    return None if value != value else value


def _fits(field: IndexedField, value: Any) -> bool:
    # A datetime is a date, too, for Python.
    return isinstance(value, field.kinds) and (not isinstance(value, datetime) or datetime in field.kinds)


def _in_utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.utcoffset() is None else time


def _check_zone(field: IndexedField, asked: Any) -> None:
    """Raises ``TypeError`` for a time without a zone where those of the field have one, and the other way round."""
    if not isinstance(asked, datetime) or (asked.utcoffset() is not None) == field.zoned:
        return
    if field.zoned:
        raise TypeError(
            f"{field.name} is a time with a zone, and {asked!r} has none: say which it is in, as in "
            "datetime.now(UTC) or time.replace(tzinfo=UTC)"
        )
    raise TypeError(f"{field.name} is declared as a time without a zone, and {asked!r} has one: ask without")


def _of_another_kind(field: IndexedField, value: Any) -> str:
    kinds = " or ".join(kind.__name__ for kind in field.kinds)
    return f"{field.name} is {kinds}, not {value!r}"


class Indexes(Generic[V]):
    """All indexes of one map, and the order of its keys."""

    def __init__(self, entries: Mapping[str, Entry[V]], declared: Declared = NOTHING_INDEXED) -> None:
        self._entries = entries
        self._order = Order()
        values = {field.name: _ByValue(field) for field in declared.fields if not field.ordered}
        ranges = {field.name: _ByRange(field) for field in declared.fields if field.ordered}
        self._ranges = ranges
        self._by_field: Mapping[str, _Index] = {**values, **ranges}
        self._indexes: tuple[_Index, ...] = (*values.values(), *ranges.values())
        self._fields_of: Callable[[Any], Any] = attrgetter(*self._by_field) if self._by_field else id
        self._windows = [_ByWindow(ranges[start], ranges[end]) for start, end in declared.windows]

    def put(self, key: str, before: V | None, after: V | None) -> None:
        """The entry's value was ``before`` and is ``after`` now; ``None``: there was or is no entry."""
        if before is None:
            self._order.add(key)
        elif after is None:
            self._order.discard(key)
        if self._indexes and not self._indexed_alike(before, after):
            for index in self._indexes:
                index.put(key, before, after)
            for window in self._windows:
                window.refresh(key)

    def _indexed_alike(self, before: V | None, after: V | None) -> bool:
        """Whether no field with an index has changed: of most changes that is so, and this is quick to find out."""
        try:
            return bool(self._fields_of(before) == self._fields_of(after))
        except AttributeError:
            return False

    def find(
        self,
        conditions: Mapping[str, Any],
        *,
        where: Callable[[V], object] | None,
        ids: Iterable[str] | None,
        limit: int | None,
    ) -> Found[V]:
        """As ``View.find``."""
        if limit is not None and limit < 0:
            raise ValueError(f"limit is how many to find at most, 0 or more, or None for all: it cannot be {limit}")
        if isinstance(ids, str):
            raise TypeError(f"ids are several, and {ids!r} would be taken for its letters: give ids=[{ids!r}]")
        conditions = {name: wanted for name, wanted in conditions.items() if wanted is not None}
        selections = [self._index(name).select(wanted) for name, wanted in conditions.items()]
        if ids is not None:
            selections.append(Keys(key for key in ids if key in self._entries))
        total = len(self._entries)
        most = total if limit is None else limit
        keys: Sequence[str] | None = None
        if selections:
            best = min(selections, key=lambda selection: selection.steps(total, most))
            steps = best.steps(total, most)
            candidates = self._overlapping(conditions)
            if candidates is not None and candidates.steps() < steps:
                keys = candidates.in_order()
            elif steps < min(total, (most + 1) * total // (len(best) + 1)):
                keys = best.in_order()
                selections.remove(best)
        if keys is None:
            keys = self._order.of(self._entries)
        return self._check(keys, selections, where, most)

    def _overlapping(self, conditions: Mapping[str, Any]) -> Candidates | None:
        for window in self._windows:
            if window.start in conditions and window.end in conditions:
                starts = self._ranges[window.start].range_of(conditions[window.start])
                ends = self._ranges[window.end].range_of(conditions[window.end])
                return window.select(starts, ends)
        return None

    def _check(
        self, keys: Sequence[str], selections: list[Selection], where: Callable[[V], object] | None, most: int
    ) -> Found[V]:
        entries = self._entries
        if not selections and where is None:
            return Found({key: entries[key] for key in keys[:most]}, len(keys) > most)
        found: dict[str, Entry[V]] = {}
        for key in keys:
            for selection in selections:
                if key not in selection:
                    break
            else:
                entry = entries[key]
                if where is not None and not where(entry.value):
                    continue
                if len(found) == most:
                    return Found(found, True)
                found[key] = entry
        return Found(found, False)

    def _index(self, field: str) -> _Index:
        index = self._by_field.get(field)
        if index is None:
            known = ", ".join(self._by_field) or "none"
            raise DeclarationError(
                f"there is no index on {field!r}, only on {known}: declare one with @published(indexes=...), or ask "
                "by where=..."
            )
        return index

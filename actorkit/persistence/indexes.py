"""Indexes of what is published, declared with it: which fields of the value the read model finds entries by.

::

    @published(indexes=[by("region"), by_window("starts_at", "ends_at")])
    def availability(self) -> PoolView | None: ...

Pure.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from actorkit.errors import DeclarationError

__all__ = ["NOTHING_INDEXED", "Declared", "Index", "IndexedField", "by", "by_range", "by_window", "declared_indexes"]

_RESERVED: Final = frozenset({"where", "ids", "limit"})
"""Other parameters of ``View.find``."""


class Index(msgspec.Struct, frozen=True):
    """An index as it is declared: of some fields, by value or by order, or of one window."""

    fields: tuple[str, ...]
    ordered: bool = False
    window: bool = False


def by(*fields: str) -> Index:
    """Finds entries by the value of each of these fields: ``view.find(region="eu")``."""
    return Index(fields)


def by_range(*fields: str) -> Index:
    """Finds entries by the range or value of each of these fields: ``view.find(price=at_most(100))``.

    For numbers, text, bytes, times, dates and durations. Times are asked for with a zone, whichever it is, and one that
    was published without a zone is taken for UTC; unless they are declared to have none (``Meta(tz=False)``).
    """
    return Index(fields, ordered=True)


def by_window(start: str, end: str) -> Index:
    """As ``by_range``, and finds quickly what overlaps: ``view.find(starts_at=before(later), ends_at=after(now))``.

    For times, dates and whole numbers.
    """
    return Index((start, end), ordered=True, window=True)


class IndexedField(NamedTuple):
    """A field by which entries are found, and the classes that its values have."""

    name: str
    ordered: bool
    kinds: tuple[type[Any], ...]
    zoned: bool = True
    """Of times: whether they have a zone. They do, unless they are declared to have none."""


class Declared(NamedTuple):
    """All indexes of one published method."""

    fields: tuple[IndexedField, ...] = ()
    windows: tuple[tuple[str, str], ...] = ()


NOTHING_INDEXED: Final = Declared()

_Info = msgspec.inspect
_NUMBERS: Final = (int, float, Decimal)
_KINDS: Final[dict[type[Any], tuple[type[Any], ...]]] = {
    _Info.IntType: _NUMBERS,
    _Info.FloatType: _NUMBERS,
    _Info.DecimalType: _NUMBERS,
    _Info.StrType: (str,),
    _Info.BytesType: (bytes,),
    _Info.DateTimeType: (datetime,),
    _Info.DateType: (date,),
    _Info.TimeDeltaType: (timedelta,),
}
"""What has an order."""
_KINDS_WITHOUT_ORDER: Final[dict[type[Any], tuple[type[Any], ...]]] = {
    _Info.BoolType: (bool,),
    _Info.UUIDType: (UUID,),
    _Info.EnumType: (enum.Enum,),
    _Info.LiteralType: (int, str),
}
_OF_WINDOWS: Final = (_Info.IntType, _Info.DateTimeType, _Info.DateType)


def declared_indexes(where: str, type: Any, indexes: Sequence[Index]) -> Declared:
    """The indexes of values of this type. Raises ``DeclarationError`` for a field that cannot have one."""
    fields: dict[str, IndexedField] = {}
    windows: list[tuple[str, str]] = []
    known = _fields_of(type) if indexes else {}
    for index in indexes:
        for name in index.fields:
            if name not in known:
                of = f"it has {', '.join(known)}" if known else "it is no record with fields"
                raise DeclarationError(f"{where} has an index on {name!r}, which its value lacks: {of}")
            if name in fields or name in _RESERVED:
                why = "another one on it" if name in fields else "a parameter of that name in View.find"
                raise DeclarationError(f"{where} cannot have an index on {name!r}: there is {why}")
            fields[name] = _indexed(where, name, known[name], index)
        if index.window:
            start, end = index.fields
            windows.append((start, end))
    return Declared(tuple(fields.values()), tuple(windows))


def _fields_of(type: Any) -> dict[str, Any]:
    info = msgspec.inspect.type_info(type)
    if isinstance(info, _Info.StructType | _Info.DataclassType | _Info.NamedTupleType):
        return {field.name: field.type for field in info.fields}
    return {}


def _indexed(where: str, name: str, info: Any, index: Index) -> IndexedField:
    kinds: set[type[Any]] = set()
    zoned = True
    members = info.types if isinstance(info, _Info.UnionType) else (info,)
    for member in members:
        of: Any = member.type if isinstance(member, _Info.Metadata) else member
        if isinstance(of, _Info.NoneType):
            continue
        kind: Any = of.__class__
        found = _KINDS.get(kind, () if index.ordered else _KINDS_WITHOUT_ORDER.get(kind, ()))
        if not found or (index.window and not isinstance(of, _OF_WINDOWS)):
            what = "window" if index.window else "range" if index.ordered else "value"
            raise DeclarationError(f"{where} cannot have an index by {what} on {name!r}: its type does not allow it")
        kinds.update(found)
        zoned = zoned and getattr(of, "tz", None) is not False
    if index.ordered and not any(kinds <= set(alike) for alike in _KINDS.values()):
        raise DeclarationError(f"{where} cannot have an index by range on {name!r}: values of its types do not compare")
    return IndexedField(name, index.ordered, tuple(sorted(kinds, key=lambda kind: kind.__name__)), zoned)

"""Rendering: events and states as people compare them, in the messages of failed tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

__all__ = ["differences", "indented", "mismatch", "numbered", "shown"]

_VALUE_MAX_CHARS = 300


def shown(value: object) -> str:
    """A value on one line, cut where it is very long."""
    text = f"any {value.__name__}" if isinstance(value, type) else repr(value)
    return text if len(text) <= _VALUE_MAX_CHARS else f"{text[:_VALUE_MAX_CHARS]}... ({len(text)} characters)"


def indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def numbered(values: Iterable[object]) -> str:
    """One value a line."""
    return "\n".join(f"{number}. {shown(value)}" for number, value in enumerate(values, 1)) or "nothing"


def differences(one_name: str, one: object, other_name: str, other: object) -> str:
    """Where two values differ: member by member if they are records of one class, or dicts."""
    pairs = list(_pairs("", one, other))
    width = max(len(one_name), len(other_name))
    lines: list[str] = []
    for path, left, right in pairs:
        lines += [path] if path else []
        inset = "    " if path else ""
        lines += [f"{inset}{one_name:<{width}}  {left}", f"{inset}{other_name:<{width}}  {right}"]
    return "\n".join(lines)


_ABSENT = "(absent)"


def _pairs(path: str, one: Any, other: Any) -> Iterable[tuple[str, str, str]]:
    """The places at which they differ, and what stands there in each."""
    if type(one) is type(other) and _is_record(one):
        for name in one.__struct_fields__:
            left, right = getattr(one, name), getattr(other, name)
            if left != right:
                yield from _pairs(f"{path}.{name}" if path else name, left, right)
    elif type(one) is type(other) is dict:
        for key in (*one, *(key for key in other if key not in one)):
            here = f"{path}[{key!r}]"
            if key not in other:
                yield here, shown(one[key]), _ABSENT
            elif key not in one:
                yield here, _ABSENT, shown(other[key])
            elif one[key] != other[key]:
                yield from _pairs(here, one[key], other[key])
    else:
        yield path, shown(one), shown(other)


def _is_record(value: object) -> bool:
    return isinstance(value, msgspec.Struct)


def mismatch(expected: Sequence[object], actual: Sequence[object]) -> str:
    """Expected and actual events below each other, and where the first pair that differs does so."""
    text = f"expected:\n{indented(numbered(expected))}\nemitted:\n{indented(numbered(actual))}"
    for number, (wanted, found) in enumerate(zip(expected, actual, strict=False), 1):
        if not isinstance(wanted, type) and type(wanted) is type(found) and wanted != found:
            return f"{text}\nevent {number} differs in:\n{indented(differences('expected', wanted, 'emitted', found))}"
    return text

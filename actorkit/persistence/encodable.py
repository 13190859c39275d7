"""Whether a declared type can travel and be stored: everything in it must be a type that MessagePack has a form for."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["UNDECODABLE", "unencodable"]

UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that are no value of the declared type: text that is no UTF-8 and values that are
nested too deep have exceptions of their own."""


def unencodable(declared: Any) -> str | None:
    """The name of a type somewhere in ``declared`` that has no stored form, or ``None`` if all have one.

    Raises ``TypeError`` or ``NameError`` where the annotation itself is not usable.
    """
    seen: set[int] = set()
    left: list[Any] = [msgspec.inspect.type_info(declared)]
    while left:
        info = left.pop()
        if id(info) in seen:
            continue
        seen.add(id(info))
        if isinstance(info, msgspec.inspect.CustomType):
            return getattr(info.cls, "__qualname__", str(info.cls))
        if isinstance(info, tuple):
            left += info
        elif isinstance(info, msgspec.inspect.Field):
            left.append(info.type)
        elif isinstance(info, msgspec.inspect.Type):
            left += [getattr(info, name) for name in info.__struct_fields__ if name != "cls"]
    return None

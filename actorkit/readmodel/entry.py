"""What a view holds under a key. Pure."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

__all__ = ["Entry"]

V = TypeVar("V")


class Entry(NamedTuple, Generic[V]):
    """A value, and the version of the entity that it shows."""

    value: V
    version: int

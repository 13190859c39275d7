"""Conditions on the ordered fields of a view, as in ``view.find(starts_at=before(noon))``. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["Range", "after", "at_least", "at_most", "before", "between"]


class Range(NamedTuple):
    """A condition on an ordered field; ``None`` for a bound: there is none."""

    low: Any = None
    high: Any = None
    low_included: bool = False
    high_included: bool = False


def before(high: Any) -> Range:
    """Less than ``high``, of times: earlier."""
    return Range(high=high)


def at_most(high: Any) -> Range:
    """``high`` or less."""
    return Range(high=high, high_included=True)


def after(low: Any) -> Range:
    """Greater than ``low``, of times: later."""
    return Range(low=low)


def at_least(low: Any) -> Range:
    """``low`` or greater."""
    return Range(low=low, low_included=True)


def between(low: Any, high: Any) -> Range:
    """``low`` or greater, and less than ``high``."""
    return Range(low, high, low_included=True)

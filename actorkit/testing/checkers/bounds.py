"""Bounds: do queues keep to their limits, and does memory stop growing? (Promise P9.)

What is held under a steady load goes up and down; what leaks raises the floor. So growth is measured between the lowest
readings of the first and of the last part of a run, after a time for warming up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from actorkit.testing.checkers.violation import Violation

__all__ = ["Reading", "check_growth", "check_limits"]

_READINGS_MIN: Final = 8


class Reading(msgspec.Struct, frozen=True):
    """The size of something at a moment."""

    at_us: int
    name: str
    value: float


def check_limits(readings: Iterable[Reading], limits: Mapping[str, float]) -> list[Violation]:
    """No reading may be above the limit of its name; only the largest one is told of."""
    largest: dict[str, Reading] = {}
    for reading in readings:
        if reading.value > limits.get(reading.name, float("inf")):
            known = largest.get(reading.name)
            if known is None or reading.value > known.value:
                largest[reading.name] = reading
    return [
        Violation("P9", name, f"it was {each.value:g} at {each.at_us} µs, and the limit is {limits[name]:g}")
        for name, each in largest.items()
    ]


def check_growth(
    readings: Iterable[Reading], *, allowed: Mapping[str, float], warm_up: float = 0.25
) -> list[Violation]:
    """The floor of each name may rise by what is ``allowed``, from one end of the run to the other.

    The first ``warm_up`` part of the readings does not count; the rest is compared by its first and last quarter.
    Raises ``ValueError`` where there are too few readings of a name to say anything.
    """
    by_name: dict[str, list[Reading]] = {name: [] for name in allowed}
    for reading in readings:
        if reading.name in by_name:
            by_name[reading.name].append(reading)
    violations: list[Violation] = []
    for name, found in by_name.items():
        found.sort(key=lambda reading: reading.at_us)
        warm = found[int(len(found) * warm_up) :]
        if len(warm) < _READINGS_MIN:
            raise ValueError(f"{name} has {len(warm)} readings after warming up: at least {_READINGS_MIN} are needed")
        quarter = len(warm) // 4
        first = min(reading.value for reading in warm[:quarter])
        last = min(reading.value for reading in warm[-quarter:])
        if last - first > allowed[name]:
            what = f"its floor rose from {first:g} to {last:g}, and {allowed[name]:g} are allowed"
            violations.append(Violation("P9", name, what))
    return violations

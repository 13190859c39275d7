"""Times as clients write them: RFC 3339 in UTC, ending in ``Z``, with at most six decimals."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["TIME_PATTERN", "TIME_WORDS", "from_us", "parse_time", "to_us"]

_TIME: Final = (
    r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
    r"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?Z"
)
TIME_PATTERN: Final = rf"^{_TIME}\Z"
TIME_WORDS: Final = "a time in UTC such as 2026-01-31T12:00:00Z, with at most six decimals"

_matches: Final = re.compile(_TIME).fullmatch
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def parse_time(text: str) -> datetime:
    """Raises ``ValueError`` where the text is not a time, or is of a day that does not exist."""
    if _matches(text) is None:
        raise ValueError(f"expected {TIME_WORDS}")
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("expected the time of a day that exists") from None


def to_us(time: datetime) -> int:
    """Microseconds since 1970 UTC, exactly."""
    return (time - _EPOCH) // _MICROSECOND


def from_us(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)

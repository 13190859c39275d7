"""Pool and reservation ids, and how one is found in the other.

A full reservation id is the pool's id, ``~``, and a part. The alphabet of ids lacks ``~``, so the first one separates:
an id is enough to find its pool, without a lookup table. Parts that the service makes begin with ``~`` themselves,
and so never meet a part that a client has chosen.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = [
    "ID_PATTERN",
    "ID_WORDS",
    "RESERVATION_PATTERN",
    "RESERVATION_WORDS",
    "full_id",
    "is_id",
    "made_part",
    "split_full_id",
]

_ANY: Final = "[A-Za-z0-9._:-]"
_NO_DOT: Final = "[A-Za-z0-9_:-]"
# Neither "." nor "..", said without lookaheads, so that generators of test data can follow.
_ID: Final = (
    rf"(?:{_NO_DOT}{_ANY}{{0,127}}|\.{_NO_DOT}{_ANY}{{0,126}}|\.\.{_NO_DOT}{_ANY}{{0,125}}|\.\.\.{_ANY}{{0,125}})"
)
_PART: Final = "[A-Za-z0-9._:~-]{1,129}"

# \Z, because $ would admit a final line feed.
ID_PATTERN: Final = rf"^{_ID}\Z"
RESERVATION_PATTERN: Final = rf"^{_ID}~{_PART}\Z"

ID_WORDS: Final = "an id: 1 to 128 characters out of A-Z a-z 0-9 . _ : - and not . or .."
RESERVATION_WORDS: Final = (
    "a full reservation id, as it was answered: the pool's id, ~, and 1 to 129 characters out of A-Z a-z 0-9 . _ : ~ -"
)

_id_matches: Final = re.compile(_ID).fullmatch
_full_id_matches: Final = re.compile(f"{_ID}~{_PART}").fullmatch


def is_id(text: str) -> bool:
    """Whether this may name a pool, or a reservation within one."""
    return _id_matches(text) is not None


def made_part(unique: str) -> str:
    """The part of a reservation that the client has not named."""
    return "~" + unique


def full_id(pool_id: str, part: str) -> str:
    return f"{pool_id}~{part}"


def split_full_id(text: str) -> tuple[str, str] | None:
    """Pool id and part, or ``None`` where the text is no full reservation id."""
    if _full_id_matches(text) is None:
        return None
    pool_id, _, part = text.partition("~")
    return pool_id, part

"""Stamps: which of two values of a key is the newer one; and how values and markers are written as bytes.

A key belongs to one entity, whose sequence only ever grows; of one sequence, a newer version of what is published wins.
So the pair (sequence, view version) orders everything that is ever said of a key, without any clock. In memory it is
one integer; in bytes it stands in front of the payload in big-endian order, so that comparing the first
``STAMP_BYTES`` bytes compares stamps.

A deletion is a value too: only its stamp keeps an older value from coming back.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from actorkit.errors import UpdateRefused

__all__ = [
    "MARKER_BYTES",
    "STAMP_BYTES",
    "VALUE_MAX_BYTES",
    "Marker",
    "Value",
    "check_value",
    "decode_marker",
    "decode_value",
    "encode_marker",
    "encode_value",
    "sequence_of",
    "stamp_of",
    "view_version_of",
]

STAMP_BYTES: Final = 10
"""Eight of the sequence, two of the view version."""

MARKER_BYTES: Final = 16
"""Eight of a log's position, eight of what is published."""

VALUE_MAX_BYTES: Final = 1 << 16
"""One value with its stamp, the same on every node. Several must fit into one update (``UPDATE_MAX_BYTES``), and every
node holds all of them."""

_HEAD_BYTES: Final = STAMP_BYTES + 1
_SEQUENCE_BYTES: Final = 8
_POSITION_BYTES: Final = 8
_VIEWS_BYTES: Final = 8
_SEQUENCE_LIMIT: Final = 1 << 53
_VIEW_VERSION_BITS: Final = 16
_VIEW_VERSION_LIMIT: Final = 1 << _VIEW_VERSION_BITS
_DELETED: Final = 1


class Value(NamedTuple):
    """What is said of a key: a payload, or that there is none any more."""

    stamp: int
    deleted: bool
    payload: bytes


class Marker(NamedTuple):
    """What a document shows."""

    position: int
    """Up to where in the shard's log."""
    views: int
    """The digest of what its writer publishes, see ``Tables.views``: of what it does not know it shows nothing."""


def stamp_of(sequence: int, view_version: int) -> int:
    """The stamp as one integer. Raises ``ValueError`` out of range (sequences from 1, below 2**53)."""
    if not 1 <= sequence < _SEQUENCE_LIMIT:
        raise ValueError(f"a sequence is 1 to 2**53 - 1, not {sequence}")
    if not 0 <= view_version < _VIEW_VERSION_LIMIT:
        raise ValueError(f"a view version is 0 to {_VIEW_VERSION_LIMIT - 1}, not {view_version}")
    return sequence << _VIEW_VERSION_BITS | view_version


def sequence_of(stamp: int) -> int:
    """The sequence of the entity that a stamp stands for."""
    return stamp >> _VIEW_VERSION_BITS


def view_version_of(stamp: int) -> int:
    """The version of what is published that a stamp stands for."""
    return stamp % _VIEW_VERSION_LIMIT


def encode_value(stamp: int, payload: bytes | None) -> bytes:
    """The bytes under a key; ``None``: deleted.

    Raises ``UpdateRefused`` for a payload that no node would take, ``ValueError`` for a stamp out of range.
    """
    stamp_of(sequence_of(stamp), view_version_of(stamp))
    head = stamp.to_bytes(STAMP_BYTES, "big")
    if payload is None:
        return head + b"\1"
    if len(payload) > VALUE_MAX_BYTES - _HEAD_BYTES:
        raise UpdateRefused(
            "a published value", f"its {len(payload)} bytes exceed the {VALUE_MAX_BYTES - _HEAD_BYTES} it may have"
        )
    return head + b"\0" + payload


def check_value(data: bytes) -> None:
    """Raises ``UpdateRefused`` for anything that ``encode_value`` cannot have written."""
    if not _HEAD_BYTES <= len(data) <= VALUE_MAX_BYTES:
        raise UpdateRefused("a value", f"it has {len(data)} bytes instead of {_HEAD_BYTES} to {VALUE_MAX_BYTES}")
    sequence = int.from_bytes(data[:_SEQUENCE_BYTES], "big")
    if not 1 <= sequence < _SEQUENCE_LIMIT:
        raise UpdateRefused("a value", f"its sequence {sequence} is not 1 to 2**53 - 1")
    flag = data[STAMP_BYTES]
    if flag > _DELETED or (flag == _DELETED and len(data) > _HEAD_BYTES):
        raise UpdateRefused("a value", f"it is neither present nor deleted (flag {flag}, {len(data)} bytes)")


def decode_value(data: bytes) -> Value:
    """The reverse of ``encode_value``. Raises ``UpdateRefused`` for anything that it cannot have written."""
    check_value(data)
    stamp = int.from_bytes(data[:STAMP_BYTES], "big")
    return Value(stamp, data[STAMP_BYTES] == _DELETED, bytes(data[_HEAD_BYTES:]))


def encode_marker(position: int, views: int = 0) -> bytes:
    """A marker. Raises ``ValueError`` for a position out of range (0 to 2**53 - 1)."""
    if not 0 <= position < _SEQUENCE_LIMIT:
        raise ValueError(f"a position is 0 to 2**53 - 1, not {position}")
    return position.to_bytes(_POSITION_BYTES, "big") + views.to_bytes(_VIEWS_BYTES, "big")


def decode_marker(data: bytes) -> Marker:
    """The reverse of ``encode_marker``. Raises ``UpdateRefused`` for anything that it cannot have written."""
    if len(data) != MARKER_BYTES:
        raise UpdateRefused("a marker", f"it has {len(data)} bytes instead of {MARKER_BYTES}")
    position = int.from_bytes(data[:_POSITION_BYTES], "big")
    if position >= _SEQUENCE_LIMIT:
        raise UpdateRefused("a marker", f"its position {position} is not below 2**53")
    return Marker(position, int.from_bytes(data[_POSITION_BYTES:], "big"))

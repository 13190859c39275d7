"""The strict form of an update: what the one writer of a document can have written, and nothing else.

An update is in version 1 of Yjs's format (described by its reference implementation, yjs/yjs, in ``src/utils`` and
``src/structs``; numbers and strings are those of lib0), which pycrdt reads and writes. pycrdt trusts it: damage may be
accepted with other content, wait for ever for what never comes, or crash the process. So nothing goes to pycrdt before
it was read here, in one pass of linear cost, without recursion. Of all that the format can say, a document needs::

    update  = 1 (clients), number of items, 1 (the client), clock of the first item, item..., 0 (deletions)
    item    = 28 root key value      the first value of a key
            | a8 origin   value      the value that replaces that of the clock ``origin``
            | 21 root key count      as many values of a key that have been replaced, from its first one on
            | a1 origin   count      as many values that have been replaced, from the one on that replaced ``origin``
    root    = 1 (by name), "m"
    origin  = 1 (the client), clock
    value   = 1 (how many), 74 (bytes), length, bytes

Numbers have 7 bits to a byte, the lowest first, and no more bytes than they need. Each value takes one clock, in
order, so an item's clock is where the one before it ended.

The list of deletions is empty: replacing a value deletes the one before it, which every node does by itself while it
applies the item. pycrdt writes all deletions that a document has ever had into each update; ``cut`` leaves them out.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from actorkit.errors import UpdateRefused
from actorkit.readmodel.stamp import VALUE_MAX_BYTES

__all__ = [
    "CLIENT",
    "CLOCK_LIMIT",
    "KEY_MAX_BYTES",
    "ROOT",
    "UPDATE_MAX_BYTES",
    "Item",
    "cut",
    "encode_state",
    "read_items",
]

CLIENT: Final = 1
"""The client of every document: a document has one writer, ever, so one number does for all."""

ROOT: Final = "m"
"""The name of the one map in a document. Short, because it stands before each new key."""

CLOCK_LIMIT: Final = 1 << 32
"""Clocks are below this (pycrdt holds them in 32 bits)."""

KEY_MAX_BYTES: Final = 1 << 11
"""A key: the entity's type, the view's name and the entity's id (256 characters), as UTF-8."""

UPDATE_MAX_BYTES: Final = 1 << 17
"""One update; what is more travels in several. Larger: fewer round trips while a large document is pulled, and longer
stretches in which a node does nothing else (128 KiB of small values take some 10 ms). It must exceed a key and a value,
and be well below what a message may have (``message_max_bytes``)."""

_VALUE: Final = 0x08
_FIRST: Final = frozenset({0x28, 0x21})
_NEXT: Final = frozenset({0xA8, 0xA1})
_ONE_CLIENT: Final = b"\1"
_CLIENT: Final = bytes((CLIENT,))
_PARENT: Final = bytes((1, len(ROOT))) + ROOT.encode()
_BYTES: Final = b"\1\x74"
_NO_DELETIONS: Final = b"\0"
_HEAD_MAX_BYTES: Final = 12


class Item(NamedTuple):
    """One value, or a run of values of one key that have been replaced since."""

    clock: int
    length: int
    """How many clocks it takes."""
    origin: int
    """The clock of the value that it replaces; -1: it is the first of its key."""
    key: str
    """Of the first of a key; otherwise empty, and known by the origin."""
    value: bytes | None
    """``None``: replaced."""
    end: int
    """Where its bytes end."""


def read_items(data: bytes) -> tuple[int, list[Item]]:
    """The clock of the first item, and the items. Raises ``UpdateRefused`` for anything that is not of the form above.

    What needs the document to be known (whether an origin is there, and its key) is not examined here.
    """
    if len(data) > UPDATE_MAX_BYTES:
        raise _refused(f"its {len(data)} bytes exceed the {UPDATE_MAX_BYTES} it may have")
    first, _, items = _read(data, len(data))
    if data[items[-1].end :] != _NO_DELETIONS:
        raise _refused("its items are not followed by an empty list of deletions")
    return first, items


def cut(data: bytes) -> tuple[bytes, int]:
    """Of what pycrdt has written as much as one update may have, without deletions; and the clock that it reaches.

    Raises ``UpdateRefused`` where pycrdt has written something else than the form above allows.
    """
    first, start, items = _read(data, UPDATE_MAX_BYTES - _HEAD_MAX_BYTES - len(_NO_DELETIONS))
    last = items[-1]
    head = _ONE_CLIENT + _number(len(items)) + _CLIENT + _number(first)
    return head + data[start : last.end] + _NO_DELETIONS, last.clock + last.length


def encode_state(clock: int) -> bytes:
    """The state vector of a document that has everything before this clock."""
    return _ONE_CLIENT + _CLIENT + _number(clock) if clock else b"\0"


def _refused(why: str) -> UpdateRefused:
    return UpdateRefused("an update", why)


def _read(data: bytes, length_max: int) -> tuple[int, int, list[Item]]:
    """The clock of the first item, where its bytes begin, and the items, up to the last one within ``length_max``."""
    try:
        if data[:1] != _ONE_CLIENT:
            raise _refused("it is not of exactly one client")
        count, at = _read_number(data, 1)
        if data[at : at + 1] != _CLIENT:
            raise _refused(f"its client is not {CLIENT}")
        first, start = _read_number(data, at + 1)
        if not count:
            raise _refused("it has no items")
        return first, start, _read_all(data, count, first, start, start + length_max)
    except IndexError:
        raise _refused(f"it breaks off after {len(data)} bytes") from None
    except UnicodeDecodeError:
        raise _refused("a key is not UTF-8") from None


def _read_all(data: bytes, count: int, clock: int, at: int, end_max: int) -> list[Item]:
    items: list[Item] = []
    append = items.append
    # Each item has at least four bytes, so the data ends long before a false count does.
    for _ in range(count):
        form = data[at]
        key = ""
        origin = -1
        if form in _NEXT:
            if data[at + 1] != CLIENT:
                raise _refused(f"an origin is not of client {CLIENT}")
            origin, at = _read_number(data, at + 2)
            if origin >= clock:
                raise _refused(f"the origin {origin} of clock {clock} is not before it")
        elif form in _FIRST:
            if data[at + 1 : at + 4] != _PARENT:
                raise _refused(f"a parent is not the map {ROOT!r}")
            size, at = _read_number(data, at + 4)
            key = data[at : at + size].decode()
            at += size
            if size > KEY_MAX_BYTES or at > len(data):
                raise _refused(f"a key has {size} bytes")
        else:
            raise _refused(f"an item has the form {form:#x}")
        if form & _VALUE:
            if data[at : at + 2] != _BYTES:
                raise _refused("a value is not one byte string")
            size, at = _read_number(data, at + 2)
            value = data[at : at + size]
            at += size
            if size > VALUE_MAX_BYTES or at > len(data):
                raise _refused(f"a value has {size} bytes")
            length = 1
        else:
            length, at = _read_number(data, at)
            value = None
            if not length:
                raise _refused("nothing was replaced")
        if at > end_max and items:
            break
        append(Item(clock, length, origin, key, value, at))
        clock += length
    if clock >= CLOCK_LIMIT:
        raise _refused(f"its clock {clock} is not below 2**32")
    return items


def _read_number(data: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    number = data[at]
    at += 1
    if number < 0x80:
        return number, at
    number &= 0x7F
    for shift in (7, 14, 21, 28):
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if not byte:
                raise _refused("a number has more bytes than it needs")
            return number, at
    raise _refused("a number has more than five bytes")


def _number(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)

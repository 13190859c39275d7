"""The codec: what is declared comes back as it was, anything else is an error and costs nothing."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgpack  # type: ignore[import-untyped]
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actorkit.errors import DeclarationError, FrameError, MessageTooLarge, UndecodableMessage, UnknownMessage, WireError
from actorkit.wire import Codec, WireSettings, batch_body


class Part(msgspec.Struct, frozen=True):
    """Something within a message."""

    name: str
    value: float | None = None


class Order(msgspec.Struct, frozen=True, array_like=True, tag="order"):
    """A message with about everything."""

    number: int
    data: bytes
    labels: dict[str, str]
    parts: list[Part]
    at: datetime | None = None
    flags: tuple[bool, int] = (False, 0)


class Small(msgspec.Struct, frozen=True, array_like=True, tag="small"):
    """A message with nothing."""


class SmallLater(msgspec.Struct, frozen=True, array_like=True, tag="small"):
    """The same message in the next version of the program."""

    added: int = 7
    added_too: list[str] = []


def codec(*types: type[msgspec.Struct], **limits: int) -> Codec:
    made = Codec(WireSettings(**limits))
    for each in types or (Order, Small):
        made.declare(each)
    return made


text = st.text(max_size=20)
orders = st.builds(
    Order,
    number=st.integers(-(2**63), 2**64 - 1),
    data=st.binary(max_size=200),
    labels=st.dictionaries(text, text, max_size=5),
    parts=st.lists(st.builds(Part, name=text, value=st.none() | st.floats(allow_nan=False)), max_size=5),
    at=st.none() | st.datetimes(timezones=st.just(UTC)),
    flags=st.tuples(st.booleans(), st.integers(0, 9)),
)
messages = st.lists(orders | st.just(Small()), max_size=40)


@given(messages)
def test_a_batch_comes_back_as_it_was(batch: list[msgspec.Struct]) -> None:
    both = codec()
    assert both.decode_batch(batch_body([both.encode(each) for each in batch])) == (batch, ())


@pytest.mark.parametrize("count", [0, 1, 15, 16, 65_535, 65_536])
def test_batches_of_any_size_are_arrays(count: int) -> None:
    assert len(codec().decode_batch(batch_body([codec().encode(Small())] * count))[0]) == count


@given(orders, st.data())
def test_a_truncated_message_is_an_error(order: Order, data: st.DataObject) -> None:
    body = batch_body([codec().encode(order)])
    cut = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(FrameError):
        codec().decode_batch(body[:cut])


@given(messages, st.data())
def test_flipped_bits_give_messages_or_errors_and_nothing_else(batch: list[Any], data: st.DataObject) -> None:
    body = bytearray(batch_body([codec().encode(each) for each in batch]))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    both_or_nothing(bytes(body))


@given(st.binary(max_size=300))
@settings(max_examples=500)
def test_random_bytes_give_an_error(data: bytes) -> None:
    both_or_nothing(data)
    with pytest.raises(WireError):
        codec().decode(data)


def both_or_nothing(body: bytes) -> None:
    try:
        messages, errors = codec().decode_batch(body)
    except FrameError:
        return
    assert all(type(message) in (Order, Small) for message in messages)
    assert all(str(error) for error in errors)


@pytest.mark.parametrize(
    "bomb",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\x91\xdd\xff\xff\xff\xff",
        b"\x91\x95\xa5order\x01\xc6\xff\xff\xff\xff",
        b"\x91\x95\xa5order\x01\xc4\x00\xdf\xff\xff\xff\xff",
        b"\x91\x95\xa5order\x01\xc4\x00\x80\xdd\x7f\xff\xff\xff",
        b"\x91\x92\xa5small\xdb\xff\xff\xff\xff",
        b"\xdc\xff\xff" * 300,
        b"\xdd\x00\x01\x00\x00" * 300,
        b"\x91" * 1_000_000,
        b"\x91\x92\xa5small" + b"\x91" * 1_000_000,
        b"\x91\x92\xa5small" + b"\x81\x01" * 500_000,
    ],
)
def test_lengths_and_depths_that_are_only_claimed_cost_nothing(bomb: bytes) -> None:
    both = codec()
    with pytest.raises(FrameError):
        both.decode_batch(batch_body([]) + b"\xc0")
    tracemalloc.start()
    try:
        with pytest.raises(FrameError):
            both.decode_batch(bomb)
        assert tracemalloc.get_traced_memory()[1] < 2 * len(bomb) + 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("depth", [1, 10, 500, 900, 1000, 1020, 1030, 100_000])
def test_what_nests_deeper_than_declared_is_never_built(depth: int) -> None:
    deep = b"\x91" * depth + b"\x90"
    try:
        messages, errors = codec().decode_batch(b"\x91\x92\xa5small" + deep)
    except FrameError:
        assert depth >= 900
        return
    # Of a field that is not declared nothing is kept.
    assert messages == [Small()] or isinstance(errors[0], UndecodableMessage)
    _, errors = codec().decode_batch(b"\x91\x95\xa5order\x01\xc4\x00\x80" + deep)
    assert isinstance(errors[0], UndecodableMessage)


def test_what_is_not_declared_is_dropped_and_the_rest_of_its_batch_is_not() -> None:
    payloads = [
        codec().encode(Small()),
        msgpack.packb(["actorkit.clock.SystemClock", 1]),
        msgpack.packb(["order", "no number", b"", {}, []]),
        msgpack.packb(["order", 2**63, b"", {"a": "b"}, []]),
        msgpack.packb({"type": "order"}),
        msgpack.packb([]),
        msgpack.packb([["small"]]),
        b"\x91\xa2\xff\xfe",
        codec().encode(Small()),
    ]
    messages, errors = codec().decode_batch(batch_body(payloads))
    assert messages == [Small(), Order(2**63, b"", {"a": "b"}, []), Small()]
    assert [type(error) for error in errors] == [UnknownMessage, *[UndecodableMessage] * 5]
    assert "actorkit.clock.SystemClock" in str(errors[0])
    assert "Expected `int`, got `str`" in str(errors[1])


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_bytes_that_are_no_messagepack_leave_nothing_behind_for_those_that_come_next(rubbish: list[bytes]) -> None:
    both = codec()
    good = batch_body([both.encode(Small())])
    for bad in [*rubbish, good[:-1], good + b"\x90", good * 100, bytes(5000)]:
        with suppress(FrameError):
            both.decode_batch(bad)
        assert both.decode_batch(good) == ([Small()], ())


def test_adjacent_versions_of_a_message_understand_each_other() -> None:
    older, newer = codec(Small), codec(SmallLater)
    assert older.decode(newer.encode(SmallLater(1, ["a"]))) == Small()
    assert newer.decode(older.encode(Small())) == SmallLater(7, [])


def test_what_is_too_large_or_unknown_is_not_sent() -> None:
    small = codec(message_max_bytes=100)
    with pytest.raises(MessageTooLarge, match="message_max_bytes"):
        small.encode(Order(1, bytes(100), {}, []))
    with pytest.raises(UnknownMessage, match="SmallLater"):
        small.encode(SmallLater())
    with pytest.raises(UndecodableMessage):
        codec().encode(Order(2**70, b"", {}, []))
    with pytest.raises(UndecodableMessage):
        codec().encode(Order(1, b"", {"a": "\ud800"}, []))
    _, errors = small.decode_batch(batch_body([codec().encode(Order(1, bytes(100), {}, [])), b"\x01"]))
    assert [type(error) for error in errors] == [MessageTooLarge, UndecodableMessage]


def test_nothing_is_decoded_where_nothing_is_declared() -> None:
    assert Codec().decode_batch(b"\x90")[0] == []
    _, errors = Codec().decode_batch(batch_body([codec().encode(Small())]))
    assert isinstance(errors[0], UnknownMessage)


class Anything(msgspec.Struct, array_like=True, tag="anything"):
    """Admits anything."""

    value: list[dict[str, Any]]


class Unparsed(msgspec.Struct, array_like=True, tag="unparsed"):
    """Admits anything."""

    value: msgspec.Raw


class Tree(msgspec.Struct, array_like=True, tag="tree"):
    """Nests without end."""

    children: list[Tree]


class Deep(msgspec.Struct, array_like=True, tag="deep"):
    """Nests for too long."""

    value: list[list[list[list[list[list[list[list[list[list[list[list[int]]]]]]]]]]]]


class Untagged(msgspec.Struct, array_like=True):
    """Has no tag."""


class Mapped(msgspec.Struct, tag="mapped"):
    """Is no array."""


class Numbered(msgspec.Struct, array_like=True, tag=5):
    """Has a tag that says nothing."""


class Endless(msgspec.Struct, array_like=True, tag="x" * 33):
    """Has a tag that is too long."""


@pytest.mark.parametrize("wrong", [Anything, Unparsed, Tree, Deep, Untagged, Mapped, Numbered, Endless, int, "Small"])
def test_what_is_no_message_type_cannot_be_declared(wrong: Any) -> None:
    with pytest.raises(DeclarationError):
        Codec().declare(wrong)


def test_a_tag_is_taken_once_and_declaring_again_changes_nothing() -> None:
    both = codec()
    both.declare(Small)
    with pytest.raises(DeclarationError, match="taken by Small"):
        both.declare(SmallLater)
    assert both.declared == {"order": Order, "small": Small}

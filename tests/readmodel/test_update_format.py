"""What pycrdt is never shown: everything that the one writer of a document cannot have written."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text

from actorkit.errors import UpdateRefused
from actorkit.readmodel.stamp import (
    VALUE_MAX_BYTES,
    decode_marker,
    decode_value,
    encode_marker,
    encode_value,
    sequence_of,
    stamp_of,
)
from actorkit.readmodel.update_format import (
    CLIENT,
    KEY_MAX_BYTES,
    ROOT,
    UPDATE_MAX_BYTES,
    Item,
    cut,
    encode_state,
    read_items,
)

Step = dict[str, bytes]
steps = st.lists(
    st.dictionaries(st.sampled_from(["", "a", "b", "kä", "c" * 200]), st.binary(max_size=200), min_size=1), max_size=30
)


def number(value: int) -> bytes:
    """A number of lib0, written independently of the product."""
    low = bytes((value & 0x7F | (0x80 if value > 0x7F else 0),))
    return low if value <= 0x7F else low + number(value >> 7)


def update(*items: bytes, clients: int = 1, count: int | None = None, client: int = 1, clock: int = 0) -> bytes:
    length = len(items) if count is None else count
    return number(clients) + number(length) + number(client) + number(clock) + b"".join(items) + b"\0"


def first(key: str, value: bytes) -> bytes:
    return b"\x28\x01\x01m" + number(len(key.encode())) + key.encode() + b"\x01\x74" + number(len(value)) + value


def following(origin: int, value: bytes) -> bytes:
    return b"\xa8\x01" + number(origin) + b"\x01\x74" + number(len(value)) + value


def written(transactions: list[Step]) -> tuple[Doc[Any], int]:
    """A document of pycrdt's as the product writes it, and its clock."""
    doc: Doc[Any] = Doc(client_id=CLIENT)
    values = doc.get(ROOT, type=Map)
    for entries in transactions:
        with doc.transaction():
            for key, value in entries.items():
                values[key] = value
    return doc, sum(map(len, transactions))


def content(doc: Doc[Any]) -> dict[str, bytes]:
    values = doc.get(ROOT, type=Map)
    return {key: bytes(values[key]) for key in values.keys()}  # noqa: SIM118 - iterating over a Map costs more


def refused(data: bytes) -> str:
    with pytest.raises(UpdateRefused) as refusal:
        read_items(data)
    return refusal.value.why


# ------------------------------------------------------------------------------------------------------- what is taken


def test_the_form_is_the_documented_one() -> None:
    doc, clock = written([{"a": b"A1", "b": b"B1"}, {"a": b"A2"}, {"a": b"A3"}, {"b": b"B2"}])
    data, last = cut(doc.get_update())
    assert last == clock == 5
    assert data.hex(" ") == (
        "01 05 01 00 "
        "21 01 01 6d 01 61 01 "  # a, replaced
        "21 01 01 6d 01 62 01 "  # b, replaced
        "a1 01 00 01 "  # a, replaced again
        "a8 01 02 01 74 02 41 33 "  # a is A3
        "a8 01 01 01 74 02 42 32 "  # b is B2
        "00"
    )
    assert read_items(data)[1] == [
        Item(0, 1, -1, "a", None, 11),
        Item(1, 1, -1, "b", None, 18),
        Item(2, 1, 0, "", None, 22),
        Item(3, 1, 2, "", b"A3", 30),
        Item(4, 1, 1, "", b"B2", 38),
    ]


@given(steps.filter(bool), st.data())
def test_what_pycrdt_writes_is_read_and_without_its_deletions_it_means_the_same(
    transactions: list[Step], draw: st.DataObject
) -> None:
    doc, clock = written(transactions)
    copy: Doc[Any] = Doc(client_id=2)
    seen = draw.draw(st.integers(0, len(transactions)))
    # Some of it before, of an earlier state of the document, and then all of it or what has come since.
    earlier, reached = written(transactions[:seen])
    if reached:
        copy.apply_update(cut(earlier.get_update())[0])
    since = draw.draw(st.integers(0, reached))
    if since < clock:
        data, last = cut(doc.get_update(encode_state(since)))
        begins, items = read_items(data)
        assert begins == since
        assert last == items[-1].clock + items[-1].length == clock
        copy.apply_update(data)
    assert content(copy) == content(doc)
    assert copy.get_update() == doc.get_update(), "its deletions included"


@given(steps)
def test_each_transaction_can_be_sent_on_its_own(transactions: list[Step]) -> None:
    doc: Doc[Any] = Doc(client_id=CLIENT)
    values = doc.get(ROOT, type=Map)
    copy: Doc[Any] = Doc(client_id=2)
    clock = 0
    for entries in transactions:
        with doc.transaction():
            for key, value in entries.items():
                values[key] = value
        data, last = cut(doc.get_update(encode_state(clock)))
        assert read_items(data)[0] == clock
        copy.apply_update(data)
        clock = last
    assert copy.get_update() == doc.get_update()
    assert copy.get_state() == doc.get_state() == encode_state(clock)


def test_what_is_too_much_for_one_update_comes_in_several_that_each_continue_the_one_before() -> None:
    doc, clock = written(
        [{f"key {n}": bytes(500) for n in range(2_000)}, {f"key {n}": b"x" for n in range(0, 2_000, 3)}]
    )
    copy: Doc[Any] = Doc(client_id=2)
    reached = parts = 0
    while reached < clock:
        data, last = cut(doc.get_update(encode_state(reached)))
        assert len(data) <= UPDATE_MAX_BYTES
        assert read_items(data)[0] == reached < last
        copy.apply_update(data)
        reached = last
        parts += 1
    assert 5 < parts < 15
    assert content(copy) == content(doc)


def test_the_largest_key_and_value_fit_into_an_update() -> None:
    doc, clock = written([{"k" * KEY_MAX_BYTES: bytes(VALUE_MAX_BYTES)}])
    data, last = cut(doc.get_update())
    assert last == clock
    assert read_items(data)[1][0].value == bytes(VALUE_MAX_BYTES)


# ----------------------------------------------------------------------------------------------------- what is refused


def test_updates_of_another_form_are_refused() -> None:
    good = update(first("a", b"1"), following(0, b"2"))
    assert len(read_items(good)[1]) == 2
    item = first("a", b"1")
    for bad in (
        b"",
        b"\0\0",
        update(),
        good + b"\0",
        good[:-1] + b"\1\1\1\0\1",
        update(item, clients=2),
        update(item, client=2),
        update(item, client=2**53 - 1),
        update(item, client=2**64),
        update(item, count=2),
        update(item, item, count=1),
        update(item, count=2**32),
        update(item, clock=2**32 - 1),
        update(item, clock=2**40),
        b"\1\1\1" + b"\xff" * 40 + item + b"\0",
        b"\1\x81\0\1\0" + item + b"\0",
        update(following(0, b"1")),
        update(following(5, b"1"), clock=5),
        update(b"\xa8\x02\x00" + item[6:], clock=5),
        update(b"\xa1\x01\x00\x00", clock=5),
        update(b"\x00\x01"),
        update(b"\x0a\x01"),
        update(item, b"\x0a\x01", item),
        update(b"\x28\x00" + item[2:]),
        update(b"\x28\x01\x01n" + item[4:]),
        update(b"\x28\x01\x01m\x02\xc3\x28\x01\x74\x01x"),
        update(b"\x28\x01\x01m\x03\xed\xa0\x80\x01\x74\x01x"),
        update(b"\x28\x01\x01m\x01a\x02\x74\x01x\x74\x01x"),
        update(b"\x28\x01\x01m\x01a\x00"),
        update(b"\x28\x01\x01m\x01a\x01\x77\x01x"),
        update(b"\x28\x01\x01m\x01a\x01\x7e"),
        update(b"\x23\x01\x01m\x01a\x01x"),
        update(b"\x08\x01\x01m\x01\x74\x01x"),
        update(b"\x68\x01\x00" + item[6:], clock=5),
        update(b"\xe8\x01\x00\x01\x01" + item[6:], clock=5),
        update(first("k" * (KEY_MAX_BYTES + 1), b"")),
        update(first("a", bytes(VALUE_MAX_BYTES + 1))),
        update(*(first(f"{n}", bytes(60_000)) for n in range(3))),
    ):
        refused(bad)


def _nested_map(root: Map[Any]) -> None:
    root["a"] = Map({"b": b"c"})


def _nested_array(root: Map[Any]) -> None:
    root["a"] = Array([b"c"])


def _text(root: Map[Any]) -> None:
    root["a"] = Text("c")


def _list(root: Map[Any]) -> None:
    root["a"] = [b"c"]


def _string(root: Map[Any]) -> None:
    root["a"] = "c"


def _integer(root: Map[Any]) -> None:
    root["a"] = 1


def _deleted(root: Map[Any]) -> None:
    root["a"] = b"c"
    del root["a"]


@pytest.mark.parametrize("change", [_nested_map, _nested_array, _text, _list, _string, _integer, _deleted])
def test_what_else_pycrdt_can_hold_is_refused(change: Callable[[Map[Any]], None]) -> None:
    doc: Doc[Any] = Doc(client_id=CLIENT)
    change(doc.get(ROOT, type=Map))
    refused(doc.get_update())


def test_writers_of_another_client_id_are_refused() -> None:
    for client in (2, 2**31, 2**32 - 1, 2**53 - 1):
        doc: Doc[Any] = Doc(client_id=client)
        doc.get(ROOT, type=Map)["a"] = b"b"
        assert "client" in refused(doc.get_update())


def test_a_second_writer_is_refused() -> None:
    doc, _ = written([{"a": b"1"}])
    other: Doc[Any] = Doc(client_id=7)
    other.apply_update(doc.get_update())
    other.get(ROOT, type=Map)["a"] = b"2"
    assert "client" in refused(other.get_update())
    assert "client" in refused(other.get_update(encode_state(1)))


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(data: bytes) -> None:
    refused(data)


@given(steps.filter(bool), st.data())
def test_a_truncated_update_is_refused(transactions: list[Step], draw: st.DataObject) -> None:
    data, _ = cut(written(transactions)[0].get_update())
    refused(data[: draw.draw(st.integers(0, len(data) - 1))])


def test_values_that_nest_deeply_are_refused_without_a_crash() -> None:
    """In a process of its own: given to pycrdt, these 52 KB end the process."""
    program = (
        "from actorkit.errors import UpdateRefused\n"
        "from actorkit.readmodel.update_format import read_items\n"
        "for shell in (b'\\x75\\x01', b'\\x76\\x01\\x01a'):\n"
        "    nested = shell * 26_000 + b'\\x7e'\n"
        "    for count in (b'\\x01', b'\\x02'):\n"
        "        try:\n"
        "            read_items(b'\\x01\\x01\\x01\\x00\\x28\\x01\\x01m\\x01a' + count + nested + b'\\x00')\n"
        "        except UpdateRefused as error:\n"
        "            print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["refused"] * 4


# ------------------------------------------------------------------------------------------------- values and positions


@given(st.integers(1, 2**53 - 1), st.integers(0, 2**16 - 1), st.none() | st.binary(max_size=100))
def test_values_come_back_as_they_were(sequence: int, view_version: int, payload: bytes | None) -> None:
    stamp = stamp_of(sequence, view_version)
    value = decode_value(encode_value(stamp, payload))
    assert value == (stamp, payload is None, payload or b"")
    assert sequence_of(value.stamp) == sequence


@given(*[st.tuples(st.integers(1, 2**53 - 1), st.integers(0, 2**16 - 1))] * 2, st.binary(), st.binary())
def test_comparing_bytes_compares_stamps(
    one: tuple[int, int], other: tuple[int, int], payload: bytes, also: bytes
) -> None:
    smaller, greater = encode_value(stamp_of(*one), payload), encode_value(stamp_of(*other), also)
    assert (smaller[:10] < greater[:10]) == (one < other) == (stamp_of(*one) < stamp_of(*other))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(10),
        bytes(11),
        (2**53).to_bytes(8, "big") + bytes(3),
        b"\xff" * 11,
        (1).to_bytes(8, "big") + b"\0\0\2",
        (1).to_bytes(8, "big") + b"\0\0\1x",
        (1).to_bytes(8, "big") + bytes(VALUE_MAX_BYTES),
    ],
)
def test_malformed_values_are_refused(data: bytes) -> None:
    with pytest.raises(UpdateRefused):
        decode_value(data)


def test_stamps_and_payloads_out_of_range_are_never_written() -> None:
    for sequence, version in ((0, 0), (2**53, 0), (-1, 0), (1, -1), (1, 2**16)):
        with pytest.raises(ValueError, match="is"):
            stamp_of(sequence, version)
    with pytest.raises(ValueError, match="sequence"):
        encode_value(5, b"")
    with pytest.raises(UpdateRefused, match="exceed"):
        encode_value(stamp_of(1, 0), bytes(VALUE_MAX_BYTES))


def test_markers_come_back_and_malformed_ones_are_refused() -> None:
    for position in (0, 1, 2**53 - 1):
        for views in (0, 1, 2**64 - 1):
            assert decode_marker(encode_marker(position, views)) == (position, views)
    for data in (b"", bytes(8), bytes(15), bytes(17), b"\xff" * 16):
        with pytest.raises(UpdateRefused):
            decode_marker(data)
    with pytest.raises(ValueError, match="position"):
        encode_marker(2**53)

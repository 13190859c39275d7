"""Documents and their copies: nothing lost, nothing lowered, nothing believed that the writer cannot have written."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any
from zlib import crc32

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Doc, Map

from actorkit.errors import UpdateRefused
from actorkit.readmodel import documents
from actorkit.readmodel.documents import Document, Replica, Update
from actorkit.readmodel.stamp import encode_marker, encode_value, stamp_of
from actorkit.readmodel.update_format import CLIENT, ROOT, UPDATE_MAX_BYTES, cut
from actorkit.wire import Codec

SHARD, EPOCH = 3, 7


def value(sequence: int, payload: bytes | None = b"x") -> bytes:
    return encode_value(stamp_of(sequence, 0), payload)


def document(entries: dict[str, bytes] | None = None, position: int = 0) -> Document:
    return Document(SHARD, EPOCH, entries or {}, position=position)


def pull(source: Document | Replica, copy: Replica) -> dict[str, bytes]:
    """Everything that ``copy`` lacks; returns what has changed."""
    changed: dict[str, bytes] = {}
    while (update := source.missing(copy.rotation, copy.clock)) is not None:
        changed.update(copy.apply(update))
    return changed


def copy_of(source: Document | Replica) -> Replica:
    copy = Replica(SHARD, EPOCH)
    pull(source, copy)
    return copy


def sealed(update: Update, **fields: Any) -> Update:
    """The update with other fields, and the checksum that a forger would compute."""
    forged = msgspec.structs.replace(update, **fields)
    numbers = (forged.shard, forged.epoch, forged.rotation, forged.first, forged.last)
    head = b"".join(each.to_bytes(8, "big") for each in numbers)
    return msgspec.structs.replace(forged, checksum=crc32(head + forged.data))


def written(doc: Doc[Any], *transactions: dict[str, bytes]) -> bytes:
    """The update of a document written past all checks."""
    values = doc.get(ROOT, type=Map)
    for entries in transactions:
        with doc.transaction():
            for key, each in entries.items():
                values[key] = each
    return cut(doc.get_update())[0]


def held(copy: Replica) -> dict[str, bytes]:
    """What pycrdt has, past the mirror."""
    if copy._doc is None:
        return {}
    values = copy._doc.get(ROOT, type=Map)
    return {key: bytes(values[key]) for key in values.keys()}  # noqa: SIM118 - iterating over a Map costs more


def state(copy: Replica) -> object:
    return (copy.rotation, copy.clock, copy.position, dict(copy.entries), held(copy), set(copy._hidden))


def refused(copy: Replica, update: Update) -> str:
    """Refused, with the copy as it was."""
    before = state(copy)
    with pytest.raises(UpdateRefused) as refusal:
        copy.apply(update)
    assert state(copy) == before
    return str(refusal.value)


# ------------------------------------------------------------------------------------------------------------- writing


def test_only_newer_values_are_written_and_deletions_are_values() -> None:
    written_here = document({"a": value(5)}, position=9)
    assert written_here.put({"a": value(4), "b": value(1)}) == 1
    assert written_here.put({"a": value(5)}) == 0
    assert written_here.put({"a": value(6, None)}) == 1
    assert written_here.put({"a": value(5)}) == 0
    assert dict(written_here.entries) == {"a": value(6, None), "b": value(1)}
    assert len(written_here) == 2
    assert copy_of(written_here).entries == written_here.entries


def test_a_newer_version_of_the_view_counts_as_newer_at_the_same_sequence() -> None:
    written_here = document({"a": encode_value(stamp_of(5, 1), b"one")})
    assert written_here.put({"a": encode_value(stamp_of(5, 2), b"two")}) == 1
    assert written_here.put({"a": encode_value(stamp_of(5, 1), b"one")}) == 0


def test_what_others_would_refuse_is_not_written() -> None:
    written_here = document({"a": value(1)})
    clock = written_here.clock
    for key, bad in (("", value(2)), ("k" * 3_000, value(2)), ("b", b""), ("b", bytes(11)), ("a", b"\xff" * 20)):
        with pytest.raises(UpdateRefused):
            written_here.put({"c": value(1), key: bad})
        with pytest.raises(UpdateRefused):
            document({key: bad})
    assert dict(written_here.entries) == {"a": value(1)}
    assert written_here.clock == clock


def test_the_position_only_advances() -> None:
    written_here = document(position=5)
    copy = copy_of(written_here)
    assert copy.position == 5
    written_here.reached(4)
    written_here.reached(5)
    assert written_here.missing(copy.rotation, copy.clock) is None
    written_here.reached(8)
    assert pull(written_here, copy) == {}
    assert copy.position == written_here.position == 8


# ------------------------------------------------------------------------------------------------------------- copying


def test_equal_questions_get_the_same_answer_until_something_changes() -> None:
    written_here = document({"a": value(1)})
    update = written_here.missing(0, 0)
    assert update is not None
    assert written_here.missing(0, 0) is update
    assert written_here.missing(77, 5) is update
    assert written_here.missing(update.rotation, update.last) is None
    written_here.put({"a": value(2)})
    again = written_here.missing(0, 0)
    assert again is not None
    assert again.last == update.last + 1


def test_an_update_travels_as_a_part_of_a_message() -> None:
    class Carrier(msgspec.Struct, frozen=True, array_like=True, tag="carrier"):
        updates: tuple[Update, ...]

    codec = Codec()
    codec.declare(Carrier)
    update = document({"a": value(1)}, position=4).missing(0, 0)
    assert update is not None
    assert codec.decode(codec.encode(Carrier((update,)))) == Carrier((update,))


def test_apply_says_what_has_changed_and_repetition_changes_nothing() -> None:
    written_here = document({"a": value(1), "b": value(1)})
    copy = Replica(SHARD, EPOCH)
    update = written_here.missing(0, 0)
    assert update is not None
    assert copy.apply(update) == {"a": value(1), "b": value(1)}
    assert copy.apply(update) == {}
    written_here.put({"b": value(2, None)})
    assert pull(written_here, copy) == {"b": value(2, None)}
    assert copy.apply(update) == {}


def test_copies_pass_on_what_they_have() -> None:
    written_here = document({f"{n}": value(1) for n in range(5)}, position=3)
    written_here.put({"2": value(2)})
    relay = copy_of(copy_of(written_here))
    written_here.put({"3": value(2)})
    late = copy_of(relay)
    assert late.missing(late.rotation, late.clock) is None
    assert relay.missing(late.rotation + 1, 0) is None, "who has a later rotation gets nothing of an earlier one"
    assert pull(written_here, late) == {"3": value(2)}
    assert pull(late, relay) == {"3": value(2)}
    assert state(relay) == state(late)
    assert relay.entries == written_here.entries


def test_a_gap_is_refused_and_pulling_closes_it() -> None:
    written_here = document({"a": value(1)})
    copy = copy_of(written_here)
    written_here.put({"a": value(2)})
    clock = written_here.clock
    written_here.put({"b": value(1)})
    later = written_here.missing(copy.rotation, clock)
    assert later is not None
    assert "is known" in refused(copy, later)
    assert pull(written_here, copy) == {"a": value(2), "b": value(1)}


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=6)),
        st.tuples(st.just("reach"), st.none()),
        st.tuples(st.just("pull"), st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 4))),
        st.tuples(st.just("repeat"), st.tuples(st.integers(0, 2), st.integers(0, 50))),
    ),
    max_size=120,
)


@given(steps)
def test_copies_fed_in_any_order_by_anyone_show_what_was_written_and_what_pycrdt_holds(
    taken: list[tuple[str, Any]],
) -> None:
    written_here = document({"0": value(1)}, position=1)
    copies = [Replica(SHARD, EPOCH) for _ in range(3)]
    shown: dict[int, dict[str, bytes]] = {1: dict(written_here.entries)}
    sent: list[Update] = []
    sequence = 1
    for what, how in taken:
        if what == "put":
            sequence += 1
            written_here.put({f"{key}": value(sequence, None if gone else b"y") for key, gone in how})
        elif what == "reach":
            written_here.reached(written_here.position + 1)
            shown[written_here.position] = dict(written_here.entries)
        else:
            copy = copies[how[0]]
            update: Update | None
            if what == "pull":
                update = [written_here, *copies][how[1]].missing(copy.rotation, max(0, copy.clock - how[2]))
            else:
                update = sent[how[1]] if how[1] < len(sent) else None
            if update is None:
                continue
            sent.append(update)
            before = dict(copy.entries)
            if update.first > (copy.clock if update.rotation == copy.rotation else 0):
                # Nothing else is ever wrong with it.
                assert update.rotation < copy.rotation or "is known" in refused(copy, update)
                continue
            changed = copy.apply(update)
            assert dict(copy.entries) == before | changed
            for key, each in changed.items():
                assert key not in before or before[key][:10] < each[:10]
            for key, least in shown.get(copy.position, {}).items():
                assert copy.entries[key][:10] >= least[:10], "its position says that it shows this"
            assert held(copy).items() <= {**copy.entries, "": encode_marker(copy.position)}.items()
    for copy in copies:
        pull(written_here, copy)
        assert dict(copy.entries) == dict(written_here.entries)
        assert held(copy) == {**written_here.entries, "": encode_marker(written_here.position)}
        assert (copy.rotation, copy.clock, copy.position) == (
            written_here.rotation,
            written_here.clock,
            written_here.position,
        )


# ------------------------------------------------------------------------------------------------------------ rotation


@pytest.mark.parametrize("keys", [1, 5, 300])
def test_a_document_stays_small_however_often_it_is_written(keys: int) -> None:
    """10^5 updates; bounded at any time, not only in the end."""
    names = [f"Pool/availability/pool-{n:05d}" for n in range(keys)]
    written_here = document({name: value(1, bytes(60)) for name in names}, position=1)
    copy = copy_of(written_here)
    fresh = written_here.missing(0, 0)
    assert fresh is not None
    rng = random.Random(5)
    largest = longest = 0
    for sequence in range(2, 100_002):
        name = names[rng.randrange(keys)]
        written_here.put({name: value(sequence, bytes(60))})
        if sequence % 97 == 0:
            written_here.reached(sequence)
            pull(written_here, copy)
        if sequence % 997 == 0:
            assert written_here._doc is not None
            largest = max(largest, len(written_here._doc.get_update()))
            longest = max(longest, written_here.clock)
    pull(written_here, copy)
    assert copy.entries == written_here.entries
    assert written_here.rotation > 100
    assert largest < 3 * len(fresh.data) + 300
    assert longest <= 3 * (keys + 1) + 33


def test_what_was_never_pulled_before_a_document_was_rewritten_is_not_lost() -> None:
    written_here = document({"a": value(1), "b": value(1)}, position=1)
    copy = copy_of(written_here)
    written_here.put({"b": value(2, None), "c": value(1)})
    rotation = written_here.rotation
    for sequence in range(3, 50):
        written_here.put({"a": value(sequence)})
    assert written_here.rotation > rotation
    assert pull(written_here, copy) == {"a": value(49), "b": value(2, None), "c": value(1)}
    assert copy.entries == written_here.entries


def test_growing_is_no_reason_to_rewrite() -> None:
    written_here = document()
    for n in range(1_000):
        written_here.put({f"{n}": value(1)})
    assert written_here.rotation == 1


def test_a_copy_goes_back_neither_in_values_nor_in_position_while_a_rewritten_document_arrives_in_parts() -> None:
    entries = {f"{n}": value(1, bytes(1_000)) for n in range(500)}
    written_here = document(entries, position=10)
    copy = copy_of(written_here)
    for n in range(500):
        written_here.put({f"{n}": value(2, bytes(1_000))})
    written_here.reached(20)
    for sequence in range(3, 6):
        for n in range(300):
            written_here.put({f"{n}": value(sequence, bytes(1_000))})
    assert written_here.rotation > copy.rotation
    parts = 0
    while (update := written_here.missing(copy.rotation, copy.clock)) is not None:
        assert len(update.data) <= UPDATE_MAX_BYTES
        before = dict(copy.entries)
        copy.apply(update)
        parts += 1
        assert copy.entries.keys() == before.keys()
        assert all(copy.entries[key] >= before[key] for key in before)
        if copy.clock < written_here.clock:
            assert copy.position == 10, "not all that the new position covers has arrived"
    assert parts > 3
    assert copy.position == 20
    assert copy.entries == written_here.entries


def test_a_position_holds_only_once_all_that_it_covers_has_arrived() -> None:
    """The value of ``c`` is newer than the marker, so a part that has the marker may show nothing of ``c``."""
    written_here = document({key: value(1) for key in "abc"}, position=5)
    written_here.put({key: value(2, bytes(60_000)) for key in "abc"})
    copy = Replica(SHARD, EPOCH)
    update = written_here.missing(0, 0)
    assert update is not None
    assert update.last < written_here.clock
    assert copy.apply(update) == {key: value(2, bytes(60_000)) for key in "ab"}
    assert copy._marked == 5
    assert copy.position == 0
    relayed = copy_of(copy)
    assert relayed.position == 0
    assert state(relayed) == state(copy)
    pull(written_here, copy)
    assert copy.position == 5


def test_the_same_writes_give_the_same_bytes() -> None:
    def run() -> list[Update | None]:
        written_here = document({"a": value(1)}, position=1)
        updates: list[Update | None] = []
        for sequence in range(2, 100):
            written_here.put({f"{sequence % 7}": value(sequence)})
            updates.append(written_here.missing(0, 0))
        return updates

    assert run() == run()


# ------------------------------------------------------------------------------------------------- damage and forgery


def samples() -> list[tuple[Replica, Update]]:
    """Copies, and updates that they would take."""
    written_here = document({"a": value(1, b"one"), "b": value(1)}, position=1)
    empty = Replica(SHARD, EPOCH)
    whole = written_here.missing(0, 0)
    copy = copy_of(written_here)
    written_here.put({"a": value(2), "c": value(1, None)})
    written_here.put({"a": value(3, b"three")})
    written_here.reached(4)
    step = written_here.missing(copy.rotation, copy.clock)
    assert whole is not None
    assert step is not None
    return [(empty, whole), (copy, step)]


@pytest.mark.parametrize("which", [0, 1])
def test_damaged_updates_are_refused(which: int) -> None:
    """Every bit of the data and of each number flipped, and the data cut at every length."""
    copy, update = samples()[which]
    for bit in range(len(update.data) * 8):
        flipped = bytearray(update.data)
        flipped[bit // 8] ^= 1 << bit % 8
        refused(copy, msgspec.structs.replace(update, data=bytes(flipped)))
    for length in range(len(update.data)):
        refused(copy, msgspec.structs.replace(update, data=update.data[:length]))
    for field in ("shard", "epoch", "rotation", "first", "last", "checksum"):
        for bit in range(64):
            refused(copy, msgspec.structs.replace(update, **{field: getattr(update, field) ^ 1 << bit}))
        refused(copy, msgspec.structs.replace(update, **{field: -1}))
        refused(copy, msgspec.structs.replace(update, **{field: 2**64}))
    assert copy.apply(update)


@pytest.mark.parametrize("which", [0, 1])
def test_damage_under_a_forged_checksum_never_makes_pycrdt_hold_something_else_than_is_shown(which: int) -> None:
    """What is still a valid update after a flip is content like any other; all else is refused."""
    taken = 0
    data = samples()[which][1].data
    for bit in range(len(data) * 8):
        copy, update = samples()[which]
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        before = state(copy)
        try:
            copy.apply(sealed(update, data=bytes(flipped)))
        except UpdateRefused:
            assert state(copy) == before
            assert not copy.discarded
        else:
            taken += 1
            shown = {key: each for key, each in copy.entries.items() if key not in copy._hidden}
            assert held(copy) == {**shown, "": encode_marker(copy._marked, copy.views)}
    assert 0 < taken < len(data) * 8


@given(st.binary(max_size=200), st.integers(0, 2**64 - 1), st.integers(0, 2**33), st.integers(0, 2**33))
def test_random_updates_are_refused_whatever_their_checksum(data: bytes, rotation: int, first: int, last: int) -> None:
    copy, update = samples()[1]
    if rotation < 2**53:
        refused_or_known(copy, sealed(update, rotation=rotation, first=first, last=last, data=data))
    refused(copy, sealed(update, data=data))


def refused_or_known(copy: Replica, update: Update) -> None:
    before = state(copy)
    try:
        assert copy.apply(update) == {}
    except UpdateRefused:
        pass
    assert state(copy) == before


def forged(*transactions: dict[str, bytes], client: int = CLIENT) -> Update:
    """A whole document of rotation 2 whose writer keeps to no rules."""
    doc: Doc[Any] = Doc(client_id=client)
    count = sum(map(len, transactions))
    return sealed(Update(SHARD, EPOCH, 2, 0, count, b"", 0), data=written(doc, *transactions))


def test_a_stamp_that_goes_down_is_refused_within_an_update_a_rotation_and_the_next_one() -> None:
    copy = copy_of(document({"a": value(5)}, position=3))
    assert "stamp" in refused(copy, forged({"a": value(4)}))
    assert "stamp" in refused(copy, forged({"a": value(5, b"another value of the same stamp")}))
    assert copy.apply(forged({"a": value(5), "b": value(1)})) == {"b": value(1)}
    doc: Doc[Any] = Doc(client_id=CLIENT)
    written(doc, {"a": value(5), "b": value(1)}, {"b": value(2)})
    good = sealed(Update(SHARD, EPOCH, 2, 2, 3, b"", 0), data=cut(doc.get_update(b"\1\1\2"))[0])
    assert copy.apply(good) == {"b": value(2)}
    written(doc, {"a": value(4)})
    assert "stamp" in refused(copy, sealed(good, first=3, last=4, data=cut(doc.get_update(b"\1\1\3"))[0]))


def test_malformed_values_and_positions_are_refused_with_the_whole_update() -> None:
    copy = copy_of(document({"a": value(5)}, position=3))
    for bad in (b"", bytes(11), b"\xff" * 11, value(9)[:10] + b"\2"):
        refused(copy, forged({"b": value(7), "a": bad}))
    for bad in (b"", bytes(7), b"\xff" * 8):
        refused(copy, forged({"b": value(7), "": bad}))
    doc: Doc[Any] = Doc(client_id=CLIENT)
    written(doc, {"a": value(5), "": encode_marker(9)}, {"": encode_marker(8)})
    both = [cut(doc.get_update(b"\1\1\2"))[0]]
    assert copy.apply(forged({"a": value(5), "": encode_marker(9)})) == {}
    assert copy.position == 9
    assert "goes back" in refused(copy, sealed(Update(SHARD, EPOCH, 2, 2, 3, b"", 0), data=both[0]))


def test_a_key_that_begins_twice_is_refused() -> None:
    """pycrdt would keep the older value."""
    key = b"\x28\x01\x01m\x01a\x01\x74\x0b"
    twice = b"\1\2\1\0" + key + value(1, b"") + key + value(2, b"") + b"\0"
    refused(Replica(SHARD, EPOCH), sealed(Update(SHARD, EPOCH, 1, 0, 2, b"", 0), data=twice))
    again = b"\1\1\1\2" + key + value(2, b"") + b"\0"
    copy = copy_of(document({"a": value(1, b"")}))
    refused(copy, sealed(Update(SHARD, EPOCH, 1, 2, 3, b"", 0), data=again))


def test_a_value_that_replaces_one_already_replaced_is_refused() -> None:
    written_here = document({"a": value(1, b"")})
    written_here.put({"a": value(2, b"")})
    copy = copy_of(written_here)
    for origin in (b"\0", b"\1"):
        taken = b"\1\1\1\3\xa8\1" + origin + b"\1\x74\x0b" + value(3, b"") + b"\0"
        refused(copy, sealed(Update(SHARD, EPOCH, 1, 3, 4, b"", 0), data=taken))


def test_updates_of_another_document_are_refused() -> None:
    copy, update = samples()[0]
    assert "copy of shard" in refused(copy, sealed(update, shard=SHARD + 1))
    assert "copy of shard" in refused(copy, sealed(update, epoch=EPOCH + 1))
    refused(copy, sealed(update, rotation=0))


def test_an_update_that_is_too_large_is_refused() -> None:
    copy, update = samples()[0]
    assert "exceed" in refused(copy, sealed(update, data=bytes(UPDATE_MAX_BYTES + 1)))


# ------------------------------------------------------------------------------------------------- failures of pycrdt


class PanicException(BaseException):
    """As pyo3 raises where Rust panics: no ``Exception``, and of a class that cannot be imported."""


def failing(error: BaseException) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("error", [PanicException("bounds"), ValueError("cannot decode")])
def test_where_pycrdt_fails_the_copy_is_thrown_away_and_pulled_afresh(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    written_here = document({"a": value(1)}, position=2)
    copy = copy_of(written_here)
    written_here.put({"a": value(2)})
    update = written_here.missing(copy.rotation, copy.clock)
    assert update is not None
    with monkeypatch.context() as patched:
        patched.setattr(copy._doc, "apply_update", failing(error))
        with pytest.raises(UpdateRefused, match="pycrdt failed"):
            copy.apply(update)
    assert copy.discarded
    assert (copy.rotation, copy.clock, copy.position, len(copy)) == (0, 0, 0, 0)
    assert copy.missing(0, 0) is None
    assert pull(written_here, copy) == {"a": value(2)}
    assert not copy.discarded
    assert copy.position == 2


def test_where_pycrdt_makes_something_else_of_an_update_the_copy_is_thrown_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written_here = document({"a": value(1)})
    copy = copy_of(written_here)
    written_here.put({"a": value(2)})
    update = written_here.missing(copy.rotation, copy.clock)
    assert update is not None
    with monkeypatch.context() as patched:
        patched.setattr(copy._doc, "apply_update", lambda data: None)
        with pytest.raises(UpdateRefused, match="something else"):
            copy.apply(update)
    assert copy.discarded


@pytest.mark.parametrize("error", [PanicException("bounds"), ValueError("cannot decode")])
def test_where_pycrdt_fails_on_a_later_rotation_the_copy_stays_as_it_was(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    copy = copy_of(document({"a": value(1)}, position=2))
    with monkeypatch.context() as patched:
        patched.setattr(Doc, "apply_update", failing(error))
        refused(copy, forged({"a": value(2)}))
    assert not copy.discarded


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), GeneratorExit()])
def test_requests_to_end_are_passed_on(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    written_here = document({"a": value(1)})
    copy = copy_of(written_here)
    written_here.put({"a": value(2)})
    update = written_here.missing(copy.rotation, copy.clock)
    assert update is not None
    with monkeypatch.context() as patched:
        patched.setattr(copy._doc, "apply_update", failing(error))
        with pytest.raises(type(error)):
            copy.apply(update)
        patched.setattr(written_here._map.__class__, "__setitem__", failing(error))
        with pytest.raises(type(error)):
            written_here.put({"a": value(3)})


@pytest.mark.parametrize("error", [PanicException("bounds"), ValueError("cannot encode")])
def test_where_pycrdt_fails_to_write_the_document_is_rewritten(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    written_here = document({"a": value(1)}, position=1)
    copy = copy_of(written_here)
    set_them = documents._set
    fails = iter([True, False])

    def set_some(doc: Doc[Any], values: Map[Any], entries: dict[str, bytes]) -> None:
        set_them(doc, values, entries)
        if next(fails):
            raise error

    with monkeypatch.context() as patched:
        patched.setattr(documents, "_set", set_some)
        assert written_here.put({"a": value(2)}) == 1
    assert written_here.rotation == 2
    assert pull(written_here, copy) == {"a": value(2)}
    assert held(copy) == {"a": value(2), "": encode_marker(1)}


@pytest.mark.parametrize("error", [PanicException("bounds"), ValueError("cannot encode")])
def test_what_pycrdt_cannot_send_is_rewritten_by_its_writer_and_pulled_afresh_by_others(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    written_here = document({"a": value(1)}, position=1)
    relay = copy_of(written_here)
    written_here.put({"a": value(2)})
    for holder in (relay, written_here):
        monkeypatch.setattr(holder._doc, "get_update", failing(error))
    assert relay.missing(0, 0) is None
    assert relay.discarded
    assert pull(written_here, relay) == {"a": value(2)}
    assert relay.rotation == written_here.rotation == 2
    assert copy_of(relay).entries == written_here.entries

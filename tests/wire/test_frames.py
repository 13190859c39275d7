"""Frames: in order, each once, unchanged, and from the peer of the session; else an error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorkit.errors import FrameError
from actorkit.wire import FrameKind, Opener, Sealer, WireSettings, frame_max_bytes
from actorkit.wire.frames import HANDSHAKE_BODY_MAX_BYTES, HEADER_BYTES, handshake_frame, open_handshake

SETTINGS = WireSettings()
KEY = bytes(range(32))
keys = st.sampled_from([b"", KEY])
bodies = st.lists(st.tuples(st.sampled_from(FrameKind), st.binary(max_size=100)), min_size=1, max_size=10)


@given(keys, bodies)
def test_what_is_sealed_opens_in_order(key: bytes, frames: list[tuple[FrameKind, bytes]]) -> None:
    sealer, opener = Sealer(3, key), Opener(3, key, SETTINGS)
    for kind, body in frames:
        opened = opener.open(sealer.seal(kind, body))
        assert (opened[0], bytes(opened[1])) == (kind, body)


@given(st.binary(min_size=1, max_size=100), st.data())
def test_any_change_to_an_authenticated_frame_is_noticed(body: bytes, data: st.DataObject) -> None:
    frame = bytearray(Sealer(1, KEY).seal(FrameKind.BATCH, body))
    frame[data.draw(st.integers(0, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(FrameError):
        Opener(1, KEY, SETTINGS).open(bytes(frame))


@given(keys, st.binary(max_size=100), st.data())
def test_a_truncated_or_lengthened_frame_is_noticed(key: bytes, body: bytes, data: st.DataObject) -> None:
    frame = Sealer(1, key).seal(FrameKind.BATCH, body)
    with pytest.raises(FrameError):
        Opener(1, key, SETTINGS).open(frame[: data.draw(st.integers(0, HEADER_BYTES - 1))])
    if key:
        with pytest.raises(FrameError):
            Opener(1, key, SETTINGS).open(frame[:-1])
        with pytest.raises(FrameError):
            Opener(1, key, SETTINGS).open(frame + data.draw(st.binary(min_size=1, max_size=5)))


@given(keys, st.binary(max_size=100))
def test_random_bytes_are_no_frame(key: bytes, data: bytes) -> None:
    for read in (Opener(1, key, SETTINGS).open, open_handshake):
        try:
            kind, body = read(data)
        except FrameError:
            continue
        assert data.endswith(body)
        assert kind in FrameKind
        assert not key or read is open_handshake


@pytest.mark.parametrize("key", [b"", KEY])
def test_a_frame_that_is_repeated_left_out_or_moved_is_noticed(key: bytes) -> None:
    sealer = Sealer(1, key)
    first, second, third = (sealer.seal(FrameKind.BATCH, b"%d" % number) for number in range(3))
    for wrong in (second, third):
        with pytest.raises(FrameError):
            Opener(1, key, SETTINGS).open(wrong)
    for wrong in (first, third):
        opener = Opener(1, key, SETTINGS)
        opener.open(first)
        with pytest.raises(FrameError):
            opener.open(wrong)


def test_frames_of_another_key_version_or_without_a_key_are_refused() -> None:
    for sealer in (Sealer(1, KEY[::-1]), Sealer(1, b""), Sealer(2, KEY)):
        with pytest.raises(FrameError):
            Opener(1, KEY, SETTINGS).open(sealer.seal(FrameKind.BATCH))
    with pytest.raises(FrameError):
        Opener(1, b"", SETTINGS).open(Sealer(1, KEY).seal(FrameKind.BATCH))


def test_oversized_frames_are_refused_before_they_are_looked_at() -> None:
    limit = frame_max_bytes(SETTINGS)
    frame = Sealer(1, b"").seal(FrameKind.BATCH, bytes(limit - HEADER_BYTES))
    assert len(Opener(1, b"", SETTINGS).open(frame)[1]) == limit - HEADER_BYTES
    with pytest.raises(FrameError, match="exceeds the limit"):
        Opener(1, b"", SETTINGS).open(frame + b"x")
    with pytest.raises(FrameError, match="larger than a handshake needs"):
        open_handshake(handshake_frame(FrameKind.HELLO, bytes(HANDSHAKE_BODY_MAX_BYTES + 1)))


def test_frames_of_a_session_and_of_a_handshake_are_not_taken_for_each_other() -> None:
    with pytest.raises(FrameError, match="before the handshake was over"):
        open_handshake(Sealer(1, b"").seal(FrameKind.BATCH))
    for key in (b"", KEY):
        with pytest.raises(FrameError):
            Opener(1, key, SETTINGS).open(handshake_frame(FrameKind.HELLO, b""))

"""Frames: what one connection carries, each a whole: a version, a kind, a counter, a MAC and a body.

::

    byte 0        1       2        4              12           28
         version  kind    zero     counter        MAC          body

``counter`` counts the frames of one direction of one session from 0, so that none can be repeated, left out or moved;
the MAC (keyed BLAKE2b, RFC 7693) covers everything before it and the body under a key of that direction and session, so
that none can be forged or reflected. Sessions without a secret have a counter and no MAC. The frames of a handshake
have neither and say version 0, since they are what these are agreed upon with; their fields are bound by the proofs.

A batch's body is one MessagePack array of messages: all that was sent to a peer within one turn of the loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from hashlib import blake2b
from hmac import compare_digest
from struct import Struct
from typing import Final

from actorkit.errors import FrameError
from actorkit.wire.settings import WireSettings

__all__ = [
    "HANDSHAKE_BODY_MAX_BYTES",
    "HEADER_BYTES",
    "FrameKind",
    "Opener",
    "Sealer",
    "batch_body",
    "frame_max_bytes",
    "handshake_frame",
    "open_handshake",
]

HEADER_BYTES: Final = 28
HANDSHAKE_BODY_MAX_BYTES: Final = 2048
"""More than any honest handshake needs; nothing larger is looked at before the peer is known."""

_PREFIX = Struct(">BBHQ")
_PREFIX_BYTES = _PREFIX.size
_MAC_BYTES = 16
_NO_MAC = bytes(_MAC_BYTES)
_ARRAY16_MAX = 0xFFFF


class FrameKind(IntEnum):
    """What a frame is for."""

    HELLO = 1
    CHALLENGE = 2
    PROOF = 3
    ACCEPTED = 4
    REFUSAL = 5
    BATCH = 16
    HEARTBEAT = 17
    FAREWELL = 18


_BATCH = int(FrameKind.BATCH)
_KINDS = {int(kind): kind for kind in FrameKind}


def frame_max_bytes(settings: WireSettings) -> int:
    """No honest frame is larger."""
    return HEADER_BYTES + 5 + settings.message_max_bytes + settings.batch_max_bytes


def batch_body(payloads: Sequence[bytes]) -> bytes:
    """One array of encoded messages."""
    count = len(payloads)
    if count == 1:
        return b"\x91" + payloads[0]
    if count < 16:
        head = bytes((0x90 | count,))
    elif count <= _ARRAY16_MAX:
        head = b"\xdc" + count.to_bytes(2, "big")
    else:
        head = b"\xdd" + count.to_bytes(4, "big")
    return head + b"".join(payloads)


def handshake_frame(kind: FrameKind, body: bytes) -> bytes:
    """A frame from before there is a session."""
    return _PREFIX.pack(0, kind, 0, 0) + _NO_MAC + body


def open_handshake(frame: bytes) -> tuple[FrameKind, bytes]:
    """Its kind and body. Raises ``FrameError``."""
    kind, version, counter = _prefix(frame)
    if version != 0 or counter != 0 or frame[_PREFIX_BYTES:HEADER_BYTES] != _NO_MAC:
        raise FrameError(f"a {kind.name} frame of version {version} came before the handshake was over")
    if len(frame) > HEADER_BYTES + HANDSHAKE_BODY_MAX_BYTES:
        raise FrameError(f"a {kind.name} frame of {len(frame)} bytes is larger than a handshake needs")
    return kind, frame[HEADER_BYTES:]


def _prefix(frame: bytes) -> tuple[FrameKind, int, int]:
    if len(frame) < HEADER_BYTES:
        raise FrameError(f"{len(frame)} bytes are no frame: its header alone has {HEADER_BYTES}")
    version, number, zero, counter = _PREFIX.unpack_from(frame)
    kind = _KINDS.get(number)
    if kind is None or zero:
        raise FrameError(f"there are no frames of kind {number} with flags {zero}")
    return kind, version, counter


def _keyed(key: bytes) -> blake2b | None:
    """What each MAC begins as a copy of: that costs less than taking the key in for each frame. ``None``: no MACs."""
    return blake2b(digest_size=_MAC_BYTES, key=key) if key else None


class Sealer:
    """Makes the frames of one direction of a session."""

    __slots__ = ("_counter", "_keyed", "_version")

    def __init__(self, version: int, key: bytes) -> None:
        """``key`` is empty in a session without a secret."""
        self._version = version
        self._keyed = _keyed(key)
        self._counter = 0

    def seal(self, kind: FrameKind, body: bytes = b"") -> bytes:
        """The next frame. They must be sent in this order, all of them."""
        prefix = _PREFIX.pack(self._version, kind, 0, self._counter)
        self._counter += 1
        if self._keyed is None:
            return prefix + _NO_MAC + body
        mac = self._keyed.copy()
        mac.update(prefix)
        mac.update(body)
        return prefix + mac.digest() + body


class Opener:
    """Reads the frames of one direction of a session."""

    __slots__ = ("_counter", "_keyed", "_limit", "_version")

    def __init__(self, version: int, key: bytes, settings: WireSettings) -> None:
        self._version = version
        self._keyed = _keyed(key)
        self._counter = 0
        self._limit = frame_max_bytes(settings)

    def open(self, frame: bytes) -> tuple[FrameKind, memoryview]:
        """The kind and the body of the next frame. Raises ``FrameError`` where it is not that."""
        if len(frame) > self._limit:
            raise FrameError(f"a frame of {len(frame)} bytes exceeds the limit of {self._limit}")
        prefix, kind, wrong = frame[:_PREFIX_BYTES], FrameKind.BATCH, ""
        # Most frames are the batch that is due, which one comparison tells.
        if len(frame) < HEADER_BYTES or prefix != _PREFIX.pack(self._version, _BATCH, 0, self._counter):
            kind, version, counter = _prefix(frame)
            if version != self._version or counter != self._counter:
                due = f"{self._counter} of version {self._version}"
                wrong = f"frame {counter} of version {version} came where {due} was due"
        body = memoryview(frame)[HEADER_BYTES:]
        expected = _NO_MAC
        if self._keyed is not None:
            mac = self._keyed.copy()
            mac.update(prefix)
            mac.update(body)
            expected = mac.digest()
        if not compare_digest(frame[_PREFIX_BYTES:HEADER_BYTES], expected):
            raise FrameError("a frame was not made by the peer of this session: its MAC is wrong")
        if wrong:
            raise FrameError(wrong)
        self._counter += 1
        return kind, body

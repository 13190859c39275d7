"""Snapshots: an entity's state as bytes, to make recovery short. Always expendable, never trusted blindly.

A snapshot names the event that it was taken after (by a digest of the whole record, so that a journal which has gone
another way is noticed), the schema of the state, and carries a checksum. Whatever does not fit is ignored, and recovery
takes an older one or none.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import msgspec

from actorkit.journal.protocols import Append, Recorded, StoredSnapshot
from actorkit.persistence.declaration import EntityType
from actorkit.persistence.encodable import UNDECODABLE

__all__ = ["SnapshotPolicy", "append_digest", "encode_snapshot", "event_digest", "open_snapshot", "restore_state"]

_CHECKSUM_BYTES = 16
_BYTES_PER_EVENT = 100


class SnapshotBody(msgspec.Struct, frozen=True, array_like=True):
    """What the stored bytes hold after their checksum."""

    format: int
    event: bytes
    schema: bytes
    state: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(SnapshotBody)
_FORMAT = 1


def event_digest(event: Recorded) -> bytes:
    """The identity of one event: equal only for the same event with the same cause, time and epoch."""
    return _digest(
        event.stream,
        event.sequence,
        event.type,
        event.version,
        event.time_us,
        event.epoch,
        event.payload,
        event.metadata,
    )


def append_digest(append: Append) -> bytes:
    """The digest of the last event of an append, as ``event_digest`` gives it once it is stored."""
    last = append.events[-1]
    sequence = append.expected + len(append.events)
    return _digest(
        append.stream, sequence, last.type, last.version, append.time_us, append.epoch, last.payload, append.metadata
    )


def _digest(*parts: object) -> bytes:
    return blake2b(_encoder.encode(parts), digest_size=16).digest()


def encode_snapshot(
    entity_type: EntityType, stream: str, sequence: int, time_us: int, event: bytes, state: Any
) -> StoredSnapshot:
    """``event`` is the digest of the event with this sequence."""
    body = _encoder.encode(SnapshotBody(_FORMAT, event, entity_type.schema, _encoder.encode(state)))
    checksum = blake2b(body, digest_size=_CHECKSUM_BYTES).digest()
    return StoredSnapshot(stream, sequence, time_us, checksum + body)


def open_snapshot(entity_type: EntityType, stored: StoredSnapshot) -> SnapshotBody | str:
    """The snapshot's body, or why it is not usable."""
    checksum, body = stored.payload[:_CHECKSUM_BYTES], stored.payload[_CHECKSUM_BYTES:]
    if blake2b(body, digest_size=_CHECKSUM_BYTES).digest() != checksum:
        return "corrupt"
    try:
        opened = _decoder.decode(body)
    except UNDECODABLE:
        return "corrupt"
    if opened.format != _FORMAT:
        return "of another format"
    if opened.schema != entity_type.schema:
        return "of another schema of the state"
    return opened


def restore_state(entity_type: EntityType, body: SnapshotBody) -> Any | None:
    """The state, or ``None`` where its bytes do not fit the declaration."""
    try:
        return msgspec.msgpack.decode(body.state, type=entity_type.state)
    except UNDECODABLE:
        return None


class SnapshotPolicy:
    """When an entity takes a snapshot: after so many events, and more of them the larger its snapshots are.

    A snapshot costs time in proportion to its size. Waiting for ``size / 100`` events at least keeps that cost per
    event bounded, however large the state grows.
    """

    def __init__(self, every_events: int) -> None:
        self._every = every_events
        self._next = every_events

    def restart(self, sequence: int) -> None:
        """The state was recovered from a snapshot with this sequence (0: from none)."""
        self._next = sequence + self._every

    def taken(self, sequence: int, size_bytes: int) -> None:
        self._next = sequence + max(self._every, size_bytes // _BYTES_PER_EVENT)

    def due(self, sequence: int) -> bool:
        return sequence >= self._next and self._every > 0

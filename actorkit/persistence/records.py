"""What is stored beside an event: who caused it, and how its command ended.

Both are MessagePack arrays, kept small because every event carries them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from actorkit.errors import Rejected

__all__ = [
    "Metadata",
    "Outcome",
    "decode_metadata",
    "decode_outcome",
    "detached",
    "encode_metadata",
    "encode_outcome",
    "encode_rejection",
]


class Metadata(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Who caused an event. Its time, epoch and idempotency key are columns of their own."""

    command_id: str
    handler: str
    correlation: str = ""
    causation: str = ""
    trace_parent: str = ""


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """How a command ended: with a reply, or with a refusal (then ``code`` is set)."""

    digest: bytes
    """Of the handler and its arguments, where the command had an idempotency key."""
    reply: msgspec.Raw = msgspec.Raw(b"\xc0")
    code: str = ""
    reason: str = ""
    details: dict[str, Any] = {}

    def rejection(self) -> Rejected | None:
        return Rejected.rebuild(self.code, self.reason, self.details) if self.code else None


_encoder = msgspec.msgpack.Encoder()
_KEYLESS_HEAD, _, _KEYLESS_TAIL = _encoder.encode(Outcome(b"", msgspec.Raw(b"\xc1"))).partition(b"\xc1")
"""An outcome without a digest around its reply: most are of that form. (MessagePack itself never uses 0xc1.)"""

encode_metadata: Callable[[Metadata], bytes] = _encoder.encode
_metadata_decoder = msgspec.msgpack.Decoder(Metadata)
_outcome_decoder = msgspec.msgpack.Decoder(Outcome)


def detached(details: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that shares nothing, as it would arrive by wire. Raises ``TypeError`` where that is not possible."""
    return msgspec.msgpack.decode(_encoder.encode(dict(details)), type=dict[str, Any])


def decode_metadata(stored: bytes) -> Metadata:
    return _metadata_decoder.decode(stored)


def encode_outcome(digest: bytes, reply: bytes) -> bytes:
    """``reply`` is MessagePack already, made by the handler's signature."""
    if not digest:
        return _KEYLESS_HEAD + reply + _KEYLESS_TAIL
    return _encoder.encode(Outcome(digest, msgspec.Raw(reply)))


def encode_rejection(digest: bytes, rejected: Rejected) -> bytes:
    """Raises ``TypeError`` where the details cannot be encoded."""
    return _encoder.encode(Outcome(digest, code=rejected.code, reason=rejected.reason, details=dict(rejected.details)))


def decode_outcome(stored: bytes) -> Outcome:
    return _outcome_decoder.decode(stored)

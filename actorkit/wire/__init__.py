"""Messages between nodes as bytes: declared types in MessagePack, many in one frame with a counter and a MAC."""

from actorkit.wire.codec import TAG_MAX_CHARS, Codec
from actorkit.wire.frames import FrameKind, Opener, Sealer, batch_body, frame_max_bytes
from actorkit.wire.settings import WireSettings

__all__ = [
    "TAG_MAX_CHARS",
    "Codec",
    "FrameKind",
    "Opener",
    "Sealer",
    "WireSettings",
    "batch_body",
    "frame_max_bytes",
]

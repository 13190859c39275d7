"""Random streams from one seed: each user of randomness has its own, so that one that draws more shifts no other.

A stream's seed is a BLAKE2b hash of the run's seed and the stream's name: the same in every process, unlike ``hash()``.
"""

from __future__ import annotations

import random
from hashlib import blake2b

__all__ = ["SeededRandomness", "stream"]


def stream(seed: int, name: str) -> random.Random:
    """The stream of that name in the run of that seed."""
    return random.Random(int.from_bytes(blake2b(f"{seed}/{name}".encode(), digest_size=16).digest(), "big"))  # noqa: S311


class SeededRandomness:
    """Implements ``actorkit.clock.Randomness``."""

    def __init__(self, stream: random.Random) -> None:
        self._stream = stream

    def token(self, size_bytes: int) -> bytes:
        return self._stream.randbytes(size_bytes)

    def uniform(self) -> float:
        return self._stream.random()

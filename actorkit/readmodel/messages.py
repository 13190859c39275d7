"""What the read models of a cluster send each other. Each message may be lost or late; none of them changes a value.

``generation`` is the store's: what was written on another one says nothing.
"""

from __future__ import annotations

import msgspec

from actorkit.readmodel.documents import Update

__all__ = ["Digest", "Heard", "State", "Updates"]


class State(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How far the sender knows the newest document of a shard."""

    shard: int
    epoch: int
    rotation: int
    clock: int
    age_ms: int
    """How old what it shows may be, at the time of sending; -1: nobody can say."""

    @property
    def version(self) -> tuple[int, int, int]:
        """Of two, the greater one is newer."""
        return self.epoch, self.rotation, self.clock


class Digest(msgspec.Struct, frozen=True, array_like=True, tag="readmodel-digest"):
    """All documents of a range of shards that the sender has: its state vector, or a part of it."""

    generation: int
    first: int
    """The first shard of the range."""
    end: int
    """The one after its last."""
    states: tuple[State, ...]
    number: int = 0
    """Not 0: the receiver is to send its own digest, too, in answer to this number."""
    answers: int = 0


class Updates(msgspec.Struct, frozen=True, array_like=True, tag="readmodel-updates"):
    """What the receiver lacks, as far as the sender knows. The next ones come when this is ``Heard``."""

    generation: int
    number: int
    updates: tuple[Update, ...]


class Heard(msgspec.Struct, frozen=True, array_like=True, tag="readmodel-heard"):
    """``Updates`` of that number have been taken in."""

    number: int

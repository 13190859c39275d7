"""Placement: which node should own which shard, the same on every node that sees the same members.

Every member stands at many points of a ring (virtual nodes), every shard at one; a shard goes to the first member that
follows its point and still has room. Room is a little more than the member's fair share, by weight, so that no node is
given much more than another, and when a node comes or goes, little else moves (consistent hashing: Karger et al., 1997;
with bounded loads: Mirrokni, Thorup and Zadimoghaddam, 2018).

Points depend on names alone: a node that is started again under its name gets its shards back.

The shell calls ``place`` whenever the members that may own shards have changed, and gives the result to ``Handoffs``
(what this node is to take and to give away) and to ``Routing`` (whom to ask first). A placement is only a wish: the
lease in the store says who owns a shard, so that nodes with different views do no harm.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import chain
from typing import NamedTuple, TypeAlias

__all__ = ["LOAD_SLACK", "WEIGHT_MAX", "PlacedMember", "Placement", "place", "room"]

LOAD_SLACK = 0.1
"""ε of the paper: how much more than its fair share a member may be given. Less: evener load, and more shards move
when a node comes or goes."""
WEIGHT_MAX = 16.0
"""A member counts as at most this many ordinary ones, since its points on the ring grow with its weight."""

_DIGEST_BYTES = 64
_POINT_BYTES = 6
"""48 bits: among a million points two are hardly ever the same, and where they are, the name decides."""
_POINTS_OF_A_DIGEST = _DIGEST_BYTES // _POINT_BYTES
_DIGESTS_PER_WEIGHT = 3
"""30 points for a member of weight 1: shares before bounding are within about a fifth of fair."""
_MEMBERS_CACHED = 4_096


class PlacedMember(NamedTuple):
    """A member that may own shards."""

    name: str
    """Of its node; a name that occurs twice (two incarnations, while one is leaving) counts once, with the greater
    weight."""
    weight: float = 1.0
    """How much it is to carry, next to others. 0: nothing."""


Placement: TypeAlias = tuple[str | None, ...]
"""The name of the node that should own each shard; ``None`` where no member can."""


def room(shards: int, weight: float, weights: float) -> int:
    """The most shards that a member is given: its share by weight of all shards, and a little more, rounded up."""
    # The last digits of a sum of weights depend on their order, and must not decide.
    return math.ceil(round((1 + LOAD_SLACK) * shards * weight / weights, 6))


def place(shards: int, members: Sequence[PlacedMember]) -> Placement:
    """The owner of each shard. The order of the members does not matter.

    No member is given more than ``room``. 256 shards on 1,000 members take some 15 ms (60 ms the first time, when their
    points are not known yet), on ten members 0.2 ms.
    """
    weights: dict[str, float] = {}
    for name, weight in members:
        weights[name] = max(weights.get(name, 0.0), min(weight, WEIGHT_MAX))
    names = sorted(name for name, weight in weights.items() if weight > 0)
    if not names:
        return (None,) * shards
    total = math.fsum(weights.values())
    left = [room(shards, weights[name], total) for name in names]
    # A point and the number of its member in one integer: sorting and searching these is fastest.
    bits = len(names).bit_length()
    ring = sorted(
        chain.from_iterable(
            [point << bits | number for point in _points(name, math.ceil(weights[name] * _DIGESTS_PER_WEIGHT))]
            for number, name in enumerate(names)
        )
    )
    mask, size = (1 << bits) - 1, len(ring)
    owners: list[str | None] = []
    for shard in range(shards):
        at = bisect_right(ring, _shard_point(shard) << bits)
        while not left[number := ring[at % size] & mask]:
            at += 1
        left[number] -= 1
        owners.append(names[number])
    return tuple(owners)


@lru_cache(maxsize=_MEMBERS_CACHED)
def _points(name: str, digests: int) -> tuple[int, ...]:
    """Where a member stands on the ring. With more weight it keeps the points that it had."""
    points: list[int] = []
    for number in range(digests):
        digest = blake2b(f"{number}/{name}".encode(), digest_size=_DIGEST_BYTES, person=b"member").digest()
        points += [
            int.from_bytes(digest[start : start + _POINT_BYTES], "big")
            for start in range(0, _POINTS_OF_A_DIGEST * _POINT_BYTES, _POINT_BYTES)
        ]
    return tuple(points)


@lru_cache(maxsize=65_536)
def _shard_point(shard: int) -> int:
    digest = blake2b(str(shard).encode(), digest_size=_POINT_BYTES, person=b"shard").digest()
    return int.from_bytes(digest, "big")

"""The names of things: entities and their streams, shards, epochs, nodes, actors.

An entity (type, id) has one stream in the journal, named ``type/id``, and belongs to one shard. The shard is found by
hashing that name with BLAKE2b, never with ``hash()``, which differs between processes.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple, NewType

from actorkit.errors import ConfigurationError

__all__ = ["ENTITY_ID_MAX_CHARS", "ActorPath", "Epoch", "NodeId", "PersistenceId", "ShardId", "shard_of"]

ShardId = NewType("ShardId", int)
"""0 to shards - 1."""

Epoch = NewType("Epoch", int)
"""Counts the activations of one shard, from 1; only ever grows. 0: never activated."""

ActorPath = NewType("ActorPath", str)
"""Where an actor stands in its system's tree, as in ``/orders/worker-3``; unique among the living."""

ENTITY_ID_MAX_CHARS = 256


class PersistenceId(NamedTuple):
    """One entity, and the name of its stream."""

    type: str
    id: str

    def __str__(self) -> str:
        return f"{self.type}/{self.id}"

    @classmethod
    def checked(cls, type: str, id: str) -> PersistenceId:
        """Raises ``ConfigurationError`` on an empty or overlong id; any other text is a valid id."""
        if not isinstance(id, str):
            raise ConfigurationError(f"an id of {type} is a string, not {id!r}")
        if not id or len(id) > ENTITY_ID_MAX_CHARS:
            raise ConfigurationError(
                f"an id of {type} has 1 to {ENTITY_ID_MAX_CHARS} characters, this one has {len(id)}: {id[:40]!r}"
            )
        return cls(type, id)

    @classmethod
    def parse(cls, stream: str) -> PersistenceId:
        """The entity of a stream's name; the type has no slash, the id may."""
        type, slash, id = stream.partition("/")
        if not slash:
            raise ConfigurationError(f"{stream!r} is not the name of a stream: expected type/id")
        return cls(type, id)


class NodeId(NamedTuple):
    """One life of one node: a restart under the same name is a new incarnation."""

    name: str
    incarnation: str

    def __str__(self) -> str:
        return f"{self.name}#{self.incarnation}"


def shard_of(stream: str, shards: int) -> ShardId:
    """The shard of a stream: the same in every process, on every machine, for ever."""
    return ShardId(int.from_bytes(blake2b(stream.encode(), digest_size=8).digest(), "big") % shards)

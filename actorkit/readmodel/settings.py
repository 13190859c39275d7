"""Settings of the read model."""

from __future__ import annotations

import msgspec

__all__ = ["ReadModelSettings"]


class ReadModelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How what entities publish gets to all nodes of a cluster. One node alone needs none of it."""

    flush_s: float = 0.01
    """How long changes gather before they are sent. Longer: fewer, larger messages and less work for each change, and
    everything is seen so much later on other nodes."""
    flush_alone_s: float = 1.0
    """The same while there is no other node that could be told, unless a thousand keys have changed before. Longer:
    less work where keys change often, each of which takes some 12 µs to write."""
    round_s: float = 0.25
    """How often a node compares what it has with ``round_peers`` others. It decides how old ``as_of`` says that an
    answer may be (about ``round_s * (nodes - 1) / round_peers``), and how soon what was lost is repaired. A round costs
    some 12 bytes for each shard and peer, each way."""
    round_peers: int = 2
    """How many others are asked in a round."""
    push_all_max: int = 6
    """Up to so many other nodes, each change is sent to all of them by the node where it was made. With more, it goes
    to ``push_peers`` of them, who send it on in the same way, and rounds reach whom these miss."""
    relay_after_s: float = 1.0
    """With up to ``push_all_max`` other nodes: how long what another node has written may be missing somewhere before
    it is sent from here, since its writer is most likely about to. Shorter: seen sooner where only some of the nodes
    reach each other, and more is sent twice."""
    push_peers: int = 4
    """Larger: seen sooner everywhere, at the cost of more copies of each change."""
    batch_bytes: int = 1 << 16
    """How much is sent to a peer before it has answered. What has changed meanwhile is sent as it is then, so this
    and the number of keys bound what waits, however many changes there are. Larger: a joining node far away has all
    sooner; each batch keeps its receiver's loop busy (64 KiB of small values for some 10 ms)."""
    answer_timeout_s: float = 5.0
    """A peer that has not answered for so long is sent everything anew that it may have missed."""
    check_s: float = 2.0
    """How often documents are compared with the store, which knows who owns which shard, and how far its log goes: what
    claims more than that is thrown away. It is a read of all shards' records. Also how often each document notes how
    much of the log it shows, which is what a new owner need not read again."""
    adoption_wait_s: float = 2.0
    """How long a node that has taken a shard over waits for others to say how much of its log they show, where it does
    not know that itself, before it reads all entities of the shard instead."""

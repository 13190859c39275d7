"""Catalog: the newest document of each shard that this node has, written here or by others, and how old it may be.

A document belongs to one activation of a shard, so it is named by the shard and the epoch of its taking over, and has
one writer for ever. Its writer begins it with all that the shard's log has shown up to then. Hence the document of a
higher epoch holds all that lower ones did, and these are dropped.

Pure: it is told the time, and whether a shard is owned.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from enum import Enum
from typing import Final

from actorkit.errors import UpdateRefused
from actorkit.readmodel.documents import Document, Replica, Update
from actorkit.readmodel.messages import State
from actorkit.readmodel.stamp import STAMP_BYTES, sequence_of

__all__ = ["NOTHING", "Catalog", "Refusal", "Version"]

Version = tuple[int, int, int]
"""Epoch, rotation and clock of a shard's document: the greater one is newer."""

NOTHING: Final[Version] = (0, 0, -1)
"""The version of what is not there. A document that exists, though empty, is newer."""


class Refusal(Enum):
    """Why an update could not be taken, though nothing is wrong with it as far as can be seen."""

    GAP = "it builds on what is not here"
    UNVERIFIED = "the store has not been asked about its epoch yet"


class _Record:
    __slots__ = ("claim", "document", "fresh_s", "greatest", "sized")

    def __init__(self, document: Document | Replica, fresh_s: float) -> None:
        self.document = document
        self.fresh_s = fresh_s
        """It surely shows everything that was committed before this time."""
        self.greatest = 0
        """The greatest sequence of an entity that another node has shown."""
        self.sized: tuple[Version, int] = (NOTHING, 0)
        """A version, and the size that it has."""
        self.claim: tuple[Version, float] | None = None
        """A version that is not here yet, and what ``fresh_s`` will be once it is."""

    @property
    def version(self) -> Version:
        document = self.document
        return document.epoch, document.rotation, document.clock

    def size_bytes(self) -> int:
        """Keys and values."""
        if self.sized[0] != self.version:
            self.sized = self.version, sum(len(key) + len(data) for key, data in self.document.entries.items())
        return self.sized[1]


class Catalog:
    """The documents of one node, by shard."""

    def __init__(self, shards: int, *, owned_since: Callable[[int], int], views: int = 0) -> None:
        """``owned_since(shard)``: the epoch under which this node has taken it over, if it surely owns it; else 0.
        ``views``: the digest of what this node publishes."""
        self._shards = shards
        self._owned_since = owned_since
        self._views = views
        self._records: dict[int, _Record] = {}
        self._epochs: dict[int, int] = {}

    @property
    def documents(self) -> int:
        """Of how many shards there is a document."""
        return len(self._records)

    @property
    def keys(self) -> int:
        """In all documents, deleted ones included."""
        return sum(len(record.document) for record in self._records.values())

    @property
    def size_bytes(self) -> int:
        """Keys and values in all documents. Counted anew for those that have changed: for metrics."""
        return sum(record.size_bytes() for record in self._records.values())

    @property
    def replaced(self) -> int:
        """Values that were replaced since their documents were last written anew; their traces take memory."""
        return sum(max(0, record.document.clock - len(record.document) - 1) for record in self._records.values())

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return self._shards

    def document(self, shard: int) -> Document | Replica | None:
        """The newest one."""
        record = self._records.get(shard)
        return None if record is None else record.document

    def written_here(self, shard: int) -> Document | None:
        """The newest one, if this node writes it."""
        document = self.document(shard)
        return document if isinstance(document, Document) else None

    @property
    def uncovered(self) -> int:
        """Of how many shards there is no document."""
        return self._shards - len(self._records)

    def version(self, shard: int) -> Version:
        record = self._records.get(shard)
        return NOTHING if record is None else record.version

    def position(self, shard: int) -> int | None:
        """Up to where in the shard's log all is known here that this node publishes; ``None``: nobody has said, or not
        all is here."""
        document = self.document(shard)
        if document is None or not document.complete or document.views != self._views:
            return None
        return document.position

    # -------------------------------------------------------------------------------------------------------- changing

    def begin(self, document: Document) -> bool:
        """This node writes a document from now on. False: a newer activation's is known already."""
        record = self._records.get(document.shard)
        if record is not None and record.document.epoch >= document.epoch:
            return False
        self._epochs[document.shard] = max(document.epoch, self._epochs.get(document.shard, 0))
        self._records[document.shard] = _Record(document, _fresh(record))
        return True

    def verified(self, epochs: Mapping[int, int]) -> None:
        """The store's epochs of shards. None goes back: this node may have taken one over since they were read."""
        for shard, epoch in epochs.items():
            self._epochs[shard] = max(epoch, self._epochs.get(shard, 0))

    def greatest(self) -> dict[int, int]:
        """For each shard that others write, the greatest sequence of an entity, or position, that was taken."""
        return {
            shard: max(record.greatest, record.document.position)
            for shard, record in self._records.items()
            if isinstance(record.document, Replica)
        }

    def drop(self, shard: int) -> None:
        """What another node writes cannot be trusted: it is pulled afresh."""
        if isinstance(self.document(shard), Replica):
            del self._records[shard]

    def take(self, update: Update) -> dict[str, bytes] | Refusal:
        """The entries that an update changes. What is known already changes nothing.

        Raises ``UpdateRefused`` for what is damaged or forged; nothing of it has been taken, though it may have cost
        the replica, which then is pulled afresh.
        """
        shard = update.shard
        if not 0 <= shard < self._shards:
            raise UpdateRefused(f"an update of shard {shard}", f"there are {self._shards} shards")
        if update.epoch < 1:
            raise UpdateRefused(f"an update of shard {shard}", f"no activation has the epoch {update.epoch}")
        record = self._records.get(shard)
        here = self.version(shard)
        if (update.epoch, update.rotation, update.last) <= here:
            return {}
        if record is not None and isinstance(record.document, Document) and update.epoch <= record.document.epoch:
            # Only this node writes it, and knows it best.
            return {}
        if update.epoch > self._epochs.get(shard, 0):
            return Refusal.UNVERIFIED
        known_to = here[2] if here[:2] == (update.epoch, update.rotation) else 0
        if update.first > max(known_to, 0):
            return Refusal.GAP
        if record is None or update.epoch > record.document.epoch:
            replica = Replica(shard, update.epoch)
            entries = replica.apply(update)
            record = self._records[shard] = _Record(replica, _fresh(record))
        else:
            assert isinstance(record.document, Replica)
            entries = record.document.apply(update)
        for data in entries.values():
            # Stamps are in front, in an order that bytes have, too.
            record.greatest = max(record.greatest, sequence_of(int.from_bytes(data[:STAMP_BYTES], "big")))
        self._settle_claim(record)
        return entries

    # ------------------------------------------------------------------------------------------------------- freshness

    def claimed(self, state: State, heard_s: float) -> None:
        """Somebody had this version at least, and knew at ``heard_s`` (by our clock) how old it was."""
        record = self._records.get(state.shard)
        if record is None or record.document.epoch != state.epoch or state.age_ms < 0:
            return
        fresh_s = heard_s - state.age_ms / 1000
        if state.version <= record.version and record.document.complete:
            record.fresh_s = max(record.fresh_s, fresh_s)
        elif record.claim is None:
            # The oldest one: a newer one that is never reached would be of no use.
            record.claim = state.version, fresh_s

    def _settle_claim(self, record: _Record) -> None:
        if record.claim is not None and record.claim[0] <= record.version and record.document.complete:
            record.fresh_s = max(record.fresh_s, record.claim[1])
            record.claim = None

    def age_s(self, shard: int, now_s: float) -> float:
        """How long ago something may have been committed that is not shown here; infinite: nobody can say."""
        record = self._records.get(shard)
        if record is None:
            return float("inf")
        if isinstance(record.document, Document) and self._owned_since(shard) == record.document.epoch:
            record.fresh_s = now_s
        return now_s - record.fresh_s

    def oldest_s(self, now_s: float) -> float:
        """The greatest age of all shards."""
        return max((self.age_s(shard, now_s) for shard in range(self._shards)), default=0.0)

    def states(self, now_s: float, first: int, end: int) -> tuple[State, ...]:
        """The digest of a range of shards, in their order."""
        states: list[State] = []
        for shard in range(first, end):
            record = self._records.get(shard)
            if record is None:
                continue
            age_s = self.age_s(shard, now_s)
            # Rounded up: nothing is said to be newer than it is.
            age_ms = 0 if age_s == 0.0 else -1 if age_s == float("inf") else int(age_s * 1000) + 1
            if not record.document.complete:
                # What was shown before it came is here, but who has no more than this part of it does not show that.
                age_ms = -1
            states.append(State(shard, *record.version, age_ms))
        return tuple(states)

    def newer_than(self, versions: Mapping[int, Version], first: int, end: int) -> Collection[int]:
        """Shards of a range of which more is known here than these versions."""
        return [shard for shard in range(first, end) if self.version(shard) > versions.get(shard, NOTHING)]


def _fresh(before: _Record | None) -> float:
    """A new activation's document shows all that the one before did."""
    return float("-inf") if before is None else before.fresh_s

"""Documents: what one writer says of the keys of one shard, and how others come to know it.

A document belongs to one activation of a shard (its epoch), so it has exactly one writer for ever. That is what makes
pycrdt safe to use as a map: of concurrent writes of one key it would keep that of the higher client id, whatever the
stamps are; here there are none. Within a document a stamp never goes down, and a reader takes the greatest stamp over
all documents, which may arrive in any order, repeatedly or not at all.

pycrdt keeps a trace of each value that was replaced, for ever. So a document is rewritten when these traces outnumber
its keys: it begins again with what there is now, under the next ``rotation``. Who has anything of an earlier rotation
pulls the new one from its start, and keeps what it knows until that has arrived.

The empty key is the position marker: up to where in the shard's log the document surely shows everything that its
writer publishes, and a digest of what that is, since another version of the program may publish something else. It is
always written after what it covers, so whoever has a marker, and no key of which only the replaced values have arrived
yet, has all that it covers. (Shapiro et al., "Conflict-free Replicated Data Types", 2011; the documents are Yjs's, see
``update_format``.)
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from struct import Struct as Packing
from types import MappingProxyType
from typing import Any, Final
from zlib import crc32

import msgspec
from pycrdt import Doc, Map

from actorkit.errors import UpdateRefused
from actorkit.readmodel.stamp import (
    STAMP_BYTES,
    check_value,
    decode_marker,
    encode_marker,
)
from actorkit.readmodel.update_format import (
    CLIENT,
    CLOCK_LIMIT,
    KEY_MAX_BYTES,
    ROOT,
    UPDATE_MAX_BYTES,
    Item,
    cut,
    encode_state,
    read_items,
)

__all__ = ["Document", "Replica", "Update"]

_MARKER: Final = ""
_READER: Final = 2
"""The client id of copies, which never write. Fixed, because a random one would make runs of one seed differ."""
_REPLACED_MIN: Final = 32
_REPLACED_PER_KEY: Final = 2
_CACHED_MAX: Final = 4
_NUMBERS: Final = Packing(">5Q")
_NUMBER_LIMIT: Final = 1 << 53


class Update(msgspec.Struct, frozen=True, array_like=True):
    """A part of a document as it travels, also from those who do not write it. To be taken as a whole or not at all."""

    shard: int
    epoch: int
    rotation: int
    first: int
    """The clock at which it begins: who has less than that cannot use it."""
    last: int
    """The clock that whoever takes it has reached then."""
    data: bytes
    """See ``update_format``."""
    checksum: int
    """CRC-32 over everything else. It finds damage, not forgery."""


def _checksum(shard: int, epoch: int, rotation: int, first: int, last: int, data: bytes) -> int:
    return crc32(data, crc32(_NUMBERS.pack(shard, epoch, rotation, first, last)))


class _Updates:
    """Writes updates of a document, each of them once between changes: many peers ask for the same."""

    def __init__(self, shard: int, epoch: int) -> None:
        self._shard = shard
        self._epoch = epoch
        self._cached: dict[int, Update] = {}

    def clear(self) -> None:
        """The document has changed."""
        self._cached.clear()

    def get(self, doc: Doc[Any], rotation: int, clock: int) -> Update:
        """What follows ``clock``, as much as an update may have. Raises ``UpdateRefused`` where pycrdt fails."""
        update = self._cached.get(clock)
        if update is None:
            try:
                data, last = cut(doc.get_update(encode_state(clock)))
            except BaseException as error:
                if not _is_of_pycrdt(error):
                    raise
                raise UpdateRefused(f"what is held of shard {self._shard}", f"pycrdt failed: {error!r}") from error
            checksum = _checksum(self._shard, self._epoch, rotation, clock, last, data)
            update = Update(self._shard, self._epoch, rotation, clock, last, data, checksum)
            if len(self._cached) == _CACHED_MAX:
                self._cached.clear()
            self._cached[clock] = update
        return update


class Document:
    """A document that is written here, and only here."""

    def __init__(self, shard: int, epoch: int, entries: Mapping[str, bytes], *, position: int, views: int = 0) -> None:
        """``entries``: as ``encode_value`` makes them, by key; of these views they show the shard's log up to
        ``position``."""
        self.shard = shard
        self.epoch = epoch
        self.rotation = 0
        """How often it was begun, from 1."""
        self.clock = 0
        """How many values were written in this rotation."""
        self.position = position
        self.views = views
        self._entries: dict[str, bytes] = {}
        self.entries: Mapping[str, bytes] = MappingProxyType(self._entries)
        """What it says now, deletions included; always current."""
        self._updates = _Updates(shard, epoch)
        for key, value in entries.items():
            _check(key, value)
        self._entries.update(entries)
        self._rewrite()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def complete(self) -> bool:
        """Whoever writes it has all of it."""
        return True

    def put(self, entries: Mapping[str, bytes]) -> int:
        """Writes those that are newer than what is there; the others are left out. Returns how many were written.

        Raises ``UpdateRefused``, and writes nothing, where a value or key is one that others would refuse.
        """
        known = self._entries
        newer: dict[str, bytes] = {}
        for key, value in entries.items():
            before = known.get(key)
            if before is None or value[:STAMP_BYTES] > before[:STAMP_BYTES]:
                _check(key, value)
                newer[key] = value
        if newer:
            known.update(newer)
            self._write(newer)
        return len(newer)

    def reached(self, position: int) -> None:
        """What was put shows the shard's log up to this position. An earlier one than before changes nothing."""
        if position > self.position:
            self.position = position
            self._write({_MARKER: encode_marker(position, self.views)})

    def missing(self, rotation: int, clock: int) -> Update | None:
        """What somebody needs who has this document up to ``clock`` of ``rotation``; ``None``: nothing.

        It may be a part of it: then ask again with the update's ``last``. Who has another rotation gets this one from
        its start.
        """
        if rotation != self.rotation:
            clock = 0
        if clock >= self.clock:
            return None
        try:
            return self._updates.get(self._doc, self.rotation, clock)
        except UpdateRefused:
            self._rewrite()
            return self._updates.get(self._doc, self.rotation, 0)

    def _write(self, entries: Mapping[str, bytes]) -> None:
        live = len(self._entries) + 1
        if self.clock + len(entries) - live > max(_REPLACED_MIN, _REPLACED_PER_KEY * live):
            self._rewrite()
            return
        try:
            _set(self._doc, self._map, entries)
        except BaseException as error:
            if not _is_of_pycrdt(error):
                raise
            # Nobody knows what is in it now; what should be there is known.
            self._rewrite()
            return
        self.clock += len(entries)
        self._updates.clear()

    def _rewrite(self) -> None:
        self._doc: Doc[Any] = Doc(client_id=CLIENT)
        self._map: Map[Any] = self._doc.get(ROOT, type=Map)
        # The marker last: whoever has it has what it covers.
        everything = {**self._entries, _MARKER: encode_marker(self.position, self.views)}
        _set(self._doc, self._map, everything)
        self.rotation += 1
        self.clock = len(everything)
        self._updates.clear()


def _set(doc: Doc[Any], values: Map[Any], entries: Mapping[str, bytes]) -> None:
    with doc.transaction():
        for key, value in entries.items():
            values[key] = value


def _check(key: str, value: bytes) -> None:
    if not key or len(key.encode()) > KEY_MAX_BYTES:
        raise UpdateRefused("a key", f"it has {len(key.encode())} bytes instead of 1 to {KEY_MAX_BYTES}")
    check_value(value)


class Replica:
    """A document that somebody else writes, as far as it is known here. It can be passed on from here too."""

    def __init__(self, shard: int, epoch: int) -> None:
        self.shard = shard
        self.epoch = epoch
        self.rotation = 0
        """0: nothing is known yet."""
        self.clock = 0
        self.position = 0
        """Up to where in the shard's log ``entries`` surely show everything of ``views``."""
        self.views = 0
        self.discarded = False
        """Everything was thrown away, because pycrdt failed; until something has arrived again."""
        self._entries: dict[str, bytes] = {}
        self.entries: Mapping[str, bytes] = MappingProxyType(self._entries)
        """What it says, deletions included, as far as it is known here; always current."""
        self._updates = _Updates(shard, epoch)
        self._doc: Doc[Any] | None = None
        self._heads: dict[int, str] = {}
        """The key of each newest value in this rotation, by the value's clock."""
        self._seen: set[str] = set()
        """All keys of this rotation, the position marker included."""
        self._hidden: set[str] = set()
        """Those of them of which only values that have been replaced are here so far."""
        self._marked = 0
        """The newest position marker of this rotation; it holds once nothing is hidden."""

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def complete(self) -> bool:
        """Whether everything is here that its writer began this rotation with. What came later may be missing."""
        return not self._hidden and _MARKER in self._seen

    def missing(self, rotation: int, clock: int) -> Update | None:
        """As ``Document.missing``, of what is known here; nothing for who has a later rotation than is known here."""
        if rotation != self.rotation:
            clock = 0
        if self._doc is None or rotation > self.rotation or clock >= self.clock:
            return None
        try:
            return self._updates.get(self._doc, self.rotation, clock)
        except UpdateRefused:
            self._discard()
            return None

    def apply(self, update: Update) -> dict[str, bytes]:
        """Takes an update. Returns the entries that have changed; none if all of it is known.

        Raises ``UpdateRefused`` for what the writer cannot have written, and for what does not follow on what is known;
        then nothing has changed. Where pycrdt fails all the same, everything is thrown away (``discarded``), since
        nobody knows what it has done.
        """
        _check_update(update, self.shard, self.epoch)
        if update.rotation < self.rotation or (update.rotation == self.rotation and update.last <= self.clock):
            return {}
        begins = update.rotation > self.rotation
        clock = 0 if begins else self.clock
        if update.first > clock:
            raise _refused(update, f"it begins at clock {update.first}, and only {clock} is known")
        first, items = read_items(update.data)
        if first != update.first or items[-1].clock + items[-1].length != update.last:
            raise _refused(update, "its items have other clocks than it says")
        change = _Change(
            self._entries,
            clock=clock,
            heads={} if begins else self._heads,
            seen=set() if begins else self._seen,
            marked=0 if begins else self._marked,
            views=self.views,
        )
        for item in items:
            if item.clock + item.length > clock:
                change.add(item)
        self._integrate(update, begins)
        return self._commit(update, change, begins)

    def _integrate(self, update: Update, begins: bool) -> None:
        """Gives a checked update to pycrdt."""
        doc: Doc[Any] = Doc(client_id=_READER) if begins or self._doc is None else self._doc
        try:
            doc.apply_update(update.data)
            state = doc.get_state()
        except BaseException as error:
            if not begins:
                self._discard()
            if _is_of_pycrdt(error):
                raise _refused(update, f"pycrdt failed: {error!r}") from error
            raise
        if state != encode_state(update.last):
            if not begins:
                self._discard()
            raise _refused(update, f"pycrdt made something else of it: {state.hex()}")
        self._doc = doc

    def _commit(self, update: Update, change: _Change, begins: bool) -> dict[str, bytes]:
        if begins:
            self._heads.clear()
            self._seen.clear()
            self._hidden.clear()
        for clock in change.replaced:
            del self._heads[clock]
        self._heads.update(change.heads)
        self._seen |= change.first
        self._marked, self.views = change.marked, change.views
        changed: dict[str, bytes] = {}
        for key, value in change.values.items():
            if value is None:
                self._hidden.add(key)
                continue
            self._hidden.discard(key)
            if key != _MARKER and self._entries.get(key) != value:
                changed[key] = self._entries[key] = value
        if not self._hidden:
            self.position = max(self.position, self._marked)
        self.rotation = update.rotation
        self.clock = update.last
        self.discarded = False
        self._updates.clear()
        return changed

    def _discard(self) -> None:
        self.rotation = self.clock = self.position = self._marked = 0
        self.discarded = True
        self._doc = None
        self._updates.clear()
        for known in (self._entries, self._heads, self._seen, self._hidden):
            known.clear()


class _Change:
    """What an update does to a copy, before anything is done."""

    def __init__(
        self,
        entries: Mapping[str, bytes],
        *,
        clock: int,
        heads: Mapping[int, str],
        seen: Set[str],
        marked: int,
        views: int,
    ) -> None:
        self._entries = entries
        self._clock = clock
        self._known_heads = heads
        self._seen = seen
        self.marked = marked
        self.views = views
        self.heads: dict[int, str] = {}
        """Newest values that it brings, as in the copy."""
        self.replaced: set[int] = set()
        """Newest values of the copy that are so no more."""
        self.first: set[str] = set()
        """Keys that are new in this rotation."""
        self.values: dict[str, bytes | None] = {}
        """The newest value of each key; ``None``: it is not there yet, only what it has replaced."""

    def add(self, item: Item) -> None:
        """Takes the next item, of which at least the last clock is new."""
        # What continues a run of which the beginning is known follows on the last one known.
        origin = item.origin if item.clock >= self._clock else self._clock - 1
        key = item.key
        if origin >= 0:
            key = self._replace(origin)
        elif key in self._seen or key in self.first:
            raise UpdateRefused("an update", f"the key {key!r} is there already")
        else:
            self.first.add(key)
        self.heads[item.clock + item.length - 1] = key
        if key == _MARKER:
            self._mark(item.value)
        elif item.value is not None:
            self._check(key, item.value)
        self.values[key] = item.value

    def _mark(self, value: bytes | None) -> None:
        if value is not None:
            marked, self.views = decode_marker(value)
            if marked < self.marked:
                raise UpdateRefused("an update", f"its position goes back from {self.marked} to {marked}")
            self.marked = marked

    def _check(self, key: str, value: bytes) -> None:
        check_value(value)
        before = self.values.get(key) or self._entries.get(key)
        # The journal admits one event of each sequence, so what has the same stamp is the same.
        if before is not None and value[:STAMP_BYTES] <= before[:STAMP_BYTES] and value != before:
            raise UpdateRefused("an update", f"the stamp of {key!r} does not go up")

    def _replace(self, origin: int) -> str:
        key = self.heads.pop(origin, None)
        if key is None:
            key = self._known_heads.get(origin)
            if key is None or origin in self.replaced:
                raise UpdateRefused("an update", f"clock {origin} is not the newest value of a key")
            self.replaced.add(origin)
        return key


def _refused(update: Update, why: str) -> UpdateRefused:
    return UpdateRefused(f"an update of shard {update.shard} (epoch {update.epoch}, rotation {update.rotation})", why)


def _check_update(update: Update, shard: int, epoch: int) -> None:
    if (update.shard, update.epoch) != (shard, epoch):
        raise _refused(update, f"this is the copy of shard {shard}, epoch {epoch}")
    if not 1 <= update.rotation < _NUMBER_LIMIT or not 0 <= update.first < update.last < CLOCK_LIMIT:
        raise _refused(update, f"it has no valid range: {update.first} to {update.last}")
    if len(update.data) > UPDATE_MAX_BYTES:
        raise _refused(update, f"its {len(update.data)} bytes exceed the {UPDATE_MAX_BYTES} it may have")
    numbers = (update.shard, update.epoch, update.rotation, update.first, update.last)
    if update.checksum != _checksum(*numbers, update.data):
        raise _refused(update, "its checksum is another one")


def _is_of_pycrdt(error: BaseException) -> bool:
    """Whether it is a failure within pycrdt, rather than a request to end that happens to be raised here.

    Panics of Rust are no ``Exception``. Their class cannot be imported: each extension module has one of its own.
    """
    return isinstance(error, Exception) or any(kind.__name__ == "PanicException" for kind in type(error).__mro__)

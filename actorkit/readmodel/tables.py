"""Tables: the last-writer-wins maps of one process, one for each published method, and the keys of each shard.

In documents a key is ``type/view/id``, and a value is its stamp and its payload; here values are what the application
reads. This module is where one becomes the other. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from actorkit.errors import DeclarationError, UpdateRefused
from actorkit.persistence.declaration import EntityType
from actorkit.persistence.published import Published
from actorkit.readmodel.counters import ReadModelCounters
from actorkit.readmodel.lww_map import LwwMap
from actorkit.readmodel.stamp import STAMP_BYTES, decode_value, encode_value, sequence_of, view_version_of

__all__ = ["Table", "Tables"]

_POSITION_KEY: Final = ""


class Table(NamedTuple):
    """What one method publishes, of all entities of its type."""

    published: Published[Any, Any]
    values: LwwMap[Any]
    prefix: str
    """Of its keys: ``type/view/``."""


class Tables:
    """All published methods that this process knows."""

    def __init__(self, counters: ReadModelCounters) -> None:
        self._counters = counters
        self._by_name: dict[tuple[str, str], Table] = {}
        self._by_prefix: dict[str, Table] = {}
        self._keys: dict[int, dict[str, None]] = {}
        """The keys of each shard, in the order in which they were first seen."""
        self._foreign: dict[str, bytes] = {}
        """By key the newest value, as it travels, that cannot be shown here: another version of the program made it."""

    def add(self, entity_type: EntityType) -> dict[str, LwwMap[Any]]:
        """Keeps what the type publishes from now on. Returns those maps that are new, by the method's name."""
        added: dict[str, LwwMap[Any]] = {}
        for name, view in entity_type.published.items():
            if (entity_type.name, name) not in self._by_name:
                prefix = f"{entity_type.name}/{name}/"
                added[name] = LwwMap(view_version=view.version, indexed=view.indexed)
                table = Table(view, added[name], prefix)
                self._by_name[entity_type.name, name] = self._by_prefix[prefix] = table
        return added

    @property
    def views(self) -> int:
        """A digest of all that is published: another one means that something else is, or in another version."""
        views = sorted(f"{table.prefix}{table.published.version}" for table in self._by_prefix.values())
        return int.from_bytes(blake2b("\n".join(views).encode(), digest_size=8).digest(), "big")

    def get(self, type: str, view: str) -> Table | None:
        """The table of a published method, if it was added."""
        return self._by_name.get((type, view))

    def maps(self, type: str) -> dict[str, LwwMap[Any]]:
        """All maps of a type, by the method's name."""
        return {name: table.values for (owner, name), table in self._by_name.items() if owner == type}

    def keys(self, shard: int) -> Iterable[str]:
        """All keys of a shard that have a value or had one."""
        return self._keys.get(shard, {}).keys()

    def note(self, shard: int, key: str) -> None:
        """The key belongs to that shard."""
        keys = self._keys.get(shard)
        if keys is None:
            keys = self._keys[shard] = {}
        keys[key] = None

    def encode(self, key: str) -> bytes | None:
        """The value of a key as it travels, with its stamp; ``None``: nothing was said of it.

        One that cannot travel (too large, or without a form) travels as a deletion: rather nothing than an older value.
        """
        foreign = self._foreign.get(key)
        table, id = self._split(key)
        stamp = 0 if table is None else table.values.stamp(id)
        if table is None or stamp == 0 or (foreign is not None and _stamp_of(foreign) > stamp):
            return foreign
        self._foreign.pop(key, None)
        entry = table.values.entries.get(id)
        try:
            return encode_value(stamp, None if entry is None else table.published.encode(entry.value))
        except (DeclarationError, UpdateRefused):
            self._counters.values_refused += 1
            return encode_value(stamp, None)

    def take(self, shard: int, entries: Mapping[str, bytes]) -> None:
        """Takes values that another node has published. Those that are not known here are only passed on."""
        for key, data in entries.items():
            if key == _POSITION_KEY:
                continue
            self.note(shard, key)
            table, id = self._split(key)
            if table is None:
                self._keep(key, data)
                continue
            self._show(table, id, key, data)

    def _show(self, table: Table, id: str, key: str, data: bytes) -> None:
        try:
            value = decode_value(data)
        except UpdateRefused:
            self._counters.values_refused += 1
            return
        if value.stamp <= table.values.stamp(id):
            return
        shown: Any = None
        if not value.deleted:
            try:
                shown = table.published.decode(value.payload)
            except ValueError:
                self._counters.values_refused += 1
                if view_version_of(value.stamp) > table.values.view_version:
                    # A newer program publishes something else under this name: it can be passed on.
                    self._keep(key, data)
                    return
        table.values.put(id, value.stamp, shown)

    def _keep(self, key: str, data: bytes) -> None:
        known = self._foreign.get(key)
        if known is None or data[:STAMP_BYTES] > known[:STAMP_BYTES]:
            self._foreign[key] = data

    def forget(self, shard: int, *, greater_than: int) -> None:
        """Takes back what claims to show later events of the shard's entities than that: nobody has committed it."""
        for key in self.keys(shard):
            foreign = self._foreign.get(key)
            if foreign is not None and sequence_of(_stamp_of(foreign)) > greater_than:
                del self._foreign[key]
            table, id = self._split(key)
            if table is not None and table.values.version(id) > greater_than:
                table.values.take_back(id)

    def close(self) -> None:
        """Nothing changes any more: whoever follows a view gets to its end."""
        for table in self._by_name.values():
            table.values.close()

    def _split(self, key: str) -> tuple[Table | None, str]:
        view_end = key.find("/", key.find("/") + 1) + 1
        return self._by_prefix.get(key[:view_end]), key[view_end:]


def _stamp_of(data: bytes) -> int:
    return int.from_bytes(data[:STAMP_BYTES], "big")

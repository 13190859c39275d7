"""Reads from the journal what entities publish (a shell): of all of them, or of those that a shard's log names.

What entities publish while this runs wins by its newer stamp, so both may go on at the same time. A stream that cannot
be read is logged and left out; it never stops the others. So is an entity without events: asking for an id does not
make it one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import structlog

from actorkit.errors import EventError, JournalCorrupt, JournalError
from actorkit.ids import PersistenceId
from actorkit.journal.protocols import Store
from actorkit.persistence.declaration import EntityType
from actorkit.persistence.past import read_past

__all__ = ["JournalReader"]

_log = structlog.get_logger("actorkit.readmodel")
_STREAMS_AT_ONCE = 1_000
_RECORDS_AT_ONCE = 1_000


class JournalReader:
    """Reads for those types that publish anything."""

    def __init__(
        self,
        store: Store,
        types: Mapping[str, EntityType],
        *,
        page_events: int,
        publish: Callable[[str, str, str, int, Any], None],
    ) -> None:
        """``publish(type, view, id, sequence, value)`` takes what was read; ``types`` by name, and may grow."""
        self._store = store
        self._types = types
        self._page_events = page_events
        self._publish = publish

    async def read_streams(self, types: Iterable[str], *, where: Callable[[str], bool] = lambda stream: True) -> int:
        """Reads the entities of these types, those only that ``where`` says. Returns how many there are."""
        read = 0
        for name in list(types):
            entity_type, after = self._types[name], ""
            while True:
                streams = await self._store.streams(name, after=after, limit=_STREAMS_AT_ONCE)
                for stream in filter(where, streams):
                    read += await self.read_stream(entity_type, stream)
                if len(streams) < _STREAMS_AT_ONCE:
                    break
                after = streams[-1]
        return read

    async def read_log(self, shard: int, *, after: int) -> int:
        """Reads the entities that the shard's log names after a position. Returns up to where it was read."""
        while True:
            records = await self._store.read_log(shard, after=after, limit=_RECORDS_AT_ONCE)
            for stream in dict.fromkeys(record.stream for record in records if record.sequence):
                entity_type = self._types.get(PersistenceId.parse(stream).type)
                if entity_type is not None:
                    await self.read_stream(entity_type, stream)
            if records:
                after = records[-1].position
            if len(records) < _RECORDS_AT_ONCE:
                return after

    async def read_stream(self, entity_type: EntityType, stream: str) -> bool:
        """Reads one entity. Returns whether there is something to show."""
        try:
            past, actor = await read_past(self._store, entity_type, stream, page_events=self._page_events)
        except (EventError, JournalCorrupt) as error:
            _log.error("readmodel.stream_skipped", stream=stream, why=str(error))
            return False
        except JournalError:
            raise
        except Exception as error:  # noqa: BLE001 - its constructor fails: its author's mistake
            _log.error("readmodel.stream_skipped", stream=stream, exc_info=error)
            return False
        if past.version == 0:
            # Nothing but the outcome of a command without events is stored.
            return False
        id = PersistenceId.parse(stream).id
        for name, view in entity_type.published.items():
            try:
                value = view.value(actor)
            except Exception as error:  # noqa: BLE001 - its author's mistake
                _log.error("readmodel.stream_skipped", stream=stream, view=name, exc_info=error)
                continue
            self._publish(entity_type.name, name, id, past.version, value)
        return True

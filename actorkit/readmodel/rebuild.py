"""Reads from the journal what entities publish: of all of them, or of those that a shard's log names.

What entities publish while this runs wins by its newer stamp, so both may go on at the same time. A stream that cannot
be read is logged and left out; it never stops the others. So is an entity without events: asking for an id does not
make it one.
"""

from __future__ import annotations

from typing import Any

import structlog

from actorkit.errors import EventError, JournalCorrupt, JournalError
from actorkit.ids import PersistenceId
from actorkit.journal.protocols import Store
from actorkit.persistence.declaration import EntityType
from actorkit.persistence.past import read_past
from actorkit.readmodel.lww_map import LwwMap

__all__ = ["read_changed", "rebuild"]

_log = structlog.get_logger("actorkit.readmodel")
_STREAMS_AT_ONCE = 1_000
_RECORDS_AT_ONCE = 1_000


async def rebuild(store: Store, entity_type: EntityType, maps: dict[str, LwwMap[Any]], *, page_events: int) -> int:
    """Puts what every entity of the type publishes into ``maps`` (by the method's name). Returns how many were read."""
    read = 0
    after = ""
    while True:
        streams = await store.streams(entity_type.name, after=after, limit=_STREAMS_AT_ONCE)
        for stream in streams:
            read += await _read(store, entity_type, maps, stream, page_events)
        if len(streams) < _STREAMS_AT_ONCE:
            return read
        after = streams[-1]


async def read_changed(
    store: Store,
    entity_type: EntityType,
    maps: dict[str, LwwMap[Any]],
    *,
    page_events: int,
    shard: int,
    after: int,
) -> int:
    """Puts what those entities publish that the shard's log names after a position. Returns up to where it was read."""
    while True:
        records = await store.read_log(shard, after=after, limit=_RECORDS_AT_ONCE)
        names = dict.fromkeys(record.stream for record in records if record.sequence)
        for stream in names:
            if PersistenceId.parse(stream).type == entity_type.name:
                await _read(store, entity_type, maps, stream, page_events)
        if records:
            after = records[-1].position
        if len(records) < _RECORDS_AT_ONCE:
            return after


async def _read(
    store: Store, entity_type: EntityType, maps: dict[str, LwwMap[Any]], stream: str, page_events: int
) -> bool:
    try:
        past, actor = await read_past(store, entity_type, stream, page_events=page_events)
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
    for name, values in maps.items():
        try:
            value = entity_type.published[name].value(actor)
        except Exception as error:  # noqa: BLE001 - its author's mistake
            _log.error("readmodel.stream_skipped", stream=stream, view=name, exc_info=error)
            continue
        values.publish(PersistenceId.parse(stream).id, past.version, value)
    return True

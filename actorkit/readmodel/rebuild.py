"""Rebuilds the local read model from the journal (a shell), when a process starts.

What entities publish while this runs wins by its newer stamp, so both may go on at the same time. A stream that cannot
be read is logged and left out; it never stops the others. So is an entity without events: asking for an id does not
make it one.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import structlog

from actorkit.errors import EventError, JournalCorrupt, JournalError
from actorkit.ids import PersistenceId, shard_of
from actorkit.journal.protocols import Store
from actorkit.persistence.declaration import EntityType
from actorkit.persistence.past import read_past
from actorkit.readmodel.lww_map import LwwMap

__all__ = ["rebuild"]

_log = structlog.get_logger("actorkit.readmodel")
_STREAMS_AT_ONCE = 1_000


async def rebuild(
    store: Store,
    entity_type: EntityType,
    maps: dict[str, LwwMap[Any]],
    *,
    page_events: int,
    shards: Set[int] | None = None,
) -> int:
    """Puts what every entity of the type publishes into ``maps`` (by the method's name). Returns how many were read.

    ``shards`` limits it to the entities of these.
    """
    read = 0
    after = ""
    while True:
        streams = await store.streams(entity_type.name, after=after, limit=_STREAMS_AT_ONCE)
        for stream in streams:
            if shards is not None and shard_of(stream, store.shards) not in shards:
                continue
            try:
                past, actor = await read_past(store, entity_type, stream, page_events=page_events)
            except (EventError, JournalCorrupt) as error:
                _log.error("readmodel.stream_skipped", stream=stream, why=str(error))
                continue
            except JournalError:
                raise
            except Exception as error:  # noqa: BLE001 - its constructor fails: its author's mistake
                _log.error("readmodel.stream_skipped", stream=stream, exc_info=error)
                continue
            if past.version == 0:
                # Nothing but the outcome of a command without events is stored.
                continue
            for name, values in maps.items():
                try:
                    value = entity_type.published[name].value(actor)
                except Exception as error:  # noqa: BLE001 - its author's mistake
                    _log.error("readmodel.stream_skipped", stream=stream, view=name, exc_info=error)
                    continue
                values.put(PersistenceId.parse(stream).id, past.version, value)
            read += 1
        if len(streams) < _STREAMS_AT_ONCE:
            return read
        after = streams[-1]

"""Recovery: snapshot plus tail gives the state that all events give.

It reads through the store's protocol and nothing else; the same function serves activation, ``state_at`` and settling
after a failed append.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import msgspec

from actorkit.journal.protocols import Store, StoredEvent
from actorkit.persistence.declaration import EntityType
from actorkit.persistence.snapshots import event_digest, open_snapshot, restore_state

__all__ = ["Recovery", "recover"]


class Recovery(msgspec.Struct):
    """A state as the journal gives it, and how it was come by."""

    state: Any
    sequence: int = 0
    time_us: int = 0
    events_read: int = 0
    from_snapshot: int = 0
    """The sequence of the snapshot that was used; 0: none."""
    ignored: list[tuple[int, str]] = []
    """Snapshots that were not used, by sequence, and why."""


async def recover(
    store: Store,
    entity_type: EntityType,
    stream: str,
    *,
    page_events: int,
    max_sequence: int | None = None,
    max_time_us: int | None = None,
) -> Recovery:
    """The state of a stream: now, or after its last event not later than the given sequence and time.

    Raises ``EventError`` for an event that cannot be used, ``JournalCorrupt`` for a gap, and what reading raises.
    """
    recovery = await _start(store, entity_type, stream, max_sequence, max_time_us)
    page = await store.read_events(stream, after=recovery.sequence, limit=page_events)
    while True:
        wanted = _up_to(page, max_sequence, max_time_us)
        entity_type.fold(recovery.state, stream, wanted, recovery.sequence)
        if wanted:
            recovery.sequence, recovery.time_us = wanted[-1][0], wanted[-1][4]
            recovery.events_read += len(wanted)
        if len(page) < page_events or len(wanted) < len(page):
            return recovery
        page = await store.read_events(stream, after=recovery.sequence, limit=page_events)


def _up_to(page: list[StoredEvent], max_sequence: int | None, max_time_us: int | None) -> list[StoredEvent]:
    """The events of the page that are not later than the given sequence and time; neither ever decreases."""
    if max_sequence is not None:
        page = page[: bisect_right(page, max_sequence, key=lambda event: event[0])]
    if max_time_us is not None:
        page = page[: bisect_right(page, max_time_us, key=lambda event: event[4])]
    return page


async def _start(
    store: Store, entity_type: EntityType, stream: str, max_sequence: int | None, max_time_us: int | None
) -> Recovery:
    """The newest usable snapshot, or the empty state."""
    ignored: list[tuple[int, str]] = []
    for stored in await store.load_snapshots(stream, max_sequence=max_sequence, max_time_us=max_time_us):
        body = open_snapshot(entity_type, stored)
        if isinstance(body, str):
            ignored.append((stored.sequence, body))
            continue
        event = await store.read_stream(stream, after=stored.sequence - 1, limit=1)
        if not event or event[0].sequence != stored.sequence or event_digest(event[0]) != body.event:
            ignored.append((stored.sequence, "of another history: its event is not the journal's"))
            continue
        state = restore_state(entity_type, body)
        if state is None:
            ignored.append((stored.sequence, "undecodable"))
            continue
        return Recovery(state, stored.sequence, stored.time_us, 1, stored.sequence, ignored)
    return Recovery(entity_type.new_state(), ignored=ignored)

"""Recovery: snapshot plus tail gives the state that all events give.

It reads through the store's protocol and nothing else; the same function serves activation, ``state_at`` and settling
after a failed append.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import msgspec

from actorkit.journal.protocols import Recorded, Store
from actorkit.persistence.declaration import EntityType
from actorkit.persistence.snapshots import event_digest, open_snapshot, restore_state

__all__ = ["Recovery", "recover"]


class Recovery(msgspec.Struct):
    """A state as the journal gives it, and how it was come by."""

    state: Any
    sequence: int = 0
    time_us: int = 0
    event: Recorded | None = None
    """The last event that was read: the one with ``sequence``, unless there are none."""
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
    recovery, page, last_page = await _start(store, entity_type, stream, page_events, max_sequence, max_time_us)
    while True:
        wanted = _up_to(page, max_sequence, max_time_us)
        entity_type.fold(recovery.state, wanted, recovery.sequence)
        if wanted:
            recovery.event = wanted[-1]
            recovery.sequence, recovery.time_us = recovery.event.sequence, recovery.event.time_us
            recovery.events_read += len(wanted)
        if last_page or len(wanted) < len(page):
            return recovery
        page = await store.read_stream(stream, after=recovery.sequence, limit=page_events)
        last_page = len(page) < page_events


def _up_to(page: list[Recorded], max_sequence: int | None, max_time_us: int | None) -> list[Recorded]:
    """The events of the page that are not later than the given sequence and time; neither ever decreases."""
    if max_sequence is not None:
        page = page[: bisect_right(page, max_sequence, key=lambda recorded: recorded.sequence)]
    if max_time_us is not None:
        page = page[: bisect_right(page, max_time_us, key=lambda recorded: recorded.time_us)]
    return page


async def _start(
    store: Store,
    entity_type: EntityType,
    stream: str,
    page_events: int,
    max_sequence: int | None,
    max_time_us: int | None,
) -> tuple[Recovery, list[Recorded], bool]:
    """The newest usable snapshot (or the empty state), the first page of events after it, whether that is the last."""
    ignored: list[tuple[int, str]] = []
    for stored in await store.load_snapshots(stream, max_sequence=max_sequence, max_time_us=max_time_us):
        body = open_snapshot(entity_type, stored)
        if isinstance(body, str):
            ignored.append((stored.sequence, body))
            continue
        # The snapshot's own event is read too, to see that it is the journal's.
        page = await store.read_stream(stream, after=stored.sequence - 1, limit=page_events)
        if not page or page[0].sequence != stored.sequence or event_digest(page[0]) != body.event:
            ignored.append((stored.sequence, "of another history: its event is not the journal's"))
            continue
        state = restore_state(entity_type, body)
        if state is None:
            ignored.append((stored.sequence, "undecodable"))
            continue
        recovery = Recovery(state, stored.sequence, stored.time_us, page[0], 1, stored.sequence, ignored)
        return recovery, page[1:], len(page) < page_events
    page = await store.read_stream(stream, after=0, limit=page_events)
    return Recovery(entity_type.new_state(), ignored=ignored), page, len(page) < page_events

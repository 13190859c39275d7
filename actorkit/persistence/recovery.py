"""Recovery: snapshot plus tail gives the state that all events give.

It reads through the store's protocol and nothing else; the same function serves activation, ``state_at`` and settling
after a failed append.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import msgspec

from actorkit.journal.protocols import EventPage, Store
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

    def fold(self, entity_type: EntityType, stream: str, page: EventPage) -> None:
        """Goes on with the events of a page."""
        if page.sequences:
            entity_type.fold_page(self.state, stream, page, self.sequence)
            self.sequence, self.time_us = page.sequences[-1], page.time_us
            self.events_read += len(page.sequences)


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
    if max_sequence is None and max_time_us is None:
        await _fold_all(recovery, store, entity_type, stream, page_events)
    else:
        await _fold_until(recovery, store, entity_type, stream, page_events, max_sequence, max_time_us)
    return recovery


async def _fold_all(recovery: Recovery, store: Store, entity_type: EntityType, stream: str, page_events: int) -> None:
    """Folds up to the end, while the next two pages are read: the loop is blocked for as long as it folds one.

    Two, because a store that reads in a thread cannot take a new order then. Where the second begins follows from there
    being no gaps; it is given up where the first turns out shorter.
    """
    ahead: deque[asyncio.Task[EventPage]] = deque()

    def order(after: int) -> None:
        ahead.append(asyncio.create_task(store.read_events(stream, after=after, limit=page_events)))

    try:
        page = await store.read_events(stream, after=recovery.sequence, limit=page_events)
        while page.more and page.sequences:
            last = page.sequences[-1]
            full = last == recovery.sequence + page_events
            if not full:
                await _give_up(ahead)
            if not ahead:
                order(last)
            if full:
                order(last + page_events)
            await asyncio.sleep(0)
            recovery.fold(entity_type, stream, page)
            page = await ahead.popleft()
        recovery.fold(entity_type, stream, page)
    finally:
        await _give_up(ahead)


async def _give_up(ahead: deque[asyncio.Task[EventPage]]) -> None:
    for task in ahead:
        task.cancel()
    await asyncio.gather(*ahead, return_exceptions=True)
    ahead.clear()


async def _fold_until(
    recovery: Recovery,
    store: Store,
    entity_type: EntityType,
    stream: str,
    page_events: int,
    max_sequence: int | None,
    max_time_us: int | None,
) -> None:
    """Folds up to a sequence and a time. Times never decrease, so the last page is found by halving."""
    limit = page_events
    while True:
        if max_sequence is not None:
            limit = min(limit, max_sequence - recovery.sequence)
        if limit <= 0:
            return
        page = await store.read_events(stream, after=recovery.sequence, limit=limit)
        if page.sequences and max_time_us is not None and page.time_us > max_time_us:
            limit = len(page.sequences) // 2
            continue
        recovery.fold(entity_type, stream, page)
        if not page.more:
            return


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

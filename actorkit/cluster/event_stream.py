"""Event streams (a shell): events of the cluster for readers that take their time.

Intuition: a reader wants to know how things stand, and events are how it keeps up. One that is too far behind would not
be helped by some of the events: it is told how things stand, and goes on from there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Self
from weakref import WeakValueDictionary

from actorkit.cluster.events import ClusterEvent, EventsDropped
from actorkit.cluster.member import Member

__all__ = ["EventStreams", "no_events"]


class _Stream(AsyncIterator[ClusterEvent]):
    """One reader's events, from the moment that it was made."""

    def __init__(self, events_max: int, members: Callable[[], tuple[Member, ...]]) -> None:
        self._events: deque[ClusterEvent] = deque()
        self._events_max = events_max
        self._members = members
        self._dropped = 0
        self._ended = False
        self._some = asyncio.Event()

    def put(self, event: ClusterEvent) -> None:
        if self._dropped or len(self._events) >= self._events_max:
            self._dropped += len(self._events) + 1
            self._events.clear()
        else:
            self._events.append(event)
        self._some.set()

    def end(self) -> None:
        self._ended = True
        self._some.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ClusterEvent:
        while not self._events and not self._dropped:
            if self._ended:
                raise StopAsyncIteration
            self._some.clear()
            await self._some.wait()
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            return EventsDropped(dropped, self._members())
        return self._events.popleft()


class EventStreams:
    """All readers of one cluster's events. Whoever lets go of a stream, reads no more and costs nothing."""

    def __init__(self, *, events_max: int, members: Callable[[], tuple[Member, ...]]) -> None:
        self._events_max = events_max
        self._members = members
        self._streams: WeakValueDictionary[int, _Stream] = WeakValueDictionary()
        self._made = 0
        self._ended = False

    def open(self) -> AsyncIterator[ClusterEvent]:
        """Events from now on."""
        stream = _Stream(self._events_max, self._members)
        self._made += 1
        self._streams[self._made] = stream
        if self._ended:
            stream.end()
        return stream

    def put(self, event: ClusterEvent) -> None:
        """It has happened, and ``members`` shows it already."""
        for stream in list(self._streams.values()):
            stream.put(event)

    def end(self) -> None:
        """There will be no more events. What was not read yet still is."""
        self._ended = True
        for stream in list(self._streams.values()):
            stream.end()


def no_events() -> AsyncIterator[ClusterEvent]:
    """A stream that has ended, for where there is no cluster."""
    streams = EventStreams(events_max=0, members=tuple)
    streams.end()
    return streams.open()

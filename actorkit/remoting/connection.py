"""Connection (a shell): a link and the association that lives on it, with the timer that keeps it going."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

import msgspec

from actorkit.errors import WireError
from actorkit.remoting.association import Association, State
from actorkit.remoting.counters import RemotingCounters
from actorkit.remoting.transport import Link

__all__ = ["Connection", "Owner"]


class Owner(Protocol):
    """Whom a connection belongs to."""

    def met(self, connection: Connection) -> None:
        """The other end has said who it is: ``association.prove`` or ``end``."""
        ...

    def judge(self, connection: Connection) -> None:
        """The other end has proved itself: ``association.accept`` or ``refuse``."""
        ...

    def opened(self, connection: Connection) -> None:
        """It is open."""
        ...

    def arrived(self, connection: Connection, messages: Sequence[msgspec.Struct]) -> None:
        """Messages have come."""
        ...

    def dropped(self, connection: Connection, errors: Sequence[WireError]) -> None:
        """Messages have come that cannot be used."""
        ...

    def drain(self, connection: Connection) -> None:
        """There is room for more frames."""
        ...

    def ended(self, connection: Connection) -> None:
        """It is over. Told once; nothing comes after it."""
        ...


class Connection:
    """Implements ``LinkHandler``."""

    __slots__ = (
        *("_counters", "_ended", "_judged", "_loop", "_met", "_owner", "_stalled_at_s", "_stalled_max_s", "_timer"),
        *("association", "link", "opened_at_s", "prompt", "writable_now"),
    )

    def __init__(
        self, link: Link, association: Association, owner: Owner, counters: RemotingCounters, *, stalled_max_s: float
    ) -> None:
        """``stalled_max_s`` is how long the other end may take nothing."""
        self.link = link
        self.association = association
        self.opened_at_s: float | None = None
        self.writable_now = True
        self.prompt = False
        """The newest batch has brought one message alone, and nothing was sent since: the answer to it, or what its
        receiver sends next, leaves at once. After larger batches, and after that one, messages gather for a turn of the
        loop, so that busy nodes fill their frames."""
        self._owner = owner
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._met = False
        self._judged = False
        self._ended = False
        self._stalled_at_s = 0.0
        self._stalled_max_s = stalled_max_s
        self._timer = self._loop.call_at(association.next_tick_s, self._tick)

    def received(self, frame: bytes) -> None:
        counters, association = self._counters, self.association
        counters.frames_received += 1
        counters.bytes_received += len(frame)
        messages = association.receive(self._loop.time(), frame)
        if messages:
            counters.messages_received += len(messages)
            self.prompt = len(messages) == 1
            self._owner.arrived(self, messages)
        if association.state is not State.OPEN or self.opened_at_s is None or association.refused:
            self.settle()

    def settle(self) -> None:
        """Does whatever the association's new state asks for."""
        association, owner = self.association, self._owner
        if association.refused:
            refused, association.refused = association.refused, []
            owner.dropped(self, refused)
        if association.state is State.MEETING and not self._met:
            self._met = True
            owner.met(self)
        if association.state is State.JUDGING and not self._judged:
            self._judged = True
            owner.judge(self)
        self._send_outgoing()
        if association.state is State.OPEN and self.opened_at_s is None:
            self.opened_at_s = self._loop.time()
            self._schedule()
            self.link.trust()
            owner.opened(self)
        elif association.state is State.ENDED:
            self.finish()

    def _send_outgoing(self) -> None:
        outgoing = self.association.outgoing
        if outgoing:
            self.association.outgoing = []
            for frame in outgoing:
                self._put(frame)

    def send_batch(self, payloads: Sequence[bytes]) -> None:
        """One frame with these messages."""
        self.prompt = False
        self._counters.messages_sent += len(payloads)
        self._put(self.association.seal_batch(self._loop.time(), payloads))

    def _put(self, frame: bytes) -> None:
        self._counters.frames_sent += 1
        self._counters.bytes_sent += len(frame)
        writable = self.link.send(frame)
        if self.writable_now and not writable:
            self._stalled_at_s = self._loop.time()
        self.writable_now = writable

    def writable(self) -> None:
        self.writable_now = True
        self._owner.drain(self)

    def closed(self, why: str) -> None:
        self.association.end(why)
        self.finish()

    def end(self, why: str) -> None:
        """Ends it from this side."""
        self.association.end(why)
        self.finish()

    def finish(self) -> None:
        """After the association has ended: closes the link and tells the owner."""
        if self._ended:
            return
        self._ended = True
        self._timer.cancel()
        self._send_outgoing()
        self.link.close(abort=not self.association.says_why)
        self._owner.ended(self)

    def _tick(self) -> None:
        now_s = self._loop.time()
        if not self.writable_now and now_s >= self._stalled_at_s + self._stalled_max_s:
            self.association.end(f"it has taken nothing for {self._stalled_max_s:g} s")
        self.association.tick(now_s)
        self.settle()
        if not self._ended:
            self._schedule()

    def _schedule(self) -> None:
        self._timer.cancel()
        self._timer = self._loop.call_at(self.association.next_tick_s, self._tick)

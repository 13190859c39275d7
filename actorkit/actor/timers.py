"""Timers of one actor: messages to itself, keyed by name.

A timer that was cancelled or replaced delivers nothing any more, also if it had fired and its message was waiting in
the mailbox. None survives a restart or a stop of its actor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, final

from actorkit.actor.turn import held
from actorkit.errors import Overloaded

__all__ = ["Timer", "Timers"]


@final
class Timer:
    """One named timer. Once fired, it is what stands in the mailbox."""

    __slots__ = ("due", "handle", "interval_s", "message", "name", "queued", "timers")

    def __init__(self, timers: Timers, name: str, due: float, interval_s: float | None, message: Any) -> None:
        self.timers = timers
        self.name = name
        self.due = due
        self.interval_s = interval_s
        self.message = message
        self.queued = False
        self.handle: asyncio.TimerHandle | None = None

    def taken(self) -> bool:
        """Called when its turn comes: whether it still counts. A single timer is over with that."""
        return self.timers.take(self)


class Timers:
    """The timers of one instance. At most ``limit`` at once.

    Set within a turn that holds effects back, they start when the turn lets them.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, limit: int, owner: str, deliver: Callable[[Timer], None]
    ) -> None:
        self._loop = loop
        self._limit = limit
        self._owner = owner
        self._deliver = deliver
        self._timers: dict[str, Timer] = {}
        self._closed = False

    def once(self, name: str, delay_s: float, message: Any) -> None:
        """Deliver ``message`` after ``delay_s`` seconds; replaces the timer of that name, if there is one.

        Raises ``Overloaded`` if the actor has as many timers as it may, ``ValueError`` on a negative delay.
        """
        if delay_s < 0:
            raise ValueError(f"a delay cannot be negative: {delay_s}")
        self._check_room(name)
        effect = partial(self._start, name, delay_s, None, message)
        if not held(effect):
            effect()

    def every(self, name: str, interval_s: float, message: Any) -> None:
        """Deliver ``message`` every ``interval_s`` seconds, first after one interval; replaces the timer of that name.

        Beats keep their rhythm. A beat is skipped while the previous one is still waiting in the mailbox. Raises
        ``Overloaded`` if the actor has as many timers as it may, ``ValueError`` on an interval that is not positive.
        """
        if interval_s <= 0:
            raise ValueError(f"an interval must be positive: {interval_s}")
        self._check_room(name)
        effect = partial(self._start, name, interval_s, interval_s, message)
        if not held(effect):
            effect()

    def cancel(self, name: str) -> None:
        """End the timer of that name, if there is one."""
        effect = partial(self._cancel, name)
        if not held(effect):
            effect()

    def is_active(self, name: str) -> bool:
        """Whether the timer of that name may still deliver."""
        return name in self._timers

    def __len__(self) -> int:
        """How many timers may still deliver."""
        return len(self._timers)

    def close(self) -> None:
        """End all of them; none can be set any more. For the runtime."""
        self._closed = True
        for name in tuple(self._timers):
            self._cancel(name)

    def take(self, timer: Timer) -> bool:
        """For the runtime: ``timer`` has come to its turn; whether it is to be delivered."""
        if self._timers.get(timer.name) is not timer:
            return False
        timer.queued = False
        if timer.interval_s is None:
            del self._timers[timer.name]
        return True

    def is_stale(self, timer: Timer) -> bool:
        """For the runtime: whether ``timer`` was cancelled or replaced."""
        return self._timers.get(timer.name) is not timer

    def _check_room(self, name: str) -> None:
        if name not in self._timers and len(self._timers) >= self._limit:
            raise Overloaded(f"the timer table of {self._owner}", limit=self._limit)

    def _start(self, name: str, delay_s: float, interval_s: float | None, message: Any) -> None:
        # The instance may have ended while the effect was held back.
        if self._closed:
            return
        self._cancel(name)
        timer = Timer(self, name, self._loop.time() + delay_s, interval_s, message)
        timer.handle = self._loop.call_at(timer.due, self._fire, timer)
        self._timers[name] = timer

    def _cancel(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None and timer.handle is not None:
            timer.handle.cancel()

    def _fire(self, timer: Timer) -> None:
        if timer.interval_s is not None:
            # The next beat of the rhythm that lies ahead: those that a busy loop missed are not made up for.
            missed = max(0.0, self._loop.time() - timer.due) // timer.interval_s
            timer.due += (missed + 1) * timer.interval_s
            timer.handle = self._loop.call_at(timer.due, self._fire, timer)
        if not timer.queued:
            timer.queued = True
            self._deliver(timer)

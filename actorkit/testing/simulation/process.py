"""Simulated processes and their clocks: what lives, pauses and dies as one.

A process is one life of one node: a node that starts again under its name is a new process. Every call that the loop
has scheduled belongs to the process that was running when it was scheduled, so that crashing a process is forgetting
its calls, and pausing it is keeping them for later. Nothing runs in a process that has died, not even the code that
cleans up: that is what a power cut does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from math import inf, nextafter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actorkit.testing.simulation.loop import ScheduledCall

__all__ = ["MachineClock", "Process", "State"]

WALL_START_US = 1_700_000_000_000_000


class State(Enum):
    """What a process is doing."""

    RUNNING = "running"
    PAUSED = "paused"
    DEAD = "dead"


class MachineClock:
    """The clocks of one machine, which all run at the same wrong rate. Implements ``actorkit.clock.Clock``.

    Three clocks as on Linux: ``monotonic_s`` is what the loop's timers go by and stands still while the machine is
    suspended, ``lease_s`` goes on then, ``wall_us`` may be set to anything.
    """

    def __init__(self, true_s: Callable[[], float], *, started_s: float = 0.0, booted_s: float = 0.0) -> None:
        """``true_s`` reads the time that nobody in the simulation knows; ``started_s`` and ``booted_s`` are where the
        two steady clocks start."""
        self._true_s = true_s
        self._since_s = true_s()
        self._monotonic_s = started_s
        self._lease_s = booted_s
        self._wall_us = WALL_START_US + int(self._since_s * 1e6)
        self.rate = 1.0
        self._asleep = False

    def monotonic_s(self) -> float:
        """Counts while the machine is awake."""
        if self._asleep:
            return self._monotonic_s
        return self._monotonic_s + (self._true_s() - self._since_s) * self.rate

    def lease_s(self) -> float:
        return self._lease_s + (self._true_s() - self._since_s) * self.rate

    def wall_us(self) -> int:
        return self._wall_us + int((self._true_s() - self._since_s) * self.rate * 1e6)

    def true_at(self, monotonic_s: float) -> float:
        """The first true time at which ``monotonic_s`` shows at least this. Right until the rate changes."""
        if self.rate == 1.0 and self._monotonic_s == self._since_s:
            return monotonic_s
        true_s = self._since_s + (monotonic_s - self._monotonic_s) / self.rate
        while self._monotonic_s + (true_s - self._since_s) * self.rate < monotonic_s:
            true_s = nextafter(true_s, inf)
        return true_s

    def set_rate(self, rate: float) -> None:
        """From now on it runs this many times as fast as true time. Timers are then to be looked at anew."""
        self._rebase()
        self.rate = rate

    def jump(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self._wall_us += int(seconds * 1e6)

    def sleep(self) -> None:
        """The machine is suspended; its processes are to be paused."""
        self._rebase()
        self._asleep = True

    def wake(self) -> None:
        """It goes on. Timers are then to be looked at anew."""
        self._rebase()
        self._asleep = False

    def _rebase(self) -> None:
        now_s = self._true_s()
        passed_s = (now_s - self._since_s) * self.rate
        self._since_s = now_s
        if not self._asleep:
            self._monotonic_s += passed_s
        self._lease_s += passed_s
        self._wall_us += int(passed_s * 1e6)


class Process:
    """What a scheduled call belongs to. Made by ``SimulatedLoop.new_process``."""

    __slots__ = (
        *("at_step", "clock", "deferred", "grave", "holds", "name", "number"),
        *("paused_s", "paused_since_s", "state", "steps"),
    )

    def __init__(self, name: str, number: int, clock: MachineClock) -> None:
        self.name = name
        self.number = number
        self.clock = clock
        self.state = State.RUNNING
        self.steps = 0
        """How many of its calls have run."""
        self.at_step: tuple[int, Callable[[], None]] | None = None
        """Once it has run so many calls, this is done, in place of the next one; it may crash or pause it."""
        self.deferred: deque[ScheduledCall] = deque()
        """What came while it was paused, in order."""
        self.grave: list[Any] = []
        """What a dead process holds: kept until the end, since Python runs cleaning-up code of what it throws away."""
        self.holds = 0
        """For how many reasons it is paused."""
        self.paused_since_s = 0.0
        self.paused_s = 0.0
        """How long it has been paused, all told."""

    def kill(self) -> None:
        """For processes that have done nothing yet; others are crashed by their loop."""
        self.state = State.DEAD

    @property
    def alive(self) -> bool:
        return self.state is not State.DEAD

    def __repr__(self) -> str:
        return f"<{self.name}, {self.state.value}>"

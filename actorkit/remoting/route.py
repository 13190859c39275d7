"""Route: what is known about one address, and what may be done about it, as a table of states.

::

    IDLE ──send──► DIALING ──────────── failed ────────────► BACKOFF
                    │    └─ yielded ─► YIELDING ─ expired ──►    │
      any ─ opened ─┴───► OPEN ─ broken soon after opening ──►   │
      IDLE ◄── broken later ──┘                                  │
      IDLE ◄── expired (DIALING, where somebody wanted to send) ─┘

While it is ``YIELDING``, the peer's own connection is on its way to us and ours has been refused in its favour.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from actorkit.remoting.backoff import Backoff
from actorkit.remoting.outbox import Outbox
from actorkit.remoting.settings import RemotingSettings

__all__ = ["Route", "RouteInput", "RouteState"]


class RouteState(Enum):
    """Whether there is a connection, and what is done to have one."""

    IDLE = "idle"
    DIALING = "dialing"
    YIELDING = "yielding"
    OPEN = "open"
    BACKOFF = "backoff"


class RouteInput(Enum):
    """What happens to a route."""

    DIAL = "dial"
    OPENED = "opened"
    YIELDED = "yielded"
    FAILED = "failed"
    BROKEN = "broken"
    BROKEN_SOON = "broken soon"
    EXPIRED = "expired"


_S, _I = RouteState, RouteInput
_NEXT: dict[tuple[RouteState, RouteInput], RouteState] = {
    (_S.IDLE, _I.DIAL): _S.DIALING,
    (_S.IDLE, _I.OPENED): _S.OPEN,
    (_S.DIALING, _I.OPENED): _S.OPEN,
    (_S.DIALING, _I.YIELDED): _S.YIELDING,
    (_S.DIALING, _I.FAILED): _S.BACKOFF,
    (_S.YIELDING, _I.OPENED): _S.OPEN,
    (_S.YIELDING, _I.FAILED): _S.BACKOFF,
    (_S.OPEN, _I.BROKEN): _S.IDLE,
    (_S.OPEN, _I.BROKEN_SOON): _S.BACKOFF,
    (_S.BACKOFF, _I.OPENED): _S.OPEN,
    (_S.BACKOFF, _I.EXPIRED): _S.IDLE,
}


class Route:
    """One address."""

    __slots__ = ("address", "backoff", "last_session", "outbox", "state", "wanted")

    def __init__(self, address: str, settings: RemotingSettings, uniform: Callable[[], float]) -> None:
        self.address = address
        self.state = RouteState.IDLE
        self.outbox = Outbox(
            max_messages=settings.outbox_max_messages,
            max_bytes=settings.outbox_max_bytes,
            batch_max_bytes=settings.wire.batch_max_bytes,
        )
        self.backoff = Backoff(settings.backoff_min_s, settings.backoff_max_s, uniform)
        self.wanted = False
        """Somebody wanted to send while nothing was accepted."""
        self.last_session = b""
        """The newest session that was open here."""

    def step(self, event: RouteInput) -> None:
        """Raises ``KeyError`` where that cannot happen in this state: a defect."""
        self.state = _NEXT[self.state, event]

    @property
    def forgettable(self) -> bool:
        """Whether nothing would be lost with it but what is known of its past."""
        return self.state is RouteState.IDLE and not self.outbox

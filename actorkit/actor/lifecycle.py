"""The states of an actor and the steps between them: one table. A missing entry is a broken invariant.

::

    STARTING ──started──▶ READY
      ▲  │                 │
      │  └───────fail──────┤ fail
     fresh                 ▼
      └─────────────── RESTARTING         any of the three ──stop──▶ STOPPING ──stopped──▶ STOPPED
                                          any living one ──abort──▶ STOPPED
"""

from __future__ import annotations

from enum import Enum
from typing import Final

__all__ = ["State", "Step", "after"]


class State(Enum):
    """Where an actor stands. In READY alone it handles messages; they wait in the others but the last two."""

    STARTING = "starting"
    """Its instance is being made, and ``started`` runs."""
    READY = "ready"
    RESTARTING = "restarting"
    """It failed: ``restarting`` runs, its children stop, the backoff passes."""
    STOPPING = "stopping"
    """Its children stop, then ``stopped`` runs. Nothing is taken in any more."""
    STOPPED = "stopped"


class Step(Enum):
    """What may happen to it."""

    STARTED = "started"
    FAIL = "fail"
    """It failed and is to be restarted."""
    FRESH = "fresh"
    """The backoff is over."""
    STOP = "stop"
    STOPPED = "stopped"
    ABORT = "abort"


_TABLE: Final[dict[tuple[State, Step], State]] = {
    (State.STARTING, Step.STARTED): State.READY,
    (State.STARTING, Step.FAIL): State.RESTARTING,
    (State.STARTING, Step.STOP): State.STOPPING,
    (State.STARTING, Step.ABORT): State.STOPPED,
    (State.READY, Step.FAIL): State.RESTARTING,
    (State.READY, Step.STOP): State.STOPPING,
    (State.READY, Step.ABORT): State.STOPPED,
    (State.RESTARTING, Step.FRESH): State.STARTING,
    (State.RESTARTING, Step.STOP): State.STOPPING,
    (State.RESTARTING, Step.ABORT): State.STOPPED,
    (State.STOPPING, Step.STOPPED): State.STOPPED,
    (State.STOPPING, Step.ABORT): State.STOPPED,
}


def after(state: State, step: Step) -> State:
    """The state that follows. Raises ``KeyError`` if the step cannot happen there."""
    return _TABLE[state, step]

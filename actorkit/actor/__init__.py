"""The runtime of one process: actors, their mailboxes, supervision, watch, stash and timers."""

from actorkit.actor.actor import Actor
from actorkit.actor.context import ActorContext
from actorkit.actor.dead_letters import DeadLetter, DeadLetters, Reason
from actorkit.actor.deadlines import Deadlines, Expirable
from actorkit.actor.ref import ActorRef
from actorkit.actor.runtime import ActorRuntime
from actorkit.actor.settings import ActorSettings
from actorkit.actor.stash import StashFull
from actorkit.actor.supervision import Directive, SupervisionStrategy, by_type
from actorkit.actor.timers import Timers
from actorkit.actor.turn import Turn, current_turn
from actorkit.actor.watch import Signal, Terminated

__all__ = [
    "Actor",
    "ActorContext",
    "ActorRef",
    "ActorRuntime",
    "ActorSettings",
    "DeadLetter",
    "DeadLetters",
    "Deadlines",
    "Directive",
    "Expirable",
    "Reason",
    "Signal",
    "StashFull",
    "SupervisionStrategy",
    "Terminated",
    "Timers",
    "Turn",
    "by_type",
    "current_turn",
]

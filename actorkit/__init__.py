"""actorkit: durable actors for Python.

A line of this list imports only from lines below it, and siblings (``|``) never from each other::

    testing                      (nothing in actorkit imports it)
    cli → node → clustering → config
    gateway
    sharding | projection | readmodel
    cluster
    persistence | remoting
    actor | wire | journal
    errors ids clock tracing logs
"""

from actorkit.actor.actor import Actor
from actorkit.actor.ref import ActorRef
from actorkit.cluster.events import ClusterEvent
from actorkit.cluster.member import Member
from actorkit.config import ClusterNode, SystemSettings
from actorkit.errors import (
    ActorkitError,
    CallError,
    HandlerFailed,
    IdempotencyKeyReused,
    OutcomeUnknown,
    Overloaded,
    Rejected,
    Unavailable,
)
from actorkit.node import ActorSystem, run
from actorkit.persistence.actor import PersistentActor
from actorkit.persistence.calls import Message
from actorkit.persistence.commands import command, query
from actorkit.persistence.events import Event, field, upcasts
from actorkit.persistence.indexes import by, by_range, by_window
from actorkit.persistence.past import Past
from actorkit.persistence.published import published
from actorkit.persistence.state import State, applies
from actorkit.readmodel.view import View

__all__ = [
    "Actor",
    "ActorRef",
    "ActorSystem",
    "ActorkitError",
    "CallError",
    "ClusterEvent",
    "ClusterNode",
    "Event",
    "HandlerFailed",
    "IdempotencyKeyReused",
    "Member",
    "Message",
    "OutcomeUnknown",
    "Overloaded",
    "Past",
    "PersistentActor",
    "Rejected",
    "State",
    "SystemSettings",
    "Unavailable",
    "View",
    "applies",
    "by",
    "by_range",
    "by_window",
    "command",
    "field",
    "published",
    "query",
    "run",
    "upcasts",
]

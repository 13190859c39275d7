"""Every exception that actorkit raises, in one tree.

::

    ActorkitError
    ├── CallError                        how a call may end, other than with its reply
    │   ├── Rejected                     the actor refused it: a business error, raised by its author
    │   │   └── IdempotencyKeyReused     the key was used before, with other arguments
    │   ├── Overloaded                   a bounded queue was full: not executed, retry later
    │   ├── Unavailable                  surely not executed
    │   │   ├── HandlerFailed            the handler raised or hung: what it had emitted was discarded
    │   │   ├── RecoveryFailed           the entity's state cannot be rebuilt from the journal
    │   │   └── CallCycle                an entity would wait for itself, through others
    │   └── OutcomeUnknown               it may or may not have happened
    ├── DeclarationError                 a class (actor, event, state) is declared wrongly
    ├── ConfigurationError               a setting or a URL is not usable
    ├── CallingOutAfterEmit              a handler awaited another actor after having emitted
    ├── ActorStopped                     the actor that was to receive a message has stopped
    ├── EventError                       an event in the journal cannot be used
    │   ├── UnknownEvent                 no class is declared for its name
    │   ├── UnknownEventVersion          it was written by a newer version of the program
    │   └── UndecodableEvent             its bytes do not fit its declaration
    ├── VersionNotReached                a past version was asked for that does not exist yet
    ├── WireError                        what came from another node, or was to go there, cannot be used
    │   ├── FrameError                   no frame, or a damaged, forged, repeated or too large one
    │   ├── UnknownMessage               a message of a type that is not declared
    │   ├── UndecodableMessage           its bytes do not fit its declaration
    │   ├── MessageTooLarge              its encoding exceeds the limit
    │   └── UpdateRefused                an update of the read model is not what its writer can have written
    ├── ConnectionFailed                 another node cannot be reached, or the connection has broken
    │   └── HandshakeFailed              whoever is there is not who was to be talked to
    ├── NotJoined                        this node has not become a member of its cluster
    ├── SimulationError                  a simulated run cannot go on
    │   ├── SimulationEscape             something reached past the simulation for a clock, socket, thread, ...
    │   └── SimulationStuck              what the run waits for will never happen, or not in time
    └── JournalError
        ├── JournalUnavailable           the store cannot be reached: what was asked was surely not done
        ├── AppendUncertain              an append failed or timed out: it may or may not be stored
        ├── JournalFailed                the store failed in a way after which the process must not go on
        ├── NamespaceMismatch            the store was created with other parameters (number of shards)
        └── JournalCorrupt               what is stored contradicts itself (a gap, a duplicate)

Each message says what happened, to what, and what to do about it. Facts are kept in attributes, the text is made in
``__str__``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

__all__ = [
    "ActorStopped",
    "ActorkitError",
    "AppendUncertain",
    "CallCycle",
    "CallError",
    "CallingOutAfterEmit",
    "ConfigurationError",
    "ConnectionFailed",
    "DeclarationError",
    "EventError",
    "FrameError",
    "HandlerFailed",
    "HandshakeFailed",
    "IdempotencyKeyReused",
    "JournalCorrupt",
    "JournalError",
    "JournalFailed",
    "JournalUnavailable",
    "MessageTooLarge",
    "NamespaceMismatch",
    "NotJoined",
    "OutcomeUnknown",
    "Overloaded",
    "RecoveryFailed",
    "Rejected",
    "SimulationError",
    "SimulationEscape",
    "SimulationStuck",
    "Unavailable",
    "UndecodableEvent",
    "UndecodableMessage",
    "UnknownEvent",
    "UnknownEventVersion",
    "UnknownMessage",
    "UpdateRefused",
    "VersionNotReached",
    "WireError",
]


class ActorkitError(Exception):
    """The root of the tree: catch it to catch everything that actorkit raises."""


# ---------------------------------------------------------------------------------------------------------- calls


class CallError(ActorkitError):
    """A call ended otherwise than with its reply."""

    retryable: ClassVar[bool] = False
    """Whether the same call may be sent again as it is, without a risk of doing it twice."""


class Rejected(CallError):
    """The actor refused the command; nothing that its handler had emitted was kept.

    Raised by authors of actors, and raised again as itself at the caller, on whatever node that is. Subclass it for
    refusals that callers tell apart; ``code`` is the stable name under which a refusal travels and is journalled, and
    ``details`` are facts (anything that MessagePack can carry) for the caller::

        class SoldOut(Rejected, code="sold-out"): ...

        raise SoldOut("only 2 are left", remaining=2)

    A refusal of a command that carries an idempotency key is journalled, so that a retry gets the same one; with
    ``remembered=False`` in the class line it is not, and a retry is decided anew.
    """

    code: ClassVar[str] = "rejected"
    remembered: ClassVar[bool] = True
    registry: ClassVar[dict[str, type[Rejected]]] = {}

    def __init__(self, reason: str = "", /, **details: Any) -> None:
        super().__init__(reason)
        self.reason = reason
        self.details: Mapping[str, Any] = details

    def __init_subclass__(cls, *, code: str | None = None, remembered: bool = True, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.code = code if code is not None else cls.__name__
        cls.remembered = remembered
        known = Rejected.registry.get(cls.code)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise DeclarationError(
                f"the code {cls.code!r} of {cls.__qualname__} is taken by {known.__module__}.{known.__qualname__}: "
                f"give it another one, as in class {cls.__name__}(Rejected, code='...')"
            )
        Rejected.registry[cls.code] = cls

    def __str__(self) -> str:
        return self.reason or self.code

    def __reduce__(self) -> tuple[Any, ...]:
        return (Rejected.rebuild, (self.code, self.reason, dict(self.details)))

    @staticmethod
    def rebuild(code: str, reason: str, details: Mapping[str, Any]) -> Rejected:
        """The refusal as it was raised; a code that is not declared here arrives as a plain ``Rejected``."""
        cls = Rejected.registry.get(code, Rejected)
        rejected = cls.__new__(cls)
        Rejected.__init__(rejected, reason, **details)
        return rejected


Rejected.registry["rejected"] = Rejected


class IdempotencyKeyReused(Rejected, code="actorkit.idempotency-key-reused", remembered=False):
    """The idempotency key was used before for a call with other arguments; nothing was done."""


class Overloaded(CallError):
    """A bounded queue was full. The call was not executed; retry after ``retry_after_s`` seconds."""

    retryable = True

    def __init__(self, what: str, *, limit: int, retry_after_s: float = 1.0) -> None:
        super().__init__(what, limit, retry_after_s)
        self.what = what
        self.limit = limit
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.what} is full ({self.limit}): not executed, retry in {self.retry_after_s:g} s"


class Unavailable(CallError):
    """The call was surely not executed: nobody could take it within its deadline."""

    retryable = True

    def __init__(self, target: str, why: str) -> None:
        super().__init__(target, why)
        self.target = target
        self.why = why

    def __str__(self) -> str:
        return f"{self.target} did not execute the call: {self.why}"


class HandlerFailed(Unavailable):
    """The handler raised something other than ``Rejected``, or did not end within its time limit.

    What it had emitted was discarded, so in the journal nothing happened; what it did elsewhere by itself is not
    undone. ``__cause__`` is the exception where the handler ran in this process. You will *not* get it for a fault of
    the store or of the network.
    """

    retryable = False


class RecoveryFailed(Unavailable):
    """The entity's state cannot be rebuilt from the journal (``__cause__`` says why), so it takes no calls.

    Other entities are not affected. The next call tries again.
    """

    retryable = False


class CallCycle(Unavailable):
    """The call would come back to an entity that waits for it (A calls B, which calls A): nobody would ever answer."""

    retryable = False


class OutcomeUnknown(CallError):
    """The call may or may not have happened, and it could not be settled within the deadline.

    Repeat it with the same idempotency key, and it happens once.
    """

    def __init__(self, target: str, why: str) -> None:
        super().__init__(target, why)
        self.target = target
        self.why = why

    def __str__(self) -> str:
        return (
            f"whether {self.target} executed the call is unknown: {self.why}; repeat it with the same idempotency key, "
            "and it happens once"
        )


# ------------------------------------------------------------------------------------------------- declarations, use


class DeclarationError(ActorkitError, TypeError):
    """An actor, event or state class is declared wrongly. Raised when the class is defined or first used."""


class ConfigurationError(ActorkitError, ValueError):
    """A setting or a URL is not usable; the text says which and what it should look like."""


class CallingOutAfterEmit(ActorkitError, RuntimeError):
    """A command handler awaited another actor's reply after having emitted an event.

    The call would wait for the event's commit, and the commit for the handler. Emit after the call, or split the
    command in two.
    """

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.target = target

    def __str__(self) -> str:
        return (
            f"awaiting {self.target} after having emitted would wait for a commit that waits for this handler: "
            "call first and emit afterwards, or split the command"
        )


class ActorStopped(ActorkitError):
    """The actor has stopped, or never existed: the message was not handled and counts as a dead letter."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"the actor {self.path} has stopped: the message was not handled"


class VersionNotReached(ActorkitError, LookupError):
    """A past version was asked for that the entity has not reached yet."""

    def __init__(self, stream: str, asked: int, reached: int) -> None:
        super().__init__(stream, asked, reached)
        self.stream = stream
        self.asked = asked
        self.reached = reached

    def __str__(self) -> str:
        return f"{self.stream} is at version {self.reached}: version {self.asked} does not exist yet"


# -------------------------------------------------------------------------------------------------------- remoting


class WireError(ActorkitError):
    """What came from another node, or was to go there, cannot be used."""


class FrameError(WireError):
    """These bytes are no frame, or one that is damaged, forged, repeated, out of its turn or too large.

    The connection that it came on is closed, since nothing that follows can be trusted.
    """


class UnknownMessage(WireError):
    """A message of a type that is not declared here. The message is dropped, the others of its frame are not.

    To send: register its type first. Received: the peer runs another version of the program.
    """

    def __init__(self, tag: str) -> None:
        super().__init__(tag)
        self.tag = tag

    def __str__(self) -> str:
        return f"no message type is declared under {self.tag!r}: register it on every node before one sends it"


class UndecodableMessage(WireError):
    """A message whose bytes do not fit its declaration, or whose fields MessagePack cannot hold."""

    def __init__(self, tag: str, why: str) -> None:
        super().__init__(tag, why)
        self.tag = tag
        self.why = why

    def __str__(self) -> str:
        return f"a message {self.tag!r} does not fit its declaration: {self.why}"


class MessageTooLarge(WireError):
    """A message exceeds the limit. It was not sent; or a peer with a higher limit sent it, and it was dropped."""

    def __init__(self, tag: str, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(tag, size_bytes, limit_bytes)
        self.tag = tag
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return (
            f"a message {self.tag!r} of {self.size_bytes} bytes exceeds the limit of {self.limit_bytes}: send less in "
            "one message, or raise message_max_bytes on every node"
        )


class UpdateRefused(WireError):
    """An update of the read model, or a part of one, is not what the writer of its document can have written.

    Nothing of it is shown; the next round of gossip pulls again what is missing. Where it comes again and again, some
    node runs another version of the program, or is hostile.
    """

    def __init__(self, what: str, why: str) -> None:
        super().__init__(what, why)
        self.what = what
        self.why = why

    def __str__(self) -> str:
        return f"{self.what} was refused: {self.why}"


class ConnectionFailed(ActorkitError):
    """Another node cannot be reached, or the connection to it has broken."""

    def __init__(self, address: str, why: str) -> None:
        super().__init__(address, why)
        self.address = address
        self.why = why

    def __str__(self) -> str:
        return f"no connection to {self.address}: {self.why}"


class HandshakeFailed(ConnectionFailed):
    """Whoever is there is not who was to be talked to: another cluster, protocol version or secret, or no node."""


# --------------------------------------------------------------------------------------------------------- cluster


class NotJoined(ActorkitError):
    """A node has not become a member of its cluster: not in time, or because it was declared down."""

    def __init__(self, node: str, why: str) -> None:
        super().__init__(node, why)
        self.node = node
        self.why = why

    def __str__(self) -> str:
        return f"{self.node} is no member of a cluster: {self.why}; see that its seeds run and can be reached"


# ------------------------------------------------------------------------------------------------------ simulations


class SimulationError(ActorkitError, RuntimeError):
    """A simulated run cannot go on. You get it in tests only."""


class SimulationEscape(SimulationError):
    """Within a simulation something asked for a real clock, socket, thread, process, file or random number.

    The run would no longer depend on its seed alone. Use the seam that the text names.
    """

    def __init__(self, what: str, seam: str) -> None:
        super().__init__(what, seam)
        self.what = what
        self.seam = seam

    def __str__(self) -> str:
        return f"{self.what} leaves the simulation, whose runs depend on their seed alone: {self.seam}"


class SimulationStuck(SimulationError):
    """What the run waits for will never happen, or has not happened within its limits."""

    def __init__(self, why: str, waiting: Sequence[str]) -> None:
        super().__init__(why, waiting)
        self.why = why
        self.waiting = waiting
        """One line for each task that has not ended: its process, its name, and where it waits."""

    def __str__(self) -> str:
        return "\n    ".join([f"the simulation is stuck: {self.why}", *self.waiting])


# ---------------------------------------------------------------------------------------------------------- events


class EventError(ActorkitError):
    """An event in the journal cannot be used. It stops its own stream only."""

    def __init__(self, stream: str, sequence: int, name: str, version: int, why: str) -> None:
        super().__init__(stream, sequence, name, version, why)
        self.stream = stream
        self.sequence = sequence
        self.name = name
        self.version = version
        self.why = why

    def __str__(self) -> str:
        return f"event {self.sequence} of {self.stream} ({self.name!r}, version {self.version}): {self.why}"


class UnknownEvent(EventError):
    """No event class is declared under the stored name."""


class UnknownEventVersion(EventError):
    """The event has a version newer than the declared one: a newer program wrote it. Deploy that version."""


class UndecodableEvent(EventError):
    """The stored bytes do not fit the event's declaration, or an upcaster failed on them."""


# ---------------------------------------------------------------------------------------------------------- journal


class JournalError(ActorkitError):
    """The journal store could not do what was asked."""


class JournalUnavailable(JournalError):
    """The store cannot be reached or is locked; what was asked was surely not done. Retry."""


class AppendUncertain(JournalError):
    """An append failed or timed out in a way that does not tell whether it is stored.

    Raise the shard's epoch before reading: that kills an append which is still on its way.
    """


class JournalFailed(JournalError):
    """A sync failed: what the store says from now on may not be what is on disk. The process must end."""


class NamespaceMismatch(JournalError):
    """The store was created with other parameters than this process was started with."""

    def __init__(self, parameter: str, stored: object, given: object) -> None:
        super().__init__(parameter, stored, given)
        self.parameter = parameter
        self.stored = stored
        self.given = given

    def __str__(self) -> str:
        return (
            f"the journal was created with {self.parameter} = {self.stored}, this process was started with "
            f"{self.given}: start it with {self.stored}, or use another journal"
        )


class JournalCorrupt(JournalError):
    """What is stored contradicts itself: a gap or a duplicate where there can be none. Never ignored."""

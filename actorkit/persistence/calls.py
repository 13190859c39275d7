"""Calls: what a method call on a reference becomes, on its way to the entity and back.

``Message`` is the form that travels; ``EntityCall`` is the same call in the process that executes it, with the future
of its caller. A call knows how far it has come, because that decides how it ends when its deadline passes.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec

from actorkit.errors import CallError, HandlerFailed, OutcomeUnknown, Overloaded, Unavailable
from actorkit.ids import PersistenceId
from actorkit.persistence.signatures import Signature
from actorkit.tracing import Trace

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from actorkit.actor.deadlines import Bucket

__all__ = ["OUTSIDE", "EntityCall", "Handler", "Kind", "Message", "Origin", "Progress"]


class Kind(Enum):
    """What a handler may do."""

    COMMAND = "command"
    """May emit events."""
    QUERY = "query"
    """Only reads."""


class Handler(msgspec.Struct, frozen=True, gc=False, eq=False):
    """One command or query of an entity type."""

    kind: Kind
    signature: Signature
    is_async: bool
    name: str
    invoke: Any
    """The function, or what calls it with bound arguments where some are keyword-only."""


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """A call in the form that travels between processes; every call is one underneath."""

    type: str
    id: str
    handler: str
    arguments: bytes
    """A MessagePack array, in the order of the handler's parameters."""
    command_id: str = ""
    """Given once, however often the message is sent. Empty: the first region that sees it gives it one."""
    key: str | None = None
    """The caller's idempotency key."""
    deadline_s: float | None = None
    """The time that remains for the call, in seconds; ``None``: the default of the system."""
    attempt: int = 1
    """Greater than 1 when the message may have been seen before."""
    trace: Trace = Trace()


class Progress(Enum):
    """How far a call has come."""

    QUEUED = "queued"
    """Not begun, or begun and surely undone: nothing of it exists."""
    RUNNING = "running"
    """Its handler runs, or what it emitted is on its way to the journal."""
    ENDED = "ended"
    """The caller has its answer."""


class Origin(msgspec.Struct, frozen=True):
    """Where a call comes from: its place in a story, and the entities that wait for it, outermost first."""

    trace: Trace = Trace()
    chain: tuple[PersistenceId, ...] = ()


OUTSIDE = Origin()
"""The origin of calls that no entity makes and that no trace came in with."""


class EntityCall:
    """One call, its way through the entity, and the future that its caller waits for."""

    __slots__ = (
        "_args",
        "attempt",
        "bucket",
        "command_id",
        "deadline",
        "future",
        "hand_back",
        "handler",
        "has_called",
        "key",
        "may_have_acted",
        "order",
        "origin",
        "pid",
        "progress",
        "tenure",
    )

    def __init__(
        self,
        pid: PersistenceId,
        handler: Handler,
        args: tuple[Any, ...],
        command_id: str,
        key: str | None,
        deadline: float,
        future: asyncio.Future[Any],
        bucket: Bucket,
        origin: Origin,
        attempt: int,
    ) -> None:
        """``bucket`` is the one of ``Deadlines`` for ``deadline``, which the call is put into here."""
        self.pid = pid
        self.handler = handler
        # The handler may change what is not a value, and may run again: it gets fresh copies each time.
        self._args = args if handler.signature.arguments_are_values else handler.signature.encode(args)
        self.command_id = command_id
        self.key = key
        self.deadline = deadline
        self.future = future
        self.bucket = bucket
        self.origin = origin
        self.attempt = attempt
        self.order = 0
        """Grows with each call that enters its region."""
        self.hand_back: Callable[[EntityCall], None] | None = None
        """Of a call that came from another node: gives it back there, surely undone, where this node cannot run it."""
        self.tenure = 0
        """Of a call that came from another node: the ownership of the shard under which it may run here."""
        self.has_called = False
        """Its handler has called other entities."""
        self.may_have_acted = attempt > 1
        """It, or what it called, may have been executed before: then nothing may be called surely not executed."""
        self.progress = Progress.QUEUED
        bucket[self] = None

    @property
    def digest(self) -> bytes:
        """Tells calls of one key with other arguments apart; empty without a key."""
        return b"" if self.key is None else self.handler.signature.digest(self.args)

    @property
    def args(self) -> tuple[Any, ...]:
        """The arguments for one run of the handler."""
        held = self._args
        return held if isinstance(held, tuple) else self.handler.signature.decode(held)

    @property
    def encoded_args(self) -> bytes:
        """The arguments as they travel."""
        held = self._args
        return self.handler.signature.encode(held) if isinstance(held, tuple) else held

    @property
    def trace(self) -> Trace:
        return self.origin.trace

    def reply(self, reply: object) -> None:
        """Answers the caller; a caller that has gone, or whose deadline has passed, is not answered."""
        self.progress = Progress.ENDED
        self.bucket.pop(self, None)
        if not self.future.done():
            self.future.set_result(reply)

    def fail(self, error: CallError) -> None:
        """Ends the call with an error, and its deadline with it."""
        self.progress = Progress.ENDED
        self.bucket.pop(self, None)
        if self.future.done():
            return
        if (
            (self.may_have_acted or self.has_called)
            and isinstance(error, Unavailable | Overloaded)
            and not isinstance(error, HandlerFailed)
        ):
            why = f"it may have been executed before, or have called others; now {error}"
            error = OutcomeUnknown(str(self.pid), why)
        self.future.set_exception(error)

    def has_outlived(self, oldest_tenure: int) -> bool:
        """Whether it came from another node for an earlier ownership: it may have been run elsewhere since."""
        return self.hand_back is not None and self.tenure < oldest_tenure

    def withdraw(self) -> None:
        """It goes on at another node: nobody here waits for it any more."""
        self.progress = Progress.ENDED
        self.bucket.pop(self, None)
        self.future.cancel()

    def queue_again(self) -> bool:
        """Surely undone, though not what it called: back to the start. False: its caller has been answered already."""
        if self.progress is Progress.ENDED or (self.future.done() and not self.future.cancelled()):
            self.progress = Progress.ENDED
            return False
        self.progress = Progress.QUEUED
        self.may_have_acted = self.may_have_acted or self.has_called
        return True

    def expire(self) -> None:
        self.give_up("its deadline has passed")

    def give_up(self, why: str) -> None:
        """Nobody waits any longer: what can be said honestly depends on how far the call has come."""
        if self.progress is Progress.QUEUED or self.handler.kind is Kind.QUERY:
            self.fail(Unavailable(str(self.pid), f"{why} before it was executed"))
        elif not self.future.done():
            self.future.set_exception(OutcomeUnknown(str(self.pid), f"{why} before its outcome was known"))

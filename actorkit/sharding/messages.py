"""What regions tell each other: calls and their answers, and who owns a shard.

A call goes only to a node that has said that it owns the shard, and names the **tenure** that it was told. A tenure
begins whenever a node begins to take calls of a shard: it has acquired the lease, or has it back before anybody else
had it, or stays the owner after it had already begun to hand the shard off. Tenures of a shard only grow, from owner to
owner and at each owner, since they are counted within the epoch since which ownership is unbroken. An owner runs only
calls that name its present tenure, and returns all others. So

- once a call was returned, none that was sent after it is taken before its sender knows, and none overtakes it;
- a copy of a call that was stuck on its way, or was left over at a former owner, never runs after another copy was sent
  elsewhere, and an owner need not look up whether a call that says it is the first copy has been run before.

::

    caller's region                                owner's region
        │ ── ShardQuestion(shards) ──────────────────▶ │   who owns them?
        │ ◀───────────────── ShardAnswer(OWNED, tenure) │   also unasked, once it has acquired what was asked for
        │ ── RemoteCall(number, tenure, ...) ────────▶ │
        │ ◀──────────────────────── RemoteReply(number) │   how it ended
        │ ◀────── RemoteReturn(numbers, moved to ...) ── │   not begun, or surely undone: the caller keeps the order
    former owner
        │ ── ShardReleased(shard, tenure) ───────────▶ │   acquire it at once

A number belongs to one sending of one call: what answers an earlier sending is ignored. Fields are only ever added at
the end, with defaults, so that two adjacent versions understand each other. Pure.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

import msgspec

from actorkit.errors import (
    CallCycle,
    CallError,
    HandlerFailed,
    OutcomeUnknown,
    Overloaded,
    RecoveryFailed,
    Rejected,
    Unavailable,
)
from actorkit.ids import ENTITY_ID_MAX_CHARS, PersistenceId
from actorkit.tracing import Trace

__all__ = [
    "MESSAGES",
    "REMAINING_MAX_S",
    "TEXT_MAX_CHARS",
    "Failure",
    "RemoteCall",
    "RemoteReply",
    "RemoteReturn",
    "ShardAnswer",
    "ShardQuestion",
    "ShardReleased",
    "Standing",
    "failure_of",
]

TEXT_MAX_CHARS = 2_000
"""Longer explanations of errors are cut when they travel."""
REMAINING_MAX_S = 1e9
"""More time than that is not meant, and is refused."""

_Count = Annotated[int, msgspec.Meta(ge=0)]
_Attempt = Annotated[int, msgspec.Meta(ge=1)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=REMAINING_MAX_S)]
_EntityId = Annotated[str, msgspec.Meta(min_length=1, max_length=ENTITY_ID_MAX_CHARS)]


class RemoteCall(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="shard-call"):
    """A call on its way to the owner of its shard."""

    number: _Count
    """Of this sending, given by the sender; the answer names it."""
    shard: _Count
    tenure: _Count
    """The one that it is meant for: under another one it is returned."""
    entity_type: str
    entity_id: _EntityId
    handler: str
    arguments: bytes
    """A MessagePack array, in the order of the handler's parameters."""
    command_id: str
    remaining_s: _Seconds
    """The time that remains for the call, less a margin for the way back."""
    attempt: _Attempt = 1
    """Greater than 1 when it may have been run before: then it is looked up by its command id."""
    key: str | None = None
    chain: tuple[PersistenceId, ...] = ()
    """The entities that wait for it, outermost first."""
    trace: Trace = Trace()


class Failure(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An error below ``CallError``, in the form that travels. ``kind`` says which; each uses the fields it has."""

    kind: str
    target: str = ""
    """What was called, or what was full; of a refusal its code."""
    why: str = ""
    limit: int = 0
    retry_after_s: float = 0.0
    details: bytes = b""
    """Of a refusal, as MessagePack."""

    def error(self) -> CallError:
        """The error as it was raised. A kind that is not known here may mean anything."""
        known = _KINDS.get(self.kind)
        if known is not None:
            return known(self.target, self.why)
        if self.kind == _OVERLOADED:
            return Overloaded(self.target, limit=self.limit, retry_after_s=self.retry_after_s)
        if self.kind == _REJECTED:
            try:
                return Rejected.rebuild(self.target, self.why, _decode_details(self.details))
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                return OutcomeUnknown(self.target, f"it was refused for a reason that cannot be read: {error}")
        return OutcomeUnknown(self.target, f"it ended in {self.kind!r}, unknown to this version: {self.why}")


class RemoteReply(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="shard-reply"):
    """How a call ended."""

    number: _Count
    reply: bytes = b""
    """Encoded by the handler's signature, unless it failed."""
    failure: Failure | None = None


class Standing(Enum):
    """What a node says about its own part in a shard."""

    OWNED = "owned"
    """It owns the shard, and takes calls of the tenure that it names."""
    AWAITED = "awaited"
    """It is about to acquire the shard, and will say so when it has."""
    ELSEWHERE = "elsewhere"
    """It has nothing to do with the shard; ask the node that it names, if any."""


class ShardAnswer(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="shard-answer"):
    """Who owns a shard, as far as the node that says it knows."""

    shard: _Count
    standing: Standing
    tenure: _Count = 0
    """The one that is spoken of; what is said of an earlier one than the receiver knows of is old."""
    ask: str = ""
    """The address of a node that probably knows more. Empty: no idea."""


class RemoteReturn(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="shard-return"):
    """Calls of one shard that come back: not begun, or surely undone. The sender sends them again, in order."""

    numbers: tuple[_Count, ...]
    answer: ShardAnswer
    """Where the shard is now."""
    acted: tuple[_Count, ...] = ()
    """Those of them that had called others before they were undone: they go out as a further attempt."""


class ShardQuestion(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="shard-question"):
    """Who owns these shards? Each is answered by a ``ShardAnswer``; those that are awaited by a second one later."""

    shards: tuple[_Count, ...]


class ShardReleased(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="shard-released"):
    """To the next owner: the lease is given up, so acquire it at once."""

    shard: _Count
    tenure: _Count
    """The one that has ended."""


MESSAGES = (RemoteCall, RemoteReply, RemoteReturn, ShardQuestion, ShardAnswer, ShardReleased)
"""What is to be registered with remoting."""

_OVERLOADED = "overloaded"
_REJECTED = "rejected"
_KINDS: dict[str, type[Unavailable] | type[OutcomeUnknown]] = {
    "unavailable": Unavailable,
    "handler-failed": HandlerFailed,
    "recovery-failed": RecoveryFailed,
    "call-cycle": CallCycle,
    "outcome-unknown": OutcomeUnknown,
}
_NAMES = {cls: kind for kind, cls in _KINDS.items()}

_encode = msgspec.msgpack.Encoder().encode
_decode_details = msgspec.msgpack.Decoder(dict[str, Any]).decode


def failure_of(error: CallError, target: str) -> Failure:
    """The form in which an error travels; a subclass that is not known travels as the nearest class that is.

    ``target`` names the entity, for errors that do not. A refusal whose details MessagePack cannot hold arrives as
    ``HandlerFailed``, as it does where the caller is in the same process.
    """
    if isinstance(error, Rejected):
        try:
            reason = error.reason.encode().decode()
            return Failure(_REJECTED, error.code, reason, details=_encode(dict(error.details)))
        except (TypeError, ValueError, OverflowError, RecursionError) as unfit:
            return Failure(_NAMES[HandlerFailed], target, _text(f"its refusal {error.code!r} cannot travel: {unfit}"))
    if isinstance(error, Overloaded):
        return Failure(_OVERLOADED, _text(error.what), limit=error.limit, retry_after_s=error.retry_after_s)
    if isinstance(error, Unavailable | OutcomeUnknown):
        kind = next(_NAMES[cls] for cls in type(error).__mro__ if cls in _NAMES)
        return Failure(kind, _text(error.target), _text(error.why))
    return Failure(_NAMES[OutcomeUnknown], target, _text(f"{type(error).__name__}: {error}"))


def _text(text: str) -> str:
    return text[:TEXT_MAX_CHARS].encode(errors="replace").decode()

"""Incoming (a shell): calls that other regions have sent to the shards that are owned here.

A call runs only where it names the present tenure of its shard; all others are returned. So are those that were taken
and cannot be run after all, because the shard has moved on: their senders keep the order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from actorkit.errors import CallError, ConfigurationError, HandlerFailed, OutcomeUnknown, Unavailable, WireError
from actorkit.ids import PersistenceId, shard_of
from actorkit.persistence.calls import EntityCall, Progress
from actorkit.sharding.messages import (
    Failure,
    RemoteCall,
    RemoteReply,
    RemoteReturn,
    ShardAnswer,
    failure_of,
)
from actorkit.sharding.region import Region

__all__ = ["Incoming"]


class Incoming:
    """The owner's side of a region."""

    def __init__(
        self,
        region: Region,
        *,
        shards: int,
        answer: Callable[[int], ShardAnswer],
        send: Callable[[str, msgspec.Struct], bool],
        disconnect: Callable[[str, str], None],
    ) -> None:
        """``answer`` says who owns a shard, as far as is known here; ``send`` and ``disconnect`` are remoting's."""
        self._region = region
        self._slots = region.memory.slots
        self._shards = shards
        self._answer = answer
        self._send = send
        self._disconnect = disconnect
        self._taken: dict[str, dict[int, EntityCall]] = {}
        """By sender and number: calls that were taken and have not ended."""
        self._returns: dict[tuple[str, int], list[tuple[int, bool]]] = {}
        """By sender and shard: what goes back at the end of this turn of the loop."""
        self.received = 0
        """For metrics: calls that other nodes have sent, each time that they did."""

    def call(self, sender: str, message: RemoteCall) -> None:
        """A call has come from the region at that address."""
        self.received += 1
        pid = PersistenceId(message.entity_type, message.entity_id)
        try:
            handler = self._region.handler(message.entity_type, message.handler)
            args = handler.signature.decode(message.arguments)
            slot = self._slots.get(pid)
            # Hashing takes long, and an entity that is in memory knows its shard.
            shard = shard_of(str(pid), self._shards) if slot is None else slot.shard.shard
            if message.shard != shard:
                raise ConfigurationError(f"{pid} is not in shard {message.shard}: the number of shards differs")
        except (ConfigurationError, msgspec.MsgspecError, ValueError, TypeError) as error:
            refusal = Unavailable(str(pid), f"it cannot be taken by the node that owns it: {error}")
            self._tell(sender, RemoteReply(message.number, failure=failure_of(refusal, str(pid))))
            return
        call = self._region.arrived(pid, handler, args, message)
        call.hand_back = _HandBack(self, sender, message)
        call.tenure = message.tenure
        if not self._region.admits(call, message.shard, message.tenure):
            call.hand_back(call)
            return
        taken = self._taken.get(sender)
        if taken is None:
            taken = self._taken[sender] = {}
        taken[message.number] = call
        call.future.add_done_callback(_Answering(self, sender, message.number, call))
        self._region.enter(call)

    def disconnected(self, sender: str) -> None:
        """Its calls come again, with another number: those that have not begun must not overtake others then."""
        for call in self._taken.pop(sender, {}).values():
            if call.progress is Progress.QUEUED:
                call.withdraw()

    def ended(self, sender: str, number: int, call: EntityCall, future: asyncio.Future[Any]) -> None:
        """The call has ended here: its caller is told how, unless it goes on elsewhere."""
        taken = self._taken.get(sender)
        if taken is not None:
            taken.pop(number, None)
        if not future.cancelled():
            self._reply(sender, number, call, future)

    def _reply(self, sender: str, number: int, call: EntityCall, future: asyncio.Future[Any]) -> None:
        error = future.exception()
        reply = b""
        failure: Failure | None = None
        if error is None:
            try:
                reply = call.handler.signature.encode_reply(future.result())
            except Exception as unfit:  # noqa: BLE001 - what cannot be encoded is the handler's failure
                error = HandlerFailed(str(call.pid), f"its reply cannot be encoded: {unfit}")
        if isinstance(error, CallError):
            failure = failure_of(error, str(call.pid))
        elif error is not None:
            failure = Failure("outcome-unknown", str(call.pid), f"it ended with {error!r}")
        try:
            self._tell(sender, RemoteReply(number, reply, failure))
        except WireError as unfit:
            unknown = OutcomeUnknown(str(call.pid), f"it was executed, but its reply cannot travel: {unfit}")
            self._tell(sender, RemoteReply(number, failure=failure_of(unknown, str(call.pid))))

    def _tell(self, sender: str, message: RemoteReply | RemoteReturn) -> None:
        """What the sender does not hear it would wait for as long as the connection lives: then that has to end."""
        if not self._send(sender, message):
            self._disconnect(sender, "it takes less than there is to be told")

    def hand_back(self, sender: str, shard: int, number: int, *, acted: bool) -> None:
        """The call goes back, with the others of this turn of the loop: its sender puts them in order."""
        if not self._returns:
            asyncio.get_running_loop().call_soon(self._send_returns)
        self._returns.setdefault((sender, shard), []).append((number, acted))

    def _send_returns(self) -> None:
        returns, self._returns = self._returns, {}
        for (sender, shard), calls in returns.items():
            numbers = tuple(number for number, _ in calls)
            acted = tuple(number for number, has_acted in calls if has_acted)
            self._tell(sender, RemoteReturn(numbers, self._answer(shard), acted))


class _HandBack:
    __slots__ = ("_incoming", "_message", "_sender")

    def __init__(self, incoming: Incoming, sender: str, message: RemoteCall) -> None:
        self._incoming = incoming
        self._sender = sender
        self._message = message

    def __call__(self, call: EntityCall) -> None:
        message = self._message
        call.withdraw()
        self._incoming.hand_back(
            self._sender, message.shard, message.number, acted=call.may_have_acted and message.attempt == 1
        )


class _Answering:
    __slots__ = ("_call", "_incoming", "_number", "_sender")

    def __init__(self, incoming: Incoming, sender: str, number: int, call: EntityCall) -> None:
        self._incoming = incoming
        self._sender = sender
        self._number = number
        self._call = call

    def __call__(self, future: asyncio.Future[Any]) -> None:
        self._incoming.ended(self._sender, self._number, self._call, future)

"""Router (a shell): carries out what routing decides, for the calls of this process whose shards others may own.

What goes wrong with one call ends that call. After every input the effects are carried out in order; an input that
comes while this happens (a call that ends and makes its caller send another) is carried out after them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Hashable, Iterable, Sequence

import msgspec
import structlog

from actorkit.errors import CallError, OutcomeUnknown, Overloaded, Unavailable, WireError
from actorkit.ids import PersistenceId
from actorkit.persistence.calls import EntityCall, Kind, Progress
from actorkit.sharding.messages import RemoteCall, RemoteReply, RemoteReturn, ShardAnswer, ShardQuestion
from actorkit.sharding.routing import Ask, Deliver, Fail, Routing, Send

__all__ = ["Router", "has_ended"]

_log = structlog.get_logger("actorkit.sharding")
_TIMER_MIN_S = 0.001


def has_ended(call: EntityCall) -> bool:
    """Whether its caller has been answered. One that has gone away still wants it done."""
    return call.progress is Progress.ENDED or (call.future.done() and not call.future.cancelled())


class Router:
    """The sender's side of a region."""

    def __init__(
        self,
        routing: Routing[EntityCall],
        *,
        send: Callable[[str, msgspec.Struct], bool],
        deliver: Callable[[EntityCall], None],
        margin_s: float,
    ) -> None:
        """``send`` is remoting's; ``deliver`` takes a call to its entity here. ``margin_s`` of the time that remains
        for a call is left for the way back."""
        self._routing = routing
        self._send = send
        self._deliver = deliver
        self._margin_s = margin_s
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle | None = None
        self._due_s = 0.0
        """When it is due."""
        self._carrying_out = False
        self.sent = 0
        """For metrics: calls that were sent to other nodes, each time that they were."""

    def close(self) -> None:
        """Nothing is sent any more; what is held back is ended."""
        if self._timer is not None:
            self._timer.cancel()
        for call in self._routing.give_up():
            call.give_up("its node has stopped")

    @property
    def lanes(self) -> Container[Hashable]:
        """Entities of which calls are on their way, which a new one must not overtake. Always up to date."""
        return self._routing.lanes

    @property
    def pending(self) -> int:
        """For metrics: calls that are held back, or sent and not answered."""
        return self._routing.count

    # -------------------------------------------------------------------------------------------------------- inputs

    def submit(self, shard: int, call: EntityCall) -> None:
        is_query = call.handler.kind is Kind.QUERY
        self._routing.submit(
            self._loop.time(), call, call.pid, shard, order=call.order, query=is_query, attempt=call.attempt
        )
        self._carry_out()

    def placed(self, owners: Sequence[str | None], members: Iterable[str]) -> None:
        """The addresses of who should own each shard, and of everybody who lives."""
        self._routing.placed(self._loop.time(), owners, frozenset(members))
        self._carry_out()

    def acquired(self, shard: int, tenure: int) -> None:
        self._routing.acquired(shard, tenure)
        self._carry_out()

    def released(self, shard: int, to: str, busy: Iterable[PersistenceId]) -> None:
        self._routing.released(self._loop.time(), shard, to, busy)
        self._carry_out()

    def settled(self, pid: PersistenceId) -> None:
        self._routing.settled(pid)
        self._carry_out()

    def hinted(self, shard: int, address: str) -> None:
        """Who has the lease of a shard that is wanted here, by the store's account; empty: no member."""
        self._routing.hinted(self._loop.time(), shard, address)
        self._carry_out()

    def disconnected(self, address: str) -> None:
        self._routing.disconnected(self._loop.time(), address)
        self._carry_out()

    def told(self, address: str, answer: ShardAnswer) -> None:
        self._routing.told(self._loop.time(), address, answer)
        self._carry_out()

    def returned(self, address: str, message: RemoteReturn) -> None:
        acted = frozenset(message.acted)
        for number in message.numbers:
            call = self._routing.sent(address, number)
            if call is not None and number not in acted:
                call.progress = Progress.QUEUED
        self._routing.returned(self._loop.time(), address, message.numbers, message.answer, acted)
        self._carry_out()

    def answered(self, address: str, message: RemoteReply) -> None:
        call = self._routing.answered(address, message.number)
        if call is not None:
            _end(call, message)
        self._carry_out()

    # ------------------------------------------------------------------------------------------------------- effects

    def _tick(self) -> None:
        self._timer = None
        self._routing.tick(self._loop.time())
        self._carry_out()

    def _carry_out(self) -> None:
        if self._carrying_out:
            return
        self._carrying_out = True
        try:
            while effects := self._routing.poll():
                for effect in effects:
                    if type(effect) is Send:
                        self._send_call(effect)
                    elif type(effect) is Deliver:
                        _go_again(effect.call, effect.attempt)
                        self._deliver(effect.call)
                    elif type(effect) is Fail:
                        _go_again(effect.call, effect.attempt)
                        effect.call.fail(effect.error)
                    elif type(effect) is Ask:
                        # Where it cannot be sent, it is asked again before long.
                        self._send(effect.node, ShardQuestion(effect.shards))
        finally:
            self._carrying_out = False
        self._wake_later()

    def _wake_later(self) -> None:
        wake_s = self._routing.wake_s
        if self._timer is not None:
            if wake_s is not None and self._due_s <= wake_s:
                return
            self._timer.cancel()
            self._timer = None
        if wake_s is not None:
            # Not every loop gives a handle that knows when it is due: uvloop's for the next moment does not.
            self._due_s = max(wake_s, self._loop.time() + _TIMER_MIN_S)
            self._timer = self._loop.call_at(self._due_s, self._tick)

    def _send_call(self, effect: Send[EntityCall]) -> None:
        call = effect.call
        remaining_s = call.deadline - self._loop.time() - self._margin_s
        failure: CallError
        _go_again(call, effect.attempt)
        if remaining_s > 0:
            call.progress = Progress.RUNNING
            try:
                if self._send(effect.node, _message(effect, remaining_s)):
                    self.sent += 1
                    return
                failure = Overloaded(f"the connection to {effect.node}", limit=self._routing.count)
            except WireError as error:
                failure = Unavailable(str(call.pid), f"it cannot be sent to {effect.node}: {error}")
        else:
            failure = Unavailable(str(call.pid), "too little time was left to send it")
        self._routing.unsent(effect.node, effect.number)
        call.progress = Progress.QUEUED
        call.fail(failure)


def _go_again(call: EntityCall, attempt: int) -> None:
    if not has_ended(call):
        call.progress = Progress.QUEUED
    if attempt > call.attempt:
        call.attempt = attempt
        call.may_have_acted = True


def _message(effect: Send[EntityCall], remaining_s: float) -> RemoteCall:
    call = effect.call
    return RemoteCall(
        effect.number,
        effect.shard,
        effect.tenure,
        call.pid.type,
        call.pid.id,
        call.handler.name,
        call.encoded_args,
        call.command_id,
        remaining_s,
        effect.attempt,
        call.key,
        call.origin.chain,
        call.origin.trace,
    )


def _end(call: EntityCall, message: RemoteReply) -> None:
    if message.failure is not None:
        call.fail(message.failure.error())
        return
    try:
        reply = call.handler.signature.decode_reply(message.reply)
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        call.fail(OutcomeUnknown(str(call.pid), f"its reply cannot be read here: {error}"))
    else:
        call.reply(reply)

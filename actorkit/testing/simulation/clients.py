"""Clients of simulated nodes, and the door at which a node lets them in (a shell).

A client is a process of its own that reaches the nodes through the simulated network, as a user's program reaches a
service: its requests and their answers are delayed, lost and cut off like anything else, and what it does not hear of
within the deadline is unknown to it. Requests with an idempotency key may arrive twice.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from actorkit.errors import (
    ActorkitError,
    CallError,
    HandlerFailed,
    JournalError,
    OutcomeUnknown,
    Overloaded,
    RecoveryFailed,
    Rejected,
    Unavailable,
)
from actorkit.ids import PersistenceId
from actorkit.persistence.actor import PersistentActor, entity_type_of
from actorkit.persistence.calls import Handler, Kind, Message
from actorkit.persistence.commands import EntityReference
from actorkit.persistence.records import decode_outcome, encode_outcome, encode_rejection
from actorkit.testing.simulation.network import Network
from actorkit.testing.simulation.process import Process
from actorkit.tracing import Trace

if TYPE_CHECKING:
    from actorkit.node import ActorSystem
    from actorkit.testing.simulation.loop import SimulatedLoop

__all__ = ["Client", "Door"]

A = TypeVar("A", bound=PersistentActor[Any, Any])

_PATIENCE_S = 0.5
"""How long after its deadline a client still waits for the answer to arrive."""
_ERRORS: dict[str, type[Unavailable] | type[OutcomeUnknown]] = {
    cls.__name__: cls for cls in (Unavailable, HandlerFailed, RecoveryFailed, OutcomeUnknown)
}


class _Request(msgspec.Struct, frozen=True, array_like=True):
    number: int
    message: Message


class _Answer(msgspec.Struct, frozen=True, array_like=True):
    number: int
    outcome: bytes = b""
    """A reply or a refusal, as the journal would keep it."""
    error: str = ""
    """Otherwise the name of the error, its target and its text."""
    target: str = ""
    why: str = ""
    limit: int = 0
    """Of what was full, and when it is worth trying again."""
    retry_after_s: float = 0.0


_encode = msgspec.msgpack.Encoder().encode
_decode_request = msgspec.msgpack.Decoder(_Request).decode
_decode_answer = msgspec.msgpack.Decoder(_Answer).decode


class Door:
    """Takes requests for one life of a node."""

    def __init__(self, loop: SimulatedLoop, network: Network, address: str, process: Process) -> None:
        self._loop = loop
        self._network = network
        self._address = address
        self._process = process
        self.late: list[str] = []
        """Calls that ended more than 100 ms of the process's running time after their deadline: there must be none."""

    def open(self, system: ActorSystem) -> None:
        """From now on calls are taken."""
        self._system = system
        self._network.listen(self._address, self._receive, process=self._process)

    def _receive(self, source: str, data: bytes) -> None:
        request = _decode_request(data)
        self._loop.create_task(self._handle(source, request))

    async def _handle(self, source: str, request: _Request) -> None:
        message = request.message
        loop, process = self._loop, self._process
        began_s, paused_s = loop.time(), process.paused_s
        try:
            reply = await self._system.ask(message)
            signature = self._system.region.known(message.type).handlers[message.handler].signature
            answer = _Answer(request.number, encode_outcome(b"", signature.encode_reply(reply)))
        except Rejected as refusal:
            answer = _Answer(request.number, encode_rejection(b"", refusal))
        except Overloaded as full:
            answer = _Answer(
                request.number,
                error="Overloaded",
                target=full.what,
                limit=full.limit,
                retry_after_s=full.retry_after_s,
            )
        except (Unavailable, OutcomeUnknown) as error:
            answer = _Answer(request.number, error=type(error).__name__, target=error.target, why=error.why)
        except (ActorkitError, ValueError, TypeError) as error:
            answer = _Answer(request.number, error="Unavailable", target=self._address, why=repr(error))
        took_s = loop.time() - began_s - (process.paused_s - paused_s) * process.clock.rate
        if message.deadline_s is not None and took_s > message.deadline_s + 0.1 + 1e-6:
            self.late.append(f"{message.type}/{message.id}.{message.handler} took {took_s:.3f} s: {answer.error}")
        self._network.send(self._address, source, _encode(answer), may_repeat=False)


class _Waiting:
    __slots__ = ("copies", "future", "handler", "target", "timer", "unknown")

    def __init__(self, future: asyncio.Future[Any], handler: Handler, target: PersistenceId) -> None:
        self.future = future
        self.handler = handler
        self.target = target
        self.copies = 1
        """How many answers may come. As long as one is out, another one saying "not executed" says nothing."""
        self.unknown: _Answer | None = None
        """What one copy said whose outcome is unknown. That another one was not executed changes nothing about it."""
        self.timer: asyncio.TimerHandle


class Client:
    """Calls entities through whichever of the nodes it takes to; made by ``World.client``.

    For each entity it stays with one node, and goes on to the next where that does not answer. Implements
    ``CallTarget``.
    """

    def __init__(
        self,
        loop: SimulatedLoop,
        network: Network,
        process: Process,
        nodes: list[str],
        *,
        first: int,
        deadline_s: float,
    ) -> None:
        self.name = process.name
        self.process = process
        self._tried = first
        self._chosen: dict[PersistenceId, int] = {}
        """The node to which each entity's calls go, since it did not disappoint."""
        self._loop = loop
        self._network = network
        self._nodes = nodes
        self._deadline_s = deadline_s
        self._numbers = 0
        self._waiting: dict[int, _Waiting] = {}
        network.listen(self.name, self._receive, process=process, refused=self._refused)

    def get(self, cls: type[A], id: str) -> A:
        """A reference to an entity, as ``ActorSystem.get`` gives it."""
        declared = entity_type_of(cls)
        return cast("A", EntityReference(self, PersistenceId.checked(declared.name, id), declared.handlers))

    @property
    def next_command_id(self) -> str:
        """The id that the next call will have, for whoever takes down what is sent."""
        return f"{self.name}-{self._numbers + 1}"

    def call(
        self, pid: PersistenceId, handler: Handler, args: tuple[Any, ...], *, key: str | None, deadline_s: float | None
    ) -> asyncio.Future[Any]:
        """Sends a call; its future ends in a reply or in an error below ``CallError``."""
        command_id = self.next_command_id
        self._numbers += 1
        number = self._numbers
        within_s = self._deadline_s if deadline_s is None else deadline_s
        message = Message(
            type=pid.type,
            id=pid.id,
            handler=handler.name,
            arguments=handler.signature.encode(args),
            command_id=command_id,
            key=key,
            deadline_s=within_s,
            trace=Trace(),
        )
        future: asyncio.Future[Any] = self._loop.create_future()
        waiting = self._waiting[number] = _Waiting(future, handler, pid)
        waiting.timer = self._loop.call_later(within_s + _PATIENCE_S, self._gave_up, number)
        node = self._nodes[self._chosen.setdefault(pid, self._tried) % len(self._nodes)]
        request = _encode(_Request(number, message))
        waiting.copies = self._network.send(self.name, node, request, may_repeat=key is not None)
        return future

    def _says_all(self, answer: _Answer) -> _Answer | None:
        """What is known of the request now that this is the answer to one of its copies; ``None``: nothing yet."""
        waiting = self._waiting.get(answer.number)
        if waiting is None or not answer.error:
            return answer
        if answer.error == OutcomeUnknown.__name__:
            waiting.unknown = answer
        waiting.copies -= 1
        return None if waiting.copies > 0 else waiting.unknown or answer

    def _take(self, number: int) -> _Waiting | None:
        waiting = self._waiting.pop(number, None)
        if waiting is None or waiting.future.done():
            return None
        waiting.timer.cancel()
        return waiting

    def _receive(self, source: str, data: bytes) -> None:
        self._answered(_decode_answer(data))

    def _answered(self, one: _Answer) -> None:
        answer = self._says_all(one)
        if answer is None:
            return
        waiting = self._take(answer.number)
        if waiting is None:
            return
        future = waiting.future
        if answer.error:
            if answer.error == "Overloaded":
                full = Overloaded(answer.target, limit=answer.limit, retry_after_s=answer.retry_after_s)
                future.set_exception(full)
            else:
                future.set_exception(_ERRORS.get(answer.error, Unavailable)(answer.target, answer.why))
                self._chosen[waiting.target] += 1
            return
        outcome = decode_outcome(answer.outcome)
        refusal: CallError | JournalError | None = outcome.rejection()
        if refusal is not None:
            future.set_exception(refusal)
        else:
            future.set_result(waiting.handler.signature.decode_reply(outcome.reply))

    def _refused(self, target: str, data: bytes) -> None:
        request = _decode_request(data)
        why = f"{target} refuses the connection"
        self._answered(_Answer(request.number, error=Unavailable.__name__, target=str(request.message.id), why=why))

    def _gave_up(self, number: int) -> None:
        waiting = self._take(number)
        if waiting is None:
            return
        self._chosen[waiting.target] += 1
        kind = OutcomeUnknown if waiting.handler.kind is Kind.COMMAND else Unavailable
        waiting.future.set_exception(kind(str(waiting.target), "no answer has come"))

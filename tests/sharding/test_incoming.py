"""Incoming: whoever has sent a call hears how it ended, or that the connection has."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec

from actorkit.errors import MessageTooLarge, OutcomeUnknown
from actorkit.ids import PersistenceId, shard_of
from actorkit.persistence.actor import entity_type_of
from actorkit.persistence.calls import OUTSIDE, EntityCall, Handler
from actorkit.sharding.incoming import Incoming
from actorkit.sharding.messages import RemoteCall, RemoteReply, RemoteReturn, ShardAnswer, Standing
from tests.persistence.actors import Account

SHARDS = 4
HANDLERS = entity_type_of(Account).handlers
PID = PersistenceId("account", "a")
SHARD = shard_of(str(PID), SHARDS)
CALL = RemoteCall(7, SHARD, 1, PID.type, PID.id, "put", HANDLERS["put"].signature.encode((1,)), "c-1", 1.0)


class _Region:
    """Takes calls, and lets the test end them."""

    def __init__(self, *, admitting: bool) -> None:
        self.admitting = admitting
        self.entered: list[EntityCall] = []
        self.slots: dict[PersistenceId, Any] = {}
        self.memory = self

    def handler(self, entity_type: str, name: str) -> Handler:
        return HANDLERS[name]

    def arrived(self, pid: PersistenceId, handler: Handler, args: tuple[Any, ...], message: RemoteCall) -> EntityCall:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        return EntityCall(pid, handler, args, message.command_id, None, 1.0, future, {}, OUTSIDE, message.attempt)

    def admits(self, call: EntityCall, shard: int, tenure: int) -> bool:
        return self.admitting

    def enter(self, call: EntityCall) -> None:
        self.entered.append(call)


class _Wire:
    """Remoting that takes what it is told to take."""

    def __init__(self, *, admitting: bool = True) -> None:
        self.room = True
        self.reply_max_bytes = 100
        self.sent: list[msgspec.Struct] = []
        self.disconnected: list[str] = []
        self.region = _Region(admitting=admitting)
        region: Any = self.region
        self.incoming = Incoming(
            region, shards=SHARDS, answer=self._answer, send=self._send, disconnect=self._disconnect
        )

    def _answer(self, shard: int) -> ShardAnswer:
        return ShardAnswer(shard, Standing.ELSEWHERE)

    def _send(self, address: str, message: msgspec.Struct) -> bool:
        if isinstance(message, RemoteReply) and len(message.reply) > self.reply_max_bytes:
            raise MessageTooLarge("shard-reply", len(message.reply), self.reply_max_bytes)
        self.sent.append(message)
        return self.room

    def _disconnect(self, address: str, why: str) -> None:
        self.disconnected.append(address)


async def test_a_reply_that_remoting_does_not_take_ends_the_connection() -> None:
    wire = _Wire()
    wire.incoming.call("x", CALL)
    wire.room = False
    wire.region.entered[0].reply(1)
    await asyncio.sleep(0)
    assert wire.disconnected == ["x"]


async def test_a_call_for_a_shard_that_is_not_its_entitys_is_refused_whether_it_is_in_memory_or_not() -> None:
    wrong = msgspec.structs.replace(CALL, shard=(SHARD + 1) % SHARDS)
    wire = _Wire()
    for _ in range(2):
        wire.incoming.call("x", wrong)
        wire.incoming.call("x", CALL)
        wire.region.slots[PID] = SimpleNamespace(shard=SimpleNamespace(shard=SHARD))
    assert len(wire.region.entered) == 2
    replies = [message for message in wire.sent if isinstance(message, RemoteReply)]
    assert [reply.failure is not None and reply.failure.kind for reply in replies] == ["unavailable"] * 2
    assert all("the number of shards differs" in str(reply.failure) for reply in replies)


async def test_a_return_that_remoting_does_not_take_ends_the_connection() -> None:
    wire = _Wire(admitting=False)
    wire.room = False
    wire.incoming.call("x", CALL)
    await asyncio.sleep(0)
    assert isinstance(wire.sent[0], RemoteReturn)
    assert wire.disconnected == ["x"]


async def test_a_reply_that_is_too_large_to_travel_is_an_unknown_outcome_and_says_so() -> None:
    wire = _Wire()
    wire.reply_max_bytes = 0
    wire.incoming.call("x", CALL)
    wire.region.entered[0].reply(1)
    await asyncio.sleep(0)
    (reply,) = wire.sent
    assert isinstance(reply, RemoteReply)
    assert reply.failure is not None
    assert isinstance(reply.failure.error(), OutcomeUnknown)
    assert "its reply cannot travel" in reply.failure.why
    assert wire.disconnected == []

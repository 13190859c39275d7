"""What the tests of interleavings share: an actor that calls another, one that uses its argument up, two owners."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

from actorkit import PersistentActor, command
from actorkit.ids import shard_of
from actorkit.journal.protocols import Append, AppendResult, Refused
from tests.persistence.actors import Account, AccountState, Noted, Put, Taken
from tests.persistence.kit import Nodes, ScriptedJournal, Step

__all__ = [
    "SHARDS",
    "Batch",
    "Relay",
    "account_away_from",
    "answered_after",
    "outcome",
    "pause",
    "refused_after",
    "start",
    "two",
]

SHARDS = 16


class Relay(PersistentActor[AccountState, Put | Taken | Noted], name="interleavings.relay"):
    """Calls an account, and then emits."""

    @command
    def put(self, amount: int) -> int:
        self.emit(Put(amount))
        return self.state.balance

    @command
    async def relay(self, target: str, amount: int) -> int:
        balance = await self.context.system.get(Account, target).put(amount, "relayed")
        self.emit(Put(amount))
        return balance

    @command
    async def relay_by_balance(self, target: str, how_if_rich: str) -> str:
        account = self.context.system.get(Account, target)
        if self.state.balance < 5:
            answer: Any = await account.put(1)
        elif how_if_rich == "put":
            answer = await account.put(100)
        else:
            answer = await account.note("rich")
        self.emit(Noted(str(answer)))
        return str(answer)


class Batch(PersistentActor[AccountState, Put | Taken | Noted], name="interleavings.batch"):
    @command
    def put_all(self, amounts: list[int]) -> int:
        """Uses its argument up."""
        count = 0
        while amounts:
            self.emit(Put(amounts.pop()))
            count += 1
        return count


def start(call: Any) -> asyncio.Future[Any]:
    return asyncio.ensure_future(call)


async def outcome(call: Awaitable[Any]) -> Any:
    try:
        return await call
    except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
        return error


async def two(nodes: Nodes, **changes: Any) -> tuple[Any, Any, ScriptedJournal]:
    """Two systems with connections of their own to one store, and the first one's connection."""
    changes = {"deadline_default_s": 20, "shards": SHARDS, **changes}
    journal = nodes.journal()
    first = await nodes.start(journal, **changes)
    second = await nodes.start(nodes.journal(journal.inner), **changes)
    return first, second, journal


def pause(nodes: Nodes) -> None:
    """Longer than a lease, as after a suspend: the lease clock has gone on and no timer has."""
    nodes.clock.lease_offset_s += 10


def account_away_from(stream: str) -> str:
    """An account in another shard."""
    return next(f"t{n}" for n in range(100) if shard_of(f"account/t{n}", SHARDS) != shard_of(stream, SHARDS))


def answered_after(gate: asyncio.Event) -> Step:
    """It is stored at once, and the answer comes later."""

    async def step(journal: ScriptedJournal, batch: Sequence[Append]) -> list[AppendResult]:
        results: list[AppendResult] = await journal.inner.append(batch)
        await gate.wait()
        return results

    return step


def refused_after(gate: asyncio.Event) -> Step:
    async def step(journal: ScriptedJournal, batch: Sequence[Append]) -> list[AppendResult]:
        await gate.wait()
        return [Refused("too large")] * len(batch)

    return step

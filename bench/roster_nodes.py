"""The nodes of ``bench.roster``: pools are reserved and released, in three designs.

All have the same links, the same limit on what is in progress, the same deadline, and refuse a call where the link to
its owner is too far behind; they differ in how a release finds the pool:

``Carried``: the reservation's id names it. ``Roster``: every node has one map from reservation to pool, a document of
pycrdt that all nodes write; each change is an update that waits in a queue for each other node, and a release waits
until the reservation is there. ``Broadcast``: a release goes to all nodes, and whoever has the reservation does it.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Counts
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any
from zlib import crc32

import msgspec
from pycrdt import Doc, Map

from bench.read_models import Messenger, Network

__all__ = ["Broadcast", "Carried", "Node", "Roster"]

DEADLINE_S = 1.0
IN_PROGRESS_MAX = 200
BACKLOG_MAX_S = 0.25
"""A call is refused where the link is further behind, as an outbox of limited size does it."""
BATCH_BYTES = 500
RETRY_S = 0.05


class Call(msgspec.Struct, frozen=True, array_like=True, tag="call"):
    """Reserve of a pool, or release of a reservation where there is one."""

    number: int
    pool: str
    reservation: str


class Answer(msgspec.Struct, frozen=True, array_like=True, tag="answer"):
    """``done``: false where the reservation is not known there."""

    number: int
    done: bool


class RosterUpdates(msgspec.Struct, frozen=True, array_like=True, tag="roster"):
    """Some of what waits; the next ones come once these were heard."""

    updates: tuple[bytes, ...]


class RosterHeard(msgspec.Struct, frozen=True, array_like=True, tag="roster-heard"):
    """They were taken."""


class Refused(Exception):
    """Too much is in progress already."""


class Node:
    """Owns some pools, and takes calls for all."""

    def __init__(self, network: Network, names: list[str], name: str) -> None:
        self.name = name
        self._network = network
        self._names = names
        self._others = [other for other in names if other != name]
        self._messenger = Messenger(network, name)
        self._held: set[str] = set()
        """Reservations of pools that are here."""
        self._waiting: dict[int, asyncio.Future[bool]] = {}
        self._number = 0
        self._ids = 0
        self._in_progress = 0
        self.endings: Counts[str] = Counts()
        self.took_s: list[float] = []
        self._loop = asyncio.get_running_loop()
        self._messenger.register(Call, self._called)
        self._messenger.register(Answer, self._answered)

    def owner(self, pool: str) -> str:
        return self._names[crc32(pool.encode()) % len(self._names)]

    async def reserve(self, pool: str, reserved: Callable[[str], None]) -> None:
        """Counts how it ended."""
        self._ids += 1
        reservation = f"{pool}.{self.name}{self._ids:08x}"
        await self._counted(lambda: self._reserve(pool, reservation, reserved))

    async def release(self, reservation: str) -> None:
        """Counts how it ended."""
        await self._counted(lambda: self.find_and_release(reservation))

    async def find_and_release(self, reservation: str) -> bool:
        """Whether it was released."""
        raise NotImplementedError

    def took(self, pool: str, reservation: str) -> None:
        """A pool of this node has a new reservation."""

    def gave(self, reservation: str) -> None:
        """And one less."""

    @property
    def waiting_bytes(self) -> int:
        """What waits to be sent, besides calls."""
        return 0

    @property
    def kept_bytes(self) -> int:
        """What finding pools takes on this node."""
        return 0

    @property
    def full(self) -> bool:
        """Whether no more calls are taken."""
        return self._in_progress >= IN_PROGRESS_MAX

    async def _counted(self, call: Callable[[], Awaitable[bool]]) -> None:
        self._in_progress += 1
        began_s = self._loop.time()
        try:
            async with asyncio.timeout(DEADLINE_S):
                ending = "done" if await call() else "unknown"
        except TimeoutError:
            ending = "late"
        except Refused:
            ending = "refused"
        finally:
            self._in_progress -= 1
        self.endings[ending] += 1
        if ending == "done":
            self.took_s.append(self._loop.time() - began_s)

    async def _reserve(self, pool: str, reservation: str, reserved: Callable[[str], None]) -> bool:
        done = await self.call(self.owner(pool), pool, reservation)
        if done:
            reserved(reservation)
        return done

    async def call(self, address: str, pool: str, reservation: str) -> bool:
        """``pool`` is empty for a release."""
        if address == self.name:
            return self._do(pool, reservation)
        if self._network.backlog_s(self.name, address) > BACKLOG_MAX_S:
            raise Refused
        self._number += 1
        number = self._number
        future: asyncio.Future[bool] = self._loop.create_future()
        self._waiting[number] = future
        self._messenger.send(address, Call(number, pool, reservation))
        try:
            return await future
        finally:
            self._waiting.pop(number, None)

    def _do(self, pool: str, reservation: str) -> bool:
        if pool:
            self._held.add(reservation)
            self.took(pool, reservation)
            return True
        if reservation not in self._held:
            return False
        self._held.discard(reservation)
        self.gave(reservation)
        return True

    def _called(self, sender: Any, call: Call) -> None:
        self._messenger.send(sender.address, Answer(call.number, self._do(call.pool, call.reservation)))

    def _answered(self, sender: Any, answer: Answer) -> None:
        future = self._waiting.get(answer.number)
        if future is not None and not future.done():
            future.set_result(answer.done)


class Carried(Node):
    """The id says it."""

    async def find_and_release(self, reservation: str) -> bool:
        return await self.call(self.owner(reservation.partition(".")[0]), "", reservation)


class Broadcast(Node):
    """All are asked."""

    async def find_and_release(self, reservation: str) -> bool:
        calls = [asyncio.ensure_future(self.call(name, "", reservation)) for name in self._names]
        try:
            return True in await asyncio.gather(*calls)
        finally:
            for call in calls:
                call.cancel()


class Roster(Node):
    """A map that all nodes write."""

    def __init__(self, network: Network, names: list[str], name: str) -> None:
        super().__init__(network, names, name)
        self._doc: Doc[Any] = Doc(client_id=names.index(name) + 1)
        self._roster = self._doc.get("roster", type=Map)
        self._queues: dict[str, deque[bytes]] = {other: deque() for other in self._others}
        self._under_way: set[str] = set()
        self._waiting_bytes = 0
        self._messenger.register(RosterUpdates, self._take)
        self._messenger.register(RosterHeard, self._heard)

    @property
    def waiting_bytes(self) -> int:
        return self._waiting_bytes

    @property
    def kept_bytes(self) -> int:
        return len(self._doc.get_update())

    async def find_and_release(self, reservation: str) -> bool:
        while (pool := self._roster.get(reservation)) is None:
            # Its reservation was answered, so it is on its way.
            await asyncio.sleep(RETRY_S)
        return await self.call(self.owner(str(pool)), "", reservation)

    def took(self, pool: str, reservation: str) -> None:
        before = self._doc.get_state()
        self._roster[reservation] = pool
        self._queue(self._doc.get_update(before))

    def gave(self, reservation: str) -> None:
        before = self._doc.get_state()
        if reservation in self._roster:
            del self._roster[reservation]
        self._queue(self._doc.get_update(before))

    def _queue(self, update: bytes) -> None:
        for other, queue in self._queues.items():
            queue.append(update)
            self._waiting_bytes += len(update)
            self._send(other)

    def _send(self, other: str) -> None:
        queue = self._queues[other]
        if other in self._under_way or not queue:
            return
        updates: list[bytes] = []
        size = 0
        while queue and size < BATCH_BYTES:
            updates.append(queue.popleft())
            size += len(updates[-1])
        self._waiting_bytes -= size
        self._under_way.add(other)
        self._messenger.send(other, RosterUpdates(tuple(updates)))

    def _take(self, sender: Any, message: RosterUpdates) -> None:
        for update in message.updates:
            self._doc.apply_update(update)
        self._messenger.send(sender.address, RosterHeard())

    def _heard(self, sender: Any, message: RosterHeard) -> None:
        self._under_way.discard(sender.address)
        self._send(sender.address)

"""Ownership (a shell): carries out which shards this node takes, serves and hands off.

Decisions are made by ``Handoffs``; leases are had through ``Leases``, calls on their way are told through ``Router``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence

import msgspec
import structlog

from actorkit.ids import PersistenceId
from actorkit.sharding.handoff import (
    AskNow,
    CutOff,
    Handoffs,
    Phase,
    Release,
    Say,
    Serve,
    Stop,
    Unwant,
    Want,
)
from actorkit.sharding.messages import ShardAnswer, ShardReleased
from actorkit.sharding.region import Region
from actorkit.sharding.router import Router
from actorkit.sharding.shard import Shard

__all__ = ["Ownership"]

_POLL_S = 0.005
"""How often it is looked whether entities that are to come to an end have: a rare wait, not worth a signal each."""
_TIMER_MIN_S = 0.001
_NAMED_MAX = 20

_log = structlog.get_logger("actorkit.sharding")
_EXPLAINED_S = 1.0
"""By when whoever has handed a shard over has said so; an acquired one of which nobody has was taken over."""


class Ownership:
    """The shards of one node among several."""

    def __init__(
        self,
        core: Handoffs,
        *,
        router: Router,
        region: Region,
        send: Callable[[str, msgspec.Struct], bool],
        drain_s: float,
    ) -> None:
        """``region`` has been started. ``drain_s``: how long what was cut off may take to end."""
        self._drain_s = drain_s
        self._core = core
        self._router = router
        self._shard = region.shard
        self._take_back = region.take_back
        self._entities = region.memory
        self._leases = region.leases
        self._send = send
        self._members: set[str] = set()
        self._loop = asyncio.get_running_loop()
        self._busy: dict[int, dict[PersistenceId, None]] = {}
        """Entities of shards that have been stopped, as long as calls that were accepted before are in progress."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._poll: asyncio.TimerHandle | None = None
        self._carrying_out = False
        self._offered: set[int] = set()
        """Shards that others have given up for this node, which has not acquired them yet."""
        self._unexplained: dict[int, float] = {}
        """Shards that this node has acquired, and when: that they were given up for it may be on its way."""
        self.moved = 0
        """For metrics: shards that were handed off."""
        self.received = 0
        """For metrics: shards that others have handed to this node."""
        self._taken_over = 0

    def close(self) -> None:
        for timer in (self._timer, self._poll):
            if timer is not None:
                timer.cancel()
        for task in self._tasks:
            task.cancel()

    @property
    def owned(self) -> int:
        """How many shards are owned here, those that are being handed off included."""
        return self._core.owned

    @property
    def phases(self) -> dict[int, Phase]:
        """Every shard with which this node has to do."""
        return self._core.phases()

    # -------------------------------------------------------------------------------------------------------- inputs

    def placed(self, owners: Sequence[str | None]) -> None:
        """The addresses of who should own each shard."""
        self._core.placed(self._loop.time(), owners)
        self._carry_out()

    def members(self, addresses: set[str]) -> None:
        """Where all nodes are that live."""
        for address in sorted(self._members - addresses):
            self._core.forget(address)
        self._members = addresses

    def accepts(self, shard: int, tenure: int, *, within: bool) -> bool:
        return self._core.accepts(shard, tenure, within=within)

    def answer(self, shard: int) -> ShardAnswer:
        return self._core.answer(shard)

    def acquired(self, shard: Shard) -> None:
        if self._core.phase(shard.shard) is Phase.RELEASING:
            # Its epoch was raised for the sake of what is still in progress.
            return
        if shard.lease.unbroken_since == shard.epoch:
            self._explain(shard.shard)
        self._core.acquired(self._loop.time(), shard.shard, shard.lease.unbroken_since)
        self._carry_out()

    def _explain(self, shard: int) -> None:
        """It was acquired, and others may have owned it before."""
        self._taken_over += self._unexplained.pop(shard, None) is not None
        if shard in self._offered:
            self._offered.remove(shard)
            self.received += 1
        else:
            self._unexplained[shard] = self._loop.time()

    @property
    def taken_over(self) -> int:
        """For metrics: shards that were acquired without being handed over: nobody had them, or their owner was
        lost."""
        until_s = self._loop.time() - _EXPLAINED_S
        late = [shard for shard, since_s in self._unexplained.items() if since_s <= until_s]
        for shard in late:
            del self._unexplained[shard]
        self._taken_over += len(late)
        return self._taken_over

    def held(self, shard: Shard, address: str) -> None:
        """The store says that another node has it; the address is empty where it is no member."""
        if self._core.phase(shard.shard) is Phase.WANTED:
            self._core.held(shard.shard, address)
            self._router.hinted(shard.shard, address)
        else:
            self.lost(shard)

    def lost(self, shard: Shard) -> None:
        """Another node has, or may have it; what rests on it in memory has been told."""
        if self._core.phase(shard.shard) in (Phase.OWNED, Phase.DRAINING, Phase.UNDOING):
            self._core.lost(self._loop.time(), shard.shard)
            self._carry_out()
            if self._core.phase(shard.shard) is Phase.ELSEWHERE:
                # Its epoch may have been about to be raised.
                self._leases.unwant(shard)
            self._take_back(shard)

    def asked(self, address: str, shards: Sequence[int]) -> None:
        """A node wants to know who owns these."""
        self._core.asked(address, shards)
        self._carry_out()

    def told(self, address: str, message: ShardAnswer) -> None:
        self._core.told(self._loop.time(), address, message)
        self._carry_out()

    def offered(self, address: str, message: ShardReleased) -> None:
        if self._unexplained.pop(message.shard, None) is None:
            self._offered.add(message.shard)
        else:
            self.received += 1
        self._core.offered(address, message.shard)
        self._carry_out()

    # ------------------------------------------------------------------------------------------------------- effects

    def _carry_out(self) -> None:
        if self._carrying_out:
            return
        self._carrying_out = True
        try:
            while effects := self._core.poll():
                for effect in effects:
                    match effect:
                        case Want(number):
                            self._leases.want(self._shard(number))
                        case Unwant(number):
                            self._leases.unwant(self._shard(number))
                        case AskNow():
                            self._leases.ask_now()
                        case Serve(number, tenure):
                            self._serve(self._shard(number), tenure)
                        case Stop(number, to):
                            self._stop(self._shard(number), to)
                        case CutOff(number):
                            self._cut_off(self._shard(number))
                        case Release(number):
                            self._begin(self._release(self._shard(number)))
                        case Say(node, message):
                            self._send(node, message)
        finally:
            self._carrying_out = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (wake_s := self._core.wake_s) is not None:
            self._timer = self._loop.call_at(max(wake_s, self._loop.time() + _TIMER_MIN_S), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._core.tick(self._loop.time())
        self._carry_out()

    def _serve(self, shard: Shard, tenure: int) -> None:
        shard.detour = shard.leaving = False
        shard.tenure = tenure
        self._router.acquired(shard.shard, tenure)
        # Whatever comes now comes after the calls that they still have.
        for pid in self._busy.pop(shard.shard, {}):
            self._router.settled(pid)

    def _stop(self, shard: Shard, to: str) -> None:
        shard.detour = True
        busy = dict.fromkeys(self._entities.busy(shard))
        self._busy[shard.shard] = {**self._busy.get(shard.shard, {}), **busy}
        self._router.released(shard.shard, to, busy)
        if self._poll is None:
            self._poll = self._loop.call_later(0, self._look)

    def _cut_off(self, shard: Shard) -> None:
        shard.leaving = True
        self._take_back(shard)
        self._entities.cut_off(shard)

    def _look(self) -> None:
        """Which of the entities of stopped shards have come to an end."""
        self._poll = None
        for number, busy in list(self._busy.items()):
            for pid in [pid for pid in busy if self._entities.is_idle(number, pid)]:
                del busy[pid]
                self._router.settled(pid)
            if not busy and self._busy.get(number) is busy:
                del self._busy[number]
                self._core.drained(self._loop.time(), number)
        self._carry_out()
        if self._busy:
            self._poll = self._loop.call_later(_POLL_S, self._look)

    async def _release(self, shard: Shard) -> None:
        """What does not even end when it is cut off is left alone after a while: the next owner's epoch fences it."""
        shard.leaving = True
        until_s = self._loop.time() + self._drain_s
        while self._entities.busy(shard) and self._loop.time() < until_s:
            await asyncio.sleep(_POLL_S)
        self._take_back(shard)
        if left := self._entities.abandon(shard):
            shard.lease.left_behind()
            _log.warning("sharding.left_behind", shard=shard.shard, entities=[str(pid) for pid in left[:_NAMED_MAX]])
        for pid, _ in self._entities.of(shard):
            self._entities.passivate(pid)
        self._leases.unwant(shard)
        await self._leases.release([shard])
        shard.settled(owned=False)
        self._take_back(shard)
        self.moved += 1
        self._core.released(self._loop.time(), shard.shard)
        self._carry_out()

    def _begin(self, coroutine: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(coroutine, name="actorkit.sharding.release")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._leases.ended(task)

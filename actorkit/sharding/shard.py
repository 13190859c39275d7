"""Shard (a shell): one activation of a shard in this process, with the calls that wait for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from actorkit.clock import Clock
from actorkit.persistence.calls import EntityCall
from actorkit.sharding.activation import STINTS, Lease

__all__ = ["Leaseholder", "Shard"]


class Leaseholder(Protocol):
    """What acquires and confirms leases for all shards of the process."""

    def want(self, shard: Shard) -> None:
        """The shard is to be acquired under a new epoch."""
        ...

    def wants(self, shard: Shard) -> bool:
        """Whether it is being acquired."""
        ...

    def confirm(self, shard: Shard, epoch: int, decided: Callable[[bool], None]) -> None:
        """The store is to be asked whether the shard is still ours under this epoch."""
        ...


class Shard:
    """Implements ``ShardOwnership`` for the entities of one shard."""

    __slots__ = (
        "_clock",
        "_doubts",
        "_leaseholder",
        "detour",
        "doubtful",
        "lease",
        "leaving",
        "shard",
        "tenure",
        "waiting",
    )

    def __init__(self, shard: int, clock: Clock, leaseholder: Leaseholder, clock_rate_error: float) -> None:
        self.shard = shard
        self.lease = Lease(clock_rate_error)
        self.waiting: deque[EntityCall] = deque()
        """Calls that came while the shard was not ready, in order."""
        self.tenure = 0
        """Which ownership calls from other nodes have to name to be run here, as ``Handoffs`` has it."""
        self.detour = False
        """Calls of this process must not go straight to its entities: earlier ones are still on their way to another
        owner, or the shard is being handed off."""
        self.doubtful = False
        """Its epoch was raised, and its entities may not have found out yet what is stored of what they had sent."""
        self.leaving = False
        """It is being given up: what is undone does not run here again, and goes to the next owner."""
        self._clock = clock
        self._leaseholder = leaseholder
        self._doubts: list[asyncio.Future[bool]] = []

    @property
    def epoch(self) -> int:
        return self.lease.epoch

    @property
    def ready(self) -> bool:
        """Whether calls may be delivered to its entities."""
        return self.lease.active

    @property
    def direct(self) -> bool:
        """Whether a call of this process may go straight to its entity."""
        return self.lease.active and not self.detour

    def lease_is_valid(self) -> bool:
        return self.lease.is_valid(self._clock.lease_s())

    @property
    def unbroken_since(self) -> int:
        return self.lease.unbroken_since

    @property
    def tenures_since(self) -> int:
        return self.lease.unbroken_since * STINTS if self.tenure else 0

    def confirm(self, epoch: int, decided: Callable[[bool], None]) -> None:
        self._leaseholder.confirm(self, epoch, decided)

    async def settle_doubt(self, epoch: int) -> bool:
        if self.ready and self.lease.epoch > epoch:
            return True
        if self.ready:
            self.lease.lost()
            self._leaseholder.want(self)
        elif not self._leaseholder.wants(self):
            # It is for others to have now, and somebody else has raised its epoch.
            return False
        doubt: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._doubts.append(doubt)
        return await doubt

    def settled(self, *, owned: bool) -> None:
        """The shard has a newer epoch now, ours or somebody else's."""
        doubts, self._doubts = self._doubts, []
        for doubt in doubts:
            if not doubt.done():
                doubt.set_result(owned)

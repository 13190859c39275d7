"""P4: which calls of other nodes go on where they were accepted, and which go back to their senders.

Found by seed 103 of the cluster's simulation: a shard was being drained and then stayed after all, so that its tenure
grew, while one call found out what had become of its append. It alone went back, and came again after later ones of its
sender, which had been accepted with it and went on.
"""

from __future__ import annotations

import asyncio

import pytest

from actorkit.clock import SystemClock
from actorkit.ids import PersistenceId
from actorkit.persistence.actor import entity_type_of
from actorkit.persistence.calls import OUTSIDE, EntityCall
from actorkit.sharding.activation import STINTS
from actorkit.sharding.shard import Shard
from tests.persistence.actors import Account


class Nobody:
    def want(self, shard: object) -> None: ...
    def wants(self, shard: object) -> bool:
        return False

    def confirm(self, shard: object, epoch: int, decided: object) -> None: ...


@pytest.mark.parametrize(("tenure", "outlived"), [(STINTS, True), (2 * STINTS, False), (2 * STINTS + 1, False)])
async def test_calls_that_were_accepted_go_on_as_long_as_nobody_else_has_owned_the_shard(
    tenure: int, outlived: bool
) -> None:
    shard = Shard(0, SystemClock(), Nobody(), 0.05)
    shard.lease.acquired(2, 0.0, 3.0)
    shard.lease.acquired(3, 0.0, 3.0)
    shard.tenure = 2 * STINTS + 1
    future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    put = entity_type_of(Account).handlers["put"]
    call = EntityCall(PersistenceId("account", "a"), put, (1,), "c", None, 1.0, future, {}, OUTSIDE, 1)
    call.tenure, call.hand_back = tenure, EntityCall.withdraw
    assert call.has_outlived(shard.tenures_since) is outlived

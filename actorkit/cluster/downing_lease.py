"""The downing lease (a shell): a claim in the journal store, for which the sides of a partition compete.

The store is what both sides have in common, and whoever cannot reach it can own no shard either. A request that was not
answered in time is sent again, and may have been carried out: the claim is then this node's already, which is as good.
"""

from __future__ import annotations

import asyncio

import structlog

from actorkit.cluster.partition import lease_duration_s
from actorkit.cluster.settings import DowningSettings
from actorkit.errors import AppendUncertain, JournalUnavailable
from actorkit.ids import NodeId
from actorkit.journal.protocols import LeaseStore

__all__ = ["JournalDowningLease"]

_log = structlog.get_logger("actorkit.cluster")
_TRIES = 4
"""How often the store is asked, within the time limit for all of it, if it does not answer."""
_RETRY_S = 0.1
"""After the store has said that it cannot answer."""


class JournalDowningLease:
    """Implements ``DowningLease`` for one node."""

    def __init__(self, store: LeaseStore, *, cluster: str, node: NodeId, settings: DowningSettings) -> None:
        self._store = store
        self._name = f"actorkit.downing/{cluster}"
        self._owner = str(node)
        self._duration_s = lease_duration_s(settings)
        self._try_s = settings.lease_timeout_s / _TRIES

    async def acquire(self) -> bool:
        """Asks until the store has answered: whoever waits has a time limit. Raises ``JournalFailed``."""
        while True:
            try:
                async with asyncio.timeout(self._try_s):
                    holder = await self._store.claim(self._name, owner=self._owner, duration_s=self._duration_s)
            except (TimeoutError, JournalUnavailable, AppendUncertain) as error:
                _log.warning("cluster.downing_lease_not_answered", why=str(error) or "the store does not answer")
                await asyncio.sleep(_RETRY_S)
            else:
                _log.warning("cluster.downing_lease", node=self._owner, holder=holder)
                return holder == self._owner

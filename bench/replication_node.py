"""A node of ``bench.replication``: changes pools that it owns at a given rate, and notes what it commits and sees."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from typing import Any

import msgspec

import actorkit
from actorkit import ActorSystem, CallError
from actorkit.config import ClusterNode
from actorkit.ids import shard_of
from bench.processes import Lags, do_as_told, log_errors_only, percentiles
from bench.read_models import rss_bytes
from bench.shown import Shown, pools_of

TICK_S = 0.002
IN_FLIGHT_MAX = 2_000
AT_ONCE = 500
DEADLINE_S = 10.0
FILL_DEADLINE_S = 120.0
SEEN_AT_ONCE = 10_000
SHOWN_MAX_S = 120.0
LOOK_S = 0.02


class Node:
    """What it can be told."""

    def __init__(self, system: ActorSystem) -> None:
        self._system = system
        self._mine: list[str] = []
        self._in_flight = 0
        self._failed = 0
        self._committed: list[tuple[str, int, float]] = []
        self._seen: list[tuple[str, int, float]] = []
        self._lags = Lags()

    async def own(self, pools: int) -> list[int]:
        """Returns when it serves its share of the shards: which of the pools are its own."""
        system = self._system
        await system.own_all_shards()
        me = str(system.node)
        mine = {status.shard for status in await system.shards() if status.owner == me}
        self._mine = [id for id in pools_of(pools) if shard_of(f"{Shown.__name__}/{id}", system.store.shards) in mine]
        return sorted(mine)

    async def fill(self) -> int:
        """Each of its pools is changed once."""
        for begin in range(0, len(self._mine), AT_ONCE):
            ids = self._mine[begin : begin + AT_ONCE]
            await asyncio.gather(
                *(self._system.get(Shown, id).take.options(deadline_s=FILL_DEADLINE_S)(1) for id in ids)
            )
        return len(self._mine)

    async def shows(self, pools: int) -> float:
        """Returns when its view has all pools: when that was, and no earlier than it began to look."""
        view = self._system.view(Shown.availability)
        async with asyncio.timeout(SHOWN_MAX_S):
            while len(view) < pools:
                await asyncio.sleep(LOOK_S)
        return time.monotonic()

    async def writes_all(self, shards: int) -> float:
        """Returns when it writes the documents of so many shards: when that was."""
        replicator = self._system.read_model.replicator
        assert replicator is not None
        catalog = replicator.catalog
        async with asyncio.timeout(SHOWN_MAX_S):
            while sum(catalog.written_here(shard) is not None for shard in range(catalog.shards)) < shards:
                await asyncio.sleep(LOOK_S)
        return time.monotonic()

    async def lags(self, seconds: float) -> dict[str, dict[str, float]]:
        """How late its loop was, for so long, and how long it was busy between two looks."""
        self._lags = Lags()
        try:
            async with asyncio.timeout(seconds):
                await self._lags.watch()
        except TimeoutError:
            pass
        return {"late_s": percentiles(self._lags.late_s), "busy_s": percentiles(self._lags.busy_s)}

    async def memory(self) -> int:
        """Of its process."""
        return rss_bytes()

    async def counted(self) -> dict[str, int]:
        """What its read model has done."""
        return msgspec.structs.asdict(self._system.read_model.counters)

    async def change(self, rate: float, seconds: float, note: bool) -> dict[str, Any]:
        """So many commands a second; with ``note`` every commit and everything that is seen of others is kept."""
        self._committed, self._seen, self._failed = [], [], 0
        self._lags.late_s = []
        watching = [asyncio.create_task(self._watch())] if note else []
        watching.append(asyncio.create_task(self._lags.watch()))
        gc.collect()
        counters = self._system.read_model.counters
        sent, sent_bytes = counters.updates_sent, counters.update_bytes_sent
        began_s, cpu_s, wanted, made = time.monotonic(), time.process_time(), 0.0, 0
        tasks: set[asyncio.Task[None]] = set()
        while (spent_s := time.monotonic() - began_s) < seconds:
            wanted = rate * spent_s
            while made < wanted and self._in_flight < IN_FLIGHT_MAX:
                task = asyncio.create_task(self._one(self._mine[made % len(self._mine)], note))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                made += 1
            await asyncio.sleep(TICK_S)
        await asyncio.gather(*tasks)
        took_s, cpu_s = time.monotonic() - began_s, time.process_time() - cpu_s
        await asyncio.sleep(1.0 if note else 0.0)
        for task in watching:
            task.cancel()
        return {
            "wanted": wanted,
            "made": made,
            "failed": self._failed,
            "took_s": took_s,
            "cpu_s": cpu_s,
            "updates": counters.updates_sent - sent,
            "bytes": counters.update_bytes_sent - sent_bytes,
            "gaps": counters.gaps,
            "refused": counters.updates_refused,
            "lag_s": percentiles(self._lags.late_s),
        }

    async def _one(self, id: str, note: bool) -> None:
        self._in_flight += 1
        try:
            version = await self._system.get(Shown, id).take.options(deadline_s=DEADLINE_S)(1)
            if note:
                self._committed.append((id, version, time.monotonic()))
        except CallError:
            self._failed += 1
        finally:
            self._in_flight -= 1

    async def _watch(self) -> None:
        view, mine = self._system.view(Shown.availability), set(self._mine)
        changes = view.changes()
        while batch := await changes.batch(SEEN_AT_ONCE):
            now_s = time.monotonic()
            for change in batch:
                if change.entry is not None and change.id not in mine:
                    self._seen.append((change.id, change.entry.version, now_s))

    async def noted(self) -> dict[str, Any]:
        """What was kept."""
        return {"committed": self._committed, "seen": self._seen}

    async def replicate(self, on: bool) -> bool:
        """Switches replication on or off: without it nothing is written into documents either."""
        replicator = self._system.read_model.replicator
        assert replicator is not None
        if on:
            vars(replicator).pop("published", None)
            replicator.start()
            assert self._system.clustering is not None
            replicator.peers_are(peer.address for peer in self._system.clustering.remoting.peers)
        else:
            replicator.peers_are([])
            await replicator.stop()
            replicator.published = lambda shard, key: None  # type: ignore[method-assign]
        return True


async def serve(name: str, journal: str, port: str, seeds: str) -> None:
    """Until its input ends."""
    cluster = ClusterNode(remoting=f"127.0.0.1:{port}", seeds=tuple(seeds.split(",")))
    async with ActorSystem(journal, name=name, cluster=cluster, entities=[Shown]) as system:
        await do_as_told(Node(system))


if __name__ == "__main__":
    log_errors_only()
    actorkit.run(serve(*sys.argv[1:]))

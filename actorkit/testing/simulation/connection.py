"""Connection: one process's way to the simulated store, and all that it sees of it. Implements ``Store``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from actorkit.errors import JournalFailed, JournalUnavailable
from actorkit.journal.protocols import (
    Acquired,
    Append,
    AppendResult,
    Capabilities,
    EventPage,
    Held,
    Recorded,
    ShardStatus,
    StoredSnapshot,
)
from actorkit.testing.simulation.process import Process
from actorkit.testing.simulation.store import Request, SimulatedStore

__all__ = ["Connection"]


class Connection:
    """Every call is a request that travels; what may happen to one, ``SimulatedStore`` decides."""

    def __init__(self, store: SimulatedStore, *, node: str = "", process: Process | None = None) -> None:
        """``process`` is where answers arrive: that which is running now unless given."""
        self.node = node
        self.process = process or store.loop.current
        self.failed: JournalFailed | None = None
        """Set once the store has failed in a way after which nothing it says counts."""
        self.generation = 0
        self.identity = ""
        self.shards = 0
        self._store = store
        self._open = False

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            durable=True,
            multi_process=True,
            gapless_positions=True,
            multi_stream_atomic=True,
            payload_max_bytes=self._store.settings.payload_max_bytes,
        )

    async def _ask(self, method: str, *args: Any, shifts: bool = False, **options: Any) -> Any:
        if self.failed is not None:
            raise self.failed
        if not self._open:
            raise JournalUnavailable("the journal is not open")
        loop = self._store.loop
        future = loop.create_future()
        self._store.send(Request(self, method, args, options, future, loop.now_s, shifts=shifts))
        return await future

    async def open(self, shards: int | None) -> None:
        self._open = True
        try:
            # A read first: it finds out whether the store can be reached.
            await self._ask("load_cursor", "") if self._store.disk.created else None
            self.shards = self._store.create(shards)
        except BaseException:
            self._open = False
            raise
        self.generation = self._store.disk.generation

    async def close(self) -> None:
        self._open = False

    async def append(self, batch: Sequence[Append]) -> list[AppendResult]:
        results: list[AppendResult] = await self._ask("append", list(batch), shifts=True)
        return results

    async def read_stream(self, stream: str, *, after: int, limit: int) -> list[Recorded]:
        page: list[Recorded] = await self._ask("read_stream", stream, after=after, limit=limit)
        return page

    async def read_events(self, stream: str, *, after: int, limit: int) -> EventPage:
        page: EventPage = await self._ask("read_events", stream, after=after, limit=limit)
        return page

    async def read_log(self, shard: int, *, after: int, limit: int) -> list[Recorded]:
        page: list[Recorded] = await self._ask("read_log", shard, after=after, limit=limit)
        return page

    async def find_key(self, stream: str, key: str, *, since_us: int) -> Recorded | None:
        found: Recorded | None = await self._ask("find_key", stream, key, since_us=since_us)
        return found

    async def recent_keys(self, stream: str, *, since_us: int, limit: int) -> list[Recorded]:
        newest: list[Recorded] = await self._ask("recent_keys", stream, since_us=since_us, limit=limit)
        return newest

    async def count_keys(self, stream: str, *, since_us: int) -> int:
        count: int = await self._ask("count_keys", stream, since_us=since_us)
        return count

    async def streams(self, type: str, *, after: str, limit: int) -> list[str]:
        names: list[str] = await self._ask("streams", type, after=after, limit=limit)
        return names

    async def save_snapshot(self, snapshot: StoredSnapshot, *, keep: int) -> None:
        await self._ask("save_snapshot", snapshot, keep=keep, shifts=True)

    async def load_snapshots(
        self, stream: str, *, max_sequence: int | None = None, max_time_us: int | None = None, limit: int = 3
    ) -> list[StoredSnapshot]:
        found: list[StoredSnapshot] = await self._ask(
            "load_snapshots", stream, max_sequence=max_sequence, max_time_us=max_time_us, limit=limit
        )
        return found

    async def delete_snapshots(self, stream: str) -> None:
        await self._ask("delete_snapshots", stream, shifts=True)

    async def acquire(self, shards: Sequence[int], *, owner: str, duration_s: float) -> list[Acquired | Held]:
        answers: list[Acquired | Held] = await self._ask(
            "acquire", list(shards), owner=owner, duration_s=duration_s, shifts=True
        )
        return answers

    async def renew(self, epochs: Mapping[int, int], *, owner: str, duration_s: float) -> set[int]:
        renewed: set[int] = await self._ask("renew", dict(epochs), owner=owner, duration_s=duration_s, shifts=True)
        return renewed

    async def release(self, epochs: Mapping[int, int], *, owner: str) -> None:
        await self._ask("release", dict(epochs), owner=owner, shifts=True)

    async def claim(self, name: str, *, owner: str, duration_s: float) -> str:
        holder: str = await self._ask("claim", name, owner=owner, duration_s=duration_s, shifts=True)
        return holder

    async def status(self, shards: Sequence[int] | None = None) -> list[ShardStatus]:
        statuses: list[ShardStatus] = await self._ask("status", None if shards is None else list(shards))
        return statuses

    async def load_cursor(self, name: str) -> dict[int, int]:
        positions: dict[int, int] = await self._ask("load_cursor", name)
        return positions

    async def save_cursor(self, name: str, positions: Mapping[int, int]) -> None:
        await self._ask("save_cursor", name, dict(positions), shifts=True)

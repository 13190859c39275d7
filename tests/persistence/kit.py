"""What the tests of entities share: virtual time, a journal that does as it is told, a few actors, nodes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from actorkit import ActorSystem, SystemSettings
from actorkit.errors import AppendUncertain, JournalFailed, JournalUnavailable
from actorkit.journal.memory import MemoryJournal
from actorkit.journal.protocols import Append, AppendResult, EventPage, StoredSnapshot
from actorkit.journal.settings import WriterSettings
from actorkit.persistence.settings import PersistenceSettings
from actorkit.sharding.settings import ShardingSettings
from tests.actor.conftest import VirtualLoop

__all__ = [
    "BoundedLoop",
    "LoopClock",
    "Nodes",
    "ScriptedJournal",
    "eventually",
    "late",
    "lost_for_lack_of_space",
    "lost_in_doubt",
    "never_answered",
    "settings",
    "stored_in_doubt",
    "stored_without_answer",
    "turns",
]

_LONG_AFTER_S = 1.0
"""The time limit of appends, ``append_timeout_s``, is half a second in these tests."""


class BoundedLoop(VirtualLoop):
    """Virtual time that fails a test which would wait for ever, although leases are renewed for ever."""

    def __init__(self) -> None:
        super().__init__(time_max_s=6 * 3600)


class LoopClock:
    """The clocks of one process, tied to its loop's time; either may be moved as a pause or a jump would move it."""

    def __init__(self) -> None:
        self.wall_offset_us = 1_700_000_000_000_000
        self.lease_offset_s = 1_000.0

    def wall_us(self) -> int:
        return self.wall_offset_us + int(asyncio.get_running_loop().time() * 1e6)

    def lease_s(self) -> float:
        return self.lease_offset_s + asyncio.get_running_loop().time()


async def turns(count: int = 50) -> None:
    """Lets everything that is ready run; on virtual time, without the clock advancing."""
    for _ in range(count):
        await asyncio.sleep(0)


async def eventually(condition: Callable[[], object], *, within_turns: int = 20_000) -> None:
    """Returns once the condition holds. Bounded; needs no time where nothing but the loop is waited for."""
    for turn in range(within_turns):
        if condition():
            return
        # Every now and then real threads, or virtual timers, get their chance.
        await asyncio.sleep(0 if turn % 50 else 0.01)
    raise AssertionError("the condition never came to hold")


Step = Callable[["ScriptedJournal", Sequence[Append]], Awaitable[list[AppendResult]]]


async def lost_in_doubt(journal: ScriptedJournal, batch: Sequence[Append]) -> list[AppendResult]:
    """EIO, and it was not stored."""
    raise AppendUncertain("input/output error")


async def stored_in_doubt(journal: ScriptedJournal, batch: Sequence[Append]) -> list[AppendResult]:
    """EIO, and it was stored."""
    await journal.inner.append(batch)
    raise AppendUncertain("input/output error")


async def lost_for_lack_of_space(journal: ScriptedJournal, batch: Sequence[Append]) -> list[AppendResult]:
    """ENOSPC: surely not stored."""
    raise JournalUnavailable("no space left on device")


async def sync_failed(journal: ScriptedJournal, batch: Sequence[Append]) -> list[AppendResult]:
    """The store knows that it may not be relied on, and says nothing any more."""
    journal.reads_fail = journal.leases_fail = JournalFailed("fsync: input/output error")
    raise journal.reads_fail


async def stored_without_answer(journal: ScriptedJournal, batch: Sequence[Append]) -> list[AppendResult]:
    """It is committed, and the answer is lost."""
    await journal.inner.append(batch)
    await asyncio.sleep(_LONG_AFTER_S)
    raise AppendUncertain("nobody listens any more")


async def never_answered(journal: ScriptedJournal, batch: Sequence[Append]) -> list[AppendResult]:
    """It is not committed, and no answer comes."""
    await asyncio.sleep(_LONG_AFTER_S)
    raise AppendUncertain("nobody listens any more")


def late(arrives: asyncio.Event) -> Step:
    """It gets no answer in time, and reaches the store later."""

    async def step(journal: ScriptedJournal, batch: Sequence[Append]) -> list[AppendResult]:
        await arrives.wait()
        await journal.arrive_late(batch)
        raise AppendUncertain("nobody listens any more")

    return step


class ScriptedJournal:
    """One process's connection to a store. Appends may be held, and fail as the script says; reads, too."""

    def __init__(self, inner: Any = None, *, clock: LoopClock | None = None) -> None:
        self.inner: Any = MemoryJournal(clock=clock or LoopClock()) if inner is None else inner
        self.open_gate = asyncio.Event()
        self.open_gate.set()
        self.script: deque[Step | None] = deque()
        """What happens to the next appends, in order; ``None``: nothing special."""
        self.appends: list[list[Append]] = []
        """All batches that were sent."""
        self.reads_fail: Exception | None = None
        self.leases_fail: Exception | None = None
        self.snapshots_fail: Exception | None = None
        self.read_keys_gate: asyncio.Event | None = None
        self.reads_gate: asyncio.Event | None = None
        self.late_results: list[list[AppendResult]] = []
        self.is_open = False

    def hold(self) -> None:
        """Appends wait from now on."""
        self.open_gate.clear()

    def let_go(self) -> None:
        self.open_gate.set()

    @property
    def held(self) -> int:
        """How many appends were sent, all told: with ``hold``, how many wait."""
        return sum(map(len, self.appends))

    async def arrive_late(self, batch: Sequence[Append]) -> None:
        self.late_results.append(await self.inner.append(batch))

    async def open(self, shards: int | None) -> None:
        await self.inner.open(shards)
        self.is_open = True

    async def close(self) -> None:
        """The store itself stays open: others use it."""
        self.is_open = False

    async def append(self, batch: Sequence[Append]) -> list[AppendResult]:
        batch = list(batch)
        self.appends.append(batch)
        await self.open_gate.wait()
        step = self.script.popleft() if self.script else None
        if step is not None:
            return await step(self, batch)
        results: list[AppendResult] = await self.inner.append(batch)
        return results

    async def _reading(self) -> None:
        if self.reads_gate is not None:
            await self.reads_gate.wait()
        if self.reads_fail is not None:
            raise self.reads_fail

    async def read_stream(self, stream: str, **how: Any) -> Any:
        await self._reading()
        return await self.inner.read_stream(stream, **how)

    async def read_events(self, stream: str, **how: Any) -> Any:
        page = await self.read_stream(stream, **how)
        events = [(event.sequence, event.type, event.version, event.payload, event.time_us) for event in page]
        return EventPage.of(events, more=len(page) >= how["limit"])

    async def find_key(self, stream: str, key: str, **how: Any) -> Any:
        await self._reading()
        return await self.inner.find_key(stream, key, **how)

    async def recent_keys(self, stream: str, **how: Any) -> Any:
        await self._reading()
        return await self.inner.recent_keys(stream, **how)

    async def load_snapshots(self, stream: str, **how: Any) -> Any:
        await self._reading()
        return await self.inner.load_snapshots(stream, **how)

    async def save_snapshot(self, snapshot: StoredSnapshot, *, keep: int) -> None:
        if self.snapshots_fail is not None:
            raise self.snapshots_fail
        await self.inner.save_snapshot(snapshot, keep=keep)

    async def acquire(self, *args: Any, **how: Any) -> Any:
        if self.leases_fail is not None:
            raise self.leases_fail
        return await self.inner.acquire(*args, **how)

    async def renew(self, *args: Any, **how: Any) -> Any:
        if self.leases_fail is not None:
            raise self.leases_fail
        return await self.inner.renew(*args, **how)

    async def status(self, *args: Any, **how: Any) -> Any:
        if self.leases_fail is not None:
            raise self.leases_fail
        return await self.inner.status(*args, **how)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def settings(**changes: Any) -> SystemSettings:
    """The defaults, with changes given by name to whichever part has a setting of that name."""
    parts: dict[str, Any] = {
        "persistence": PersistenceSettings,
        "sharding": ShardingSettings,
        "writer": WriterSettings,
    }
    changes = {"append_timeout_s": 0.5, "drain_timeout_s": 1.0, **changes}
    chosen: dict[str, Any] = {}
    for part, cls in parts.items():
        mine = {name: changes.pop(name) for name in cls.__struct_fields__ if name in changes}
        chosen[part] = cls(**mine)
    assert not changes, f"no such settings: {changes}"
    return SystemSettings(**chosen)


class Nodes:
    """Starts nodes, and stops at the end of the test what is still running."""

    def __init__(self) -> None:
        self.clock = LoopClock()
        self.fatal: list[JournalFailed] = []
        self._running: list[ActorSystem] = []

    def journal(self, inner: Any = None) -> ScriptedJournal:
        return ScriptedJournal(inner, clock=self.clock)

    async def start(
        self, journal: Any = None, *, clock: LoopClock | None = None, shards: int | None = None, **changes: Any
    ) -> ActorSystem:
        system = ActorSystem(
            self.journal() if journal is None else journal,
            name=f"node{len(self._running)}",
            shards=shards,
            clock=clock or self.clock,
            settings=settings(**changes),
            on_fatal=self.fatal.append,
        )
        await system.start()
        self._running.append(system)
        return system

    @asynccontextmanager
    async def running(self, journal: Any = None, **how: Any) -> AsyncIterator[ActorSystem]:
        system = await self.start(journal, **how)
        try:
            yield system
        finally:
            await system.stop()

    async def stop(self) -> None:
        for system in self._running:
            store: Any = system.store
            if isinstance(store, ScriptedJournal):
                store.let_go()
                for gate in (store.read_keys_gate, store.reads_gate):
                    if gate is not None:
                        gate.set()
            await system.stop()

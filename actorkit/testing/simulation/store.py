"""SimulatedStore: a journal store on a machine of its own, with all that goes wrong there and on the way.

A request travels, waits for its turn if it writes, is written, synced and answered; each step takes time drawn from
the seed, and at each step it may come to grief. What is acknowledged has been synced, unless ``StoreSettings.sync``
says otherwise: that, ``fence`` and ``expect`` are there to check that the checkers notice.

Every node has a ``Connection`` of its own, which is what it takes for its ``Store``. A request that has left goes on
by itself: cancelling the call that sent it, or killing the process, does not recall it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from actorkit.errors import AppendUncertain, JournalError, JournalFailed, JournalUnavailable, NamespaceMismatch
from actorkit.journal.memory import SHARDS_DEFAULT
from actorkit.journal.protocols import Append, AppendResult, Refused
from actorkit.testing.simulation.disk import Disk, Write
from actorkit.testing.simulation.loop import SimulatedLoop

if TYPE_CHECKING:
    import asyncio
    from random import Random

    from actorkit.testing.simulation.connection import Connection

__all__ = ["Request", "SimulatedStore", "StoreFaults", "StoreSettings"]

Span = tuple[float, float]
"""A delay in seconds: at least, at most."""


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How fast the store is, and which of its duties it neglects."""

    travel_s: Span = (0.000_1, 0.001)
    """A request's way to the store, and an answer's way back."""
    read_s: Span = (0.000_1, 0.002)
    write_s: Span = (0.000_2, 0.002)
    sync_s: Span = (0.000_5, 0.008)
    timeout_s: float = 5.0
    """After this a call without an answer fails at the caller, uncertain where it would have changed something."""
    append_timeout_s: float = 30.0
    """The same for appends, for which the group-commit writer has a time limit of its own."""
    payload_max_bytes: int = 1 << 20
    sync: bool = True
    """Off: a write is acknowledged at once, and synced a while later."""
    sync_later_s: float = 1.0
    fence: bool = True
    """Off: appends under an old epoch are stored."""
    expect: bool = True
    """Off: appends that expect another sequence are stored."""


class StoreFaults:
    """What is wrong at the moment. Probabilities are per request, from 0 to 1."""

    def __init__(self) -> None:
        self.slowness = 1.0
        """Reads, writes and syncs take this many times as long."""
        self.full = False
        """There is no space: writes fail, and surely nothing is stored."""
        self.write_error = 0.0
        """EIO while writing: the caller cannot know whether it is stored, and whether it is shows after a crash."""
        self.sync_error = 0.0
        """EIO while syncing: the caller must end, and the store starts again."""
        self.read_error = 0.0
        self.fail_write: set[int] = set()
        """Numbers of writes (from 1, over the whole run) that fail so."""
        self.fail_sync: set[int] = set()
        self.lost_answer = 0.0
        """It is done, but the caller learns only that the connection broke, or nothing."""
        self.late_append = 0.0
        """The append reaches the store seconds later, when its writer has given it up and perhaps read without it."""
        self.late_s: Span = (5.0, 25.0)
        self.refused_payload = 0.0
        """One append of the batch is refused."""
        self.crash_in_snapshot = 0.0
        """The store crashes while it writes a snapshot."""
        self.unreachable: dict[str, bool] = {}
        """Nodes that do not reach the store; true: they are told at once, false: silence."""


class Request:
    """One call on its way."""

    __slots__ = ("args", "connection", "future", "method", "options", "sent_s", "shifts")

    def __init__(
        self,
        connection: Connection,
        method: str,
        args: tuple[Any, ...],
        options: dict[str, Any],
        future: asyncio.Future[Any],
        sent_s: float,
        *,
        shifts: bool,
    ) -> None:
        self.connection = connection
        self.method = method
        self.args = args
        self.options = options
        self.future = future
        self.sent_s = sent_s
        self.shifts = shifts
        """Whether it changes what is stored."""

    def broken(self, why: str) -> JournalError:
        """What a caller may conclude when no answer comes."""
        if self.shifts:
            return AppendUncertain(f"{why}: whether {self.method} was done is unknown")
        return JournalUnavailable(f"{why}: nothing was read")


class SimulatedStore:
    """The machine. All nodes of a world share it."""

    def __init__(
        self,
        loop: SimulatedLoop,
        random: Random,
        *,
        settings: StoreSettings = StoreSettings(),  # noqa: B008 - frozen
        lease_s: Callable[[], float] | None = None,
        note: Callable[[str], None] = lambda line: None,
        disk: Disk | None = None,
        did: Counter[str] | None = None,
    ) -> None:
        """``lease_s`` is the store's own clock for leases; ``note`` gets a line for everything that is decided, and
        ``did`` counts what each kind of fault has done to requests."""
        self.loop = loop
        self.did = Counter[str]() if did is None else did
        self.settings = settings
        self.faults = StoreFaults()
        self.disk = disk or Disk(
            fence=settings.fence, expect=settings.expect, payload_max_bytes=settings.payload_max_bytes
        )
        self.writes = 0
        self.syncs = 0
        self.note = note
        self.on_crash: Callable[[], None] = lambda: None
        """Called when it has crashed by itself; whoever sets this has to ``start`` it again."""
        self._random = random
        self._process = loop.new_process("store")
        self._lease_s = lease_s or self._process.clock.lease_s
        self._queue: deque[Request] = deque()
        self._serving: Request | None = None
        self._written = False
        """What is being served has reached the disk, and may be found there after a crash."""
        self._limbo: Write | None = None
        """A write that failed: absent until a crash, which may bring it back, or until a later one has synced."""
        self._open_requests: dict[Request, None] = {}
        """Whose answer has not left."""
        self._lost: dict[Request, None] = {}
        """Whose caller waits for what will not come."""
        self._sync_scheduled = False

    @property
    def up(self) -> bool:
        return self._process.alive

    # ------------------------------------------------------------------------------------------------------- requests

    def send(self, request: Request) -> None:
        """For connections: the request leaves."""
        faults, random = self.faults, self._random
        self._open_requests[request] = None
        delay_s = self._drawn(self.settings.travel_s)
        if request.method == "append" and faults.late_append and random.random() < faults.late_append:
            late_s = self._drawn(faults.late_s)
            self.did["late_appends"] += 1
            self.note(f"store: an append of {request.connection.node} is late by {late_s:.3f} s")
            delay_s += late_s
            if late_s > self.settings.append_timeout_s:
                self._lose(request)
        told = faults.unreachable.get(request.connection.node)
        self.did["store_unreachable"] += told is not None
        if told is True or not self.up:
            # Whoever cannot connect has surely done nothing.
            self._answer(request, JournalUnavailable("the store cannot be reached: connection refused"))
        elif told is False:
            self._lose(request)
        else:
            self.loop.call_in(self._process, delay_s, self._arrive, request)

    def _lose(self, request: Request) -> None:
        """Nobody will answer it: its caller finds out by itself."""
        self._open_requests.pop(request, None)
        self._lost[request] = None
        limit_s = self.settings.append_timeout_s if request.method == "append" else self.settings.timeout_s
        left_s = max(0.0, request.sent_s + limit_s - self.loop.now_s)
        self.loop.call_in(
            request.connection.process, left_s, self._settle, request, request.broken("the store does not answer")
        )

    def _arrive(self, request: Request) -> None:
        connection = request.connection
        if connection.generation not in (0, self.disk.generation):
            self._answer(request, JournalFailed("the store has gone back to an older copy: this process must end"))
        elif request.shifts:
            self._queue.append(request)
            if self._serving is None:
                self._serve()
        else:
            self.loop.call_in(self._process, self._slow(self.settings.read_s), self._read, request)

    def _read(self, request: Request) -> None:
        if self.faults.read_error and self._random.random() < self.faults.read_error:
            self.did["read_errors"] += 1
            self._answer(request, JournalUnavailable("input/output error while reading"))
        else:
            self._execute(request, lambda: self.disk.read(*self._parts(request)))

    def _parts(self, request: Request) -> tuple[str, tuple[Any, ...], dict[str, Any], float]:
        return request.method, request.args, request.options, self._lease_s()

    def _execute(self, request: Request, do: Callable[[], Any]) -> None:
        try:
            result = do()
        except JournalError as error:
            self._answer(request, error)
        else:
            self._answer(request, result)

    # --------------------------------------------------------------------------------------------------------- writes

    def _serve(self) -> None:
        if not self._queue:
            return
        self._serving, self._written = self._queue.popleft(), False
        self.loop.call_in(self._process, self._slow(self.settings.write_s), self._wrote)

    def _wrote(self) -> None:
        request = self._serving
        assert request is not None
        faults, random = self.faults, self._random
        self.writes += 1
        if faults.full and request.method not in ("renew", "release"):
            # Renewing rewrites what is there; everything else takes space.
            self.did["disk_full"] += 1
            self._served(JournalUnavailable("no space left on the device: nothing was stored"))
            return
        if self.writes in faults.fail_write or (faults.write_error and random.random() < faults.write_error):
            self.note(f"store: write {self.writes} fails ({request.method} of {request.connection.node})")
            self.did["write_errors"] += 1
            self._limbo = Write(*self._parts(request))
            self._served(AppendUncertain("input/output error: whether the write is stored is unknown"))
            return
        self._written = True
        snapshot = request.method == "save_snapshot"
        if snapshot and faults.crash_in_snapshot and random.random() < faults.crash_in_snapshot:
            self.did["crash_in_snapshot"] += 1
            self.note("store: crashes while it writes a snapshot")
            self._crash_by_itself()
            return
        if self.settings.sync:
            self.loop.call_in(self._process, self._slow(self.settings.sync_s), self._synced)
            return
        self._commit(request)
        if not self._sync_scheduled:
            self._sync_scheduled = True
            self.loop.call_in(self._process, self.settings.sync_later_s, self._sync_late)

    def _sync_late(self) -> None:
        self._sync_scheduled = False
        self.disk.sync()

    def _synced(self) -> None:
        request = self._serving
        assert request is not None
        self.syncs += 1
        if self.syncs in self.faults.fail_sync or (
            self.faults.sync_error and self._random.random() < self.faults.sync_error
        ):
            self.note(f"store: sync {self.syncs} fails ({request.method} of {request.connection.node})")
            self.did["sync_error"] += 1
            self._answer(request, JournalFailed("input/output error in fsync: this process must end"))
            self._crash_by_itself()
            return
        self._commit(request)

    def _commit(self, request: Request) -> None:
        """It is visible from now on."""
        method, args, options, at_s = self._parts(request)
        refused = self._refused_one(args[0]) if method == "append" and self.faults.refused_payload else None
        if refused is not None:
            self.did["refused_payloads"] += 1
            args = ([append for append in args[0] if append is not refused],)
        try:
            result = self.disk.write(Write(method, args, options, at_s))
        except JournalError as error:
            self._served(error)
            return
        self._limbo = None
        if self.settings.sync:
            self.disk.sync()
        if method == "append":
            result = self._noted(request, args[0], result)
            if refused is not None:
                result.insert(request.args[0].index(refused), Refused("injected: the payload is not acceptable"))
        else:
            self.note(f"store: {method} of {request.connection.node}: {result!r}")
        if self.faults.lost_answer and self._random.random() < self.faults.lost_answer:
            self.did["lost_store_answers"] += 1
            self.note(f"store: the answer to {method} of {request.connection.node} is lost")
            if self._random.random() < 0.5:
                self._lose(request)
                self._next()
            else:
                self._served(request.broken("the connection to the store broke"))
            return
        self._served(result)

    def _refused_one(self, batch: list[Append]) -> Append | None:
        return self._random.choice(batch) if batch and self._random.random() < self.faults.refused_payload else None

    def _noted(self, request: Request, batch: list[Append], results: list[AppendResult]) -> list[AppendResult]:
        for append, result in zip(batch, results, strict=True):
            self.note(
                f"store: append of {request.connection.node}: {append.stream} {append.expected}+{len(append.events)} "
                f"epoch {append.epoch} key {append.key}: {result!r}"
            )
        return results

    def _served(self, result: Any) -> None:
        request = self._serving
        assert request is not None
        self._answer(request, result)
        self._next()

    def _next(self) -> None:
        self._serving = None
        self._serve()

    # -------------------------------------------------------------------------------------------------------- answers

    def _answer(self, request: Request, result: Any) -> None:
        if self.faults.unreachable.get(request.connection.node) is False:
            self._lose(request)
            return
        self._open_requests.pop(request, None)
        delay_s = self._drawn(self.settings.travel_s)
        self.loop.call_in(request.connection.process, delay_s, self._settle, request, result)

    def _settle(self, request: Request, result: Any) -> None:
        """In the caller's process: the answer has come, or is not waited for any longer."""
        self._lost.pop(request, None)
        if request.future.done():
            return
        if isinstance(result, JournalFailed):
            request.connection.failed = result
        if isinstance(result, BaseException):
            request.future.set_exception(result)
        else:
            request.future.set_result(result)

    def _drawn(self, span: Span) -> float:
        low, high = span
        return low + (high - low) * self._random.random()

    def _slow(self, span: Span) -> float:
        self.did["slow_disk"] += self.faults.slowness > 1
        return self._drawn(span) * self.faults.slowness

    # ---------------------------------------------------------------------------------------------- crashes and copies

    def crash(self) -> None:
        """The machine dies: a random part of what was not synced is lost, and every connection breaks."""
        if not self.up:
            return
        self.loop.crash(self._process)
        serving, self._serving = self._serving, None
        if serving is not None and self._written and self.settings.sync and self._random.random() < 0.5:
            # On disk entirely, as it happens, though nobody has been told.
            self.disk.write(Write(*self._parts(serving)))
        elif self._limbo is not None and self._random.random() < 0.5:
            self.disk.write(self._limbo)
        self._limbo = None
        lost = self.disk.unsynced
        self.disk.crash(self._random.randint(0, lost))
        self.note(f"store: crashes with {lost} writes not synced; {self.disk.length} are left")
        self._sync_scheduled = False
        self._queue.clear()
        for request in list(self._open_requests):
            self._answer(request, request.broken("the connection to the store broke"))

    def _crash_by_itself(self) -> None:
        self.crash()
        self.on_crash()

    def start(self) -> None:
        """It is up again, with what a crash has left."""
        if not self.up:
            self._process = self.loop.new_process("store")
            self.note("store: is up again")

    def heal(self) -> None:
        """Nothing is wrong any more: it is up, and whoever waits for what will not come is told that it will not."""
        self.faults = StoreFaults()
        self.start()
        for request in list(self._lost):
            self._answer(request, request.broken("the connection to the store broke"))

    def restore(self, length: int) -> None:
        """An older copy takes over, that of the first ``length`` writes. All connections of before are dead."""
        self.crash()
        self.disk.restore(length)
        self.note(f"store: goes back to write {self.disk.length}, generation {self.disk.generation}")
        self.start()

    def steal(self, shards: list[int], *, owner: str, duration_s: float) -> None:
        """Somebody takes the shards although their owner's lease has not run out: two now believe they own them.

        Whoever it is writes nothing, and keeps them until that lease would have run out: answers from memory rest on
        a lease, and a store that gave a shard to a third party before would break its own promise.
        """
        statuses = {each.shard: each for each in self.disk.read("status", (shards,), {}, self._lease_s())}
        for shard in shards:
            status, at_s = statuses[shard], self._lease_s()
            lasts_s = max(duration_s, status.remaining_s)
            self.disk.write(Write("release", ({shard: status.epoch},), {"owner": status.owner}, at_s))
            self.disk.write(Write("acquire", ([shard],), {"owner": owner, "duration_s": lasts_s}, at_s))
        self.disk.sync()
        self.did["stolen_shards"] += len(shards)
        self.note(f"store: {owner} takes {shards}")

    def create(self, shards: int | None) -> int:
        """For connections: opens or creates it, and says how many shards it has."""
        if not self.disk.created:
            wanted = SHARDS_DEFAULT if shards is None else shards
            self.disk.write(Write("open", (wanted,), {}, self._lease_s()))
            self.disk.sync()
        elif shards is not None and shards != self.disk.shards:
            raise NamespaceMismatch("shards", self.disk.shards, shards)
        return self.disk.shards

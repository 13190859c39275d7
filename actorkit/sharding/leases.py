"""Leases (a shell): acquires, renews, confirms and releases the leases of this process on its shards.

Each request to the store has a time limit; a request that is not answered in time is given up and sent again. The store
may carry it out all the same, later. That harms nobody: a lease counts from before the request that was *answered* was
sent, so a late renewal only makes others wait longer; and what a late acquisition has changed is the shard's epoch,
which nobody here assumes, and which the next acquisition raises again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

import structlog

from actorkit.clock import Clock
from actorkit.errors import JournalError, JournalFailed, JournalUnavailable
from actorkit.journal.protocols import Acquired, LeaseStore, ShardStatus
from actorkit.sharding.settings import ShardingSettings
from actorkit.sharding.shard import Shard

__all__ = ["Leases"]

_log = structlog.get_logger("actorkit.sharding")
_BACKOFF_FIRST_S = 0.05
_RETRY_MIN_S = 0.01
_SAY_AGAIN_S = 60.0
"""How often it is said that shards are waited for, while they are the same owners'."""
_CONFIRM_ATTEMPTS = 10


class _Confirmation:
    """Somebody waits to hear whether memory of a shard, seen under an epoch, still counts."""

    __slots__ = ("decided", "epoch", "shard")

    def __init__(self, shard: Shard, epoch: int, decided: Callable[[bool], None]) -> None:
        self.shard = shard
        self.epoch = epoch
        self.decided = decided

    @property
    def unbroken(self) -> bool:
        """What rests on the memory of one epoch is not confirmed by a later one, if others can have written between."""
        return self.epoch >= self.shard.unbroken_since


class Leases:
    """All leases of one process incarnation. ``owner`` names it, and no other one ever."""

    def __init__(
        self,
        store: LeaseStore,
        *,
        owner: str,
        clock: Clock,
        settings: ShardingSettings,
        acquired: Callable[[Shard, bool, int], None],
        lost: Callable[[Shard], None],
        fatal: Callable[[JournalFailed], None],
        held_elsewhere: Callable[[Shard, str], None] = lambda shard, owner: None,
        may_hold: Callable[[], bool] = lambda: True,
    ) -> None:
        """``acquired(shard, unbroken, head)`` and ``lost(shard)`` tell the region; ``unbroken`` as ``Lease.acquired``
        has it. ``held_elsewhere(shard, owner)`` says that a wanted shard has another owner. As long as ``may_hold()``
        is false, nothing is acquired or renewed: what is held runs out."""
        self._store = store
        self._owner = owner
        self._clock = clock
        self._settings = settings
        self._acquired = acquired
        self._lost = lost
        self._fatal = fatal
        self._held_elsewhere = held_elsewhere
        self._may_hold = may_hold
        self._held: dict[int, Shard] = {}
        self._wanted: dict[int, Shard] = {}
        self._wake = asyncio.Event()
        self._retry: asyncio.TimerHandle | None = None
        """When shards that others have are asked for again: one timer for all, set anew by each answer."""
        self._confirmations: dict[_Confirmation, None] = {}
        """In the order in which they were asked for; at most one for each entity in memory."""
        self._confirming: asyncio.Task[None] | None = None
        self._given_up: dict[int, int] = {}
        """The epochs of shards that were given up, of which the store has not been told or has not answered."""
        self._giving_up = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self.held_by: dict[int, str] = {}
        """Wanted shards that another owner has, and which."""
        self._said_owners: set[str] = set()
        self._say_again_s = 0.0

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._acquire_wanted(), name="actorkit.leases.acquire"),
            asyncio.create_task(self._renew_held(), name="actorkit.leases.renew"),
        ]
        for task in self._tasks:
            task.add_done_callback(self.ended)

    async def stop(self) -> None:
        """Ends renewing and gives all leases up, so that others need not wait for them to run out."""
        if self._retry is not None:
            self._retry.cancel()
        tasks = [*self._tasks, *([self._confirming] if self._confirming is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.release(list(self._held.values()))

    def ended(self, task: asyncio.Task[None]) -> None:
        """A task without which shards would have no owner any more has ended: it must not have crashed."""
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.critical("leases.crashed", task=task.get_name(), exc_info=error)
            self._fatal(JournalFailed(f"{task.get_name()} crashed: {error!r}"))

    def want(self, shard: Shard) -> None:
        self._held.pop(shard.shard, None)
        self._wanted[shard.shard] = shard
        self._wake.set()

    def wants(self, shard: Shard) -> bool:
        return shard.shard in self._wanted

    def unwant(self, shard: Shard) -> None:
        """It is not to be acquired any more. A request on its way that acquires it all the same is undone."""
        if self._wanted.pop(shard.shard, None) is not None:
            self.held_by.pop(shard.shard, None)
            shard.settled(owned=False)

    def ask_now(self) -> None:
        """Something has changed: what is wanted may be free now."""
        if self._wanted:
            self._wake.set()

    async def release(self, shards: Sequence[Shard]) -> None:
        """Gives shards up, so that others need not wait for their leases to run out: nothing of them is in progress.

        From here on nothing rests on memory of them. A store that does not answer is not waited for: then others do
        wait.
        """
        epochs: dict[int, int] = {}
        for shard in shards:
            if self._held.pop(shard.shard, None) is not None:
                epochs[shard.shard] = shard.epoch
            shard.lease.lost()
        await self._give_up(epochs)

    async def _give_up(self, epochs: dict[int, int]) -> None:
        """One request at a time: what is given up meanwhile gathers, and goes as one."""
        if not epochs:
            return
        self._given_up.update(epochs)
        try:
            async with _limit(self._settings.lease_acquire_timeout_s), self._giving_up:
                # Whoever comes to give something up in the same turn of the loop goes along.
                await asyncio.sleep(0)
                if not epochs.items() & self._given_up.items():
                    # They went with somebody else's; what has come since then waits for one of its own.
                    return
                together, self._given_up = self._given_up, {}
                try:
                    await self._store.release(together, owner=self._owner)
                except BaseException:
                    # Others wait for theirs among them. What the store has done all the same does no harm twice.
                    self._given_up = together | self._given_up
                    raise
        except JournalError as error:
            self._report(error, "leases.not_released")

    @property
    def wanted(self) -> int:
        """How many shards are wanted and not yet acquired."""
        return len(self._wanted)

    # ----------------------------------------------------------------------------------------------------- acquiring

    async def _acquire_wanted(self) -> None:
        delay_s = _BACKOFF_FIRST_S
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self._may_hold():
                await asyncio.sleep(self._settings.acquire_retry_s)
                self._wake.set()
                continue
            asked_at_s = self._clock.lease_s()
            numbers = sorted(self._wanted)
            if not numbers:
                continue
            try:
                async with _limit(self._settings.lease_acquire_timeout_s):
                    answers = await self._store.acquire(numbers, owner=self._owner, duration_s=self._settings.lease_s)
            except JournalError as error:
                self._report(error, "leases.not_acquired")
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, self._settings.lease_renew_s)
                self._wake.set()
                continue
            delay_s = _BACKOFF_FIRST_S
            retry_s: float | None = None
            unwanted: dict[int, int] = {}
            for answer in answers:
                shard = self._wanted.get(answer.shard)
                if shard is None:
                    if isinstance(answer, Acquired):
                        unwanted[answer.shard] = answer.epoch
                    continue
                if isinstance(answer, Acquired):
                    del self._wanted[answer.shard]
                    self.held_by.pop(answer.shard, None)
                    self._held[answer.shard] = shard
                    unbroken = shard.lease.acquired(answer.epoch, asked_at_s, self._settings.lease_s)
                    shard.settled(owned=True)
                    self._acquired(shard, unbroken, answer.head)
                    if shard.lease.active and not unbroken:
                        # Everything that has waited for it has just been delivered: others have their turn in between.
                        await asyncio.sleep(0)
                else:
                    self.held_by[answer.shard] = answer.owner
                    shard.settled(owned=False)
                    self._held_elsewhere(shard, answer.owner)
                    retry_s = min(answer.remaining_s, self._settings.acquire_retry_s, retry_s or float("inf"))
            self._confirm_by_lease()
            await self._give_up(unwanted)
            self._say_who_is_waited_for()
            if self._retry is not None:
                self._retry.cancel()
                self._retry = None
            if retry_s is not None:
                self._retry = asyncio.get_running_loop().call_later(max(retry_s, _RETRY_MIN_S), self._wake.set)

    def _say_who_is_waited_for(self) -> None:
        """One line when somebody comes to be waited for, and one now and then while that lasts."""
        owners = set(self.held_by.values())
        now_s = asyncio.get_running_loop().time()
        if not owners <= self._said_owners or (owners and now_s >= self._say_again_s):
            self._say_again_s = now_s + _SAY_AGAIN_S
            _log.info(
                "leases.waiting",
                owners=sorted(owners),
                shards=len(self.held_by),
                hint="another process has these shards; calls to them wait until it stops or its leases run out, see "
                "ActorSystem.region.waiting_for",
            )
        self._said_owners = owners

    # ------------------------------------------------------------------------------------------------------ renewing

    async def _renew_held(self) -> None:
        loop, settings = asyncio.get_running_loop(), self._settings
        next_s = loop.time() + settings.lease_renew_s
        while True:
            await asyncio.sleep(max(_RETRY_MIN_S, next_s - loop.time()))
            next_s = loop.time() + settings.lease_renew_s
            if not self._held or not self._may_hold():
                continue
            asked_at_s = self._clock.lease_s()
            epochs = {number: shard.epoch for number, shard in self._held.items()}
            try:
                async with _limit(settings.lease_renew_timeout_s):
                    renewed = await self._store.renew(epochs, owner=self._owner, duration_s=settings.lease_s)
            except JournalError as error:
                self._report(error, "leases.not_renewed")
                continue
            for number, epoch in epochs.items():
                shard = self._held.get(number)
                if shard is None or shard.epoch != epoch:
                    continue
                if number in renewed:
                    shard.lease.renewed(asked_at_s, settings.lease_s)
                else:
                    _log.warning("leases.lost", shard=number, epoch=epoch)
                    del self._held[number]
                    shard.lease.lost()
                    self._lost(shard)
            self._confirm_by_lease()

    # ---------------------------------------------------------------------------------------------------- confirming

    def confirm(self, shard: Shard, epoch: int, decided: Callable[[bool], None]) -> None:
        self._confirmations[_Confirmation(shard, epoch, decided)] = None
        if self._confirming is None:
            self._confirming = asyncio.get_running_loop().create_task(
                self._confirm_all(), name="actorkit.leases.confirm"
            )
            self._confirming.add_done_callback(self.ended)

    async def _confirm_all(self) -> None:
        """One read of the store decides for everybody who asked before it began."""
        failures = 0
        delay_s = _BACKOFF_FIRST_S
        try:
            while self._confirmations:
                asked = list(self._confirmations)
                statuses = await self._read_statuses(sorted({waiting.shard.shard for waiting in asked}))
                if statuses is None and (failures := failures + 1) < _CONFIRM_ATTEMPTS:
                    await asyncio.sleep(delay_s)
                    delay_s = min(2 * delay_s, self._settings.lease_renew_s)
                    continue
                failures, delay_s = 0, _BACKOFF_FIRST_S
                for waiting in asked:
                    status = None if statuses is None else statuses.get(waiting.shard.shard)
                    ours = status is not None and status.owner == self._owner and status.epoch >= waiting.epoch
                    self._decide(waiting, ours and waiting.shard.ready and waiting.unbroken)
        finally:
            self._confirming = None

    async def _read_statuses(self, numbers: list[int]) -> dict[int, ShardStatus] | None:
        """``None`` where the store cannot be reached, or does not answer."""
        try:
            async with _limit(self._settings.lease_s):
                return {status.shard: status for status in await self._store.status(numbers)}
        except JournalError as error:
            self._report(error, "leases.not_confirmed")
        return None

    def _confirm_by_lease(self) -> None:
        """A lease has just been acquired or renewed: that confirms as much as a read would."""
        for waiting in list(self._confirmations):
            if waiting.unbroken and waiting.shard.lease_is_valid():
                self._decide(waiting, still_counts=True)

    def _decide(self, waiting: _Confirmation, still_counts: bool) -> None:
        if waiting not in self._confirmations:
            return
        del self._confirmations[waiting]
        try:
            waiting.decided(still_counts)
        except Exception as error:  # noqa: BLE001 - a defect there must not strand the others
            _log.critical("leases.decision_crashed", shard=waiting.shard.shard, exc_info=error)

    def _report(self, error: JournalError, what: str) -> None:
        _log.warning(what, why=str(error))
        if isinstance(error, JournalFailed):
            self._fatal(error)


@asynccontextmanager
async def _limit(within_s: float) -> AsyncGenerator[None, None]:
    """A time limit for one request. Raises ``JournalUnavailable``, although it may yet be carried out: see above."""
    try:
        async with asyncio.timeout(within_s):
            yield
    except TimeoutError:
        raise JournalUnavailable(f"the store has not answered within {within_s:g} s") from None

"""Replicator (a shell): what this node publishes goes to all others, and what they publish comes here.

It drives ``AntiEntropy`` with time, messages and membership, and does what that says. What this node's entities publish
is known here as soon as it is committed; it waits for the next flush in a place of its key's own, so that however fast
an entity changes, only its newest value is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

import msgspec
import structlog

from actorkit.clock import Clock, Randomness
from actorkit.errors import JournalError, JournalFailed, WireError
from actorkit.journal.protocols import ShardStatus, Store
from actorkit.readmodel import background
from actorkit.readmodel.anti_entropy import AntiEntropy, AskStore, Changed, Effect, Refused, Send
from actorkit.readmodel.catalog import Catalog
from actorkit.readmodel.counters import ReadModelCounters
from actorkit.readmodel.documents import Document
from actorkit.readmodel.messages import Digest, Heard, Updates
from actorkit.readmodel.settings import ReadModelSettings

__all__ = ["Ownership", "Replicator"]

M = TypeVar("M", bound=msgspec.Struct)

_log = structlog.get_logger("actorkit.readmodel")
_CHECK_MIN_S = 0.05
_GATHERED_MAX = 1024
"""How many keys wait at most to be written while there is no other node: to write them takes some 10 ms."""
_WRITTEN_AT_ONCE = 256
_AGE_KEPT_S = 0.01
_SAY_AGAIN_S = 60.0


class _Sender(Protocol):
    @property
    def address(self) -> str: ...


class Messenger(Protocol):
    """What replication needs of remoting."""

    @property
    def address(self) -> str: ...

    def register(self, message_type: type[M], receive: Callable[[Any, M], None]) -> None: ...

    def send(self, address: str, message: msgspec.Struct) -> bool: ...


class Ownership(Protocol):
    """What replication needs to know of this node's shards."""

    def owned_since(self, shard: int) -> int:
        """The epoch under which it was taken over from others, if nobody else can write it at the moment; else 0."""
        ...

    def idle(self, shard: int) -> bool:
        """Whether no entity of it has anything in progress: all that it has committed is published."""
        ...


class Replicator:
    """One node's part in the replicated read model."""

    def __init__(
        self,
        messenger: Messenger,
        ownership: Ownership,
        *,
        store: Store,
        owner: str,
        clock: Clock,
        randomness: Randomness,
        settings: ReadModelSettings,
        counters: ReadModelCounters,
        views: int,
        encode: Callable[[str], bytes | None],
        changed: Callable[[int, Mapping[str, bytes]], None],
        forged: Callable[[int, int], None],
        fatal: Callable[[JournalFailed], None],
    ) -> None:
        """``views``: the digest of all that this node publishes. ``encode(key)`` is the value of a key as it is now,
        with its stamp. ``changed(shard, entries)`` takes what others have published; ``forged(shard, head)`` says that
        of a shard more was taken than its log has."""
        self._messenger = messenger
        self._ownership = ownership
        self._store = store
        self._owner = owner
        self._clock = clock
        self._settings = settings
        self._counters = counters
        self._views = views
        self._encode = encode
        self._changed = changed
        self._forged = forged
        self._fatal = fatal
        self._loop = asyncio.get_running_loop()
        self.catalog = Catalog(store.shards, owned_since=ownership.owned_since, views=views)
        self._core = AntiEntropy(
            self.catalog, generation=store.generation, settings=settings, rng=randomness, counters=counters
        )
        self._pending: dict[int, dict[str, None]] = {}
        """Keys of this node's shards that have new values, by shard."""
        self._pending_keys = 0
        self._flush_timer: asyncio.Handle | None = None
        self._flushed_s = float("-inf")
        self._to_check: set[int] = set()
        self._check = asyncio.Event()
        self._oldest = (float("-inf"), float("inf"))
        self._said_s: dict[str, float] = {}
        self._tasks: list[asyncio.Task[None]] = []
        messenger.register(Digest, self._take(self._take_digest))
        messenger.register(Updates, self._take(self._core.take_updates))
        messenger.register(Heard, self._take(self._core.take_heard))

    def start(self) -> None:
        for work, name in ((self._rounds(), "rounds"), (self._checks(), "check")):
            self._tasks.append(background.start(work, name, self._fatal))

    async def stop(self) -> None:
        """Sends what has changed last, as far as that goes without waiting, and ends."""
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        self._write()
        self._do(self._core.flush(self._now_s()))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---------------------------------------------------------------------------------------------------------- others

    def peers_are(self, addresses: Iterable[str]) -> None:
        """The addresses of all other nodes that can be reached."""
        others = tuple(addresses)
        if others and not self._core.peers:
            # It has gathered for longer than they would like.
            self._write()
            self._flush_soon()
        self._do(self._core.peers_are(others, self._now_s()))

    def connected(self, address: str) -> None:
        self._do(self._core.connected(address, self._now_s()))

    def lost_contact(self, address: str) -> None:
        self._core.lost_contact(address)

    # ------------------------------------------------------------------------------------------------------- this node

    def published(self, shard: int, key: str) -> None:
        """An entity of this node has a new value. Where its document has not begun yet, that will begin with it."""
        pending = self._pending.get(shard)
        if pending is None:
            if self.catalog.written_here(shard) is None:
                return
            pending = self._pending[shard] = {}
        if key not in pending:
            pending[key] = None
            self._pending_keys += 1
        if self._flush_timer is None:
            self._flush_later()
        elif self._pending_keys == _GATHERED_MAX and not self._core.peers:
            self._flush_soon()

    def _flush_later(self) -> None:
        # Where nobody is there to be told, only the newest values of a longer time are written.
        gather_s = self._settings.flush_s if self._core.peers else self._settings.flush_alone_s
        wait_s = self._flushed_s + gather_s - self._loop.time()
        if wait_s > 0:
            self._flush_timer = self._loop.call_later(wait_s, self._flush)
        else:
            # After a quiet time at once, though not before everything of this turn of the loop is there.
            self._flush_timer = self._loop.call_soon(self._flush)

    def begin(self, shard: int, epoch: int, keys: Iterable[str], position: int) -> None:
        """This node has taken the shard over under that epoch, and these are all its keys, as far as the position."""
        document = Document(shard, epoch, self._encoded(keys), position=position, views=self._views)
        if self.catalog.begin(document):
            self._core.changed(shard)
            self._counters.adopted += 1
            if self._flush_timer is None:
                self._flush_timer = self._loop.call_soon(self._flush)

    def _flush_soon(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        self._flush_timer = self._loop.call_soon(self._flush)

    def may_be_told(self, shard: int) -> bool:
        """Whether another node may have a document of the shard that is not here yet."""
        return self._core.expects(shard)

    def oldest_s(self) -> float:
        """For how long, at most, something may have been committed anywhere that is not shown here."""
        now_s = self._now_s()
        if now_s - self._oldest[0] > _AGE_KEPT_S:
            self._oldest = now_s, self.catalog.oldest_s(now_s)
        at_s, age_s = self._oldest
        return age_s + (now_s - at_s)

    def _encoded(self, keys: Iterable[str]) -> dict[str, bytes]:
        entries: dict[str, bytes] = {}
        for key in keys:
            data = self._encode(key)
            if data is not None:
                entries[key] = data
        return entries

    def _flush(self) -> None:
        self._flush_timer = None
        self._flushed_s = self._loop.time()
        # Where nobody waits for it others have their turn meanwhile, unless more comes than is written.
        self._write(float("inf") if self._core.peers else max(_WRITTEN_AT_ONCE, self._pending_keys // 4))
        if self._pending:
            self._flush_timer = self._loop.call_soon(self._flush)
        self._do(self._core.flush(self._now_s()))

    def _write(self, keys_max: float = float("inf")) -> None:
        """All that has been published here is in its document then, or that of some shards with so many keys."""
        end = self._pending_keys - keys_max
        while self._pending and self._pending_keys > end:
            self._write_shard(next(iter(self._pending)))

    def _write_shard(self, shard: int) -> None:
        keys = self._pending.pop(shard, {})
        self._pending_keys -= len(keys)
        document = self.catalog.written_here(shard)
        if not keys or document is None:
            # Where somebody else has taken it over, they have read all of its log.
            return
        rotation = document.rotation
        document.put(self._encoded(keys))
        self._counters.rewrites += document.rotation - rotation
        self._core.changed(shard)

    # ----------------------------------------------------------------------------------------------------------- doing

    def _now_s(self) -> float:
        return self._clock.lease_s()

    def _take(self, handle: Callable[[str, Any, float], list[Effect]]) -> Callable[[_Sender, Any], None]:
        def take(sender: _Sender, message: Any) -> None:
            self._do(handle(sender.address, message, self._now_s()))

        return take

    def _take_digest(self, address: str, digest: Digest, now_s: float) -> list[Effect]:
        if digest.number and address in self._core.peers:
            # The answer says that nothing committed by now is missing in this node's documents.
            self._write()
        return self._core.take_digest(address, digest, now_s)

    def _do(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self._send(effect)
            elif isinstance(effect, Changed):
                self._changed(effect.shard, effect.entries)
                # Where there are many nodes, it is passed on.
                if self._flush_timer is None:
                    self._flush_timer = self._loop.call_later(self._settings.flush_s, self._flush)
            elif isinstance(effect, AskStore):
                self._to_check |= effect.shards
                self._check.set()
            else:
                self._say_refused(effect)

    def _send(self, effect: Send) -> None:
        try:
            sent = self._messenger.send(effect.address, effect.message)
        except WireError as error:
            _log.error("readmodel.not_sent", to=effect.address, why=str(error))
            sent = False
        if not sent:
            self._core.lost_contact(effect.address)

    def _say_refused(self, effect: Refused) -> None:
        now_s = self._loop.time()
        if now_s >= self._said_s.get(effect.address, float("-inf")):
            if len(self._said_s) > len(self._core.peers):
                self._said_s.clear()
            self._said_s[effect.address] = now_s + _SAY_AGAIN_S
            _log.warning("readmodel.refused", sender=effect.address, why=effect.why)

    async def _rounds(self) -> None:
        while True:
            await asyncio.sleep(self._settings.round_s)
            self._do(self._core.round(self._now_s()))

    # ------------------------------------------------------------------------------------------------------- the store

    async def _checks(self) -> None:
        """Compares with the store: at once where somebody shows a new activation, and now and then everything."""
        next_s = self._loop.time() + self._settings.check_s
        while True:
            try:
                async with asyncio.timeout_at(next_s):
                    await self._check.wait()
            except TimeoutError:
                pass
            self._check.clear()
            shards, self._to_check = self._to_check, set()
            everything = self._loop.time() >= next_s
            if everything:
                next_s = self._loop.time() + self._settings.check_s
            try:
                await self._check_store(None if everything else sorted(shards))
            except JournalFailed as error:
                self._fatal(error)
                return
            except JournalError as error:
                _log.warning("readmodel.not_checked", why=str(error))
                self._to_check |= shards
            await asyncio.sleep(_CHECK_MIN_S)
            if self._to_check:
                self._check.set()

    async def _check_store(self, shards: list[int] | None) -> None:
        # What arrives while the store is being read may be newer than what is read.
        greatest = self.catalog.greatest() if shards is None else {}
        statuses = await self._store.status(shards)
        epochs = {status.shard: status.epoch for status in statuses}
        self._do(self._core.verified(epochs, self._now_s(), shown_since=self._to_check))
        if shards is not None:
            return
        for status in statuses:
            if greatest.get(status.shard, 0) > status.head:
                # No entity has had more events than the log of its shard has records.
                self._counters.updates_refused += 1
                self.catalog.drop(status.shard)
                self._forged(status.shard, status.head)
            elif status.owner == self._owner:
                self._note_position(status)
                # It looks at every entity in memory: others have their turn between two shards.
                await asyncio.sleep(0)
        self._do(self._core.flush(self._now_s()))

    def _note_position(self, status: ShardStatus) -> None:
        """Where nothing is in progress *after* the store was read, all that its log had then is published."""
        shard = status.shard
        document = self.catalog.written_here(shard)
        if (
            document is not None
            and document.position < status.head
            and document.epoch == self._ownership.owned_since(shard)
            and self._ownership.idle(shard)
        ):
            self._write_shard(shard)
            document.reached(status.head)
            self._core.changed(shard)

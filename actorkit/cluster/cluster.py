"""Cluster (a shell): drives membership on the loop, and tells everybody else in the process who the members are.

Inputs are messages, facts about connections and a timer; what the core returns is carried out in this order: messages
are handed to the messenger, events are logged, then told to subscribers, then to readers of ``events()``.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
import structlog

from actorkit.clock import Clock, Randomness
from actorkit.cluster.event_stream import EventStreams
from actorkit.cluster.events import (
    ClusterEvent,
    Downed,
    JoinRefused,
    MajorityLost,
    MemberDown,
    MemberUnreachable,
)
from actorkit.cluster.member import Member, Status
from actorkit.cluster.membership import Membership
from actorkit.cluster.messages import MESSAGES, Message
from actorkit.cluster.messenger import DowningLease, Messenger, Sender
from actorkit.cluster.seeds import Resolve, resolve
from actorkit.cluster.settings import ClusterSettings
from actorkit.errors import ConfigurationError, NotJoined
from actorkit.ids import NodeId

__all__ = ["Cluster"]

_log = structlog.get_logger("actorkit.cluster")
_WAKEUP_MIN_S = 0.001


class Cluster:
    """One node's view of its cluster. All methods are to be called on the loop that it was started on."""

    def __init__(
        self,
        messenger: Messenger,
        *,
        node: NodeId,
        clock: Clock,
        randomness: Randomness,
        seeds: Sequence[str] = (),
        roles: Sequence[str] = (),
        weight: float = 1.0,
        labels: dict[str, str] | None = None,
        store: str = "",
        settings: ClusterSettings = ClusterSettings(),  # noqa: B008 - frozen
        lease: DowningLease | None = None,
        resolve: Resolve = resolve,
    ) -> None:
        """``node`` is this incarnation: a ``Cluster`` that was downed is of no more use, and neither is its
        incarnation.

        ``seeds`` are ``host:port``; a host name that stands for several addresses stands for several seeds. None, or
        only this node itself: it begins a cluster at once. ``store`` names the journal store: all members have the same
        one. ``lease`` is needed for ``lease-majority``, and only there. Raises ``ConfigurationError`` on settings that
        do not fit.
        """
        if (settings.downing.strategy == "lease-majority") != (lease is not None):
            raise ConfigurationError("a downing lease and the strategy lease-majority: give both or neither")
        self._messenger = messenger
        self._clock = clock
        self._settings = settings
        self._seeds = tuple(seeds)
        self._lease = lease
        self._resolve = resolve
        myself = Member(node, messenger.address, tuple(roles), weight, dict(labels or {}), store=store)
        self._core = Membership(myself, settings=settings, rng=randomness)
        self._subscribers: dict[Callable[[ClusterEvent], None], None] = {}
        self._streams = EventStreams(events_max=settings.events_max, members=lambda: self.members)
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._asking: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._running = False
        self._leaving = False
        self.downed: str | None = None
        """Why this incarnation is no member any more; ``None`` as long as it may be one."""
        self.event_counts: dict[str, int] = {}
        """For metrics: how often each kind of event has happened, by the name of its class."""
        self.unsent = 0
        """For metrics: messages that the messenger did not take."""
        for message_type in MESSAGES:
            messenger.register(message_type, self._receive)

    # ------------------------------------------------------------------------------------------------------- the view

    @property
    def myself(self) -> Member:
        """This node's own record."""
        return self._core.myself

    @property
    def members(self) -> tuple[Member, ...]:
        """All that are not gone, this node among them, by name: a snapshot."""
        return self._core.members

    @property
    def up(self) -> tuple[Member, ...]:
        """Members that may own shards: up, and not unreachable. By name."""
        return self._core.up

    @property
    def majority(self) -> bool:
        """``False``: this node sees too few of the members that it knows, or is none, and must not renew its leases."""
        return self._running and self.downed is None and self._core.majority

    @property
    def sent(self) -> int:
        """For metrics: messages that were to be sent."""
        return self._core.sent

    def subscribe(self, changed: Callable[[ClusterEvent], None]) -> Callable[[], None]:
        """``changed`` is called with each event, on the loop, when ``members`` shows it already. It must not raise, nor
        take long. Returns what ends it."""
        self._subscribers[changed] = None
        return lambda: self._subscribers.pop(changed, None)

    def events(self) -> AsyncIterator[ClusterEvent]:
        """Events from now on, in order, until the cluster is stopped; what was not read by then still is.

        For a reader that is more than ``ClusterSettings.events_max`` events behind all of them are dropped. It reads
        ``EventsDropped`` in their place, with the members as they are then, and goes on from there.
        """
        return self._streams.open()

    # --------------------------------------------------------------------------------------------------- its life

    async def start(self) -> None:
        """Begins to look for the cluster. The messenger has to be able to send."""
        seeds = await self._resolved()
        self._running = True
        self._core.start(self._clock.lease_s(), seeds)
        self._tasks.append(asyncio.get_running_loop().create_task(self._look_up_again(), name="actorkit.cluster.seeds"))
        self._carry_out()

    async def join(self, *, within_s: float | None = None) -> None:
        """Returns once this node is up, or leaving. Raises ``NotJoined`` if it is not ``within_s`` seconds from now, or
        never will be; it goes on trying in the first case."""
        try:
            async with asyncio.timeout(within_s):
                while self.myself.status is Status.JOINING and self.downed is None and not self._leaving:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise NotJoined(str(self.myself.node), self._core.joining_state) from None
        if self.downed is not None:
            raise NotJoined(str(self.myself.node), self.downed)

    @property
    def joining_state(self) -> str:
        """How far joining has come, and what it waits for; for people. Empty once this node is up."""
        return self._core.joining_state

    def leave(self) -> None:
        """From now on this node is leaving: placement gives it nothing any more. ``stop`` when all is handed over.

        One that is not up yet stays joining until it is stopped, and never is up.
        """
        self._leaving = True
        self._core.leave(self._clock.lease_s())
        self._changed.set()
        self._carry_out()

    async def stop(self) -> None:
        """Says good-bye, for ``ClusterSettings.linger_s``, unless it was downed, and ends. May be called twice."""
        if not self._running:
            return
        self._core.stop(self._clock.lease_s())
        self._carry_out()
        if len(self.members) and self.downed is None:
            await asyncio.sleep(self._settings.linger_s)
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
        tasks = [*self._tasks, *([self._asking] if self._asking is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._streams.end()

    # ----------------------------------------------------------------------------------------------------- inputs

    def peer_connected(self, node: NodeId, address: str) -> None:
        """A fact from remoting: that incarnation answers at that address."""
        if self._running:
            self._core.connected(self._clock.lease_s(), node, address)
            self._carry_out()

    def peer_lost(self, address: str) -> None:
        """A fact from remoting: the connection to an address broke, or none can be made."""
        if self._running:
            self._core.unreachable(self._clock.lease_s(), address)
            self._carry_out()

    def _receive(self, sender: Sender, message: msgspec.Struct) -> None:
        if self._running:
            assert isinstance(message, Message)
            self._core.handle(self._clock.lease_s(), sender.node, sender.address, message)
            self._carry_out()

    def _tick(self) -> None:
        self._timer = None
        self._core.tick(self._clock.lease_s())
        self._carry_out()

    # ---------------------------------------------------------------------------------------------------- effects

    def _carry_out(self) -> None:
        core = self._core
        for address, message in core.take_messages():
            if not self._messenger.send(address, message):
                self.unsent += 1
        for event in core.take_events():
            self._tell(event)
        if (number := core.lease_wanted) is not None and self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._ask(number), name="actorkit.cluster.lease")
        if not self._running or self.downed is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
        delay_s = max(_WAKEUP_MIN_S, core.wakeup_s - self._clock.lease_s())
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._tick)

    def _tell(self, event: ClusterEvent) -> None:
        kind = type(event).__name__
        self.event_counts[kind] = self.event_counts.get(kind, 0) + 1
        _write(event, str(self.myself.node))
        if isinstance(event, Downed):
            self.downed = event.why
        self._changed.set()
        for changed in list(self._subscribers):
            try:
                changed(event)
            except Exception as error:  # noqa: BLE001 - a defect of one subscriber must not hide the event from others
                _log.critical("cluster.subscriber_crashed", event_kind=kind, exc_info=error)
        self._streams.put(event)

    async def _ask(self, number: int) -> None:
        assert self._lease is not None
        try:
            async with asyncio.timeout(self._settings.downing.lease_timeout_s):
                granted = await self._lease.acquire()
        except Exception as error:  # noqa: BLE001 - whatever keeps it from being had, this side has it not
            _log.warning("cluster.downing_lease_failed", why=str(error) or type(error).__name__)
            granted = False
        self._asking = None
        self._core.lease_answered(self._clock.lease_s(), number, granted=granted)
        self._carry_out()

    # ------------------------------------------------------------------------------------------------------- seeds

    async def _resolved(self) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for seed in self._seeds:
            addresses: Sequence[str] = (seed,)
            if seed != self._messenger.address:
                try:
                    async with asyncio.timeout(self._settings.joining.resolve_timeout_s):
                        addresses = await self._resolve(seed)
                except (OSError, TimeoutError) as error:
                    _log.warning("cluster.seed_not_resolved", seed=seed, why=str(error) or type(error).__name__)
            found.update(dict.fromkeys(addresses))
        return tuple(found)

    async def _look_up_again(self) -> None:
        while True:
            await asyncio.sleep(self._settings.joining.resolve_s)
            self._core.seeds_found(await self._resolved())


_GRAVE = (Downed, JoinRefused, MajorityLost, MemberDown, MemberUnreachable)
_WORDS = re.compile(r"(?<!^)(?=[A-Z])")


def _write(event: ClusterEvent, node: str) -> None:
    kind = _WORDS.sub("_", type(event).__name__).lower()
    facts: dict[str, Any] = {name: getattr(event, name) for name in event.__struct_fields__}
    member = facts.pop("member", None)
    if member is not None:
        facts |= {"member": str(member.node), "address": member.address}
    if isinstance(event, MemberUnreachable):
        facts["accusers"] = list(event.member.accusers)
    (_log.warning if isinstance(event, _GRAVE) else _log.info)(f"cluster.{kind}", node=node, **facts)

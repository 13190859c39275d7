"""The service's calls over HTTP: each takes checked input, asks the pool or the read model, and encodes the answer."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import Any, Final, TypeVar

import msgspec

from actorkit import ActorSystem
from actorkit.errors import Rejected, VersionNotReached
from actorkit.gateway.event_stream import EventStream, EventStreams, event
from actorkit.gateway.handlers import Answer, Endpoint, Incoming, Pending
from actorkit.gateway.problems import INVALID_REQUEST, READ_MODEL_BEHIND, UNAVAILABLE, Problem, problem_of
from actorkit.readmodel import Change, Changes, Derived, View
from examples.capacity_service.answers import (
    AsOf,
    PoolAnswer,
    PoolDescription,
    PoolView,
    ReleaseAnswer,
    ReserveAnswer,
)
from examples.capacity_service.domain import PoolNotFound
from examples.capacity_service.entity import Pool, describe
from examples.capacity_service.ids import ID_WORDS, RESERVATION_WORDS, is_id, split_full_id
from examples.capacity_service.problems import REFUSALS
from examples.capacity_service.requests import (
    CHANGES_QUERY,
    AvailabilityRequest,
    PoolRequest,
    ReleaseRequest,
    ReserveRequest,
    parse_changes_query,
)
from examples.capacity_service.times import from_us, parse_time, to_us
from examples.capacity_service.tokens import TokenError, decode_token, encode_token
from examples.capacity_service.views import RecentAnswers

__all__ = ["VERSION_MAX", "CapacityApi"]

TOKEN_HEADER: Final = "X-Consistency-Token"  # noqa: S105 - a name
READ_YOUR_WRITES_MAX_S: Final = 2.0

W = TypeVar("W", PoolAnswer, ReserveAnswer, ReleaseAnswer)

VERSION_MAX: Final = 10**18 - 1
_EVENTS_AT_ONCE: Final = 100
"""A slow client is sent so many, and then the newest of what has changed meanwhile."""

_is_version: Final = re.compile(r"0|[1-9][0-9]*").fullmatch
_encode: Final = msgspec.json.Encoder().encode


class CapacityApi:
    """The ``/rpc`` calls, on one actor system."""

    def __init__(self, system: ActorSystem, *, behind: Callable[[], str | None], streams: EventStreams) -> None:
        """``behind`` says why the read model may not show everything, if so."""
        self._system = system
        self._streams = streams
        self._behind = behind
        self._answers = RecentAnswers()

    @cached_property
    def _view(self) -> View[PoolView]:
        return self._system.view(Pool.availability)

    @cached_property
    def _encoded(self) -> Derived[PoolView, bytes]:
        """An answer is mostly a join of these."""
        return self._view.derive(_encode)

    def endpoints(self) -> tuple[Endpoint[Any], ...]:
        return (
            Endpoint("POST", "/rpc/pools", self.change_pool, body=PoolRequest, keyed=True),
            Endpoint("POST", "/rpc/reserve", self.reserve, body=ReserveRequest, keyed=True),
            Endpoint("POST", "/rpc/release", self.release, body=ReleaseRequest, keyed=True),
            Endpoint("POST", "/rpc/availability", self.availability, body=AvailabilityRequest),
            Endpoint("GET", "/rpc/availability/changes", self.changes, query=CHANGES_QUERY, streams=True),
            Endpoint("GET", "/rpc/pools/{pool_id}", self.pool, query=("at_version", "at_time")),
            Endpoint("GET", "/rpc/reservations/{reservation_id}", self.reservation),
        )

    # ------------------------------------------------------------------------------------------------------ writes

    def change_pool(self, incoming: Incoming[PoolRequest]) -> Pending[str, PoolAnswer]:
        body = incoming.body
        call = self._system.get(Pool, body.pool_id).change
        call = call.options(idempotency_key=_key("pools", incoming), deadline_s=incoming.remaining_s())
        return _pending(body.pool_id, call.begin(body.change()))

    def reserve(self, incoming: Incoming[ReserveRequest]) -> Pending[str, ReserveAnswer]:
        body = incoming.body
        call = self._system.get(Pool, body.pool_id).reserve
        call = call.options(idempotency_key=_key("reserve", incoming), deadline_s=incoming.remaining_s())
        return _pending(body.pool_id, call.begin(body.quantity, body.part))

    def release(self, incoming: Incoming[ReleaseRequest]) -> Pending[str, ReleaseAnswer]:
        body = incoming.body
        pool_id, part = body.split()
        call = self._system.get(Pool, pool_id).release
        call = call.options(idempotency_key=_key("release", incoming), deadline_s=incoming.remaining_s())
        return _pending(pool_id, call.begin(part, body.units))

    # ------------------------------------------------------------------------------------------------------- reads

    def availability(self, incoming: Incoming[AvailabilityRequest]) -> Answer | Awaitable[Answer]:
        reason = self._behind()
        if reason is not None:
            raise Problem(UNAVAILABLE, f"this node cannot serve: {reason}")
        token = incoming.header(TOKEN_HEADER)
        return self._available(incoming.body) if token is None else self._available_after(token, incoming)

    async def _available_after(self, token: str, incoming: Incoming[AvailabilityRequest]) -> Answer:
        await self._read_your_writes(token, incoming)
        return self._available(incoming.body)

    def _available(self, body: AvailabilityRequest) -> Answer:
        # What this node owns it publishes before it answers; what others have written may be older than it seems.
        as_of = AsOf(from_us(time.time_ns() // 1000), math.ceil(self._system.read_model_age_s * 1000))
        wanted = body.filter()
        pools = self._answers.get(self._view.revision, wanted, body.limit)
        if pools is None:
            entries, truncated = self._view.find(ids=wanted.pool_ids, limit=body.limit, **wanted.question())
            end = b"true" if truncated else b"false"
            pools = b'{"pools":[%b],"truncated":%b,"as_of":' % (b",".join(self._encoded.of(entries)), end)
            self._answers.keep(wanted, body.limit, pools)
        return Answer((pools, _encode(as_of), b"}"))

    async def changes(self, incoming: Incoming[None]) -> EventStream:
        """Availability as a stream: what there is, ``current``, and then what changes; or what has changed since."""
        reason = self._behind()
        if reason is not None:
            raise Problem(UNAVAILABLE, f"this node cannot serve: {reason}")
        try:
            wanted = parse_changes_query(incoming.query).filter()
        except ValueError as error:
            raise Problem(INVALID_REQUEST, f"the query is not as it must be: {error}") from None
        self._streams.admit()
        origin = f"{self._system.node}/{wanted.digest()}"
        position = _position(incoming.header("Last-Event-ID"), origin)
        changes = self._view.changes(present=True, after=position, **wanted.question(ids_too=True))
        return self._streams.open(_Events(changes, self._encoded, origin).next, changes.close)

    async def _read_your_writes(self, text: str, incoming: Incoming[AvailabilityRequest]) -> None:
        try:
            token = decode_token(text)
        except TokenError as error:
            raise Problem(INVALID_REQUEST, f"{TOKEN_HEADER}: {error}") from None
        deadline_s = min(READ_YOUR_WRITES_MAX_S, incoming.remaining_s())
        try:
            await self._view.wait_for(token.pool_id, version=token.version, deadline_s=deadline_s)
        except TimeoutError:
            detail = f"the read model does not show version {token.version} of {token.pool_id} yet"
            raise Problem(READ_MODEL_BEHIND, detail) from None

    async def pool(self, incoming: Incoming[None]) -> Answer:
        pool_id = incoming.value
        if not is_id(pool_id):
            raise Problem(INVALID_REQUEST, f"the pool id is not as it must be: expected {ID_WORDS}")
        if incoming.query:
            return Answer(_encode(await self._past(pool_id, incoming)))
        answer = await self._system.get(Pool, pool_id).describe.options(deadline_s=incoming.remaining_s())()
        return Answer(_encode(answer))

    async def _past(self, pool_id: str, incoming: Incoming[None]) -> PoolDescription:
        version, time_us = _moment(incoming.query)
        try:
            async with asyncio.timeout_at(incoming.deadline):
                past = await self._system.state_at(Pool, pool_id, version=version, time_us=time_us)
        except VersionNotReached as error:
            if error.reached == 0:
                raise PoolNotFound("there is no such pool") from None
            raise Problem(
                INVALID_REQUEST, f"the pool is at version {error.reached}: version {error.asked} does not exist yet"
            ) from None
        except TimeoutError:
            raise Problem(UNAVAILABLE, "the journal was not read within the deadline") from None
        return describe(pool_id, past.state)

    async def reservation(self, incoming: Incoming[None]) -> Answer:
        parts = split_full_id(incoming.value)
        if parts is None:
            raise Problem(INVALID_REQUEST, f"the reservation id is not as it must be: expected {RESERVATION_WORDS}")
        pool_id, part = parts
        answer = await self._system.get(Pool, pool_id).reservation.options(deadline_s=incoming.remaining_s())(part)
        return Answer(_encode(answer))


class _Events:
    """Changes of a view, as events for a client."""

    def __init__(self, changes: Changes[PoolView], encoded: Derived[PoolView, bytes], origin: str) -> None:
        self._changes = changes
        self._encoded = encoded
        self._origin = origin
        self._began = False
        self._current = changes.resumed

    async def next(self) -> bytes:
        """Some events at once; empty when there will be no more. May be cancelled, and called again."""
        changes = self._changes
        if not self._began:
            self._began = True
            return event("begin", b'{"resumed":%b}' % (b"true" if changes.resumed else b"false"))
        if not self._current:
            if changes.position is None and (present := changes.ready(_EVENTS_AT_ONCE)):
                return self._encode(present)
            self._current = True
            return event("current", b"{}", id=self._id())
        return self._encode(await changes.batch(_EVENTS_AT_ONCE))

    def _encode(self, changes: list[Change[PoolView]]) -> bytes:
        events = [
            event("gone", _encode({"pool_id": change.id}))
            if change.entry is None
            else event("pool", self._encoded.of({change.id: change.entry})[0])
            for change in changes
        ]
        # Whoever goes on after an event must have had all before it: those of one batch have no order to go on in.
        if events and self._current and self._changes.position is not None:
            events[-1] = b"id: %b\n%b" % (self._id().encode(), events[-1])
        return b"".join(events)

    def _id(self) -> str:
        return f"{self._origin}/{self._changes.position}"


def _position(last_event_id: str | None, origin: str) -> int | None:
    """Where a stream of this very process, with this filter, was when its client lost it; ``None``: it begins anew.

    With another filter, what matches that and has not changed since would never be told.
    """
    known, _, position = (last_event_id or "").rpartition("/")
    if known != origin or _is_version(position) is None or len(position) > len(str(VERSION_MAX)):
        return None
    return int(position)


def _key(call: str, incoming: Incoming[Any]) -> str | None:
    """Keys are scoped to call and pool; the framework scopes them to the pool."""
    return None if incoming.key is None else f"{call}:{incoming.key}"


def _pending(pool_id: str, call: asyncio.Future[W]) -> Pending[str, W]:
    return Pending(call, pool_id, _written, _refused)


def _written(pool_id: str, answer: PoolAnswer | ReserveAnswer | ReleaseAnswer) -> Answer:
    return Answer(_encode(answer), ((TOKEN_HEADER, encode_token(pool_id, answer.version)),))


def _refused(pool_id: str, refusal: Rejected) -> Problem:
    """A refused write has seen a version too, which its token names; 0 where there is nothing to be seen."""
    version = refusal.details.get("version")
    token = encode_token(pool_id, version if isinstance(version, int) else 0)
    return problem_of(refusal, refusals=REFUSALS, keyed=False, headers={TOKEN_HEADER: token})


def _moment(query: dict[str, str]) -> tuple[int | None, int | None]:
    """Version or time, whichever is asked for."""
    version, moment = query.get("at_version"), query.get("at_time")
    if version is not None and moment is not None:
        raise Problem(INVALID_REQUEST, "give at_version or at_time, not both")
    if version is not None:
        if _is_version(version) is None:
            raise Problem(INVALID_REQUEST, "at_version is a whole number, as in 0 or 12")
        if len(version) > len(str(VERSION_MAX)):
            raise Problem(INVALID_REQUEST, f"at_version is at most {VERSION_MAX}: no pool has had so many events")
        return int(version), None
    assert moment is not None
    try:
        return None, to_us(parse_time(moment))
    except ValueError as error:
        raise Problem(INVALID_REQUEST, f"at_time: {error}") from None

"""What a pool promises, as a model for the linearizability checker: the contract, written down a second time.

It shares nothing with ``domain`` but the promise, so that a mistake in one of the two shows. Operations are calls on
the entity, as ``change({"capacity": 8})``, ``reserve(3, None)``, ``release(part, None)``, ``describe()`` and
``reservation(part)``.

A reservation whose answer was lost has an id that nobody knows. It is *nameless* here, and the first operation that
names an id of the service's making which was never answered may mean it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from actorkit.testing.checkers import Model, Operation, Outcome, PersistentMap

__all__ = ["Granted", "PoolModel", "PoolSeen"]

_DAY_US = 24 * 3600 * 1_000_000
_ATTRIBUTES = ("region", "starts_at", "ends_at", "labels")


class Granted(NamedTuple):
    """A reservation, and what its first answer said."""

    quantity: int
    held: int
    remaining: int
    version: int
    released_us: int = 0
    """When the release of its last units was sent; 0: it holds some."""


class PoolSeen(NamedTuple):
    """A pool as it may be."""

    version: int = 0
    capacity: int = 0
    reserved: int = 0
    attributes: tuple[Any, ...] = (None, None, None, ())
    granted: PersistentMap[str, Granted] = PersistentMap()
    nameless: tuple[Granted, ...] = ()
    """Grants whose ids nobody was told, in order."""

    @property
    def remaining(self) -> int:
        return max(0, self.capacity - self.reserved)


class _Answer(NamedTuple):
    """A right answer, and the pool after it."""

    after: PoolSeen
    members: Mapping[str, Any]
    code: str = ""
    """Of a refusal."""
    makes_id: Granted | None = None
    """The grant whose id the service makes; the answer says which."""


class PoolModel(Model[PoolSeen]):
    """One pool. ``forget_after_us``: how long after its release a reservation may be forgotten."""

    reads = frozenset({"describe", "reservation"})
    refusals_decided_anew = frozenset({"pool-not-found", "reservation-not-found", "invalid-request", "overloaded"})

    def __init__(self, *, forget_after_us: int = _DAY_US) -> None:
        self._forget_after_us = forget_after_us

    def initial(self) -> PoolSeen:
        return PoolSeen()

    def step(self, state: PoolSeen, operation: Operation) -> Collection[PoolSeen]:
        if operation.code == "overloaded":
            # How many reservations a pool remembers is not the contract's business.
            return (state,)
        right = self._answers(state, operation)
        if operation.outcome is Outcome.UNKNOWN:
            return {_unheard(answer) for answer in right if not answer.code}
        return {after for answer in right if (after := _told(answer, operation)) is not None}

    def describe(self, state: PoolSeen) -> str:
        if not state.version:
            return "no pool yet"
        nameless = f" and {len(state.nameless)} that nobody was told of" if state.nameless else ""
        return (
            f"version {state.version}, capacity {state.capacity}, reserved {state.reserved}, remaining "
            f"{state.remaining}, {len(state.granted)} reservations{nameless}"
        )

    def expected(self, state: PoolSeen, operation: Operation) -> str:
        said = (
            f"{f'refused: {answer.code} ' if answer.code else ''}{msgspec.json.encode(answer.members).decode()}"
            for answer in self._answers(state, operation)
        )
        return " or ".join(dict.fromkeys(said))

    # ----------------------------------------------------------------------------------------------- right answers

    def _answers(self, state: PoolSeen, operation: Operation) -> list[_Answer]:
        pool_id = operation.entity.partition("/")[2]
        match operation.name:
            case "change":
                return [_change(state, pool_id, operation.arguments[0])]
            case "reserve":
                return list(self._reserve(state, pool_id, operation))
            case "release":
                part, quantity = operation.arguments
                return [
                    _release(named, pool_id, part, quantity, operation.invoked_us) if known else _unknown(state)
                    for named, known in self._named(state, part, operation)
                ]
            case "reservation":
                (part,) = operation.arguments
                return [
                    _reservation(named, pool_id, part) if known else _unknown(state)
                    for named, known in self._named(state, part, operation)
                ]
            case "describe":
                return [_describe(state, pool_id)]
            case other:
                raise ValueError(f"a pool has no operation {other!r}")

    def _may_be_forgotten(self, known: Granted, operation: Operation) -> bool:
        now_us = operation.invoked_us if operation.completed_us is None else operation.completed_us
        return known.released_us > 0 and now_us - known.released_us >= self._forget_after_us

    def _named(self, state: PoolSeen, part: str, operation: Operation) -> Iterator[tuple[PoolSeen, bool]]:
        """The pools in which the reservation is known, or is not."""
        known = state.granted.get(part)
        if known is not None:
            yield state, True
        if known is None or self._may_be_forgotten(known, operation):
            yield state, False
        if known is None and part.startswith("~"):
            for one in dict.fromkeys(state.nameless):
                rest = list(state.nameless)
                rest.remove(one)
                yield state._replace(granted=state.granted.set(part, one), nameless=tuple(rest)), True

    def _reserve(self, state: PoolSeen, pool_id: str, operation: Operation) -> Iterator[_Answer]:
        quantity, part = operation.arguments
        if not state.version:
            yield _Answer(state, {}, "pool-not-found")
            return
        known = None if part is None else state.granted.get(part)
        if part is not None and known is not None:
            if known.quantity == quantity:
                yield _Answer(state, _grant(pool_id, part, known))
            else:
                yield _Answer(state, {"version": state.version}, "reservation-conflict")
            if not self._may_be_forgotten(known, operation):
                return
        if quantity > state.remaining:
            members = {"remaining": state.remaining, "requested": quantity, "version": state.version}
            yield _Answer(state, members, "insufficient-capacity")
            return
        after = state._replace(version=state.version + 1, reserved=state.reserved + quantity)
        granted = Granted(quantity, quantity, after.remaining, after.version)
        if part is None:
            yield _Answer(after, _grant(pool_id, "", granted), makes_id=granted)
        else:
            yield _Answer(after._replace(granted=state.granted.set(part, granted)), _grant(pool_id, part, granted))


def _grant(pool_id: str, part: str, granted: Granted) -> dict[str, Any]:
    members: dict[str, Any] = {
        "pool_id": pool_id,
        "quantity": granted.quantity,
        "remaining": granted.remaining,
        "version": granted.version,
    }
    return {"reservation_id": f"{pool_id}~{part}", **members} if part else members


def _change(state: PoolSeen, pool_id: str, wanted: Mapping[str, Any]) -> _Answer:
    labels = wanted.get("labels")
    changed = {**wanted, "labels": tuple(sorted(labels.items()))} if labels is not None else dict(wanted)
    attributes = tuple(changed.get(name, old) for name, old in zip(_ATTRIBUTES, state.attributes, strict=True))
    _, starts_at, ends_at, _ = attributes
    if not _in_order(starts_at, ends_at):
        return _Answer(state, {}, "invalid-request")
    if not state.version and "capacity" not in wanted:
        return _Answer(state, {}, "invalid-request")
    after = state._replace(capacity=wanted.get("capacity", state.capacity), attributes=attributes)
    if after != state or not state.version:
        after = after._replace(version=state.version + 1)
    return _Answer(after, _numbers(after, pool_id))


def _in_order(starts_at: str | None, ends_at: str | None) -> bool:
    if starts_at is None or ends_at is None:
        return True
    return datetime.fromisoformat(starts_at) < datetime.fromisoformat(ends_at)


def _numbers(state: PoolSeen, pool_id: str) -> dict[str, Any]:
    return {
        "pool_id": pool_id,
        "capacity": state.capacity,
        "reserved": state.reserved,
        "remaining": state.remaining,
        "version": state.version,
    }


def _describe(state: PoolSeen, pool_id: str) -> _Answer:
    if not state.version:
        return _Answer(state, {}, "pool-not-found")
    *attributes, labels = state.attributes
    named = dict(zip(_ATTRIBUTES, [*attributes, dict(labels)], strict=True))
    return _Answer(state, {**_numbers(state, pool_id), **named})


def _unknown(state: PoolSeen) -> _Answer:
    return _Answer(state, {}, "reservation-not-found")


def _release(state: PoolSeen, pool_id: str, part: str, quantity: int | None, sent_us: int) -> _Answer:
    known = state.granted[part]
    freed = known.held if quantity is None else min(quantity, known.held)
    held = known.held - freed
    after = state
    if freed:
        left = known._replace(held=held, released_us=0 if held else max(1, sent_us))
        after = state._replace(
            version=state.version + 1, reserved=state.reserved - freed, granted=state.granted.set(part, left)
        )
    members: dict[str, Any] = {
        "reservation_id": f"{pool_id}~{part}",
        "pool_id": pool_id,
        "released": freed,
        "held": held,
        "remaining": after.remaining,
        "version": after.version,
    }
    return _Answer(after, members)


def _reservation(state: PoolSeen, pool_id: str, part: str) -> _Answer:
    known = state.granted[part]
    members: dict[str, Any] = {
        "reservation_id": f"{pool_id}~{part}",
        "pool_id": pool_id,
        "quantity": known.quantity,
        "held": known.held,
        "status": "held" if known.held else "released",
    }
    return _Answer(state, members)


# ---------------------------------------------------------------------------------------------------- what was said


def _unheard(answer: _Answer) -> PoolSeen:
    """The pool after an answer that nobody heard."""
    if answer.makes_id is None:
        return answer.after
    return answer.after._replace(nameless=tuple(sorted([*answer.after.nameless, answer.makes_id])))


def _told(answer: _Answer, operation: Operation) -> PoolSeen | None:
    """The pool after this answer, or ``None`` where another one was given."""
    if answer.code != (operation.code or ""):
        return None
    if answer.code:
        said = operation.details
        return answer.after if all(said.get(name, value) == value for name, value in answer.members.items()) else None
    said = operation.value
    if any(said.get(name) != value for name, value in answer.members.items()):
        return None
    if answer.makes_id is None:
        return answer.after
    pool_id, _, part = said["reservation_id"].partition("~")
    after = answer.after
    if pool_id != said["pool_id"] or not part.startswith("~") or part in after.granted:
        return None
    return after._replace(granted=after.granted.set(part, answer.makes_id))

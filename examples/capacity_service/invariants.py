"""What must be true of every pool at the end, by what its callers were told and what the journal holds.

- A: no reservation was granted beyond the capacity of that moment.
- B: every acknowledged reservation is there exactly once.
- C: every acknowledged release is effective.
- D: what remains is the capacity less what is held, and never negative, in every answer.

Both sides are plain data: a recorded history, and the pools' events as any reader of the journal finds them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from actorkit.journal.protocols import Recorded
from actorkit.testing.checkers import History, Operation, Outcome, Violation

__all__ = ["PoolFacts", "check_pools", "pools_of"]


class PoolFacts(msgspec.Struct):
    """What a pool's events add up to, and what each of them did."""

    capacity: int = 0
    reserved: int = 0
    quantities: dict[str, int] = {}
    """By reservation, what was granted."""
    held: dict[str, int] = {}
    grants: dict[int, tuple[str, int]] = {}
    """By the sequence of the event: reservation and quantity."""
    releases: dict[int, tuple[str, int]] = {}
    remaining: list[int] = msgspec.field(default_factory=lambda: [0])
    """After each event."""


def pools_of(records: Iterable[Recorded]) -> tuple[dict[str, PoolFacts], list[Violation]]:
    """The pools by the name of their stream, from the journal's records in the order of each stream; checks A."""
    pools: dict[str, PoolFacts] = {}
    violations: list[Violation] = []
    for record in records:
        if record.sequence and record.stream.startswith("pool/"):
            pool = pools.setdefault(record.stream, PoolFacts())
            violations += _take(pool, record)
            pool.remaining.append(max(0, pool.capacity - pool.reserved))
    return pools, violations


def _take(pool: PoolFacts, record: Recorded) -> Iterator[Violation]:
    event: dict[str, Any] = msgspec.msgpack.decode(record.payload)
    part, quantity = event.get("part", ""), event.get("quantity", 0)
    where = f"event {record.sequence}"
    match record.type:
        case "pool-created" | "pool-changed":
            pool.capacity = event.get("capacity", pool.capacity)
        case "reserved":
            if pool.held.get(part):
                yield Violation("B", record.stream, f"{where} grants {part} again, which is held already")
            pool.reserved += quantity
            pool.quantities[part] = quantity
            pool.held[part] = pool.held.get(part, 0) + quantity
            pool.grants[record.sequence] = part, quantity
            if pool.reserved > pool.capacity:
                what = f"{where} grants {quantity}: {pool.reserved} are reserved then of a capacity of {pool.capacity}"
                yield Violation("A", record.stream, what)
        case "released":
            held = pool.held.get(part, 0)
            if quantity > held:
                yield Violation("C", record.stream, f"{where} releases {quantity} of {part}, which holds {held}")
            pool.reserved -= quantity
            pool.held[part] = held - quantity
            pool.releases[record.sequence] = part, quantity
        case other:
            yield Violation("F", record.stream, f"{where} is of the unknown type {other!r}")


def check_pools(history: History | Iterable[Operation], pools: Mapping[str, PoolFacts]) -> list[Violation]:
    """B, C and D: the answers in the history against the pools in the journal (see ``pools_of``)."""
    operations = history.operations if isinstance(history, History) else tuple(history)
    violations: list[Violation] = []
    executed: set[tuple[str, str]] = set()
    for operation in operations:
        if not operation.entity.startswith("pool/"):
            continue
        pool = pools.get(operation.entity, PoolFacts())
        if operation.outcome is Outcome.REPLIED:
            violations += _check_reply(operation, pool)
        if operation.name == "reserve" and operation.outcome in (Outcome.REPLIED, Outcome.UNKNOWN):
            executed.add((operation.entity, operation.arguments[1] or ""))
    for operation in operations:
        part = operation.arguments[1] if operation.name == "reserve" else None
        if (
            operation.outcome is Outcome.NOT_EXECUTED
            and part is not None
            and (operation.entity, part) not in executed
            and part in pools.get(operation.entity, PoolFacts()).quantities
        ):
            what = f"operation {operation.number} was not executed, and yet reservation {part} is there"
            violations.append(Violation("B", operation.entity, what))
    return violations


def _check_reply(operation: Operation, pool: PoolFacts) -> Iterator[Violation]:
    reply: dict[str, Any] = operation.value
    version: int | None = reply.get("version")
    if version is None:
        return
    subject, who = operation.entity, f"operation {operation.number} ({operation.name})"
    last = len(pool.remaining) - 1
    if version > last:
        yield Violation("I", subject, f"{who} was answered from version {version}, the journal ends with {last}")
        return
    if reply["remaining"] != pool.remaining[version]:
        what = f"{who} says that {reply['remaining']} remain in version {version}, not {pool.remaining[version]}"
        yield Violation("D", subject, what)
    part = str(reply.get("reservation_id", "")).partition("~")[2]
    if operation.name == "reserve" and pool.grants.get(version) != (part, reply["quantity"]):
        there = pool.grants.get(version) or "no reservation"
        what = f"{who} granted {reply['quantity']} as {part}, but event {version} is {there}"
        yield Violation("B", subject, what)
    elif operation.name == "release" and reply["released"]:
        there = pool.releases.get(version) or "no release"
        if there != (part, reply["released"]):
            what = f"{who} released {reply['released']} of {part}, but event {version} is {there}"
            yield Violation("C", subject, what)

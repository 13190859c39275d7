"""Real bookings as a stream of commands, and what a single thread makes of that stream.

A booking takes one unit of each of its pools at the moment it was made, and gives it back when it was cancelled. The
data knows days only, so each moment is spread within its day by a hash: the same seed always gives the same stream.
Everything here is pure; ``replay`` sends the stream to a service and compares.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from enum import Enum
from hashlib import blake2b
from math import ceil
from typing import Literal, NamedTuple

__all__ = [
    "Booking",
    "CapacityRule",
    "Command",
    "Outcome",
    "PoolFigures",
    "PoolsBy",
    "Recomputation",
    "command_stream",
    "parse_bookings",
    "peak_demand",
    "recompute",
]

DAY_US = 24 * 60 * 60 * 1_000_000
EPOCH = date(1970, 1, 1)


class Booking(NamedTuple):
    """One row of the data set. Rows that are equal in every column are still different bookings."""

    number: int
    """Its row, from 1: what identifies it."""
    hotel: str
    arrival: date
    lead_days: int
    nights: int
    released: date | None
    """The day on which it was cancelled, or the guest did not show up; ``None``: the guest came."""


class PoolsBy(Enum):
    """What a pool stands for."""

    ARRIVAL = "arrival"
    """The arrivals at one hotel on one day: a booking is one unit of one pool."""
    NIGHT = "night"
    """One night at one hotel: a booking is one unit of as many pools as it has nights."""


class Command(NamedTuple):
    """One call to the service. The fields' order is the stream's order."""

    at_us: int
    booking: int
    op: Literal["reserve", "release"]
    pool: str

    @property
    def key(self) -> str:
        """The idempotency key: however often the command is sent, it acts once."""
        return f"{self.op}-{self.booking}"


class Outcome(NamedTuple):
    """How a command ends. ``accepted`` is ``None`` for the release of what was never reserved: it is not sent."""

    accepted: bool | None
    remaining: int


class PoolFigures(NamedTuple):
    """What ``GET /rpc/pools/{pool_id}`` must say in the end."""

    capacity: int
    reserved: int
    remaining: int


class Recomputation(NamedTuple):
    """The right answers: one outcome for each command, and each pool's figures at the end."""

    outcomes: list[Outcome]
    pools: dict[str, PoolFigures]


class CapacityRule(NamedTuple):
    """How much each pool may sell: a fraction of its own peak demand, or the same number of units for all."""

    fraction: float | None
    units: int

    @classmethod
    def parse(cls, text: str) -> CapacityRule:
        """``0.8`` is a fraction of the peak demand, ``20`` a number of units. Raises ``ValueError``."""
        if text.isascii() and text.isdigit():
            return cls(None, int(text))
        fraction = float(text)
        if not 0 < fraction <= 1000:
            raise ValueError(f"{text} is not a fraction of the peak demand: expected more than 0")
        return cls(fraction, 0)

    def capacity(self, peak: int) -> int:
        """At least 1 where it is a fraction, so that every pool has something to sell."""
        return self.units if self.fraction is None else max(1, ceil(peak * self.fraction))


def parse_bookings(lines: Iterable[str]) -> list[Booking]:
    """The rows of ``hotel_bookings.csv``, header included."""
    rows = csv.reader(lines)
    next(rows)
    bookings: list[Booking] = []
    for number, (hotel, arrival_text, lead_days, nights, released) in enumerate(rows, start=1):
        arrival = date.fromisoformat(arrival_text)
        released_on = arrival - timedelta(days=int(released)) if released else None
        bookings.append(Booking(number, hotel, arrival, int(lead_days), int(nights), released_on))
    return bookings


def command_stream(
    bookings: Iterable[Booking], *, by: PoolsBy = PoolsBy.ARRIVAL, limit: int | None = None, seed: int = 0
) -> list[Command]:
    """The bookings' commands in the order of time; with a limit, those of the bookings that were made first."""
    made = sorted((_made_at_us(booking, seed), booking) for booking in bookings)
    commands: list[Command] = []
    for reserved_at_us, booking in made[:limit]:
        pools = _pools(booking, by)
        commands += [Command(reserved_at_us, booking.number, "reserve", pool) for pool in pools]
        if booking.released is not None:
            released_at_us = _released_at_us(booking.released, reserved_at_us, booking.number, seed)
            commands += [Command(released_at_us, booking.number, "release", pool) for pool in pools]
    commands.sort()
    return commands


def peak_demand(stream: Iterable[Command]) -> dict[str, int]:
    """The most units of each pool that would ever be held at the same time if nothing were refused."""
    held: dict[str, int] = {}
    peak: dict[str, int] = {}
    for command in stream:
        held[command.pool] = held.get(command.pool, 0) + (1 if command.op == "reserve" else -1)
        peak[command.pool] = max(peak.get(command.pool, 0), held[command.pool])
    return peak


def recompute(stream: Sequence[Command], capacities: Mapping[str, int]) -> Recomputation:
    """What one thread makes of the stream: the truth that a service is compared with."""
    holders: dict[str, set[int]] = {pool: set() for pool in capacities}
    outcomes: list[Outcome] = []
    for command in stream:
        held, capacity = holders[command.pool], capacities[command.pool]
        accepted: bool | None = True
        if command.op == "release":
            if command.booking in held:
                held.remove(command.booking)
            else:
                accepted = None
        elif len(held) < capacity:
            held.add(command.booking)
        else:
            accepted = False
        outcomes.append(Outcome(accepted, capacity - len(held)))
    pools = {
        pool: PoolFigures(capacity, len(holders[pool]), capacity - len(holders[pool]))
        for pool, capacity in capacities.items()
    }
    return Recomputation(outcomes, pools)


def _pools(booking: Booking, by: PoolsBy) -> list[str]:
    days = 1 if by is PoolsBy.ARRIVAL else booking.nights
    return [f"{booking.hotel}-{booking.arrival + timedelta(days=day)}" for day in range(days)]


def _made_at_us(booking: Booking, seed: int) -> int:
    day = booking.arrival - timedelta(days=booking.lead_days)
    return _start_us(day) + int(_spread("reserve", booking.number, seed) * DAY_US)


def _released_at_us(day: date, reserved_at_us: int, number: int, seed: int) -> int:
    """Within the day, and after the booking was made."""
    earliest_us = max(_start_us(day), reserved_at_us + 1)
    latest_us = _start_us(day) + DAY_US
    return earliest_us + int(_spread("release", number, seed) * max(0, latest_us - earliest_us))


def _start_us(day: date) -> int:
    return (day - EPOCH).days * DAY_US


def _spread(what: str, number: int, seed: int) -> float:
    """A number in [0, 1) that is the same in every run."""
    digest = blake2b(f"{seed}/{what}/{number}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big") / (1 << 56)

"""Actors that the tests of the testing kit use: one that is right, and one with every mistake that the kit finds."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress
from typing import Any, ClassVar

from actorkit import Event, PersistentActor, Rejected, State, applies, command, field, published, query

__all__ = [
    "Added",
    "Hall",
    "HallState",
    "Removed",
    "Renamed",
    "SoldOut",
    "Ticket",
    "TicketState",
    "Wrong",
    "WrongState",
]


class SoldOut(Rejected, code="tests.testing.sold-out"):
    pass


class Added(Event, name="tests.added"):
    seats: list[str]


class Removed(Event, name="tests.removed"):
    seat: str


class Renamed(Event, name="tests.renamed"):
    """An event of the past, which is applied and not emitted any more."""

    name: str


class HallState(State):
    free: list[str] = field(default_factory=list[str])
    name: str = ""
    labels: dict[str, str] = field(default_factory=dict[str, str])

    @applies(Added)
    def added(self, event: Added) -> None:
        self.free += event.seats

    @applies(Removed)
    def removed(self, event: Removed) -> None:
        self.free.remove(event.seat)

    @applies(Renamed)
    def renamed(self, event: Renamed) -> None:
        self.name = event.name


class Hall(PersistentActor[HallState, Added | Removed], name="tests.hall"):
    escaped: ClassVar[Any] = None

    @command
    def add(self, *, seats: list[str]) -> int:
        self.emit(Added(seats))
        return len(self.state.free)

    @command
    def take(self, at_most: int = 1) -> list[str]:
        """Takes seats; refuses where there are none."""
        if not self.state.free:
            raise SoldOut("no seat is left", asked=at_most)
        taken = self.state.free[:at_most]
        for seat in taken:
            self.emit(Removed(seat))
        self.context.once("remind", 60.0, Hall.add, seats=taken)
        self.context.cancel("other")
        return taken

    @command
    def refuse_late(self) -> None:
        self.emit(Removed(self.state.free[0]))
        self.context.once("remind", 60.0, Hall.seats_left)
        raise Rejected("after all, no")

    @query
    def seats(self) -> list[str]:
        return self.state.free

    @command
    def fail(self) -> None:
        self.emit(Removed(self.state.free[0]))
        raise LookupError("lost the key")

    @command
    def token(self) -> tuple[str, str, int, str | None]:
        return self.context.new_id(), self.context.new_id(), self.context.now_us, self.context.idempotency_key

    @command
    def refuse_with_what_cannot_travel(self) -> None:
        raise SoldOut("no", by=object())

    @command
    def let_out(self) -> None:
        Hall.escaped = self

    @command
    def beat(self) -> None:
        self.context.every("beat", 5.0, Hall.seats_left)

    @command
    def seats_left(self) -> int:
        return len(self.state.free)

    @published
    def left(self) -> int | None:
        return len(self.state.free) or None


class TicketState(State):
    seat: str = ""

    @applies(Removed)
    def got(self, event: Removed) -> None:
        self.seat = event.seat


class Ticket(PersistentActor[TicketState, Removed], name="tests.ticket"):
    @command
    async def buy(self, hall: str) -> str:
        seats = await self.context.system.get(Hall, hall).take(at_most=1)
        self.emit(Removed(seats[0]))
        return seats[0]

    @command
    async def buy_or_wait(self, hall: str) -> str:
        try:
            return await self.buy_inner(hall)
        except SoldOut:
            return "wait"

    async def buy_inner(self, hall: str) -> str:
        [seat] = await self.context.system.get(Hall, hall).take()
        return str(seat)

    @command
    async def emit_first(self, hall: str) -> None:
        self.emit(Removed("x"))
        await self.context.system.get(Hall, hall).take()

    @command
    async def call_self(self) -> None:
        await self.context.system.get(Ticket, self.entity_id).call_self()

    @command
    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)

    @command
    async def look_at_view(self) -> None:
        with suppress(Exception):
            self.context.system.view(Hall.left)


class Counted(Event, name="tests.counted"):
    number: int


class Kept(Event, name="tests.kept"):
    text: str


class WrongState(State):
    count: int = 0
    texts: set[str] = field(default_factory=set[str])
    serial: ClassVar[Any] = itertools.count()

    @applies(Counted)
    def counted(self, event: Counted) -> None:
        self.count = next(self.serial)

    @applies(Kept)
    def kept(self, event: Kept) -> None:
        self.texts.add(event.text)


class Wrong(PersistentActor[WrongState, Counted | Kept], name="tests.wrong"):
    @command
    def count(self) -> None:
        self.emit(Counted(1))

    @command
    def keep_many(self) -> None:
        for text in "cab":
            self.emit(Kept(text))

    @command
    def assign(self) -> None:
        self.state.count = 7

    @command
    def assign_and_emit(self) -> None:
        self.emit(Kept("x"))
        self.state.texts.add("y")

    @command
    def assign_and_refuse(self) -> None:
        self.state.count = 7
        raise Rejected("no")

    @command
    def assign_and_refuse_after_emitting(self) -> None:
        self.emit(Kept("x"))
        self.state.count = 7
        raise Rejected("memory is thrown away here, so this is allowed, though not nice")

    @query
    def assigning_query(self) -> int:
        self.state.count += 1
        return self.state.count

    @command
    def break_state(self) -> None:
        state: Any = self.state
        state.count = "many"

    @query
    def wrong_reply(self) -> int:
        text: Any = "three"
        return text  # type: ignore[no-any-return]

    @query
    def emitting(self) -> None:
        self.emit(Kept("x"))

    @command
    def keep(self, text: str) -> None:
        self.emit(Kept(text))

    @published
    def longest(self) -> int | None:
        if "unspeakable" in self.state.texts:
            raise ValueError("cannot be shown")
        return max(map(len, self.state.texts), default=None)

    @command
    def undeclared(self) -> None:
        event: Any = Removed("a")
        self.emit(event)

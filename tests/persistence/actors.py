"""A few persistent actors that many tests use."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from actorkit import Event, PersistentActor, Rejected, State, applies, command, field, published, query

__all__ = ["Account", "AccountState", "Broke", "Busy", "Noted", "Put", "Taken", "Undecided"]


class Put(Event, name="tests.put"):
    amount: int
    note: str = ""


class Taken(Event, name="tests.taken"):
    amount: int


class Noted(Event, name="tests.noted"):
    note: str


class AccountState(State):
    balance: int = 0
    notes: list[str] = field(default_factory=list[str])

    @applies(Put)
    def put(self, event: Put) -> None:
        self.balance += event.amount
        if event.note:
            self.notes.append(event.note)

    @applies(Taken)
    def taken(self, event: Taken) -> None:
        self.balance -= event.amount

    @applies(Noted)
    def noted(self, event: Noted) -> None:
        self.notes.append(event.note)


class Broke(Rejected, code="tests.broke"):
    """There is not enough."""


class Undecided(Rejected, code="tests.undecided", remembered=False):
    """Ask again."""


class Busy:
    """What handlers of a test wait for, by name; a test completes it."""

    waiting: ClassVar[dict[str, asyncio.Future[Any]]] = {}
    entered: ClassVar[list[str]] = []

    @classmethod
    def reset(cls) -> None:
        cls.waiting.clear()
        cls.entered.clear()

    @classmethod
    async def wait(cls, name: str) -> Any:
        cls.entered.append(name)
        future = cls.waiting.setdefault(name, asyncio.get_running_loop().create_future())
        return await asyncio.shield(future)

    @classmethod
    def go(cls, name: str, result: Any = None) -> None:
        future = cls.waiting.setdefault(name, asyncio.get_running_loop().create_future())
        if not future.done():
            future.set_result(result)


class Account(PersistentActor[AccountState, Put | Taken | Noted], name="account"):
    runs: ClassVar[list[str]] = []
    """What was executed, by test; a handler that runs again appears again."""

    @command
    def put(self, amount: int, note: str = "") -> int:
        self.runs.append(f"put {amount} {note}".strip())
        self.emit(Put(amount, note))
        return self.state.balance

    @command
    def put_both(self, first: int, second: int) -> int:
        self.emit(Put(first), Put(second))
        return self.state.balance

    @command
    def take(self, amount: int) -> int:
        self.runs.append(f"take {amount}")
        if amount > self.state.balance:
            raise Broke("not enough", left=self.state.balance)
        self.emit(Taken(amount))
        return self.state.balance

    @command
    def put_then_reject(self, amount: int) -> int:
        self.runs.append(f"put_then_reject {amount}")
        self.emit(Put(amount))
        raise Broke("changed my mind", left=self.state.balance)

    @command
    def hesitate(self) -> int:
        self.runs.append("hesitate")
        raise Undecided("not yet")

    @command
    def nothing(self) -> int:
        self.runs.append("nothing")
        return self.state.balance

    @command
    def boom(self, amount: int = 1) -> int:
        self.emit(Put(amount))
        raise ZeroDivisionError("boom")

    @command
    async def put_slowly(self, amount: int, gate: str, emit_first: bool = False) -> int:
        if emit_first:
            self.emit(Put(amount))
        await Busy.wait(gate)
        if not emit_first:
            self.emit(Put(amount))
        return self.state.balance

    @command
    def note(self, note: str) -> list[str]:
        self.runs.append(note)
        self.emit(Noted(note))
        return self.state.notes

    @query
    def balance(self) -> int:
        return self.state.balance

    @query
    def notes(self) -> list[str]:
        return self.state.notes

    @query
    def at_version(self) -> int:
        return self.version

    @query
    async def balance_slowly(self, gate: str) -> int:
        await Busy.wait(gate)
        return self.state.balance

    @published
    def total(self) -> int | None:
        return self.state.balance

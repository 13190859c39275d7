"""Requests: the calls that a test makes, prepares or sees, as data.

A test says ``lambda pool: pool.reserve(3)``; here that becomes which handler, of which entity, with which bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from actorkit.errors import CallError
from actorkit.ids import PersistenceId
from actorkit.persistence.calls import Handler
from actorkit.persistence.commands import EntityReference
from actorkit.persistence.declaration import EntityType

__all__ = ["Prepared", "Request", "TimerNoted", "request_of"]


class Request(msgspec.Struct, frozen=True):
    """One call: of which entity, of which handler, with which arguments."""

    pid: PersistenceId
    handler: Handler
    arguments: bytes
    key: str | None = None

    def __str__(self) -> str:
        return f"{self.handler.name}{self.handler.signature.decode(self.arguments)!r}".replace(",)", ")")


class Prepared(msgspec.Struct, frozen=True):
    """What another entity answers to a request."""

    request: Request
    reply: bytes
    error: CallError | None


class TimerNoted(msgspec.Struct, frozen=True):
    """A timer that a handler has started."""

    name: str
    delay_s: float
    due_us: int
    request: Request
    repeats: bool

    def __str__(self) -> str:
        return f"{self.name!r} {'every' if self.repeats else 'after'} {self.delay_s:g} s: {self.request}"


def request_of(entity_type: EntityType, pid: PersistenceId, call: Callable[[Any], Coroutine[Any, Any, Any]]) -> Request:
    """The call that ``lambda pool: pool.reserve(3)`` makes. Raises ``TypeError`` where its arguments do not fit."""
    target = _Capturing()
    made: Any = call(EntityReference(target, pid, entity_type.handlers))
    if getattr(made, "__qualname__", "") != "Call.__call__":
        if hasattr(made, "close"):
            made.close()
        handler = next(iter(entity_type.handlers), "...")
        raise TypeError(
            f"expected one call of a command or query, as in lambda {entity_type.cls.__name__.lower()}: "
            f"{entity_type.cls.__name__.lower()}.{handler}(...), and got {made!r}"
        )
    try:
        made.send(None)
    except _Captured as captured:
        return captured.request
    raise AssertionError("a call ends in its target")


class _Captured(BaseException):
    def __init__(self, request: Request) -> None:
        super().__init__()
        self.request = request


class _Capturing:
    """Takes a call, and the arguments as they would arrive."""

    def call(
        self, pid: PersistenceId, handler: Handler, args: tuple[Any, ...], *, key: str | None, deadline_s: float | None
    ) -> Any:
        arguments = handler.signature.encode(args)
        handler.signature.decode(arguments)
        raise _Captured(Request(pid, handler, arguments, key))

"""Probe (a shell): an actor that stands where another one would, records what it gets, and answers as it is told.

::

    probe = Probe.spawn(system)
    probe.answers(Ping, with_="pong")
    assert await probe.ref.ask(Ping()) == "pong"
    await probe.expect(Ping, within_s=1.0)

It waits by the clock of its loop, so on virtual time waiting costs nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from actorkit.actor.actor import Actor
from actorkit.actor.ref import ActorRef
from actorkit.testing.rendering import differences, indented, numbered, shown

if TYPE_CHECKING:
    from actorkit.node import ActorSystem

__all__ = ["Probe"]

T = TypeVar("T")

_UNREAD_MAX = 10_000


class Probe(Actor[Any]):
    """Make it with ``Probe.spawn``; ``ref`` is what others are given."""

    ref: ActorRef[Any]

    def __init__(self) -> None:
        self.received: list[Any] = []
        """All messages so far, in order."""
        self._unread: deque[Any] = deque()
        self._scripts: list[tuple[Any, Any]] = []
        self._arrived = asyncio.Event()

    @classmethod
    def spawn(cls, system: ActorSystem, name: str | None = None) -> Self:
        """Starts a probe at the top of the system's tree."""
        probe = cls()
        probe.ref = system.spawn(lambda: probe, name)
        return probe

    def answers(self, wanted: type[Any] | Any, *, with_: Any) -> Self:
        """From now on an ask with a message of this class, or equal to this value, is answered.

        ``with_`` is the answer, or an exception to be raised, or a function of the message that gives it. The newest
        answer that fits counts; without any, a probe answers ``None``.
        """
        self._scripts.insert(0, (wanted, with_))
        return self

    def receive(self, message: Any) -> Any:
        """Records the message, and answers it as scripted."""
        if len(self._unread) >= _UNREAD_MAX:
            raise OverflowError(f"{_UNREAD_MAX} messages have come that no expect() has asked for")
        self.received.append(message)
        self._unread.append(message)
        self._arrived.set()
        for wanted, answer in self._scripts:
            if _fits(wanted, message):
                return _given(answer, message)
        return None

    @overload
    async def expect(self, wanted: type[T], *, within_s: float = ...) -> T: ...
    @overload
    async def expect(self, wanted: T, *, within_s: float = ...) -> T: ...
    async def expect(self, wanted: Any, *, within_s: float = 3.0) -> Any:
        """The next message, which must be of this class, or equal to this value; waits for it if there is none yet.

        Raises ``AssertionError`` if another message is next, or if none has come after ``within_s`` seconds.
        """
        __tracebackhide__ = True
        if not await self._has_come(within_s):
            before = f"; before came\n{indented(numbered(self.received[-10:]))}" if self.received else ""
            raise AssertionError(
                f"{self._name}: expected {shown(wanted)}, and nothing came within {within_s:g} s{before}"
            )
        message = self._unread.popleft()
        if not _fits(wanted, message):
            raise AssertionError(
                f"{self._name}: another message came\n{indented(differences('expected', wanted, 'received', message))}"
            )
        return message

    async def expect_nothing(self, *, for_s: float) -> None:
        """No message that has not been asked for is there, and none comes within ``for_s`` seconds."""
        __tracebackhide__ = True
        if await self._has_come(for_s):
            raise AssertionError(f"{self._name}: expected nothing, and there came\n{indented(numbered(self._unread))}")

    async def _has_come(self, within_s: float) -> bool:
        if not self._unread:
            self._arrived.clear()
            try:
                async with asyncio.timeout(within_s):
                    await self._arrived.wait()
            except TimeoutError:
                return False
        return True

    @property
    def _name(self) -> str:
        return str(self.ref.path)


def _fits(wanted: Any, message: Any) -> bool:
    return isinstance(message, wanted) if isinstance(wanted, type) else bool(wanted == message)


def _given(answer: Any, message: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    if callable(answer):
        return answer(message)
    return answer

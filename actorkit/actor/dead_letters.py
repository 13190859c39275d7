"""Dead letters: messages that reached nobody, counted, and the newest of them kept for looking at."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import Any, NamedTuple

__all__ = ["DeadLetter", "DeadLetters", "Reason"]


class Reason(Enum):
    """Why a message reached nobody."""

    STOPPED = "stopped"
    """Its receiver had stopped, or stopped before the message's turn."""
    MAILBOX_FULL = "mailbox-full"
    """It was held back at the sender's gate, and no room was left when it was let out."""
    STASH_FULL = "stash-full"
    """Its receiver wanted to put it aside and could not."""


class DeadLetter(NamedTuple):
    """One message that reached nobody."""

    path: str
    message: Any
    reason: Reason


class DeadLetters:
    """Counts for ever, keeps the newest ``kept``. Asks are not among them: their asker is told."""

    def __init__(self, kept: int) -> None:
        self._newest: deque[DeadLetter] = deque(maxlen=kept)
        self._counts: Counter[Reason] = Counter()
        self._subscribers: list[Callable[[DeadLetter], None]] = []

    @property
    def counts(self) -> Mapping[Reason, int]:
        """How many there were since the start, by reason; a reason that never occurred counts 0."""
        return MappingProxyType(self._counts)

    @property
    def newest(self) -> Sequence[DeadLetter]:
        """The newest ones, oldest first."""
        return tuple(self._newest)

    def subscribe(self, subscriber: Callable[[DeadLetter], None]) -> Callable[[], None]:
        """Call ``subscriber`` with every dead letter from now on; it must be quick and not raise. Returns the undo."""
        self._subscribers.append(subscriber)

        def unsubscribe() -> None:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

        return unsubscribe

    def record(self, path: str, message: object, reason: Reason) -> None:
        """Count one and tell the subscribers. Their exceptions come out here."""
        letter = DeadLetter(path, message, reason)
        self._counts[reason] += 1
        self._newest.append(letter)
        for subscriber in tuple(self._subscribers):
            subscriber(letter)

"""Messenger: what membership needs of remoting, and no more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import msgspec

from actorkit.ids import NodeId

__all__ = ["DowningLease", "Messenger", "Sender"]

M = TypeVar("M", bound=msgspec.Struct)


class Sender(Protocol):
    """Who has sent a message, as the connection has proved it."""

    @property
    def node(self) -> NodeId: ...

    @property
    def address(self) -> str:
        """Where it is reached, by its own account: ``host:port``."""
        ...


class Messenger(Protocol):
    """Sends messages to addresses, each at most once."""

    @property
    def address(self) -> str:
        """Where this process is reached."""
        ...

    def register(self, message_type: type[M], receive: Callable[[Sender, M], None]) -> None:
        """From now on ``receive`` is called with each message of that type that arrives."""
        ...

    def send(self, address: str, message: msgspec.Struct) -> bool:
        """``False``: it was surely not sent."""
        ...


class DowningLease(Protocol):
    """A lease in the store that only one side of a partition can have."""

    def acquire(self) -> Awaitable[bool]:
        """Whether this side has it now. It is asked for by one node of each side, once for each partition; who has it
        keeps it for longer than the other side goes on asking. May take its time: ``Cluster`` has a limit for it."""
        ...

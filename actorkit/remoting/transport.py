"""Transport: what remoting needs of a network; implemented over WebSockets, and in simulation.

A link carries whole frames in both directions, in the order in which they were sent and without a hole, until it is
closed; it may stall for any time. All calls are made, and all callbacks come, on the loop; none of them blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["Acceptor", "Link", "LinkHandler", "Transport"]


class Link(Protocol):
    """One connection."""

    @property
    def source(self) -> str:
        """The host at the other end, without a port: what limits on connections go by."""
        ...

    def send(self, frame: bytes) -> bool:
        """Takes a frame in any case. False: send no more until ``LinkHandler.writable`` is called."""
        ...

    def trust(self) -> None:
        """The other end is known now: limits for strangers no longer hold."""
        ...

    def close(self, *, abort: bool = False) -> None:
        """Closes it, after what was sent has left, or at once. ``LinkHandler.closed`` is not called any more."""
        ...


class LinkHandler(Protocol):
    """Whom a link tells what happens to it."""

    def received(self, frame: bytes) -> None:
        """A frame has come. After ``Link.close`` none does."""
        ...

    def writable(self) -> None:
        """After ``send`` said False: there is room again."""
        ...

    def closed(self, why: str) -> None:
        """The link is gone, by itself or by the other end. Told once; nothing comes after it."""
        ...


class Acceptor(Protocol):
    """Whom a listening transport asks about new connections."""

    def admit(self, source: str) -> bool:
        """Whether a connection from that host may be made at all. Asked before anything is read from it."""
        ...

    def accept(self, link: Link) -> LinkHandler:
        """A connection was made."""
        ...


class Transport(Protocol):
    """A way to reach other nodes and to be reached."""

    @property
    def private(self) -> bool:
        """Whether it lets in nobody but the cluster's nodes, as mutual TLS does."""
        ...

    async def listen(self, address: str, acceptor: Acceptor) -> str:
        """Begins to take connections at ``host:port``; returns the address with the port that was given for 0.

        Raises ``OSError`` where it cannot be had.
        """
        ...

    async def connect(self, address: str, opened: Callable[[Link], LinkHandler]) -> None:
        """Makes a connection; ``opened`` is called before anything comes from it.

        Raises ``ConnectionFailed``. Cancelling it leaves nothing behind.
        """
        ...

    async def close(self) -> None:
        """Takes no more connections and closes all links, after what was sent has left."""
        ...

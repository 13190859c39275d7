"""Links between nodes, and what befalls them: cut in both directions or in one, there and gone again by turns."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import NamedTuple, Protocol

from tests.processes.ports import free_port

__all__ = ["Fault", "Links", "Loopback", "Place", "Way", "ended", "faults_of_cuts"]

FLAP_S = (0.05, 1.0)
"""How long a flapping link is there, and gone, each time."""

Way = tuple[str, str]
"""The name of the node that sends, and of the one that it sends to."""

Fault = Callable[[str, Sequence[str], Random], AbstractAsyncContextManager[None]]
"""Something that befalls the links between one node and these others for as long as the block runs."""


class Place(NamedTuple):
    """Where a node runs and how it is reached."""

    http: str
    remoting: str
    advertised: str
    """Where its peers connect: the other end of its links."""
    command: tuple[str, ...] = ()
    """What runs it there, before its own command."""
    arguments: tuple[str, ...] = ()


class Links(Protocol):
    """All links of one cluster."""

    faults: Mapping[str, Fault]
    did: Counter[str]
    """What was really done to them, and how often."""

    def opened(self, directory: Path, names: Sequence[str]) -> AbstractAsyncContextManager[dict[str, Place]]:
        """The places of these nodes, with links between all of them until the block is left."""
        ...


class Loopback:
    """Nodes that reach each other directly; nothing befalls their links."""

    def __init__(self) -> None:
        self.faults: Mapping[str, Fault] = {}
        self.did: Counter[str] = Counter()

    @asynccontextmanager
    async def opened(self, directory: Path, names: Sequence[str]) -> AsyncIterator[dict[str, Place]]:
        addresses = {name: f"127.0.0.1:{free_port()}" for name in names}
        yield {name: Place(f"127.0.0.1:{free_port()}", address, address) for name, address in addresses.items()}


class Cuttable(Protocol):
    """Links that can be cut, each way by itself."""

    async def cut(self, way: Way) -> None:
        """From now on nothing arrives on this way, and nobody is told."""
        ...

    async def mend(self, way: Way) -> None:
        """What the sender still has arrives now, as TCP sends it again."""
        ...


def faults_of_cuts(links: Cuttable) -> dict[str, Fault]:
    """What can be done to all links that can be cut, by name."""
    return {
        "partition": partial(_partition, links),
        "deaf": partial(_deaf, links),
        "mute": partial(_mute, links),
        "non-transitive": partial(_non_transitive, links),
        "flapping": partial(_flapping, links),
    }


@asynccontextmanager
async def _cut(links: Cuttable, ways: Sequence[Way]) -> AsyncIterator[None]:
    done: list[Way] = []
    try:
        for way in ways:
            await links.cut(way)
            done.append(way)
        yield
    finally:
        for way in done:
            await links.mend(way)


def _from(node: str, others: Iterable[str]) -> list[Way]:
    return [(node, other) for other in others]


def _to(node: str, others: Iterable[str]) -> list[Way]:
    return [(other, node) for other in others]


def _partition(links: Cuttable, node: str, others: Sequence[str], random: Random) -> AbstractAsyncContextManager[None]:
    """The node and the others hear nothing of each other."""
    return _cut(links, [*_from(node, others), *_to(node, others)])


def _deaf(links: Cuttable, node: str, others: Sequence[str], random: Random) -> AbstractAsyncContextManager[None]:
    """What is sent to the node is lost."""
    return _cut(links, _to(node, others))


def _mute(links: Cuttable, node: str, others: Sequence[str], random: Random) -> AbstractAsyncContextManager[None]:
    """What the node sends is lost."""
    return _cut(links, _from(node, others))


def _non_transitive(
    links: Cuttable, node: str, others: Sequence[str], random: Random
) -> AbstractAsyncContextManager[None]:
    """The node and one other hear nothing of each other; all the rest reach both."""
    other = random.choice(others)
    return _cut(links, [(node, other), (other, node)])


@asynccontextmanager
async def _flapping(links: Cuttable, node: str, others: Sequence[str], random: Random) -> AsyncIterator[None]:
    """The node is cut off, and reached again, by turns."""

    over = asyncio.Event()

    async def a_while() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(random.uniform(*FLAP_S)):
                await over.wait()

    async def flap() -> None:
        while not over.is_set():
            async with _partition(links, node, others, random):
                await a_while()
            await a_while()

    task = asyncio.create_task(flap())
    try:
        yield
    finally:
        # Not cancelled: what is cut at that moment would stay cut.
        over.set()
        await task


async def ended(task: asyncio.Task[None]) -> None:
    """Cancels it, and returns when it has ended."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task

"""Nodes of the capacity service as processes of this machine, which can be killed, paused and told to leave."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.processes.links import Links, Loopback, Place

PROJECT = Path(__file__).parent.parent.parent
START_MAX_S = 60.0
"""For all that is not measured: a machine that does much else may take long."""

DOWNED = 71
"""The status with which a node ends that the others have declared gone."""

_POLL_S = 0.02


async def until(true: Callable[[], Awaitable[bool]], what: str, *, within_s: float = START_MAX_S) -> None:
    """Polls another process. Raises ``AssertionError``."""
    try:
        async with asyncio.timeout(within_s):
            while not await true():
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise AssertionError(f"not within {within_s:g} s: {what}") from None


class NodeProcess:
    """One node, through as many lives as it is given, on the same ports."""

    def __init__(self, name: str, directory: Path, place: Place) -> None:
        self.name = name
        self.place = place
        self.url = f"http://{place.http}"
        self.log = directory / f"{name}.log"
        self.was_ready = False
        """Whether it has said in this life that it is ready: from then on clients are sent to it, until it ends."""
        self._process: asyncio.subprocess.Process | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self, *arguments: str) -> None:
        """Returns at once."""
        assert not self.running
        self.was_ready = False
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ACTORKIT_")}
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.place.command,
                *(sys.executable, "-m", "examples.capacity_service", "node", "--name", self.name),
                *("--http", self.place.http, "--remoting", self.place.remoting, *self.place.arguments, *arguments),
                cwd=PROJECT,
                env={**environment, "PYTHONPATH": str(PROJECT)},
                stdout=log,
                stderr=log,
            )

    def send_signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def ended(self) -> int:
        """The status with which it ends."""
        assert self._process is not None
        async with asyncio.timeout(START_MAX_S):
            return await self._process.wait()

    async def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
        await self.ended()

    async def terminate(self) -> int:
        self.send_signal(signal.SIGTERM)
        return await self.ended()


class Nodes:
    """Nodes that share a journal, and know each other as seeds."""

    def __init__(
        self, directory: Path, session: aiohttp.ClientSession, places: Mapping[str, Place], *, shards: int
    ) -> None:
        self.session = session
        self.shards = shards
        self.journal = directory / "capacity.db"
        self.all = [NodeProcess(name, directory, place) for name, place in places.items()]
        self._seeds = ",".join(node.place.advertised for node in self.all)

    def __getitem__(self, index: int) -> NodeProcess:
        return self.all[index]

    @property
    def running(self) -> list[NodeProcess]:
        return [node for node in self.all if node.running]

    @property
    def serving(self) -> list[NodeProcess]:
        """Those that clients are sent to."""
        return [node for node in self.running if node.was_ready] or self.running

    async def start(self, node: NodeProcess, *more: str) -> None:
        journal = ("--journal", f"sqlite:///{self.journal}", "--shards", str(self.shards))
        await node.start("--seeds", self._seeds, *journal, *more)

    async def start_all(self) -> None:
        for node in self.all:
            await self.start(node)
        await self.formed(self.all)

    async def formed(self, nodes: Iterable[NodeProcess], *, within_s: float = START_MAX_S) -> None:
        """Returns when these nodes are all members of one cluster, say so, and are ready."""
        expected = list(nodes)

        async def as_one() -> bool:
            for node in expected:
                assert node.running, f"{node.name} has ended"
            return await self._are_one(expected)

        names = ", ".join(sorted(node.name for node in expected))
        await until(as_one, f"{names} form one cluster", within_s=within_s)

    async def whole_again(self) -> list[str]:
        """Returns when all nodes are one cluster; those are started again that were declared gone meanwhile.

        The result is which others have ended.
        """
        wrong: list[str] = []

        async def whole() -> bool:
            for node in self.all:
                if not node.running:
                    status = await node.ended()
                    if status != DOWNED or "is no member of its cluster any more" not in node.log.read_text():
                        wrong.append(f"{node.name} has ended with status {status}")
                    await self.start(node)
            return await self._are_one(self.all)

        await until(whole, "all nodes form one cluster again")
        return wrong

    async def unreachable(self, node: NodeProcess) -> bool:
        """Whether all other nodes say that they do not reach this one, or that it is no member any more."""
        for other in self.all:
            if other is not node:
                members = (await self.get(other, "/cluster/members") or {"members": None})["members"]
                standing = {member["name"]: member["status"] for member in members or []}
                if not standing or standing.get(node.name) not in ("unreachable", None):
                    return False
        return True

    async def _are_one(self, nodes: Sequence[NodeProcess]) -> bool:
        expected = {node.name for node in nodes}
        views: list[list[Any]] = []
        for node in nodes:
            if await self.get(node, "/health/ready") is None:
                return False
            node.was_ready = True
            views.append((await self.get(node, "/cluster/members") or {}).get("members", []))
        return all(view == views[0] for view in views) and {
            member["name"] for member in views[0] if member["status"] == "up"
        } == expected == {member["name"] for member in views[0]}

    async def get(self, node: NodeProcess, path: str) -> Any:
        """The body of a 200 answer; ``None`` for every other one, and where there is none."""
        try:
            async with self.session.get(node.url + path, timeout=aiohttp.ClientTimeout(total=5)) as response:
                return await response.json() if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None

    async def owner_of(self, shard: int) -> str:
        """The name of the node that has the shard's lease."""
        for node in self.running:
            answer = await self.get(node, "/cluster/shards")
            if answer is not None:
                return str(answer["shards"][shard]["owner"]).partition("#")[0]
        raise AssertionError("no node says who owns which shard")

    async def stop_all(self) -> list[int]:
        """The statuses with which they end, all of them told at the same time."""
        running = self.running
        for node in running:
            node.send_signal(signal.SIGTERM)
        return list(await asyncio.gather(*(node.ended() for node in running)))


@asynccontextmanager
async def processes(
    directory: Path, names: Iterable[str], *, shards: int = 16, links: Links | None = None
) -> AsyncIterator[Nodes]:
    """Nodes that are killed in the end; their logs are shown where the block fails. No ``links``: loopback."""
    async with (
        (links or Loopback()).opened(directory, list(names)) as places,
        # Clients of a real service connect from many machines, so that a closed connection takes no other one with it.
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        nodes = Nodes(directory, session, places, shards=shards)
        try:
            yield nodes
        except BaseException:
            for node in nodes.all:
                if node.log.exists():
                    print(f"---- {node.name} {node.place.http} {node.place.advertised}\n{node.log.read_text()[-6000:]}")
            raise
        finally:
            for node in nodes.running:
                node.send_signal(signal.SIGKILL)
                await node.ended()

"""Links between network namespaces of Linux: each node has a network of its own, and a router drops what is cut.

::

    n1 10.77.1.2 ── 10.77.1.1 ┐
    n2 10.77.2.2 ── 10.77.2.1 ┤ router, where the callers are
    n3 10.77.3.2 ── 10.77.3.1 ┘

A way is cut by a rule of the router that says of packets from one node to another: forget them ("blackhole"). So
neither end is told, each kernel sends again what it has sent in vain, and connecting ends by its time limit. What nodes
have with the journal, a file, and with callers stays as it is.

All that is needed is done in a network namespace of its own (``inside``), which ends with the command that runs there,
and takes all its processes with it. The network of the machine is not touched.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

from tests.processes.links import Fault, Place, Way, faults_of_cuts

__all__ = ["Namespaces", "inside", "why_not"]

_ISOLATED = ("--net", "--pid", "--fork", "--kill-child", "--mount-proc")
_AS_ROOT = ("unshare", *_ISOLATED)
_AS_USER = ("unshare", "--user", "--map-root-user", *_ISOLATED)
_PASS_ON = "echo 1 > /proc/sys/net/ipv4/ip_forward"
_TRY = (
    "ip link add router type veth peer name node && ip rule add from 10.77.1.2 to 10.77.2.2 blackhole && "
    f"{_PASS_ON} && exec unshare --net true"
)


@cache
def _ways_in() -> tuple[tuple[str, ...] | None, str]:
    """The command that opens a namespace, or what every command said instead."""
    if sys.platform != "linux":
        return None, "there are no network namespaces"
    missing = [command for command in ("unshare", "nsenter", "ip") if shutil.which(command) is None]
    if missing:
        return None, f"there is no command {' and no '.join(missing)}"
    said: list[str] = []
    for command in (_AS_ROOT, _AS_USER) if os.geteuid() == 0 else (_AS_USER,):
        tried = subprocess.run([*command, "sh", "-c", _TRY], capture_output=True, text=True, timeout=30)
        if tried.returncode == 0:
            return command, ""
        said.append(tried.stderr.strip())
    return None, "; ".join(said)


def why_not() -> str:
    """Why this machine cannot do it; empty: it can."""
    return _ways_in()[1]


def inside(command: Sequence[str]) -> list[str]:
    """The command, to be run in a network namespace of its own, where ``Namespaces`` may be opened."""
    way_in, _ = _ways_in()
    assert way_in is not None
    return [*way_in, *command]


class Namespaces:
    """Implements ``Links``, within a network namespace of its own."""

    def __init__(self) -> None:
        self.faults: Mapping[str, Fault] = faults_of_cuts(self)
        self.did: Counter[str] = Counter()
        self._hosts: dict[str, str] = {}

    @asynccontextmanager
    async def opened(self, directory: Path, names: Sequence[str]) -> AsyncIterator[dict[str, Place]]:
        secret = directory / "secret"
        # Beyond loopback nodes demand one.
        secret.write_text("known to all nodes of this cluster\n")
        await _ip("link", "set", "lo", "up")
        await _run("sh", "-c", _PASS_ON)
        keepers: list[asyncio.subprocess.Process] = []
        try:
            places: dict[str, Place] = {}
            for number, name in enumerate(names, 1):
                keeper = await _namespace()
                keepers.append(keeper)
                entered = ("nsenter", f"--net=/proc/{keeper.pid}/ns/net")
                host = self._hosts[name] = f"10.77.{number}.2"
                await _connect(number, keeper.pid, entered)
                remoting = f"{host}:9080"
                places[name] = Place(f"{host}:8080", remoting, remoting, entered, ("--secret-file", str(secret)))
            yield places
        finally:
            for keeper in keepers:
                keeper.kill()
                await keeper.wait()

    async def cut(self, way: Way) -> None:
        await _ip("rule", "add", *self._packets(way), "blackhole")
        self.did["cut"] += 1

    async def mend(self, way: Way) -> None:
        await _ip("rule", "del", *self._packets(way), "blackhole")

    def _packets(self, way: Way) -> tuple[str, ...]:
        source, target = way
        return "from", self._hosts[source], "to", self._hosts[target]


async def _namespace() -> asyncio.subprocess.Process:
    """A process that does nothing but keep a namespace in being."""
    keeper = await asyncio.create_subprocess_exec(
        *("unshare", "--net", "sh", "-c", "echo; exec sleep infinity"), stdout=asyncio.subprocess.PIPE
    )
    assert keeper.stdout is not None
    assert await keeper.stdout.readline() == b"\n"
    return keeper


async def _connect(number: int, pid: int, entered: tuple[str, ...]) -> None:
    here, there = f"10.77.{number}.1", f"10.77.{number}.2"
    await _ip("link", "add", f"to-{number}", "type", "veth", "peer", "name", "router", "netns", str(pid))
    await _ip("address", "add", f"{here}/30", "dev", f"to-{number}")
    await _ip("link", "set", f"to-{number}", "up")
    await _ip("address", "add", f"{there}/30", "dev", "router", entered=entered)
    await _ip("link", "set", "router", "up", entered=entered)
    await _ip("link", "set", "lo", "up", entered=entered)
    await _ip("route", "add", "default", "via", here, entered=entered)


async def _ip(*arguments: str, entered: tuple[str, ...] = ()) -> None:
    await _run(*entered, "ip", *arguments)


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    assert process.returncode == 0, f"{' '.join(command)}: {said.decode()}"

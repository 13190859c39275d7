"""Several nodes as processes on this machine, on one journal."""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from examples.capacity_service.settings import Address

__all__ = ["run_local_cluster"]

_HOST = "127.0.0.1"
_REMOTING_OFFSET = 1000
_PORT_MAX = 65_535


def _addresses(nodes: int, base_http: int) -> list[tuple[Address, Address]]:
    """Where each node listens for HTTP and for its peers. Raises ``ValueError`` where there are not enough ports."""
    last_http, offset = base_http + nodes - 1, max(_REMOTING_OFFSET, nodes)
    if last_http + offset > _PORT_MAX:
        raise ValueError(f"--base-http is at most {_PORT_MAX - offset - nodes + 1} for {nodes} nodes: ports end there")
    ports = range(base_http, last_http + 1)
    return [(Address(_HOST, port), Address(_HOST, port + offset)) for port in ports]


def _from_anywhere(journal: str) -> str:
    """The same journal for whoever starts a node from another directory."""
    file = journal.removeprefix("sqlite:///")
    if file == journal or not file or file.startswith("/"):
        return journal
    return f"sqlite:///{quote(str(Path.cwd()))}/{file}"


async def run_local_cluster(nodes: int, base_http: int, journal: str, say: Callable[[str], None]) -> int:
    """Returns once all nodes have ended: the first status that is not 0, if there is one.

    SIGTERM and SIGINT are passed on; a second one ends the nodes at once. A node that ends by itself is told of, and
    the others go on. Raises ``ValueError``.
    """
    addresses = _addresses(nodes, base_http)
    seeds = ",".join(str(remoting) for _, remoting in addresses)
    processes: dict[str, Process] = {}
    commands: dict[str, list[str]] = {}
    stopping = False

    def pass_on(number: int) -> None:
        nonlocal stopping
        stopping = True
        for process in processes.values():
            with suppress(ProcessLookupError):
                process.send_signal(number)

    async def ended(name: str, process: Process, command: list[str]) -> int:
        status = await process.wait()
        if not stopping:
            say(f"{name} has ended with status {status}; start it again with: {shlex.join(command)}")
        return status

    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, pass_on, signum)
    # The terminal is closed: the nodes, in sessions of their own, would not hear of it.
    loop.add_signal_handler(signal.SIGHUP, pass_on, signal.SIGTERM)
    for number, (http, remoting) in enumerate(addresses, start=1):
        name = f"n{number}"
        command = [sys.executable, "-m", "examples.capacity_service", "node", "--name", name, "--http", str(http)]
        command += ["--remoting", str(remoting), "--seeds", seeds, "--journal", _from_anywhere(journal)]
        commands[name] = command
        # In a session of its own, so that Ctrl-C reaches it once, from here.
        processes[name] = await asyncio.create_subprocess_exec(*command, start_new_session=True)
    statuses = await asyncio.gather(*(ended(name, process, commands[name]) for name, process in processes.items()))
    return next((status for status in statuses if status), 0)

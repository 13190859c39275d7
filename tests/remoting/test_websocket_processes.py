"""A peer in another process that is killed, stopped for a while, and started again."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from actorkit.remoting import Connected, Disconnected, RemotingSettings
from tests.remoting.nodes import Note
from tests.remoting.sockets import SocketNode, started, until


@asynccontextmanager
async def other_process(address: str = "127.0.0.1:0") -> AsyncGenerator[tuple[asyncio.subprocess.Process, str]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.remoting.node_process", address, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 30.0)
        yield process, line.decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_killed_peer_is_noticed_at_once_and_is_another_one_when_it_is_back() -> None:
    a = SocketNode("a", settings=RemotingSettings(idle_timeout_s=60.0))
    async with started(a):
        async with other_process() as (process, address):
            a.remoting.send(address, Note(1))
            await until(lambda: a.heard)
            process.kill()
            began_s = time.monotonic()
            await until(lambda: len(a.told) == 2)
            # The system closes its connections; no time-out has to run out.
            assert time.monotonic() - began_s < 5.0
        async with other_process(address) as (_, again):
            assert again == address
            await until(lambda: a.remoting.send(address, Note(2)))
            await until(lambda: len(a.heard) >= 2)
        told = [event for event in a.told if isinstance(event, Connected | Disconnected)]
        assert [type(event) for event in told[:3]] == [Connected, Disconnected, Connected]
        assert told[0].node.name == told[2].node.name
        assert told[0].node.incarnation != told[2].node.incarnation


async def test_a_peer_that_stands_still_is_disconnected_and_goes_on_as_itself() -> None:
    a = SocketNode("a", settings=RemotingSettings(heartbeat_s=0.1, idle_timeout_s=1.5))
    async with started(a), other_process() as (process, address):
        a.remoting.send(address, Note(1))
        await until(lambda: a.heard)
        process.send_signal(signal.SIGSTOP)
        await until(lambda: len(a.told) == 2)
        assert "nothing was heard" in str(a.told[1])
        process.send_signal(signal.SIGCONT)
        await until(lambda: a.remoting.send(address, Note(2)) and len(a.heard) >= 2)
        connected = [event for event in a.told if isinstance(event, Connected)]
        assert len(connected) >= 2
        assert {event.node for event in connected} == {connected[0].node}

"""What does it cost that an entity lives on another node, through everything a call goes through?

Two nodes are processes on one SQLite journal; each owns half of the shards. The callers are in one of them. Durable
commands and queries to the other node's entities, through router, remoting, the owner's region, the entity and back,
are measured against the same to the entities of the callers' own node; one query at a time, against a message that
comes back over a bare WebSocket between the same two processes.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

import actorkit
from actorkit import ActorSystem
from actorkit.ids import shard_of
from bench.measure import interleaved, result, scratch
from bench.pools import Counter
from bench.region_node import SHARDS, system_of
from bench.remote_ask import ARGUMENTS, free_port, websocket_to

ENTITIES = 1_000
IN_FLIGHT = 1_000
COMMANDS_EACH = 10
QUERIES_EACH = 10
ONE_BY_ONE = 500
ROUNDS = 5
TARGET_COMMANDS = 0.6
TARGET_COMMAND_US = 1.5
TARGET_QUERIES = 0.25
TARGET_ONE = 2.0
SETTLING_S = 1.0
START_MAX_S = 60.0


@contextmanager
def _other_node(*arguments: str) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-m", "bench.region_node", *arguments])
    try:
        yield
    finally:
        process.kill()
        process.wait()


async def _owners(system: ActorSystem) -> dict[int, bool]:
    """Which shards are ours, once both nodes have their share of them and nothing moves any more."""
    give_up_s = time.monotonic() + START_MAX_S
    before: dict[int, Any] = {}
    while time.monotonic() < give_up_s:
        await asyncio.sleep(SETTLING_S)
        now = {each.shard: each.owner for each in await system.shards()}
        if now == before and len(now) == SHARDS and len(set(now.values())) == 2 and "" not in now.values():
            return {shard: owner == str(system.node) for shard, owner in now.items()}
        before = now
    raise RuntimeError(f"the nodes have not come to share the shards: {before}")


async def _rate(targets: list[Any], handler: str, each: int, *arguments: Any) -> float:
    """Calls a second; caller n asks target n."""

    async def caller(target: Any) -> None:
        call = getattr(target, handler)
        for _ in range(each):
            await call(*arguments)

    begin_s = time.perf_counter()
    await asyncio.gather(*(caller(targets[number % len(targets)]) for number in range(IN_FLIGHT)))
    return IN_FLIGHT * each / (time.perf_counter() - begin_s)


async def _mean_us(target: Any, handler: str, rounds: int, *arguments: Any) -> float:
    call = getattr(target, handler)
    begin_s = time.perf_counter()
    for _ in range(rounds):
        await call(*arguments)
    return (time.perf_counter() - begin_s) / rounds * 1e6


async def _measure(directory: Path, port: int, other_port: int, bare_port: int) -> list[dict[str, Any]]:
    journal, address = f"sqlite:///{directory / 'bench.db'}", f"127.0.0.1:{port}"
    async with system_of("callers", journal, port, (address,)) as system, aiohttp.ClientSession() as session:
        with _other_node(journal, str(other_port), address, str(bare_port)):
            echoes = await websocket_to(f"http://127.0.0.1:{bare_port}/echoes", session)
            ours = await _owners(system)
            pools: dict[bool, list[Any]] = {True: [], False: []}
            for number in range(8 * ENTITIES):
                of_ours = pools[ours[shard_of(f"Counter/pool-{number}", SHARDS)]]
                if len(of_ours) < ENTITIES:
                    of_ours.append(system.get(Counter, f"pool-{number}"))
            here, there = pools[True], pools[False]

            async def echo() -> float:
                begin_s = time.perf_counter()
                for _ in range(ONE_BY_ONE):
                    await echoes.send_bytes(ARGUMENTS)
                    await echoes.receive()
                return (time.perf_counter() - begin_s) / ONE_BY_ONE * 1e6

            commands = await interleaved(
                lambda: _rate(there, "reserve", COMMANDS_EACH, 1),
                lambda: _rate(here, "reserve", COMMANDS_EACH, 1),
                rounds=ROUNDS,
            )
            command = await interleaved(
                lambda: _mean_us(there[0], "reserve", ONE_BY_ONE // 10, 1),
                lambda: _mean_us(here[0], "reserve", ONE_BY_ONE // 10, 1),
                rounds=ROUNDS,
            )
            queries = await interleaved(
                lambda: _rate(there, "free", QUERIES_EACH), lambda: _rate(here, "free", QUERIES_EACH), rounds=ROUNDS
            )
            query = await interleaved(lambda: _mean_us(there[0], "free", ONE_BY_ONE), echo, rounds=ROUNDS)
    return [
        result(
            "durable commands to another node's entities, 1,000 in flight, against our own node's",
            "1/s",
            *commands,
            target=TARGET_COMMANDS,
        ),
        result(
            "one durable command at a time to another node's entity, against our own node's",
            "µs",
            *command,
            target=TARGET_COMMAND_US,
            at_most=True,
        ),
        result(
            "queries to another node's entities, 1,000 in flight, against our own node's",
            "1/s",
            *queries,
            target=TARGET_QUERIES,
        ),
        result(
            "one query at a time to another node's entity, against a bare WebSocket's round trip",
            "µs",
            *query,
            target=TARGET_ONE,
            at_most=True,
        ),
    ]


def run() -> list[dict[str, Any]]:
    """All four lines."""
    with scratch() as directory:
        return actorkit.run(_measure(directory, free_port(), free_port(), free_port()))


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))

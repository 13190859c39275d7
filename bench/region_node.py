"""The other process of ``bench.remote_region``: a node that owns half of the shards, and a bare WebSocket beside it."""

from __future__ import annotations

import asyncio
import logging
import sys

import structlog
from aiohttp import web

import actorkit
from actorkit import ActorSystem, ClusterNode
from bench.pools import Counter
from bench.remote_echo import SECRET, echoes

SHARDS = 64


def system_of(name: str, journal: str, port: int, seeds: tuple[str, ...]) -> ActorSystem:
    """One node of the cluster that is measured, with a secret, as nodes on several machines must have one."""
    return ActorSystem(
        journal,
        name=name,
        shards=SHARDS,
        entities=[Counter],
        cluster=ClusterNode(remoting=f"127.0.0.1:{port}", seeds=seeds, cluster="bench", secret=SECRET),
    )


async def serve(journal: str, port: int, seed: str, bare_port: int) -> None:
    """Until it is terminated."""
    app = web.Application()
    app.router.add_get("/echoes", echoes)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", bare_port).start()
    async with system_of("other", journal, port, (seed,)):
        await asyncio.Event().wait()


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    actorkit.run(serve(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))

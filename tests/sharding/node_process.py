"""A node in a process of its own: takes commands as lines of JSON, and answers each with one.

``{"n": 1, "do": "note", "args": ["x"], "key": null}`` is answered ``{"n": 1, "reply": …}`` or ``{"n": 1, "error": …}``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from actorkit import ActorSystem, CallError
from tests.persistence.actors import Account
from tests.persistence.kit import settings


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


async def serve(url: str) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    chosen = settings(lease_s=2.0, lease_renew_s=0.3, acquire_retry_s=0.05, append_timeout_s=5.0)
    async with ActorSystem(url, shards=2, settings=chosen) as system:
        say(started=str(system.node))

        async def one(n: int, do: str, args: list[Any], key: str | None) -> None:
            call = getattr(system.get(Account, "a"), do)
            try:
                say(n=n, reply=await call.options(idempotency_key=key, deadline_s=30)(*args))
            except CallError as error:
                say(n=n, error=type(error).__name__, text=str(error))

        running: set[asyncio.Task[None]] = set()
        while line := await reader.readline():
            running.add(asyncio.create_task(one(**json.loads(line))))
        await asyncio.gather(*running)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))

"""The floor under the HTTP service: bare aiohttp handlers, which answer the same JSON and do nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import uvloop
from aiohttp import web


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``POST /rpc/reserve``."""

    pool_id: str
    quantity: int = 1
    reservation_id: str | None = None


class Reply(msgspec.Struct):
    """Its answer."""

    reservation_id: str
    pool_id: str
    quantity: int
    remaining: int
    version: int


decoder = msgspec.json.Decoder(Request)
encoder = msgspec.json.Encoder()


async def reserve(request: web.Request) -> web.Response:
    """Parses and answers; nothing else."""
    body = decoder.decode(await request.read())
    reply = Reply(f"{body.pool_id}~~0123456789abcdef", body.pool_id, body.quantity, 999_999_000, 1001)
    return web.Response(body=encoder.encode(reply), content_type="application/json")


async def serve(port: int, availability: bytes) -> None:
    """Until it is killed. ``availability``: the whole answer."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=availability, content_type="application/json")

    app = web.Application()
    app.router.add_post("/rpc/reserve", reserve)
    app.router.add_post("/rpc/availability", answer)
    # Without an access log, as the service has none of aiohttp's.
    await web._run_app(app, host="127.0.0.1", port=port, access_log=None, print=None)


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), Path(sys.argv[2]).read_bytes() if len(sys.argv) > 2 else b""))

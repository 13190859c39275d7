"""The other process of ``bench.remote_ask``: answers asks through remoting, and through bare WebSockets beside it."""

from __future__ import annotations

import asyncio
import logging
import sys

import aiohttp
import msgpack
import msgspec
import structlog
from aiohttp import web

import actorkit
from actorkit.clock import SystemRandomness
from actorkit.ids import NodeId
from actorkit.remoting import AiohttpTransport, Peer, Remoting

SECRET = "a secret of the benchmarks, long enough"
MAX_BYTES = 4 << 20


class Ask(msgspec.Struct, frozen=True, array_like=True, tag="ask", gc=False):
    """A call, about as large as one of an actor."""

    number: int
    entity: str
    handler: str
    arguments: bytes


class Answer(msgspec.Struct, frozen=True, array_like=True, tag="answer", gc=False):
    """Its reply."""

    number: int
    reply: bytes


def remoting_of(name: str, port: int) -> Remoting:
    """One node with everything switched on: a secret, so a MAC over each frame, limits, heartbeats."""
    randomness = SystemRandomness()
    return Remoting(
        node=NodeId(name, randomness.token(8).hex()),
        address=f"127.0.0.1:{port}",
        cluster="bench",
        transport=AiohttpTransport(),
        randomness=randomness,
        secret=SECRET,
    )


async def batches(request: web.Request) -> web.WebSocketResponse:
    """Bare: a frame is a MessagePack array of asks, and is answered with an array of answers."""
    socket = web.WebSocketResponse(compress=False, max_msg_size=MAX_BYTES)
    await socket.prepare(request)
    async for message in socket:
        asks = msgpack.unpackb(message.data)
        await socket.send_bytes(msgpack.packb([(number, arguments) for number, _, _, arguments in asks]))
    return socket


async def echoes(request: web.Request) -> web.WebSocketResponse:
    """Bare: what comes goes back."""
    socket = web.WebSocketResponse(compress=False, max_msg_size=MAX_BYTES)
    await socket.prepare(request)
    async for message in socket:
        if message.type is aiohttp.WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


async def serve(remoting_port: int, bare_port: int) -> None:
    """Until it is killed."""
    remoting = remoting_of("server", remoting_port)

    def answer(peer: Peer, ask: Ask) -> None:
        remoting.send(peer.address, Answer(ask.number, ask.arguments))

    remoting.register(Ask, answer)
    remoting.register(Answer, lambda peer, message: None)
    await remoting.start()
    app = web.Application()
    app.router.add_get("/batches", batches)
    app.router.add_get("/echoes", echoes)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", bare_port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    actorkit.run(serve(int(sys.argv[1]), int(sys.argv[2])))

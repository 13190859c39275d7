"""A node in this process, and a client that holds every answer against the API's own description."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import jsonschema_rs
import msgspec
from yarl import URL

from examples.capacity_service.node import Node
from examples.capacity_service.openapi import document
from examples.capacity_service.settings import Address, NodeSettings

DOCUMENT = document(secured=True)
EVERYTHING = document(secured=True, drainable=True)


class Reply(NamedTuple):
    """An answer, checked against the description."""

    status: int
    headers: Mapping[str, str]
    body: Any
    raw: bytes

    @property
    def problem(self) -> str:
        """The name of the problem; empty where it is none."""
        return "" if self.status == 200 else str(self.body["type"].rsplit("/", 1)[-1])

    @property
    def token(self) -> str:
        return self.headers["X-Consistency-Token"]


def settings(tmp_path: Path, **options: Any) -> NodeSettings:
    defaults = NodeSettings(
        name="n1",
        http=Address("127.0.0.1", 0),
        remoting=Address("127.0.0.1", 0),
        seeds=(),
        journal=f"sqlite:///{tmp_path}/capacity.db",
        shards=8,
        http_tokens=None,
        request_deadline_s=5.0,
        released_memory_s=86_400.0,
        keys_max=100_000,
    )
    return msgspec.structs.replace(defaults, **options)


class Client:
    """Calls of one node."""

    def __init__(self, session: aiohttp.ClientSession, node: Node) -> None:
        self._session = session
        self.node = node
        self.base = f"http://{node.http_address}"

    async def request(self, method: str, path: str, **options: Any) -> Reply:
        # The path goes out as it is written here, dots and percent signs included.
        url = URL(self.base + path, encoded=True)
        async with self._session.request(method, url, **options) as response:
            raw = await response.read()
            text = response.content_type.startswith("text/")
            reply = Reply(response.status, response.headers, raw.decode() if text else json.loads(raw), raw)
            check(method, path.partition("?")[0], reply, response.content_type)
            return reply

    async def get(self, path: str, **options: Any) -> Reply:
        return await self.request("GET", path, **options)

    async def post(self, call: str, body: object, *, key: str | None = None, token: str | None = None) -> Reply:
        headers = {"Content-Type": "application/json"}
        if key is not None:
            headers["Idempotency-Key"] = key
        if token is not None:
            headers["X-Consistency-Token"] = token
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.request("POST", f"/rpc/{call}", data=data, headers=headers)

    async def pool(self, pool_id: str = "p", capacity: int = 10, **attributes: Any) -> Reply:
        reply = await self.post("pools", {"pool_id": pool_id, "capacity": capacity, **attributes})
        assert reply.status == 200, reply.body
        return reply

    async def reserve(self, pool_id: str = "p", quantity: int = 1, *, key: str | None = None, **more: Any) -> Reply:
        return await self.post("reserve", {"pool_id": pool_id, "quantity": quantity, **more}, key=key)

    async def release(self, reservation_id: str, *, key: str | None = None, **more: Any) -> Reply:
        return await self.post("release", {"reservation_id": reservation_id, **more}, key=key)

    async def pool_ids(self, **filters: Any) -> list[str]:
        reply = await self.post("availability", filters)
        assert reply.status == 200, reply.body
        return [pool["pool_id"] for pool in reply.body["pools"]]


def check(method: str, path: str, reply: Reply, content_type: str) -> None:
    """An answer is one that the description has for this call; other paths and methods get 404 and 405."""
    template = next((known for known in EVERYTHING["paths"] if _fits(known, path)), None)
    operation = None if template is None else EVERYTHING["paths"][template].get(method.lower())
    if operation is None or str(reply.status) not in operation["responses"]:
        assert content_type == "application/problem+json"
        assert reply.problem in ("not-found", "method-not-allowed", "unauthenticated")
        return
    response = operation["responses"][str(reply.status)]
    schema = response["content"][content_type]["schema"]
    jsonschema_rs.validator_for({**schema, "components": EVERYTHING["components"]}).validate(reply.body)
    for name, header in response.get("headers", {}).items():
        value = reply.headers[name]
        is_number = header["schema"]["type"] == "integer"
        jsonschema_rs.validator_for(header["schema"]).validate(int(value) if is_number else value)


def _fits(template: str, path: str) -> bool:
    prefix, brace, _ = template.partition("{")
    value = path.removeprefix(prefix)
    return value not in ("", path) and "/" not in value if brace else path == template


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0)


@asynccontextmanager
async def serving(node_settings: NodeSettings, *, token: str | None = None) -> AsyncIterator[Client]:
    """A node that serves until the block is left, and a client of it."""
    node = Node(node_settings)
    await node.start()
    await until(lambda: node.not_ready() is None)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        async with aiohttp.ClientSession(headers=headers) as session:
            yield Client(session, node)
    finally:
        await node.stop()

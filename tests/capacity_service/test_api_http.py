"""What holds for every call: authentication, methods, sizes, types, errors; and the calls for operating a node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from actorkit.errors import HandlerFailed, JournalUnavailable, OutcomeUnknown, Overloaded, Unavailable
from actorkit.readmodel.view import View
from examples.capacity_service.entity import Pool
from examples.capacity_service.node import Node
from tests.capacity_service.service import DOCUMENT, Client, serving, settings, until

JSON = {"Content-Type": "application/json"}
CALLS = ("pools", "reserve", "release", "availability")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("body", "headers", "problem"),
    [
        (b"{}" + b" " * 65_535, JSON, "request-too-large"),
        (b"", JSON, "invalid-request"),
        (b"[]", JSON, "invalid-request"),
        (b'{"unknown":1}', JSON, "invalid-request"),
        (b'{"\xff":1}', JSON, "invalid-request"),
        (b"{}", {"Content-Type": "text/plain"}, "unsupported-media-type"),
        (b"{}", {"Content-Type": "application/octet-stream"}, "unsupported-media-type"),
    ],
)
async def test_bodies(service: Client, call: str, body: bytes, headers: dict[str, str], problem: str) -> None:
    assert (await service.request("POST", f"/rpc/{call}", data=body, headers=headers)).problem == problem


async def test_a_body_of_64_kib_is_taken(service: Client) -> None:
    body = b"{}" + b" " * 65_534
    assert (await service.request("POST", "/rpc/availability", data=body, headers=JSON)).status == 200


@pytest.mark.parametrize("path", [path for path in DOCUMENT["paths"] if "{" not in path])
async def test_unknown_query_parameters_are_400(service: Client, path: str) -> None:
    for method in DOCUMENT["paths"][path]:
        reply = await service.request(method.upper(), f"{path}?x=1", data=b"{}" if method == "post" else None)
        assert reply.problem == "invalid-request"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
async def test_methods(service: Client, method: str) -> None:
    for template, operations in DOCUMENT["paths"].items():
        if method.lower() not in operations:
            path = template.replace("{pool_id}", "p").replace("{reservation_id}", "p~x")
            reply = await service.request(method, path)
            assert (reply.status, reply.problem) == (405, "method-not-allowed")
            assert reply.headers["Allow"].lower() in operations


@pytest.mark.parametrize("path", ["/", "/rpc", "/rpc/", "/rpc/pools/", "/rpc/pools/a/b", "/rpc/nothing", "/health"])
async def test_unknown_paths(service: Client, path: str) -> None:
    assert (await service.get(path)).problem == "not-found"


async def test_tokens(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("# two of them\nfirst\nsecond\n")
    node = settings(tmp_path, http_tokens=file)
    async with serving(node, token="second") as service:
        assert (await service.pool("p")).status == 200
        assert (await service.get("/openapi.json")).body == DOCUMENT
    async with serving(node) as service:
        for path in ("/rpc/pools/p", "/metrics", "/cluster/members", "/openapi.json", "/nothing"):
            reply = await service.request("GET", path)
            assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert (await service.get("/health/live")).status == 200
        assert (await service.get("/health/ready")).status == 200
        wrong = await service.get("/rpc/pools/p", headers={"Authorization": "Bearer third"})
        assert wrong.problem == "unauthenticated"


# ----------------------------------------------------------------------------------------------- how calls may end


@pytest.mark.parametrize(
    ("error", "status", "problem", "retryable"),
    [
        (Overloaded("its mailbox", limit=1), 429, "overloaded", True),
        (Unavailable("pool/p", "nobody is there"), 503, "unavailable", True),
        (JournalUnavailable("the file is locked"), 503, "unavailable", True),
        (OutcomeUnknown("pool/p", "late"), 504, "outcome-unknown", False),
        (HandlerFailed("pool/p", "ValueError"), 500, "internal-error", False),
    ],
)
async def test_how_calls_may_end(
    service: Client, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, problem: str, retryable: bool
) -> None:
    async def fail(*args: object, **kwargs: object) -> Any:
        raise error

    def call(*args: object, **kwargs: object) -> Any:
        return asyncio.ensure_future(fail())

    monkeypatch.setattr(service.node._system.region, "call", call)
    reply = await service.reserve("p")
    assert (reply.status, reply.problem, reply.body["retryable"]) == (status, problem, retryable)
    if status == 504:
        assert (await service.reserve("p", key="k")).body["retryable"] is True
    if status == 429:
        assert int(reply.headers["Retry-After"]) >= 1


async def test_a_read_model_that_is_behind(service: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    token = (await service.pool("p")).token

    async def behind(self: View[Any], id: str, *, version: int, deadline_s: float) -> None:
        assert (id, version) == ("p", 1)
        assert deadline_s <= 2.0
        raise TimeoutError

    monkeypatch.setattr(View, "wait_for", behind)
    reply = await service.post("availability", {}, token=token)
    assert (reply.status, reply.problem, reply.body["retryable"]) == (504, "read-model-behind", True)


async def test_calls_get_what_is_left_of_the_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(settings(tmp_path, request_deadline_s=0.75)) as service:
        region, deadlines = service.node._system.region, []
        original: Callable[..., Any] = region.call

        def call(*args: Any, **kwargs: Any) -> Any:
            deadlines.append(kwargs["deadline_s"])
            return original(*args, **kwargs)

        monkeypatch.setattr(region, "call", call)
        await service.pool("p")
        await service.get("/rpc/pools/p")
        assert all(0 < deadline <= 0.75 for deadline in deadlines)
        assert len(deadlines) == 2


async def test_a_client_that_hangs_up_cancels_no_write(service: Client) -> None:
    await service.pool("p", 5)
    host, port = service.node.http_address.split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    body = b'{"pool_id":"p","reservation_id":"x"}'
    head = f"Host: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(f"POST /rpc/reserve HTTP/1.1\r\n{head}".encode() + body)
    await writer.drain()
    writer.transport.abort()
    async with asyncio.timeout(10):
        while (await service.get("/rpc/pools/p")).body["reserved"] == 0:
            await asyncio.sleep(0)


# ------------------------------------------------------------------------------------------------------- operations


async def test_health(service: Client) -> None:
    assert (await service.get("/health/live")).body == {"status": "live"}
    assert (await service.get("/health/ready")).body == {"status": "ready"}


async def test_a_node_that_leaves_is_not_ready_and_serves_what_still_comes(
    service: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await service.pool("p")
    monkeypatch.setattr(service.node, "_leaving", True)
    reply = await service.get("/health/ready")
    assert (reply.status, reply.body["detail"]) == (503, "it is leaving")
    await service.node._system.leave()
    assert (await service.reserve("p")).status == 200
    assert (await service.get("/health/live")).status == 200
    assert (await service.get("/cluster/members")).body["members"][0]["status"] == "leaving"


async def test_operators_and_nobody_else_may_tell_a_node_to_leave(tmp_path: Path) -> None:
    clients, operators = tmp_path / "clients", tmp_path / "operators"
    clients.write_text("client\n")
    operators.write_text("operator\n")
    async with serving(settings(tmp_path, http_tokens=clients, operator_tokens=operators), token="client") as service:
        path = "/cluster/drain"
        assert (await service.request("POST", path)).problem == "unauthenticated"
        reply = await service.request("POST", path, headers={"Authorization": "Bearer wrong"})
        assert reply.problem == "unauthenticated"
        assert not service.node.leave_requested.is_set()
        as_operator = {"Authorization": "Bearer operator"}
        assert (await service.get("/rpc/pools/p", headers=as_operator)).problem == "pool-not-found"
        reply = await service.request("POST", path, headers=as_operator)
        assert (reply.status, reply.body) == (200, {"status": "leaving"})
        assert service.node.leave_requested.is_set()


async def test_where_there_are_no_operators_nobody_may_tell_a_node_to_leave(service: Client) -> None:
    reply = await service.request("POST", "/cluster/drain", headers={"Authorization": "Bearer x"})
    assert reply.problem == "not-found"


async def test_operators_do_not_make_clients_need_a_token(tmp_path: Path) -> None:
    operators = tmp_path / "operators"
    operators.write_text("operator\n")
    async with serving(settings(tmp_path, operator_tokens=operators)) as service:
        assert (await service.pool("p")).status == 200
        assert (await service.request("POST", "/cluster/drain")).problem == "unauthenticated"
        paths = (await service.get("/openapi.json")).body["paths"]
        assert [path for path in paths if "security" in next(iter(paths[path].values()))] == ["/cluster/drain"]


async def test_a_node_that_is_starting_is_live_and_serves_nothing_yet(
    service: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.node, "_stage", "it is starting")
    assert (await service.get("/health/live")).status == 200
    assert (await service.get("/health/ready")).body["detail"] == "it is starting"
    for call, body in (("reserve", {"pool_id": "p"}), ("availability", {})):
        reply = await service.post(call, body)
        assert (reply.status, reply.problem) == (503, "unavailable")


async def test_a_node_that_waits_for_shards_says_whose_they_are(service: Client, tmp_path: Path) -> None:
    """A second node on the journal of the first one: it is up, not ready, and says why."""
    await service.pool("p")
    other = Node(settings(tmp_path))
    await other.start()
    try:
        owner = str(service.node._system.node)
        await until(lambda: owner in (other.not_ready() or ""))
        assert other.not_ready() == f"it waits for 8 shards that {owner} has; GET /cluster/shards shows them"
        async with aiohttp.ClientSession() as session:
            client = Client(session, other)
            assert (await client.get("/health/ready")).body["detail"] == other.not_ready()
            assert owner in {shard["owner"] for shard in (await client.get("/cluster/shards")).body["shards"]}
            # It has its values from other nodes of its cluster, and is alone in its own.
            assert (await client.post("availability", {})).status == 503
    finally:
        await other.stop()


async def test_members(service: Client) -> None:
    (member,) = (await service.get("/cluster/members")).body["members"]
    assert (member["name"], member["http"], member["status"]) == ("n1", service.node.http_address, "up")


async def test_shards(service: Client) -> None:
    await service.pool("p")
    shards = (await service.get("/cluster/shards")).body["shards"]
    assert [shard["shard"] for shard in shards] == list(range(8))
    assert sum(shard["head"] for shard in shards) == 1
    (owned,) = [shard for shard in shards if shard["head"]]
    assert owned["epoch"] >= 1
    assert "n1" in owned["owner"]


async def test_metrics(service: Client) -> None:
    await service.pool("p", 1)
    await service.reserve("p", 2)
    text = (await service.get("/metrics")).body
    assert 'route="/rpc/pools",status="200"} 1.0' in text
    assert 'problem="insufficient-capacity",route="/rpc/reserve",status="409"} 1.0' in text
    for name in ("actorkit_journal_batches_total", "actorkit_entity_commands_total", "http_requests_in_progress"):
        assert f"\n{name} " in text


async def test_the_description(service: Client) -> None:
    document = (await service.get("/openapi.json")).body
    assert document["openapi"].startswith("3.1")
    assert sorted(document["paths"]) == sorted(DOCUMENT["paths"])
    assert "security" not in document["paths"]["/rpc/reserve"]["post"]


def test_the_service_uses_its_own_settings() -> None:
    assert Pool.settings.reservations_max >= 100_000

"""Idempotency keys: the same key with the same body acts once and answers the same, through restarts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.capacity_service.service import Client, serving, settings


async def test_a_key_makes_a_write_act_once(service: Client) -> None:
    first = await service.post("pools", {"pool_id": "p", "capacity": 10}, key="k")
    assert (await service.post("pools", {"pool_id": "p", "capacity": 10}, key="k")).raw == first.raw
    first = await service.reserve("p", 3, key="k")
    again = await service.reserve("p", 3, key="k")
    assert (again.status, again.raw, again.token) == (200, first.raw, first.token)
    reservation_id = first.body["reservation_id"]
    first = await service.release(reservation_id, quantity=1, key="k")
    assert (await service.release(reservation_id, quantity=1, key="k")).raw == first.raw
    assert (await service.get("/rpc/pools/p")).body["reserved"] == 2


async def test_requests_with_one_key_at_the_same_time_act_once(service: Client) -> None:
    await service.pool("p", 10)
    replies = await asyncio.gather(*(service.reserve("p", 3, key="k") for _ in range(8)))
    assert len({reply.raw for reply in replies}) == 1
    assert (await service.get("/rpc/pools/p")).body["reserved"] == 3


@pytest.mark.parametrize(
    ("one", "same"),
    [
        (b'{"pool_id":"p"}', b'{"quantity" : 1, "pool_id":"p"}'),
        (b'{"pool_id":"p","quantity":2}', b'{"pool_id":"\\u0070","quantity":2}'),
    ],
)
async def test_bodies_are_the_same_after_validation_and_defaults(service: Client, one: bytes, same: bytes) -> None:
    await service.pool("p", 10)
    first = await service.post("reserve", one, key="k")
    assert (await service.post("reserve", same, key="k")).raw == first.raw


async def test_labels_and_times_are_the_same_in_whatever_way_they_are_written(service: Client) -> None:
    one = b'{"pool_id":"p","capacity":1,"labels":{"a":"1","b":"2"},"starts_at":"2026-01-01T00:00:00Z"}'
    same = b'{"labels":{"b":"2","a":"1"},"starts_at":"2026-01-01T00:00:00.0Z","pool_id":"p","capacity":1}'
    first = await service.post("pools", one, key="k")
    assert (await service.post("pools", same, key="k")).raw == first.raw


@pytest.mark.parametrize(
    ("call", "one", "other"),
    [
        ("reserve", {"pool_id": "p"}, {"pool_id": "p", "quantity": 2}),
        ("reserve", {"pool_id": "p"}, {"pool_id": "p", "reservation_id": "x"}),
        ("pools", {"pool_id": "p", "region": "north"}, {"pool_id": "p", "region": None}),
        ("pools", {"pool_id": "p", "region": "north"}, {"pool_id": "p"}),
        ("release", {"reservation_id": "p~x"}, {"reservation_id": "p~x", "quantity": 1}),
    ],
)
async def test_a_key_with_another_body_is_422(
    service: Client, call: str, one: dict[str, Any], other: dict[str, Any]
) -> None:
    await service.pool("p", 10)
    await service.reserve("p", 1, reservation_id="x")
    first = await service.post(call, one, key="k")
    assert first.status == 200
    version = (await service.get("/rpc/pools/p")).body["version"]
    reused = await service.post(call, other, key="k")
    assert (reused.status, reused.problem) == (422, "idempotency-key-reused")
    assert (await service.get("/rpc/pools/p")).body["version"] == version
    assert (await service.post(call, one, key="k")).raw == first.raw


async def test_a_refusal_is_remembered(service: Client) -> None:
    await service.pool("p", 2)
    refused = await service.reserve("p", 3, key="k")
    await service.post("pools", {"pool_id": "p", "capacity": 9})
    again = await service.reserve("p", 3, key="k")
    assert (again.status, again.raw) == (409, refused.raw)
    assert (await service.reserve("p", 3, key="other")).status == 200


async def test_a_conflict_is_remembered(service: Client) -> None:
    await service.pool("p", 9)
    await service.reserve("p", 2, reservation_id="x")
    refused = await service.reserve("p", 3, reservation_id="x", key="k")
    assert refused.problem == "reservation-conflict"
    assert (await service.reserve("p", 3, reservation_id="x", key="k")).raw == refused.raw


async def test_a_write_that_changed_nothing_is_remembered(service: Client) -> None:
    await service.pool("p", 2)
    first = await service.post("pools", {"pool_id": "p", "capacity": 2}, key="k")
    await service.post("pools", {"pool_id": "p", "capacity": 3})
    assert (await service.post("pools", {"pool_id": "p", "capacity": 2}, key="k")).raw == first.raw
    assert (await service.get("/rpc/pools/p")).body["capacity"] == 3


async def test_other_answers_are_not_remembered(service: Client) -> None:
    assert (await service.reserve("p", key="k")).problem == "pool-not-found"
    assert (await service.post("pools", {"pool_id": "p"}, key="k")).problem == "invalid-request"
    assert (await service.post("pools", {"pool_id": "p", "capacity": 5}, key="k")).status == 200
    assert (await service.reserve("p", key="k")).status == 200
    assert (await service.release("p~x", key="k")).problem == "reservation-not-found"
    await service.reserve("p", 1, reservation_id="x")
    assert (await service.release("p~x", key="k")).status == 200


async def test_keys_are_scoped_to_call_and_pool(service: Client) -> None:
    await service.pool("p", 5)
    await service.pool("q", 5)
    assert (await service.reserve("p", 2, key="k")).status == 200
    assert (await service.reserve("q", 3, key="k")).status == 200
    assert (await service.release("p~x", key="k")).problem == "reservation-not-found"
    assert (await service.post("pools", {"pool_id": "p", "capacity": 6}, key="k")).status == 200


@pytest.mark.parametrize("key", ["!", "a b", "~" * 128, "pools:k"])
async def test_keys(service: Client, key: str) -> None:
    await service.pool("p", 5)
    first = await service.reserve("p", 1, key=key)
    assert (await service.reserve("p", 1, key=key)).raw == first.raw


@pytest.mark.parametrize("key", ["", " ", "k" * 129, "é", "a\tb"])
async def test_what_is_no_key(service: Client, key: str) -> None:
    await service.pool("p", 5)
    assert (await service.reserve("p", 1, key=key)).problem == "invalid-request"
    assert (await service.get("/rpc/pools/p")).body["reserved"] == 0


async def test_beyond_the_limit_new_keys_get_429_and_old_ones_are_not_forgotten(tmp_path: Path) -> None:
    async with serving(settings(tmp_path, keys_max=3)) as service:
        await service.pool("p", 5)
        first = [await service.reserve("p", 1, key=f"k{n}") for n in range(3)]
        refused = await service.reserve("p", 1, key="k3")
        assert (refused.status, refused.problem, refused.body["retryable"]) == (429, "overloaded", True)
        assert [(await service.reserve("p", 1, key=f"k{n}")).raw for n in range(3)] == [reply.raw for reply in first]
        assert (await service.reserve("p", 1)).status == 200
        assert (await service.get("/rpc/pools/p")).body["reserved"] == 4


async def test_everything_is_remembered_through_a_restart(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as service:
        await service.pool("p", 5, region="north", labels={"a": "b"})
        granted = await service.reserve("p", 2, key="granted", reservation_id="x")
        refused = await service.reserve("p", 9, key="refused")
        released = await service.release("p~x", quantity=1, key="released")
        pool = await service.get("/rpc/pools/p")
        seen = await service.post("availability", {})
    async with serving(settings(tmp_path)) as service:
        assert (await service.post("availability", {})).body["pools"] == seen.body["pools"]
        assert (await service.get("/rpc/pools/p")).raw == pool.raw
        assert (await service.reserve("p", 2, key="granted", reservation_id="x")).raw == granted.raw
        assert (await service.reserve("p", 2, reservation_id="x")).raw == granted.raw
        assert (await service.reserve("p", 9, key="refused")).raw == refused.raw
        assert (await service.release("p~x", quantity=1, key="released")).raw == released.raw
        assert (await service.reserve("p", 1, key="granted")).problem == "idempotency-key-reused"
        assert (await service.post("availability", {}, token=released.token)).status == 200
        assert (await service.get("/rpc/pools/p")).raw == pool.raw


async def test_released_reservations_are_forgotten_after_the_time_that_is_set(tmp_path: Path) -> None:
    async with serving(settings(tmp_path, released_memory_s=1e-6)) as service:
        await service.pool("p", 5)
        await service.reserve("p", 2, reservation_id="x")
        await service.release("p~x")
        assert (await service.get("/rpc/reservations/p~x")).body["status"] == "released"
        await service.reserve("p", 1)
        assert (await service.get("/rpc/reservations/p~x")).problem == "reservation-not-found"
        past = await service.get("/rpc/pools/p?at_version=3")
    async with serving(settings(tmp_path)) as service:
        assert (await service.get("/rpc/reservations/p~x")).problem == "reservation-not-found"
        assert (await service.get("/rpc/pools/p?at_version=3")).raw == past.raw

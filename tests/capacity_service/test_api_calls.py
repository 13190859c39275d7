"""The calls over real HTTP, each as the table of the contract has it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.capacity_service.service import Client

START, END = "2026-03-01T08:00:00Z", "2026-03-01T10:00:00.5Z"

# ------------------------------------------------------------------------------------------------------------- pools


async def test_a_pool_is_created(service: Client) -> None:
    reply = await service.post("pools", {"pool_id": "p", "capacity": 10})
    assert reply.status == 200
    assert reply.body == {"pool_id": "p", "capacity": 10, "reserved": 0, "remaining": 10, "version": 1}


async def test_a_pool_needs_a_capacity_when_it_is_created_and_not_afterwards(service: Client) -> None:
    assert (await service.post("pools", {"pool_id": "p"})).problem == "invalid-request"
    assert (await service.get("/rpc/pools/p")).problem == "pool-not-found"
    await service.pool("p", 0)
    assert (await service.post("pools", {"pool_id": "p", "region": "north"})).status == 200


async def test_a_pool_and_its_attributes(service: Client) -> None:
    await service.pool("p", 3, region="north", starts_at=START, ends_at=END, labels={"kind": "dock", "b": "é"})
    assert (await service.get("/rpc/pools/p")).body == {
        "pool_id": "p",
        "capacity": 3,
        "reserved": 0,
        "remaining": 3,
        "version": 1,
        "region": "north",
        "starts_at": START,
        "ends_at": "2026-03-01T10:00:00.500000Z",
        "labels": {"kind": "dock", "b": "é"},
    }


async def test_a_change_changes_the_given_members_and_null_removes_an_attribute(service: Client) -> None:
    await service.pool("p", 3, region="north", starts_at=START, ends_at=END, labels={"a": "b"})
    reply = await service.post("pools", {"pool_id": "p", "region": None, "labels": {"c": "d"}, "capacity": 4})
    assert reply.body == {"pool_id": "p", "capacity": 4, "reserved": 0, "remaining": 4, "version": 2}
    pool = (await service.get("/rpc/pools/p")).body
    assert (pool["region"], pool["labels"], pool["starts_at"]) == (None, {"c": "d"}, START)
    await service.post("pools", {"pool_id": "p", "labels": None, "starts_at": None, "ends_at": None})
    pool = (await service.get("/rpc/pools/p")).body
    assert (pool["labels"], pool["starts_at"], pool["ends_at"], pool["version"]) == ({}, None, None, 3)


@pytest.mark.parametrize(
    "again",
    [{}, {"capacity": 3}, {"starts_at": "2026-03-01T08:00:00.000Z"}, {"labels": {"a": "b"}}, {"ends_at": None}],
)
async def test_setting_what_is_set_does_not_raise_the_version(service: Client, again: dict[str, Any]) -> None:
    await service.pool("p", 3, starts_at=START, labels={"a": "b"})
    reply = await service.post("pools", {"pool_id": "p", **again})
    assert (reply.status, reply.body["version"]) == (200, 1)


async def test_starts_at_is_before_ends_at_also_where_only_one_is_given(service: Client) -> None:
    await service.pool("p", 3, starts_at=START)
    assert (await service.post("pools", {"pool_id": "p", "ends_at": START})).problem == "invalid-request"
    assert (await service.post("pools", {"pool_id": "p", "ends_at": END})).status == 200
    assert (await service.post("pools", {"pool_id": "p", "starts_at": END})).problem == "invalid-request"
    assert (await service.get("/rpc/pools/p")).body["version"] == 2


async def test_a_pool_may_shrink_below_what_is_reserved(service: Client) -> None:
    await service.pool("p", 5)
    await service.reserve("p", 4)
    reply = await service.post("pools", {"pool_id": "p", "capacity": 1})
    assert reply.body == {"pool_id": "p", "capacity": 1, "reserved": 4, "remaining": 0, "version": 3}
    refused = await service.reserve("p", 1)
    assert (refused.problem, refused.body["remaining"]) == ("insufficient-capacity", 0)


@pytest.mark.parametrize("pool_id", ["a", "...", "a" * 128, "A.b_c:d-e", "-", ".a"])
async def test_ids_of_pools(service: Client, pool_id: str) -> None:
    await service.pool(pool_id)
    assert (await service.get(f"/rpc/pools/{pool_id}")).body["pool_id"] == pool_id
    reservation_id = (await service.reserve(pool_id)).body["reservation_id"]
    assert (await service.get(f"/rpc/reservations/{reservation_id}")).body["pool_id"] == pool_id


@pytest.mark.parametrize("pool_id", [".", "..", "%2E", "a" * 129, "a~b", "a%20b", "a%2Fb", "%C3%A9", "%FF", "a%0A"])
async def test_what_is_no_id_of_a_pool(service: Client, pool_id: str) -> None:
    assert (await service.get(f"/rpc/pools/{pool_id}")).problem == "invalid-request"


# ----------------------------------------------------------------------------------------------------------- reserve


async def test_a_reservation(service: Client) -> None:
    await service.pool("p", 10)
    body = (await service.reserve("p", 3)).body
    reservation_id = body.pop("reservation_id")
    assert body == {"pool_id": "p", "quantity": 3, "remaining": 7, "version": 2}
    assert reservation_id.startswith("p~~")
    assert (await service.get(f"/rpc/reservations/{reservation_id}")).body == {
        "reservation_id": reservation_id,
        "pool_id": "p",
        "quantity": 3,
        "held": 3,
        "status": "held",
    }


async def test_the_quantity_is_1_unless_given(service: Client) -> None:
    await service.pool("p", 10)
    assert (await service.post("reserve", {"pool_id": "p"})).body["quantity"] == 1


async def test_a_reservation_of_an_unknown_pool_creates_nothing(service: Client) -> None:
    for _ in range(2):
        assert (await service.reserve("p", key="k")).problem == "pool-not-found"
    assert (await service.get("/rpc/pools/p")).problem == "pool-not-found"
    assert await service.pool_ids() == []
    assert (await service.pool("p", 1)).body["version"] == 1


async def test_insufficient_capacity_says_what_remains(service: Client) -> None:
    await service.pool("p", 3)
    reply = await service.reserve("p", 4)
    assert (reply.problem, reply.body["remaining"], reply.body["requested"]) == ("insufficient-capacity", 3, 4)
    assert reply.body["retryable"] is False
    assert (await service.reserve("p", 3)).body["remaining"] == 0


async def test_a_pool_never_grants_beyond_its_capacity(service: Client) -> None:
    await service.pool("p", 25)
    replies = await asyncio.gather(*(service.reserve("p", 1 + n % 3) for n in range(60)))
    granted = [reply.body["quantity"] for reply in replies if reply.status == 200]
    assert {reply.problem for reply in replies} <= {"", "insufficient-capacity"}
    pool = (await service.get("/rpc/pools/p")).body
    assert sum(granted) == pool["reserved"] == 25 - pool["remaining"]
    assert pool["remaining"] == 0
    assert len({reply.body["version"] for reply in replies if reply.status == 200}) == len(granted)


async def test_a_clients_own_reservation_id_makes_a_retry_harmless(service: Client) -> None:
    await service.pool("p", 10)
    first = await service.reserve("p", 3, reservation_id="order:1")
    assert first.body["reservation_id"] == "p~order:1"
    await service.reserve("p", 7)
    again = await service.reserve("p", 3, reservation_id="order:1")
    assert (again.status, again.raw) == (200, first.raw)
    conflict = await service.reserve("p", 4, reservation_id="order:1")
    assert (conflict.status, conflict.problem) == (409, "reservation-conflict")
    assert (await service.get("/rpc/pools/p")).body["reserved"] == 10


async def test_a_retry_is_recognised_also_after_the_release(service: Client) -> None:
    await service.pool("p", 10)
    first = await service.reserve("p", 3, reservation_id="order:1")
    await service.release("p~order:1")
    again = await service.reserve("p", 3, reservation_id="order:1")
    assert again.raw == first.raw
    assert (await service.reserve("p", 4, reservation_id="order:1")).problem == "reservation-conflict"
    assert (await service.get("/rpc/pools/p")).body["reserved"] == 0


async def test_a_clients_reservation_id_is_scoped_to_the_pool(service: Client) -> None:
    await service.pool("p")
    await service.pool("q")
    assert (await service.reserve("p", 3, reservation_id="x")).body["reservation_id"] == "p~x"
    assert (await service.reserve("q", 4, reservation_id="x")).body["reservation_id"] == "q~x"


# ----------------------------------------------------------------------------------------------------------- release


async def test_a_release_in_parts(service: Client) -> None:
    await service.pool("p", 10)
    reservation_id = (await service.reserve("p", 6)).body["reservation_id"]
    same = {"reservation_id": reservation_id, "pool_id": "p"}
    reply = await service.release(reservation_id, quantity=2)
    assert reply.body == {**same, "released": 2, "held": 4, "remaining": 6, "version": 3}
    reply = await service.release(reservation_id, quantity=100)
    assert reply.body == {**same, "released": 4, "held": 0, "remaining": 10, "version": 4}
    reply = await service.release(reservation_id)
    assert (reply.status, reply.body) == (200, {**same, "released": 0, "held": 0, "remaining": 10, "version": 4})
    status = (await service.get(f"/rpc/reservations/{reservation_id}")).body
    assert status == {**same, "quantity": 6, "held": 0, "status": "released"}


async def test_a_release_without_a_quantity_is_of_all_that_is_left(service: Client) -> None:
    await service.pool("p", 10)
    reservation_id = (await service.reserve("p", 6)).body["reservation_id"]
    await service.release(reservation_id, quantity=1)
    assert (await service.release(reservation_id)).body["released"] == 5


@pytest.mark.parametrize("reservation_id", ["p~nothing", "p~~0af3", "nowhere~x", "p~.", "p~" + "~" * 129])
async def test_an_unknown_reservation_is_404(service: Client, reservation_id: str) -> None:
    await service.pool("p")
    assert (await service.release(reservation_id, key="k")).problem == "reservation-not-found"
    assert (await service.get(f"/rpc/reservations/{reservation_id}")).problem == "reservation-not-found"


@pytest.mark.parametrize("reservation_id", ["p", "p~", "~x", "..~x", "p~" + "x" * 130, "p~%20", "p~%C3%A9", "p%2F~x"])
async def test_a_malformed_reservation_id_is_400(service: Client, reservation_id: str) -> None:
    assert (await service.get(f"/rpc/reservations/{reservation_id}")).problem == "invalid-request"
    assert (await service.release(reservation_id)).problem == "invalid-request"


# ---------------------------------------------------------------------------------------------------------- the past


async def test_the_past_by_version(service: Client) -> None:
    await service.pool("p", 3, region="north")
    await service.reserve("p", 2)
    await service.post("pools", {"pool_id": "p", "capacity": 9, "region": None})
    past = [(await service.get(f"/rpc/pools/p?at_version={version}")).body for version in (1, 2, 3)]
    assert [pool["version"] for pool in past] == [1, 2, 3]
    assert [pool["capacity"] for pool in past] == [3, 3, 9]
    assert [pool["reserved"] for pool in past] == [0, 2, 2]
    assert [pool["region"] for pool in past] == ["north", "north", None]
    assert past[2] == (await service.get("/rpc/pools/p")).body


async def test_the_past_by_time(service: Client) -> None:
    before = (await service.post("availability", {})).body["as_of"]["time"]
    await service.pool("p", 3)
    between = (await service.post("availability", {})).body["as_of"]["time"]
    await service.reserve("p", 2)
    assert (await service.get(f"/rpc/pools/p?at_time={before}")).problem == "pool-not-found"
    assert (await service.get(f"/rpc/pools/p?at_time={between}")).body["version"] == 1
    assert (await service.get("/rpc/pools/p?at_time=2999-01-01T00:00:00Z")).body["version"] == 2
    assert (await service.get("/rpc/pools/p?at_time=0001-01-01T00:00:00Z")).problem == "pool-not-found"


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("at_version=0", "pool-not-found"),
        ("at_version=2", "invalid-request"),
        ("at_version=999999999999999999", "invalid-request"),
        ("at_version=9999999999999999999999", "invalid-request"),
        ("at_version=-1", "invalid-request"),
        ("at_version=1.0", "invalid-request"),
        ("at_version=one", "invalid-request"),
        ("at_version=", "invalid-request"),
        ("at_version=%D9%A1", "invalid-request"),
        ("at_version=1&at_version=1", "invalid-request"),
        ("at_version=1&at_time=2999-01-01T00:00:00Z", "invalid-request"),
        ("at_time=yesterday", "invalid-request"),
        ("at_time=2026-01-01T00:00:00", "invalid-request"),
        ("at_time=2026-01-01T00:00:00%2B00:00", "invalid-request"),
        ("at_time=2026-02-30T00:00:00Z", "invalid-request"),
        ("at_time=2026-01-01T00:00:00.1234567Z", "invalid-request"),
        ("version=1", "invalid-request"),
    ],
)
async def test_what_past_there_is_not(service: Client, query: str, problem: str) -> None:
    await service.pool("p", 3)
    assert (await service.get(f"/rpc/pools/p?{query}")).problem == problem


async def test_a_version_that_no_pool_can_have_is_said_to_be_too_large(service: Client) -> None:
    await service.pool("p", 3)
    for version in (f"{10**18}", f"{2**63}", "9" * 5_000):
        answer = await service.get(f"/rpc/pools/p?at_version={version}")
        assert "at most 999999999999999999" in answer.body["detail"]


async def test_the_past_of_a_pool_that_there_is_not(service: Client) -> None:
    assert (await service.get("/rpc/pools/p?at_version=1")).problem == "pool-not-found"
    assert (await service.get("/rpc/pools/p?at_time=2999-01-01T00:00:00Z")).problem == "pool-not-found"


# ------------------------------------------------------------------------------------------------------ availability


async def test_availability_shows_pools_with_their_attributes(service: Client) -> None:
    await service.pool("p", 3, region="north", starts_at=START, ends_at=END, labels={"a": "b"})
    await service.reserve("p", 1)
    await service.pool("q", 1)
    reply = await service.post("availability", {})
    assert reply.body["pools"] == [
        {
            "pool_id": "p",
            "capacity": 3,
            "remaining": 2,
            "version": 2,
            "region": "north",
            "starts_at": START,
            "ends_at": "2026-03-01T10:00:00.500000Z",
            "labels": {"a": "b"},
        },
        {
            "pool_id": "q",
            "capacity": 1,
            "remaining": 1,
            "version": 1,
            "region": None,
            "starts_at": None,
            "ends_at": None,
            "labels": {},
        },
    ]
    assert reply.body["truncated"] is False
    assert reply.body["as_of"]["time"].endswith("Z")
    assert reply.body["as_of"]["oldest_source_ms"] >= 0


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, ["a", "b", "c"]),
        ({"pool_ids": ["c", "x", "a", "a"]}, ["a", "c"]),
        ({"pool_ids": []}, []),
        ({"region": "north"}, ["a"]),
        ({"labels": {"kind": "dock"}}, ["a", "b"]),
        ({"labels": {"kind": "dock", "size": "l"}}, ["b"]),
        ({"labels": {}}, ["a", "b", "c"]),
        ({"starts_before": START}, []),
        ({"starts_before": "2026-03-01T08:00:00.000001Z"}, ["a"]),
        ({"ends_after": "2026-03-01T10:00:00.5Z"}, []),
        ({"ends_after": "2026-03-01T10:00:00.499999Z"}, ["a"]),
        ({"min_remaining": 2}, ["b", "c"]),
        ({"min_remaining": 2, "labels": {"kind": "dock"}}, ["b"]),
        ({"min_remaining": 10**9}, []),
    ],
)
async def test_filters(service: Client, filters: dict[str, Any], found: list[str]) -> None:
    await service.pool("b", 2, region="south", labels={"kind": "dock", "size": "l"})
    await service.pool("a", 1, region="north", starts_at=START, ends_at=END, labels={"kind": "dock"})
    await service.pool("c", 3)
    assert await service.pool_ids(**filters) == found


async def test_the_limit(service: Client) -> None:
    for pool_id in ("b", "a", "c"):
        await service.pool(pool_id)
    reply = await service.post("availability", {"limit": 2})
    assert ([pool["pool_id"] for pool in reply.body["pools"]], reply.body["truncated"]) == (["a", "b"], True)
    assert (await service.post("availability", {"limit": 3})).body["truncated"] is False


# ------------------------------------------------------------------------------------------------ consistency tokens


async def test_read_your_writes(service: Client) -> None:
    created = await service.pool("p", 10)
    reserved = await service.reserve("p", 4)
    released = await service.release(reserved.body["reservation_id"])
    for write, remaining in ((created, 10), (reserved, 6), (released, 10)):
        reply = await service.post("availability", {}, token=write.token)
        assert reply.body["pools"][0]["version"] >= write.body["version"]
        if write is released:
            assert reply.body["pools"][0]["remaining"] == remaining


async def test_a_refused_write_has_a_token_too(service: Client) -> None:
    await service.pool("p", 1)
    refused = await service.reserve("p", 2)
    assert (await service.post("availability", {}, token=refused.token)).status == 200
    unknown = await service.post("reserve", {"pool_id": "nowhere"})
    assert unknown.status == 404
    assert (await service.post("availability", {}, token=unknown.token)).status == 200


@pytest.mark.parametrize("token", ["x", "", "é", "A" * 1025, "a b"])
async def test_a_malformed_token_is_400(service: Client, token: str) -> None:
    if token == "é":
        reply = await service.request(
            "POST",
            "/rpc/availability",
            data=b"{}",
            headers={"Content-Type": "application/json", "X-Consistency-Token": token},
        )
    else:
        reply = await service.post("availability", {}, token=token)
    assert reply.problem == "invalid-request"


async def test_a_damaged_token_is_400(service: Client) -> None:
    token = (await service.pool("p")).token
    damaged = token[:3] + ("A" if token[3] != "A" else "B") + token[4:]
    assert (await service.post("availability", {}, token=damaged)).problem == "invalid-request"

"""The driver against a service in memory: order, faults, and that it finds a service's mistakes."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, timedelta

import msgspec
import pytest
from aiohttp import web
from click.testing import CliRunner

from examples.capacity_service import replay_client, replay_driver
from examples.capacity_service.bookings import Booking, Command, Recomputation, command_stream, peak_demand, recompute
from examples.capacity_service.replay import replay
from examples.capacity_service.replay_client import GaveUp, ServiceClient
from examples.capacity_service.replay_driver import Driver
from tests.replay.fake_service import FakeService

ARRIVAL = date(2016, 5, 10)


def some_bookings() -> tuple[list[Command], Recomputation]:
    """300 bookings of ten pools that sell 0.7 of their demand; every third is cancelled."""
    bookings = [
        Booking(
            number,
            "city",
            ARRIVAL + timedelta(days=number % 10),
            number % 30,
            1,
            ARRIVAL + timedelta(days=number % 10 - number % 30 // 2) if number % 3 == 0 else None,
        )
        for number in range(1, 301)
    ]
    stream = command_stream(bookings)
    capacities = {pool: int(peak * 0.7) for pool, peak in peak_demand(stream).items()}
    return stream, recompute(stream, capacities)


@asynccontextmanager
async def serving(service: FakeService) -> AsyncIterator[str]:
    runner = web.AppRunner(service.app())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def replayed(service: FakeService, report: io.BytesIO | None = None) -> tuple[Driver, ServiceClient]:
    stream, expected = some_bookings()
    async with serving(service) as url, ServiceClient([url], connections=16, patience_s=20) as client:
        driver = Driver(client, stream, expected, concurrency=16, report=report)
        await driver.create_pools(key="create")
        await driver.drive()
        await driver.compare_pools()
        assert await driver.compare_availability(url)
    return driver, client


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_client, "BACKOFF_MIN_S", 0.001)
    monkeypatch.setattr(replay_client, "BACKOFF_MAX_S", 0.002)
    monkeypatch.setattr(replay_driver, "READ_MODEL_MAX_S", 0.2)
    monkeypatch.setattr(replay_driver, "AVAILABILITY_RETRY_S", 0.001)


async def test_a_right_service_shows_no_difference() -> None:
    stream, expected = some_bookings()
    report = io.BytesIO()
    driver, client = await replayed(FakeService(), report)
    figures = driver.figures
    assert figures.differences == []
    assert figures.done == len(stream)
    assert figures.rejected == sum(outcome.accepted is False for outcome in expected.outcomes) > 0
    assert figures.not_sent == sum(outcome.accepted is None for outcome in expected.outcomes) > 0
    assert client.retries == 0
    lines = [msgspec.json.decode(line) for line in report.getvalue().splitlines()]
    assert len(lines) == figures.sent
    assert all(line["start"] <= line["end"] and line["attempts"] == 1 for line in lines)
    reserved = {line["reservation_id"] for line in lines if line["outcome"] == "reserved"}
    assert {line["reservation_id"] for line in lines if line["outcome"] == "released"} < reserved


async def test_each_pools_commands_arrive_in_their_order() -> None:
    stream, _ = some_bookings()
    report = io.BytesIO()
    await replayed(FakeService(), report)
    order = {(command.op, command.booking): index for index, command in enumerate(stream)}
    seen: dict[str, list[int]] = {}
    ends: dict[str, float] = {}
    for line in map(msgspec.json.decode, report.getvalue().splitlines()):
        assert line["start"] >= ends.get(line["pool_id"], 0.0), "one command of a pool at a time"
        ends[line["pool_id"]] = line["end"]
        seen.setdefault(line["pool_id"], []).append(order[line["op"], line["booking"]])
    assert all(indexes == sorted(indexes) for indexes in seen.values())


async def test_refusals_unknown_outcomes_and_cut_connections_are_retried_and_act_once() -> None:
    faults = {0: "refuse", 3: "unknown", 5: "cut"}
    service = FakeService(fault=lambda number, path: faults.get(number % 7))
    driver, client = await replayed(service)
    assert driver.figures.differences == []
    assert client.retries > 50
    assert service.acted == driver.figures.sent + 10, "ten pools were created, and every command acted once"


async def test_a_service_that_oversells_is_found_out() -> None:
    driver, _ = await replayed(FakeService(oversells_by=1))
    assert driver.figures.differing > 0
    assert any("pool " in difference for difference in driver.figures.differences) or driver.figures.differing > 20


async def test_a_service_that_forgets_is_found_out() -> None:
    stream, expected = some_bookings()
    service = FakeService()
    async with serving(service) as url, ServiceClient([url], connections=4, patience_s=5) as client:
        driver = Driver(client, stream, expected, concurrency=4)
        await driver.create_pools(key="create")
        await driver.drive()
        pool = next(pool for pool, held in service.held.items() if held)
        service.held[pool].popitem()
        await driver.compare_pools()
    assert [difference.split()[1] for difference in driver.figures.differences] == [f"{pool}:"]


async def test_a_read_model_that_lags_is_waited_for_and_one_that_lacks_a_pool_is_found_out() -> None:
    stream, expected = some_bookings()
    service = FakeService()
    async with serving(service) as url, ServiceClient([url], connections=4, patience_s=5) as client:
        driver = Driver(client, stream, expected, concurrency=4)
        await driver.create_pools(key="create")
        await driver.drive()
        late, never = list(service.held)[:2]
        service.not_shown = {late, never}
        comparing = asyncio.create_task(driver.compare_availability(url))
        await service.availability_asked.wait()
        service.not_shown = {never}
        assert await comparing
    [difference] = driver.figures.differences
    assert difference.startswith(f"pool {never}: availability at {url} shows nothing")


async def test_a_node_that_has_gone_is_not_asked_what_is_available() -> None:
    stream, expected = some_bookings()
    async with ServiceClient(["http://127.0.0.1:1"], connections=1, patience_s=5) as client:
        driver = Driver(client, stream, expected, concurrency=1)
        assert not await driver.compare_availability("http://127.0.0.1:1")
    assert driver.figures.differences == []


async def test_the_command_asks_every_node_that_it_is_given() -> None:
    one, other = FakeService(), FakeService()
    # Two nodes of one service.
    other.capacities, other.held, other._answers = one.capacities, one.held, one._answers
    async with serving(one) as first, serving(other) as second:
        arguments = ["--url", f"{first}, {second}/", "--url", first, "--limit", "100"]
        result = await asyncio.to_thread(CliRunner().invoke, replay, arguments)
    assert result.exit_code == 0, result.output
    assert "at every node: 0 differences" in result.output.replace("\n", " ")
    assert one.availability_asked.is_set()
    assert other.availability_asked.is_set()
    assert min(one.requests, other.requests) > 20


async def test_the_command_ends_with_1_on_a_difference() -> None:
    async with serving(FakeService(oversells_by=1)) as url:
        arguments = ["--url", url, "--limit", "200", "--capacity", "1"]
        result = await asyncio.to_thread(CliRunner().invoke, replay, arguments)
    assert result.exit_code == 1
    assert "differences to the recomputation" in result.output


async def test_patience_ends() -> None:
    async with ServiceClient(["http://127.0.0.1:1"], connections=1, patience_s=0.01) as client:
        with pytest.raises(GaveUp, match=r"no final answer for 0\.01 s"):
            await client.get("/rpc/pools/p")


def test_the_command_says_in_one_line_that_nobody_answers() -> None:
    result = CliRunner().invoke(replay, ["--url", "http://127.0.0.1:1", "--limit", "1", "--patience", "1"])
    assert result.exit_code == 1
    assert "Error: POST /rpc/pools: no final answer for 1 s" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["--speed", "fast"],
        ["--speed", "0"],
        ["--speed", "nan"],
        ["--patience", "nan"],
        ["--capacity", "much"],
        ["--url", "127.0.0.1:8080"],
        ["--url", ","],
    ],
)
def test_a_wrong_option_is_explained(arguments: list[str]) -> None:
    result = CliRunner().invoke(replay, arguments)
    assert result.exit_code == 2
    assert "expected" in result.output

"""``replay``: real bookings, over HTTP, into a running service, and the proof that it made no mistake.

The service may be killed and restarted on the way: every command is sent until it has its answer, under a key that
makes it act once. Starting the same replay again is therefore harmless too: it gets the same answers.
"""

from __future__ import annotations

import asyncio
import gzip
import math
import secrets
import sys
import time
from collections.abc import Coroutine
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from examples.capacity_service.bookings import (
    CapacityRule,
    Command,
    PoolsBy,
    Recomputation,
    command_stream,
    parse_bookings,
    peak_demand,
    recompute,
)
from examples.capacity_service.replay_client import GaveUp, ServiceClient
from examples.capacity_service.replay_driver import Driver, Figures
from examples.capacity_service.replay_reads import Reads
from examples.capacity_service.settings import Seconds

__all__ = ["replay"]

BOOKINGS_FILE = Path(__file__).with_name("data") / "hotel_bookings.csv.gz"
PERCENTILES = (50.0, 90.0, 99.0, 99.9, 100.0)
PROGRESS_INTERVAL_S = 0.2

R = TypeVar("R")


def _parse_speed(context: click.Context, option: click.Parameter, value: str) -> float | None:
    """``max`` is ``None``: no waiting."""
    if value == "max":
        return None
    try:
        speed = float(value)
    except ValueError:
        speed = 0.0
    if not 0 < speed < math.inf:
        raise click.BadParameter("expected 'max', or a factor of real time such as 86400 (a day each second)")
    return speed


def _parse_urls(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    urls = tuple(url.rstrip("/") for value in values for part in value.split(",") if (url := part.strip()))
    for url in urls:
        if not url.startswith(("http://", "https://")):
            raise click.BadParameter(f"expected URLs such as http://127.0.0.1:8080, not {url!r}")
    if not urls:
        raise click.BadParameter("expected a URL such as http://127.0.0.1:8080")
    return tuple(dict.fromkeys(urls))


def _parse_capacity(context: click.Context, option: click.Parameter, value: str) -> CapacityRule:
    try:
        return CapacityRule.parse(value)
    except ValueError as error:
        raise click.BadParameter("expected a fraction of each pool's peak demand (0.8), or units (20)") from error


@click.command(context_settings={"show_default": True})
@click.option(
    "--url",
    "urls",
    multiple=True,
    callback=_parse_urls,
    default=("http://127.0.0.1:8080",),
    help="A node, or several with commas between them; may be repeated.",
)
@click.option(
    "--speed", callback=_parse_speed, default="max", help="Factor of real time (86400: a day each second), or 'max'."
)
@click.option("--limit", type=click.IntRange(1), help="Only this many bookings, the first ones in time.")
@click.option(
    "--capacity",
    callback=_parse_capacity,
    default="0.8",
    help="Of each pool: a fraction of its peak demand (0.8), or units (20).",
)
@click.option(
    "--pools",
    type=click.Choice([by.value for by in PoolsBy]),
    default="arrival",
    help="What a pool is: the arrivals at a hotel on one day, or one night there.",
)
@click.option("--concurrency", type=click.IntRange(1, 10_000), default=64, help="Commands in flight.")
@click.option("--patience", type=Seconds(1, 86_400), default=60.0, help="Seconds to keep trying one command.")
@click.option("--prefix", default="", help="Put before each pool's id: another prefix, other pools.")
@click.option(
    "--reads",
    type=click.IntRange(0, 1_000),
    default=0,
    help="Questions for availability after each command, at all nodes in turn; each answer is checked.",
)
@click.option(
    "--report", type=click.Path(dir_okay=False, path_type=Path), help="Write each command there as a JSON line."
)
def replay(
    urls: tuple[str, ...],
    speed: float | None,
    limit: int | None,
    capacity: CapacityRule,
    pools: str,
    concurrency: int,
    patience: float,
    prefix: str,
    reads: int,
    report: Path | None,
) -> None:
    """Replays real hotel bookings and compares the result.

    Ends with 1 if any answer or any pool differs from a single-threaded recomputation, or if the service gave no
    answer for too long.
    """
    console = Console()
    with gzip.open(BOOKINGS_FILE, "rt") as lines:
        stream = command_stream(parse_bookings(lines), by=PoolsBy(pools), limit=limit)
    expected = recompute(stream, {pool: capacity.capacity(peak) for pool, peak in peak_demand(stream).items()})
    with ExitStack() as stack:
        opened = stack.enter_context(report.open("wb")) if report is not None else None
        try:
            driver, client, asked, took_s = _run(
                _replay(console, urls, stream, expected, concurrency, speed, patience, prefix, reads, opened)
            )
        except* (GaveUp, RuntimeError) as failures:
            raise click.ClickException(str(_first(failures))) from failures
    _summarize(console, driver.figures, client.retries, took_s)
    if reads:
        _summarize_reads(console, asked, took_s)
    _conclude(console, driver.figures, len(expected.pools))
    if driver.figures.differing:
        sys.exit(1)


async def _replay(
    console: Console,
    urls: tuple[str, ...],
    stream: list[Command],
    expected: Recomputation,
    concurrency: int,
    speed: float | None,
    patience_s: float,
    prefix: str,
    reads_per_command: int,
    report: BinaryIO | None,
) -> tuple[Driver, ServiceClient, Reads, float]:
    figures = Figures()
    async with ServiceClient(urls, connections=concurrency, patience_s=patience_s) as client:
        reads = Reads(client, urls, per_command=reads_per_command, differs=figures.differs)
        driver = Driver(
            client,
            stream,
            expected,
            concurrency=concurrency,
            speed=speed,
            report=report,
            pool_name=lambda pool: prefix + pool,
            reads=reads,
            figures=figures,
        )
        console.print(f"creating {len(expected.pools):,} pools")
        await driver.create_pools(key=f"create-{secrets.token_hex(8)}")
        started_s = time.perf_counter()
        await _with_progress(console, driver, len(stream))
        took_s = time.perf_counter() - started_s
        console.print(f"comparing {len(expected.pools):,} pools")
        await driver.compare_pools()
        for url in urls:
            console.print(f"comparing what {url} shows as available")
            if not await driver.compare_availability(url):
                console.print(f"{url} cannot be reached any more: it was not asked", style="yellow")
        return driver, client, reads, took_s


async def _with_progress(console: Console, driver: Driver, total: int) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rejected]:,} rejected"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        task = progress.add_task("replaying", total=total, rejected=0)

        async def show() -> None:
            while True:
                await asyncio.sleep(PROGRESS_INTERVAL_S)
                progress.update(task, completed=driver.figures.done, rejected=driver.figures.rejected, refresh=True)

        showing = asyncio.create_task(show())
        try:
            await driver.drive()
        finally:
            showing.cancel()
            progress.update(task, completed=driver.figures.done, rejected=driver.figures.rejected, refresh=True)


def _summarize(console: Console, figures: Figures, retries: int, took_s: float) -> None:
    counts = Table(title="commands", show_header=False)
    counts.add_column(justify="left")
    counts.add_column(justify="right")
    for name, value in (
        ("sent", f"{figures.sent:,}"),
        ("accepted", f"{figures.accepted:,}"),
        ("rejected", f"{figures.rejected:,}"),
        ("not sent (release of a rejected reservation)", f"{figures.not_sent:,}"),
        ("retries", f"{retries:,}"),
        ("seconds", f"{took_s:.1f}"),
        ("per second", f"{figures.sent / took_s:,.0f}"),
    ):
        counts.add_row(name, value)
    console.print(counts)

    latencies = Table(title="latency in ms, retries included")
    latencies.add_column("")
    for percentile in PERCENTILES:
        latencies.add_column("max" if percentile == PERCENTILES[-1] else f"p{percentile:g}", justify="right")
    for op, values_s in figures.latencies_s.items():
        if values_s:
            values_s.sort()
            latencies.add_row(op, *(f"{_percentile(values_s, percentile) * 1e3:.1f}" for percentile in PERCENTILES))
    console.print(latencies)


def _summarize_reads(console: Console, reads: Reads, took_s: float) -> None:
    table = Table(title="availability, at all nodes in turn")
    table.add_column("")
    for percentile in PERCENTILES:
        table.add_column("max" if percentile == PERCENTILES[-1] else f"p{percentile:g}", justify="right")
    for name, values in (
        ("latency in ms", [1e3 * each for each in reads.latencies_s]),
        ("said to be this old, in ms", reads.oldest_ms),
    ):
        if values:
            ordered = sorted(map(float, values))
            table.add_row(name, *(f"{_percentile(ordered, percentile):.1f}" for percentile in PERCENTILES))
    console.print(table)
    console.print(
        f"{reads.asked:,} asked, {reads.asked / took_s:,.0f} per second; {len(reads.unanswered):,} not answered"
    )


def _conclude(console: Console, figures: Figures, pools: int) -> None:
    for difference in figures.differences:
        console.print(difference, style="red", markup=False, highlight=False)
    if figures.differing:
        console.print(f"{figures.differing:,} differences to the recomputation", style="bold red")
        console.print(
            "(Were these pools used before, with another capacity or limit? Then take another --prefix.)", style="red"
        )
    else:
        console.print(
            f"every answer and all {pools:,} pools are as recomputed, at every node: 0 differences", style="bold green"
        )


def _percentile(ordered: list[float], percentile: float) -> float:
    """By the nearest rank."""
    rank = -(-len(ordered) * percentile // 100)
    return ordered[max(0, int(rank) - 1)]


def _first(failures: BaseExceptionGroup[Exception]) -> BaseException:
    failure: BaseException = failures
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure


def _run(main: Coroutine[Any, Any, R]) -> R:
    """Runs on uvloop where the platform has it."""
    loop_factory = None
    with suppress(ImportError):
        import uvloop

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main)

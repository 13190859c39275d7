"""Runs the benchmarks, each in a process of its own, and shows them against their floors.

``python -m bench`` runs all, ``python -m bench latency recovery`` some. The figures also go to ``bench/results``, as
JSON.
"""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bench.measure import RESULTS, run_benchmark

BENCHMARKS = (
    "ask",
    "durable_commands",
    "latency",
    "recovery",
    "http_reserve",
    "http_remote_reserve",
    "availability",
    "remote_ask",
    "remote_region",
    "replication",
    "read_model_size",
    "read_model_overload",
    "roster",
)


def _reached(line: dict[str, Any]) -> bool:
    if line.get("at_most"):
        return bool(line["ratio"] <= line["target"])
    return bool(line["ratio"] >= line["target"])


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.3g}"


def _table(lines: list[dict[str, Any]]) -> Table:
    table = Table(title="actorkit, each figure against its floor in the same run")
    table.add_column("question", overflow="fold")
    for column in ("value", "floor", "unit", "ratio", "must reach", "ok"):
        table.add_column(column, justify="left" if column == "unit" else "right")
    for line in lines:
        table.add_row(
            line["question"],
            _number(line["value"]),
            _number(line["floor"]),
            line.get("unit", "1/s"),
            f"{line['ratio']:.2f}",
            f"{'at most ' if line.get('at_most') else ''}{line['target']:g}",
            "[green]yes[/]" if _reached(line) else "[red]no[/]",
        )
    return table


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(BENCHMARKS))
@click.option("--output", default=str(RESULTS / "latest.json"), show_default=True, help="Where the JSON goes.")
def main(names: tuple[str, ...], output: str) -> None:
    """Measure each question against its floor; ends with 1 where a figure is not reached."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    lines: list[dict[str, Any]] = []
    for name in names or BENCHMARKS:
        console.print(f"measuring {name}")
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
            lines += executor.submit(run_benchmark, name).result()
    console.print(_table(lines))
    RESULTS.mkdir(exist_ok=True)
    machine = {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    with open(output, "w") as file:
        json.dump({"machine": machine, "results": lines}, file, indent=2)
    if not all(map(_reached, lines)):
        sys.exit(1)


if __name__ == "__main__":
    main()

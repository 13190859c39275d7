"""What the benchmarks share: measuring in turns, the shape of a result, a directory on a real disk."""

from __future__ import annotations

import gc
import importlib
import logging
import statistics
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog

__all__ = ["RESULTS", "interleaved", "result", "run_benchmark", "scratch"]

RESULTS = Path(__file__).with_name("results")


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory beside the project's files: the system's temporary one is often no disk at all."""
    RESULTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=RESULTS) as directory:
        yield Path(directory)


async def interleaved(
    ours: Callable[[], Awaitable[float]], floor: Callable[[], Awaitable[float]], *, rounds: int
) -> tuple[list[float], list[float]]:
    """Measures both in turns (A B A B), so that what else the machine does hits both; one turn each is not counted."""
    values: list[float] = []
    floors: list[float] = []
    for number in range(rounds + 1):
        gc.collect()
        value = await ours()
        gc.collect()
        against = await floor()
        if number:
            values.append(value)
            floors.append(against)
    return values, floors


def result(
    question: str,
    unit: str,
    values: list[float],
    floors: list[float],
    *,
    target: float,
    at_most: bool = False,
    **details: Any,
) -> dict[str, Any]:
    """One line of the table: medians, and the median of the ratios of each turn.

    ``at_most``: the value is a cost, and the ratio must not exceed the target; else it must reach it.
    """
    return {
        "question": question,
        "unit": unit,
        "value": statistics.median(values),
        "floor": statistics.median(floors),
        "ratio": statistics.median(value / floor for value, floor in zip(values, floors, strict=True)),
        "target": target,
        "at_most": at_most,
        "values": values,
        "floors": floors,
        **details,
    }


def run_benchmark(name: str) -> list[dict[str, Any]]:
    """The lines of one benchmark, by the name of its module. (Here, since another process has to find it.)"""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    answer = importlib.import_module(f"bench.{name}").run()
    return answer if isinstance(answer, list) else [answer]

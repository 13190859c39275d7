"""Metrics in Prometheus' text form.

Counting a request must cost next to nothing, so it increments plain numbers; they become metrics when somebody asks.
Each ``Metrics`` has a registry of its own: several nodes may run in one process.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal

import msgspec
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["Metrics", "Reading", "RouteStatistics", "readings_of"]

BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0)


class RouteStatistics:
    """How the requests of one route have ended, and how long they took."""

    __slots__ = ("buckets", "endings", "method", "route", "total_s")

    def __init__(self, method: str, route: str) -> None:
        self.method = method
        self.route = route
        self.endings: dict[tuple[int, str], int] = {}
        self.buckets = [0] * (len(BOUNDS_S) + 1)
        self.total_s = 0.0

    def count(self, status: int, problem: str, took_s: float) -> None:
        """``problem`` is the name of the problem type, empty for an answer that is none."""
        ending = (status, problem)
        self.endings[ending] = self.endings.get(ending, 0) + 1
        self.buckets[bisect_left(BOUNDS_S, took_s)] += 1
        self.total_s += took_s


class Reading(msgspec.Struct, frozen=True):
    """A number that somebody else keeps, or several that a label tells apart, read when the metrics are asked for."""

    name: str
    """Without the ``_total`` that a counter gets; the unit stands last."""
    help: str
    kind: Literal["counter", "gauge"]
    read: Callable[[], float | Mapping[str, float]]
    """By the label's value, where there is a ``label``."""
    label: str = ""


def readings_of(source: object, prefix: str, kind: Literal["counter", "gauge"]) -> Callable[[str, str, str], Reading]:
    """For an object that keeps many numbers: makes a ``Reading`` out of a name, a help text and an attribute's name.

    The reading's name is the prefix, an underscore and the given name.
    """

    def reading(name: str, help: str, attribute: str) -> Reading:
        return Reading(f"{prefix}_{name}", help, kind, lambda: float(getattr(source, attribute)))

    return reading


class Metrics(Collector):
    """Everything that ``GET /metrics`` shows."""

    def __init__(self, *, in_progress: Callable[[], int]) -> None:
        self.routes: list[RouteStatistics] = []
        self.readings: list[Reading] = [
            Reading("http_requests_in_progress", "Requests that are being handled.", "gauge", in_progress)
        ]
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    def route(self, method: str, path: str) -> RouteStatistics:
        statistics = RouteStatistics(method, path)
        self.routes.append(statistics)
        return statistics

    def text(self) -> tuple[bytes, str]:
        """The metrics, and their content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "http_requests",
            "Requests, by how they ended; problem is the name of the problem type, empty where there was none.",
            labels=("method", "route", "status", "problem"),
        )
        durations = HistogramMetricFamily(
            "http_request_duration_seconds", "From a request's head to its answer.", labels=("method", "route")
        )
        for route in self.routes:
            for (status, problem), count in route.endings.items():
                requests.add_metric((route.method, route.route, str(status), problem), count)
            durations.add_metric((route.method, route.route), _cumulative(route.buckets), route.total_s)
        yield requests
        yield durations
        for reading in self.readings:
            family = CounterMetricFamily if reading.kind == "counter" else GaugeMetricFamily
            value = reading.read()
            if isinstance(value, Mapping):
                metric = family(reading.name, reading.help, labels=(reading.label,))
                for label, number in value.items():
                    metric.add_metric((label,), number)
                yield metric
            else:
                yield family(reading.name, reading.help, value=value)


def _cumulative(counts: list[int]) -> list[tuple[str, float]]:
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets

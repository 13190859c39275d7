"""The router's timer, on loops whose handles know less than asyncio's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from actorkit.sharding.router import Router


class BareHandle:
    """As uvloop gives one for what is to run at the next moment: it does not know when it is due."""

    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    def __init__(self) -> None:
        self.now_s = 10.0
        self.calls: list[tuple[float, Callable[[], None], BareHandle]] = []

    def time(self) -> float:
        return self.now_s

    def call_at(self, when_s: float, callback: Callable[[], None]) -> BareHandle:
        handle = BareHandle()
        self.calls.append((when_s, callback, handle))
        return handle

    @property
    def due(self) -> list[float]:
        return [when_s for when_s, _, handle in self.calls if not handle.cancelled]


class Routing:
    """Only wants to be woken."""

    def __init__(self) -> None:
        self.wake_s: float | None = None
        self.ticks = 0
        self.lanes = ()

    def settled(self, pid: object) -> None: ...

    def poll(self) -> list[Any]:
        return []

    def tick(self, now_s: float) -> None:
        self.ticks += 1


@pytest.mark.parametrize(
    ("wanted", "due"),
    [([10.0, 10.0], 10.001), ([11.0, 12.0], 11.0), ([12.0, 11.0], 11.0), ([10.0, 11.0], 10.001)],
)
async def test_it_wakes_when_it_is_due_whatever_the_loops_handles_know(wanted: list[float], due: float) -> None:
    routing, loop = Routing(), Loop()
    fake: Any = routing
    router = Router(fake, send=lambda address, message: True, deliver=lambda call: None, margin_s=0.0)
    router._loop = loop  # type: ignore[assignment]
    anybody: Any = "somebody"
    for wake_s in wanted:
        routing.wake_s = wake_s
        router.settled(anybody)
    [found] = loop.due
    assert found == pytest.approx(due)
    routing.wake_s = None
    router.settled(anybody)
    assert loop.due == []

"""How much does an ask within the process cost, against a deque, a ``call_soon`` callback and a future?

1,000 askers, each with one ask in flight, over 100 actors with plain handlers, on uvloop. The floor has no bound, no
deadline, no supervision, no context; the runtime has all of them. Both are measured in turns within one run, since only
their ratio says something on a shared machine.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import actorkit
from actorkit.actor import Actor, ActorRuntime
from actorkit.clock import SystemClock, SystemRandomness

ASKERS = 1_000
ACTORS = 100
ASKS_EACH = 100
ROUNDS = 9
TARGET = 0.5


class FloorActor:
    """The least that can be called an actor."""

    __slots__ = ("loop", "mailbox", "scheduled")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.mailbox: deque[tuple[int, asyncio.Future[int]]] = deque()
        self.scheduled = False

    def ask(self, message: int) -> asyncio.Future[int]:
        future: asyncio.Future[int] = self.loop.create_future()
        self.mailbox.append((message, future))
        if not self.scheduled:
            self.scheduled = True
            self.loop.call_soon(self.run)
        return future

    def run(self) -> None:
        mailbox = self.mailbox
        receive = self.receive
        while mailbox:
            message, future = mailbox.popleft()
            future.set_result(receive(message))
        self.scheduled = False

    def receive(self, message: int) -> int:
        return message + 1


class Adder(Actor[int]):
    def receive(self, message: int) -> int:
        return message + 1


async def measured(asks: list[Callable[[int], Awaitable[Any]]]) -> float:
    """Asks per second."""

    async def asker(ask: Callable[[int], Awaitable[Any]]) -> None:
        for number in range(ASKS_EACH):
            await ask(number)

    gc.collect()
    begin = time.perf_counter()
    await asyncio.gather(*(asker(asks[number % ACTORS]) for number in range(ASKERS)))
    return ASKERS * ASKS_EACH / (time.perf_counter() - begin)


async def measure() -> tuple[list[float], list[float]]:
    runtime = ActorRuntime(clock=SystemClock(), randomness=SystemRandomness())
    ours: list[Callable[[int], Awaitable[Any]]] = [runtime.spawn(Adder).ask for _ in range(ACTORS)]
    floor: list[Callable[[int], Awaitable[Any]]] = [FloorActor().ask for _ in range(ACTORS)]
    values: list[float] = []
    floors: list[float] = []
    await measured(ours)
    await measured(floor)
    for _ in range(ROUNDS):
        values.append(await measured(ours))
        floors.append(await measured(floor))
    await runtime.shutdown(1.0)
    return values, floors


def run() -> dict[str, Any]:
    """The medians of interleaved rounds; the ratio is the median of the rounds' ratios."""
    values, floors = actorkit.run(measure())
    ratio = statistics.median(value / floor for value, floor in zip(values, floors, strict=True))
    return {
        "question": "asks per second within the process, 1,000 in flight over 100 actors, against the floor",
        "value": round(statistics.median(values)),
        "floor": round(statistics.median(floors)),
        "ratio": round(ratio, 3),
        "target": TARGET,
    }


if __name__ == "__main__":
    for key, value in run().items():
        print(f"{key}: {value:,}" if isinstance(value, int) else f"{key}: {value}")

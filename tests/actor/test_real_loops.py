"""The same on loops with a real clock: asyncio's own and uvloop (see ``conftest``)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actorkit.actor import Actor, ActorRuntime
from actorkit.errors import Unavailable

from .conftest import Recorder


class Mixed(Actor[int]):
    def receive(self, message: int) -> Any:
        return message if message % 2 else self.later(message)

    async def later(self, message: int) -> int:
        await asyncio.sleep(0)
        return message


async def test_asks_are_answered_in_order_by_plain_and_async_handlers(runtime: ActorRuntime) -> None:
    refs = [runtime.spawn(Mixed) for _ in range(10)]
    answers = await asyncio.gather(*(refs[number % 10].ask(number) for number in range(500)))
    assert answers == list(range(500))
    assert len(runtime.deadlines) == 0


async def test_deadlines_and_timers_follow_the_loops_clock(runtime: ActorRuntime) -> None:
    loop = asyncio.get_running_loop()
    gate: asyncio.Future[str] = loop.create_future()
    ref = runtime.spawn(Recorder)
    await ref.ask("ready")

    async def wait(_: Recorder) -> str:
        return await gate

    running = ref.ask(wait)
    begin = loop.time()
    with pytest.raises(Unavailable):
        await ref.ask("waits", deadline_s=0.1)
    assert loop.time() - begin >= 0.09
    gate.set_result("went on")
    assert await running == "went on"
    fired: asyncio.Future[str] = loop.create_future()
    await ref.ask(lambda actor: actor.context.timers.once("soon", 0.01, lambda _: fired.set_result("fired")))
    assert await fired == "fired"

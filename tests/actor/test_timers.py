"""Timers: keyed by name, replaced, cancelled for good, and over with their actor."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actorkit.actor import ActorRuntime, ActorSettings, Timers
from actorkit.clock import SystemClock
from actorkit.errors import Overloaded

from .conftest import EvenRandomness, Recorder


class Timed(Recorder):
    """Records with the time."""

    def receive(self, message: Any) -> object:
        if callable(message):
            return super().receive(message)
        self.seen.append((round(asyncio.get_running_loop().time(), 2), message))
        return None


async def timed(runtime: ActorRuntime) -> tuple[Timed, Timers]:
    actor = Timed()
    await runtime.spawn(lambda: actor, "timed").ask(lambda actor: None)
    return actor, actor.context.timers


async def test_once_delivers_once_after_its_delay(runtime: ActorRuntime) -> None:
    actor, timers = await timed(runtime)
    timers.once("a", 2.0, "two")
    timers.once("b", 1.0, "one")
    assert timers.is_active("a")
    await asyncio.sleep(5)
    assert actor.seen == [(1.0, "one"), (2.0, "two")]
    assert not timers.is_active("a")


async def test_every_delivers_in_rhythm(runtime: ActorRuntime) -> None:
    actor, timers = await timed(runtime)
    timers.every("beat", 1.0, "beat")
    await asyncio.sleep(3.5)
    assert actor.seen == [(1.0, "beat"), (2.0, "beat"), (3.0, "beat")]


async def test_a_beat_is_skipped_while_the_previous_one_waits(runtime: ActorRuntime) -> None:
    actor, timers = await timed(runtime)
    timers.every("beat", 1.0, "beat")
    actor.context.self_ref.tell(lambda actor: asyncio.sleep(3.5))
    await asyncio.sleep(5.2)
    assert actor.seen == [(3.5, "beat"), (4.0, "beat"), (5.0, "beat")]


async def test_setting_a_name_again_replaces_its_timer(runtime: ActorRuntime) -> None:
    actor, timers = await timed(runtime)
    timers.every("a", 1.0, "old")
    timers.once("a", 2.5, "new")
    await asyncio.sleep(10)
    assert actor.seen == [(2.5, "new")]


async def test_a_cancelled_timer_delivers_nothing_even_if_its_message_was_waiting(runtime: ActorRuntime) -> None:
    actor, timers = await timed(runtime)
    timers.once("a", 1.0, "cancelled in time")
    timers.cancel("a")
    timers.cancel("unknown")
    timers.once("b", 1.0, "cancelled in the mailbox")
    timers.every("c", 1.0, "cancelled in the mailbox")

    async def busy(actor: Timed) -> None:
        await asyncio.sleep(2.0)
        actor.context.timers.cancel("b")
        actor.context.timers.cancel("c")

    actor.context.self_ref.tell(busy)
    await asyncio.sleep(5)
    assert actor.seen == []


async def test_none_fires_after_a_stop(runtime: ActorRuntime) -> None:
    actor, timers = await timed(runtime)
    timers.every("beat", 1.0, "beat")
    timers.once("a", 0.0, "in the mailbox when it stops")

    async def stop(actor: Timed) -> None:
        actor.context.stop()
        await asyncio.sleep(2)

    actor.context.self_ref.tell(stop)
    await asyncio.sleep(10)
    assert actor.seen == []
    assert sum(runtime.dead_letters.counts.values()) == 0
    timers.once("late", 0.0, "set after the end")
    await asyncio.sleep(1)
    assert not timers.is_active("late")


async def test_none_survives_a_restart(runtime: ActorRuntime) -> None:
    made: list[Timed] = []

    def factory() -> Timed:
        made.append(Timed())
        return made[-1]

    def fail(_: Recorder) -> None:
        raise ValueError

    ref = runtime.spawn(factory)
    await ref.ask(lambda actor: actor.context.timers.every("beat", 1.0, "beat"))
    await asyncio.gather(ref.ask(fail), return_exceptions=True)
    await asyncio.sleep(5)
    assert [actor.seen for actor in made] == [[], []]


async def test_a_full_mailbox_does_not_lose_a_timer(runtime: ActorRuntime) -> None:
    actor = Timed()
    ref = runtime.spawn(lambda: actor, mailbox=1)
    await ref.ask(lambda actor: actor.context.timers.once("a", 1.0, "fired"))
    ref.tell(lambda actor: asyncio.sleep(2))
    await asyncio.sleep(0.01)
    ref.tell("full")
    await asyncio.sleep(5)
    assert [message for _, message in actor.seen] == ["full", "fired"]


async def test_a_stashed_timer_message_comes_back(runtime: ActorRuntime) -> None:
    class Stashing(Recorder):
        def receive(self, message: Any) -> object:
            if message == "fired" and not self.seen:
                self.context.stash()
            elif message == "go":
                self.seen.append(message)
                self.context.unstash_all()
            else:
                self.seen.append(message)
            return None

    actor = Stashing()
    ref = runtime.spawn(lambda: actor)
    await asyncio.sleep(0.01)
    actor.context.timers.once("a", 0.1, "fired")
    await asyncio.sleep(1)
    await ref.ask("go")
    await ref.ask("last")
    assert actor.seen == ["go", "fired", "last"]


async def test_the_number_of_timers_and_of_stale_ones_in_the_mailbox_is_bounded() -> None:
    settings = ActorSettings(timers_max=2)
    runtime = ActorRuntime(clock=SystemClock(), randomness=EvenRandomness(), settings=settings)
    actor = Timed()
    ref = runtime.spawn(lambda: actor, mailbox=1)
    await ref.ask(lambda actor: None)
    timers = actor.context.timers
    timers.once("a", 10.0, 1)
    timers.once("b", 10.0, 2)
    with pytest.raises(Overloaded):
        timers.every("c", 10.0, 3)
    timers.once("a", 10.0, "replacing is no new one")

    async def restless(actor: Timed) -> None:
        for _ in range(100):
            actor.context.timers.once("a", 0.0, "again")
            await asyncio.sleep(0.01)
        assert len(ref.cell.mailbox) <= 3

    await ref.ask(restless)
    await asyncio.sleep(20)
    assert [message for _, message in actor.seen] == ["again", 2]
    await runtime.shutdown(1.0)


async def test_times_are_checked(runtime: ActorRuntime) -> None:
    _, timers = await timed(runtime)
    with pytest.raises(ValueError, match="negative"):
        timers.once("a", -1.0, None)
    with pytest.raises(ValueError, match="positive"):
        timers.every("a", 0.0, None)


async def test_beats_that_a_busy_loop_missed_are_not_made_up_for(runtime: ActorRuntime) -> None:
    actor, timers = await timed(runtime)
    timers.every("beat", 1.0, "beat")
    loop = asyncio.get_running_loop()
    loop.call_later(0.5, lambda: setattr(loop, "now_s", loop.time() + 3.2))
    await asyncio.sleep(6.1)
    assert actor.seen == [(3.7, "beat"), (4.0, "beat"), (5.0, "beat"), (6.0, "beat")]

"""Stash: putting messages aside, with their asks."""

from __future__ import annotations

import asyncio

import pytest

from actorkit.actor import Actor, ActorRuntime, ActorSettings, Reason, StashFull
from actorkit.clock import SystemClock
from actorkit.errors import HandlerFailed, Unavailable

from .conftest import EvenRandomness


class Door(Actor[str]):
    """Stashes everything until it is opened."""

    def __init__(self) -> None:
        self.open = False
        self.seen: list[str] = []

    def receive(self, message: str) -> str | None:
        if message == "open":
            self.open = True
            self.context.unstash_all()
        elif message == "fail":
            raise ValueError
        elif not self.open:
            self.context.stash()
        else:
            self.seen.append(message)
        return message


class AsyncDoor(Door):
    async def receive(self, message: str) -> str | None:  # type: ignore[override]
        await asyncio.sleep(0.01)
        return super().receive(message)


@pytest.mark.parametrize("kind", [Door, AsyncDoor])
async def test_stashed_messages_come_next_in_order_and_their_asks_are_answered(
    runtime: ActorRuntime, kind: type[Door]
) -> None:
    actor = kind()
    ref = runtime.spawn(lambda: actor)
    ref.tell("a")
    ask = ref.ask("b")
    ref.tell("c")
    await asyncio.sleep(1)
    assert not ask.done()
    ref.tell("open")
    ref.tell("d")
    assert await ask == "b"
    await asyncio.sleep(1)
    assert actor.seen == ["a", "b", "c", "d"]


@pytest.mark.parametrize("kind", [Door, AsyncDoor])
async def test_an_ask_that_expires_in_the_stash_is_surely_not_executed(runtime: ActorRuntime, kind: type[Door]) -> None:
    actor = kind()
    ref = runtime.spawn(lambda: actor)
    with pytest.raises(Unavailable):
        await ref.ask("late", deadline_s=0.5)
    await ref.ask("open")
    assert await ref.ask("next") == "next"
    assert actor.seen == ["next"]


async def test_a_full_stash_refuses_the_message_and_leaves_the_actor_alone() -> None:
    runtime = ActorRuntime(clock=SystemClock(), randomness=EvenRandomness(), settings=ActorSettings(stash_max=1))
    actor = Door()
    ref = runtime.spawn(lambda: actor)
    ref.tell("a")
    with pytest.raises(StashFull):
        await ref.ask("b")
    ref.tell("c")
    await ref.ask("open")
    await ref.ask("d")
    assert actor.seen == ["a", "d"]
    assert [(letter.message, letter.reason) for letter in runtime.dead_letters.newest] == [("c", Reason.STASH_FULL)]
    await runtime.shutdown(1.0)


async def test_a_restart_unstashes(runtime: ActorRuntime) -> None:
    made: list[Door] = []

    def factory() -> Door:
        made.append(Door())
        made[-1].open = len(made) > 1
        return made[-1]

    ref = runtime.spawn(factory)
    ask = ref.ask("kept")
    with pytest.raises(HandlerFailed):
        await ref.ask("fail")
    assert await ask == "kept"
    assert made[1].seen == ["kept"]


async def test_a_stop_ends_what_is_stashed(runtime: ActorRuntime) -> None:
    ref = runtime.spawn(Door)
    ask = ref.ask("asked")
    ref.tell("told")
    await asyncio.sleep(0.01)
    await runtime.stop(ref)
    with pytest.raises(Unavailable):
        await ask
    assert [letter.message for letter in runtime.dead_letters.newest] == ["told"]


async def test_there_must_be_a_message_to_stash(runtime: ActorRuntime) -> None:
    class Eager(Door):
        def started(self) -> None:
            with pytest.raises(RuntimeError):
                self.context.stash()

    assert await runtime.spawn(Eager).ask("open") == "open"

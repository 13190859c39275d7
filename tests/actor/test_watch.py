"""Death watch."""

from __future__ import annotations

import asyncio
from typing import Any

from actorkit.actor import ActorRef, ActorRuntime, Directive, Signal, SupervisionStrategy, Terminated
from actorkit.errors import HandlerFailed

from .conftest import Recorder


class Watcher(Recorder):
    supervision = SupervisionStrategy(lambda error: Directive.STOP)

    def signal(self, signal: Signal) -> None:
        self.seen.append(signal)


async def spawned(runtime: ActorRuntime) -> tuple[Watcher, ActorRef[Any], ActorRef[Any]]:
    actor = Watcher()
    watcher, watched = runtime.spawn(lambda: actor), runtime.spawn(Recorder, "watched")
    await watched.ask("ready")
    return actor, watcher, watched


async def test_a_watcher_is_told_once_when_the_watched_actor_stops(runtime: ActorRuntime) -> None:
    actor, watcher, watched = await spawned(runtime)
    for _ in range(2):
        await watcher.ask(lambda actor: actor.context.watch(watched))
    await runtime.stop(watched)
    await watcher.ask("after")
    assert actor.seen == [Terminated(watched), "after"]


async def test_watching_a_stopped_actor_tells_at_once(runtime: ActorRuntime) -> None:
    actor, watcher, watched = await spawned(runtime)
    await runtime.stop(watched)
    await watcher.ask(lambda actor: actor.context.watch(watched))
    await asyncio.sleep(0.01)
    assert actor.seen == [Terminated(watched)]


async def test_unwatch_also_takes_back_a_notice_on_its_way(runtime: ActorRuntime) -> None:
    actor, watcher, watched = await spawned(runtime)

    def both(actor: Watcher) -> None:
        actor.context.watch(watched)
        actor.context.unwatch(watched)

    await runtime.stop(watched)
    await watcher.ask(both)
    await asyncio.sleep(0.01)
    assert actor.seen == []


async def test_the_notice_goes_before_waiting_messages(runtime: ActorRuntime) -> None:
    actor, watcher, watched = await spawned(runtime)
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait(actor: Watcher) -> None:
        actor.context.watch(watched)
        await gate

    watcher.tell(wait)
    await asyncio.sleep(0.01)
    watcher.tell("waiting")
    await runtime.stop(watched)
    gate.set_result(None)
    await asyncio.sleep(0.01)
    assert actor.seen == [Terminated(watched), "waiting"]


async def test_a_restart_tells_nobody_and_keeps_the_watch(runtime: ActorRuntime) -> None:
    actor, watcher, watched = await spawned(runtime)
    await watcher.ask(lambda actor: actor.context.watch(watched))

    def fail(_: Recorder) -> None:
        raise ValueError

    await asyncio.gather(watched.ask(fail), return_exceptions=True)
    await watched.ask("works again")
    assert actor.seen == []
    await runtime.stop(watched)
    await watcher.ask("after")
    assert actor.seen == [Terminated(watched), "after"]


async def test_the_notice_of_a_failed_child_says_why_and_its_name_is_free(runtime: ActorRuntime) -> None:
    actor, watcher, _ = await spawned(runtime)
    child: ActorRef[Any] = await watcher.ask(lambda actor: actor.context.spawn(Recorder, "child"))
    await watcher.ask(lambda actor: actor.context.watch(child))
    error = ValueError()

    def fail(_: Recorder) -> None:
        raise error

    ask = child.ask(fail)
    await asyncio.wait([ask])
    assert isinstance(ask.exception(), HandlerFailed)
    assert await watcher.ask(lambda actor: actor.context.children) == ()
    assert actor.seen == [Terminated(child, error)]
    assert (await watcher.ask(lambda actor: actor.context.spawn(Recorder, "child"))).path == child.path


async def test_a_failing_signal_handler_is_supervised_and_an_async_one_is_awaited(runtime: ActorRuntime) -> None:
    class Failing(Watcher):
        async def signal(self, signal: Signal) -> None:
            await asyncio.sleep(1)
            raise ValueError

    made: list[Failing] = []

    def factory() -> Failing:
        made.append(Failing())
        return made[-1]

    watcher, watched = runtime.spawn(factory), runtime.spawn(Recorder)
    await watcher.ask(lambda actor: actor.context.watch(watched))
    await runtime.stop(watched)
    await watcher.ask("waits for the signal's turn, and for the restart")
    assert len(made) == 2


async def test_a_watcher_that_stops_leaves_nothing_behind(runtime: ActorRuntime) -> None:
    _, watcher, watched = await spawned(runtime)
    await watcher.ask(lambda actor: actor.context.watch(watched))
    await runtime.stop(watcher)
    assert not watched.cell.life._watchers

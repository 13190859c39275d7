"""Stopping: order, deadline, cancellation."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from actorkit import logs
from actorkit.actor import Actor, ActorRef, ActorRuntime
from actorkit.clock import SystemClock
from actorkit.errors import ConfigurationError, HandlerFailed, OutcomeUnknown, Unavailable

from .conftest import EvenRandomness, Recorder


class Node(Actor[Any]):
    """A small tree; leaves may take their time to stop, or never stop."""

    def __init__(self, log: list[str], depth: int, *, stopping_s: float = 0.0) -> None:
        self.log = log
        self.depth = depth
        self.stopping_s = stopping_s

    def started(self) -> None:
        for number in range(2 if self.depth else 0):
            node = Node(self.log, self.depth - 1, stopping_s=self.stopping_s)
            self.context.spawn(lambda node=node: node, f"{number}")  # type: ignore[misc]

    async def receive(self, message: asyncio.Future[Any]) -> Any:
        try:
            return await message
        except asyncio.CancelledError:
            self.log.append(f"cancelled {self.context.path}")
            raise

    async def stopped(self) -> None:
        await asyncio.sleep(self.stopping_s)
        self.log.append(self.context.path)


def fresh() -> ActorRuntime:
    return ActorRuntime(clock=SystemClock(), randomness=EvenRandomness())


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_children_stop_before_their_parents() -> None:
    runtime, log = fresh(), list[str]()
    runtime.spawn(lambda: Node(log, 2, stopping_s=0.1), "tree")
    await asyncio.sleep(0.01)
    assert len(runtime) == 7
    await runtime.shutdown(5.0)
    assert len(runtime) == 0
    assert len(log) == 7
    for path in log:
        parent = path.rpartition("/")[0]
        assert not parent or log.index(parent) > log.index(path)


async def test_stop_waits_for_the_running_handler_and_its_reply_arrives() -> None:
    runtime, log = fresh(), list[str]()
    ref = runtime.spawn(lambda: Node(log, 0), "node")
    gate: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    running, waiting = ref.ask(gate), ref.ask(gate)
    await asyncio.sleep(0.01)
    stop = asyncio.create_task(runtime.stop(ref))
    await asyncio.sleep(0.5)
    assert not stop.done()
    gate.set_result("answered")
    await stop
    assert await running == "answered"
    with pytest.raises(Unavailable):
        await waiting
    await runtime.stop(ref)
    await runtime.shutdown(1.0)


async def test_nothing_expires_after_the_shutdown() -> None:
    class Item:
        def expire(self) -> None:
            raise AssertionError

    runtime = fresh()
    runtime.deadlines.add(5.0, Item())
    await runtime.shutdown(1.0)
    await asyncio.sleep(10)
    assert len(runtime.deadlines) == 0


async def test_what_has_not_stopped_at_the_deadline_is_cancelled(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(stream=sys.stdout)
    runtime, log = fresh(), list[str]()
    stuck, idle = runtime.spawn(lambda: Node(log, 0), "stuck"), runtime.spawn(lambda: Node(log, 0), "idle")
    gate: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    running, waiting = stuck.ask(gate, deadline_s=60.0), stuck.ask(gate, deadline_s=60.0)
    await asyncio.sleep(0.01)
    begin = now()
    await runtime.shutdown(2.0)
    assert now() - begin == pytest.approx(2.0, abs=0.15)
    assert isinstance(running.exception(), OutcomeUnknown)
    assert isinstance(waiting.exception(), Unavailable)
    assert log == ["/idle", "cancelled /stuck"]
    assert len(runtime) == 0
    assert "/stuck" in capsys.readouterr().out
    with pytest.raises(Unavailable):
        await idle.ask(gate)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("/")]


async def test_a_handler_that_ignores_its_cancellation_does_not_hold_the_shutdown_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure(stream=sys.stdout)
    runtime = fresh()
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    class Stubborn(Actor[None]):
        async def receive(self, message: None) -> None:
            while not gate.done():
                try:
                    await asyncio.shield(gate)
                except asyncio.CancelledError:
                    continue

    ask = runtime.spawn(Stubborn, "stubborn").ask(None, deadline_s=60.0)
    await asyncio.sleep(0.01)
    begin = now()
    await runtime.shutdown(1.0)
    assert now() - begin == pytest.approx(1.1, abs=0.01)
    assert isinstance(ask.exception(), OutcomeUnknown)
    assert "ignores its cancellation" in capsys.readouterr().out
    gate.set_result(None)
    await asyncio.sleep(0.01)


async def test_a_shutdown_ends_a_start_and_a_backoff_too() -> None:
    runtime = fresh()

    class NeverStarts(Recorder):
        async def started(self) -> None:
            await asyncio.Event().wait()

    def fail(_: Recorder) -> None:
        raise ValueError

    starting, failing = runtime.spawn(NeverStarts), runtime.spawn(Recorder)
    asks: list[asyncio.Future[Any]] = [starting.ask("waits"), failing.ask(fail)]
    await asyncio.wait(asks[1:])
    asks.append(failing.ask("waits, too"))
    await runtime.shutdown(0.01)
    assert [type(ask.exception()) for ask in asks] == [Unavailable, HandlerFailed, Unavailable]
    assert len(runtime) == 0


async def test_nothing_is_spawned_any_more_and_a_second_shutdown_is_harmless() -> None:
    runtime = fresh()
    ref = runtime.spawn(Recorder, "parent")
    await ref.ask("ready")
    await runtime.shutdown(1.0)
    await runtime.shutdown(1.0)
    with pytest.raises(ConfigurationError):
        runtime.spawn(Recorder)
    with pytest.raises(ConfigurationError):
        runtime.spawn(Recorder, under=ref.path)


async def test_an_actor_stops_itself_and_its_children_but_no_one_else() -> None:
    runtime, log = fresh(), list[str]()
    ref, other = runtime.spawn(Recorder), runtime.spawn(Recorder, "other")
    child: ActorRef[Any] = await ref.ask(lambda actor: actor.context.spawn(lambda: Node(log, 0), "child"))
    await ref.ask(lambda actor: actor.context.stop(child))

    def stop_other(actor: Recorder) -> None:
        with pytest.raises(ConfigurationError):
            actor.context.stop(other)

    await ref.ask(stop_other)
    await asyncio.sleep(0.01)
    assert log == [child.path]
    await ref.ask(lambda actor: actor.context.stop())
    with pytest.raises(Unavailable):
        await ref.ask("gone")
    await runtime.shutdown(1.0)

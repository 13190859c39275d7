"""Calling out: after an emit it is an error, and never a deadlock; emitting is for commands, while they run."""

from __future__ import annotations

import asyncio

import pytest

from actorkit import HandlerFailed, PersistentActor, command, query
from actorkit.errors import CallCycle, CallingOutAfterEmit
from tests.persistence.actors import Account, Busy
from tests.persistence.kit import Nodes
from tests.persistence.reaching import Caller, Recorder, Step, Steps, recording


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


async def test_asking_a_plain_actor_after_emit_is_an_error_that_says_so(nodes: Nodes, recorder: Recorder) -> None:
    _, system = await recording(nodes, recorder)
    caller = system.get(Caller, "c")
    with pytest.raises(HandlerFailed) as failed:
        await caller.ask_after_emit()
    assert isinstance(failed.value.__cause__, CallingOutAfterEmit)
    assert recorder.seen == []
    assert await caller.names() == []
    assert await caller.ask_then_emit("first") == "first"
    assert await caller.names() == ["first"]


async def test_calling_an_entity_after_emit_is_an_error_that_says_so(nodes: Nodes, recorder: Recorder) -> None:
    _, system = await recording(nodes, recorder)
    caller = system.get(Caller, "c")
    with pytest.raises(HandlerFailed) as failed:
        await caller.call_after_emit("a")
    assert isinstance(failed.value.__cause__, CallingOutAfterEmit)
    assert await caller.names() == []
    assert await system.get(Account, "a").balance() == 0
    assert await caller.call_then_emit("a") == 1
    assert await caller.names() == ["1"]


@pytest.mark.parametrize("path", [["a"], ["b", "a"], ["b", "c", "b"]])
async def test_a_call_that_comes_back_is_a_cycle_and_not_a_deadlock(
    nodes: Nodes, recorder: Recorder, path: list[str]
) -> None:
    _, system = await recording(nodes, recorder)
    before_s = asyncio.get_running_loop().time()
    with pytest.raises(HandlerFailed) as failed:
        await system.get(Caller, "a").call_other(path)
    cause: BaseException | None = failed.value
    while isinstance(cause, HandlerFailed):
        cause = cause.__cause__
    assert isinstance(cause, CallCycle)
    assert asyncio.get_running_loop().time() - before_s < 1
    assert await system.get(Caller, "a").call_other(["b", "c"]) == "end"


async def test_an_entity_cannot_call_its_own_commands_directly(nodes: Nodes) -> None:
    class Selfish(PersistentActor[Steps, Step], name="selfish"):
        @command
        def twice(self) -> None:
            self.once()

        @command
        def once(self) -> None:
            self.emit(Step("once"))

    system = await nodes.start()
    with pytest.raises(HandlerFailed) as failed:
        await system.get(Selfish, "s").twice()
    assert isinstance(failed.value.__cause__, TypeError)


async def test_emitting_in_a_query_or_after_the_handler_ended_raises(nodes: Nodes) -> None:
    class Sneaky(PersistentActor[Steps, Step], name="sneaky"):
        @query
        def look(self) -> None:
            self.emit(Step("in a query"))

        @command
        async def leak(self) -> None:
            async def later() -> None:
                await Busy.wait("later")
                self.emit(Step("late"))

            Busy.waiting["task"] = asyncio.ensure_future(later())

        @query
        def names(self) -> list[str]:
            return self.state.names

    system = await nodes.start()
    sneaky = system.get(Sneaky, "s")
    with pytest.raises(HandlerFailed):
        await sneaky.look()
    await sneaky.leak()
    Busy.go("later")
    with pytest.raises(RuntimeError):
        await Busy.waiting["task"]
    assert await sneaky.names() == []

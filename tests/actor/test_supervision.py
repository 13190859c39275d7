"""Supervision: the decision (pure), and each directive in a running tree."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest

from actorkit.actor import Actor, ActorRef, ActorRuntime, ActorSettings, Directive, SupervisionStrategy, by_type
from actorkit.actor.lifecycle import State, Step, after
from actorkit.actor.supervision import RestartHistory, supervise
from actorkit.clock import SystemClock
from actorkit.errors import HandlerFailed, Unavailable

from .conftest import EvenRandomness

# --------------------------------------------------------------------------------------------------------- pure


def delays(strategy: SupervisionStrategy, times_s: list[float], uniform: float = 0.5) -> list[float | Directive]:
    history = RestartHistory()
    out: list[float | Directive] = []
    for now_s in times_s:
        directive, delay_s, history = supervise(strategy, history, ValueError(), now_s, uniform)
        out.append(delay_s if directive is Directive.RESTART else directive)
    return out


def test_restarts_back_off_exponentially_up_to_the_maximum() -> None:
    strategy = SupervisionStrategy(backoff_min_s=1.0, backoff_max_s=5.0)
    assert delays(strategy, [0, 1, 2, 3, 4]) == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_jitter_spreads_the_delay_evenly_around_it() -> None:
    strategy = SupervisionStrategy(backoff_min_s=1.0, jitter=0.2)
    assert delays(strategy, [0], uniform=0.0) == [0.8]
    assert delays(strategy, [0], uniform=0.5) == [1.0]


def test_the_budget_of_restarts_within_the_window_ends_in_stop_or_escalate() -> None:
    strategy = SupervisionStrategy(backoff_min_s=0.0, restarts_max=2, window_s=10.0)
    assert delays(strategy, [0, 1, 2]) == [0.0, 0.0, Directive.STOP]
    escalating = SupervisionStrategy(restarts_max=0, exhausted=Directive.ESCALATE)
    assert delays(escalating, [0]) == [Directive.ESCALATE]


def test_restarts_outside_of_the_window_count_neither_for_the_budget_nor_for_the_backoff() -> None:
    strategy = SupervisionStrategy(backoff_min_s=1.0, restarts_max=2, window_s=10.0)
    assert delays(strategy, [0, 1, 20, 21]) == [1.0, 2.0, 1.0, 2.0]


def test_the_defaults_reach_their_budget_within_their_window() -> None:
    now_s, history, strategy = 0.0, RestartHistory(), SupervisionStrategy()
    for _ in range(10):
        directive, delay_s, history = supervise(strategy, history, ValueError(), now_s, 0.999)
        assert directive is Directive.RESTART
        now_s += delay_s
    assert supervise(strategy, history, ValueError(), now_s, 0.5).directive is Directive.STOP
    assert len(history.at_s) == 10


def test_a_table_of_types_decides_by_the_nearest_base() -> None:
    decide = by_type({LookupError: Directive.STOP, KeyError: Directive.RESUME}, otherwise=Directive.ESCALATE)
    assert decide(KeyError()) is Directive.RESUME
    assert decide(IndexError()) is Directive.STOP
    assert decide(ValueError()) is Directive.ESCALATE


@pytest.mark.parametrize(
    "wrong",
    [
        {"backoff_min_s": 2.0, "backoff_max_s": 1.0},
        {"jitter": 1.0},
        {"window_s": 0.0},
        {"restarts_max": -1},
        {"exhausted": Directive.RESUME},
    ],
)
def test_bounds_that_are_none_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        SupervisionStrategy(**wrong)


def test_an_illegal_transition_of_an_actor_raises() -> None:
    assert after(State.READY, Step.STOP) is State.STOPPING
    for step in Step:
        with pytest.raises(KeyError):
            after(State.STOPPED, step)


# ------------------------------------------------------------------------------------------------------ running


class Child(Actor[Any]):
    """Fails on an exception, which it is sent; otherwise counts. Its class records what happens to all instances."""

    log: ClassVar[list[str]]
    made: ClassVar[int]

    def __init__(self) -> None:
        self.count = 0
        type(self).made += 1
        self.me = type(self).made

    def note(self, what: str) -> None:
        self.log.append(f"{what} {self.me}")

    def started(self) -> None:
        self.note("started")

    def stopped(self) -> None:
        self.note("stopped")

    def restarting(self, error: Exception) -> None:
        self.note(f"restarting after {type(error).__name__}")

    def receive(self, message: Any) -> int:
        if isinstance(message, Exception):
            raise message
        self.count += 1
        return self.count


class Parent(Actor[Any]):
    supervision = SupervisionStrategy(
        by_type(
            {
                LookupError: Directive.RESUME,
                TypeError: Directive.STOP,
                ArithmeticError: Directive.ESCALATE,
            }
        ),
        backoff_min_s=1.0,
    )

    made: ClassVar[int]

    def __init__(self) -> None:
        type(self).made += 1

    def started(self) -> None:
        self.child = self.context.spawn(self.child_class, "child")

    child_class: type[Child]

    def receive(self, message: Any) -> ActorRef[Any]:
        return self.child


class Family:
    """Fresh classes for one test, spawned."""

    def __init__(self, runtime: ActorRuntime, **members: Any) -> None:
        self.child_class = type("FreshChild", (Child,), {"log": [], "made": 0, **members})
        self.parent_class = type("FreshParent", (Parent,), {"child_class": self.child_class, "made": 0})
        self.parent: ActorRef[Any] = runtime.spawn(self.parent_class, "parent")

    async def child(self) -> ActorRef[Any]:
        return await self.parent.ask("child?")

    @property
    def log(self) -> list[str]:
        return self.child_class.log


async def failing(ref: ActorRef[Any], error: Exception) -> None:
    with pytest.raises(HandlerFailed):
        await ref.ask(error)


async def test_resume_keeps_the_instance_and_its_state(runtime: ActorRuntime) -> None:
    family = Family(runtime)
    child = await family.child()
    assert await child.ask(1) == 1
    await failing(child, KeyError())
    assert await child.ask(1) == 2
    assert family.log == ["started 1"]


async def test_restart_makes_a_fresh_instance_after_the_backoff_and_keeps_what_waits(runtime: ActorRuntime) -> None:
    family = Family(runtime)
    child = await family.child()
    await child.ask(1)
    loop = asyncio.get_running_loop()
    begin = loop.time()
    failed, waiting = child.ask(ValueError()), child.ask(1)
    child.tell(1)
    with pytest.raises(HandlerFailed):
        await failed
    during = child.ask(1)
    assert (await waiting, await during) == (1, 3)
    assert loop.time() - begin == pytest.approx(1.0, abs=0.01)
    assert family.log == ["started 1", "restarting after ValueError 1", "started 2"]


async def test_a_message_that_expires_during_the_backoff_is_surely_not_executed(runtime: ActorRuntime) -> None:
    family = Family(runtime)
    child = await family.child()
    await failing(child, ValueError())
    with pytest.raises(Unavailable):
        await child.ask(1, deadline_s=0.5)
    assert await child.ask(1) == 1


async def test_stop_ends_the_child_and_runs_stopped(runtime: ActorRuntime) -> None:
    family = Family(runtime)
    child = await family.child()
    failed, waiting = child.ask(TypeError()), child.ask(1)
    with pytest.raises(HandlerFailed):
        await failed
    with pytest.raises(Unavailable):
        await waiting
    assert family.log == ["started 1", "stopped 1"]


async def test_escalate_stops_the_child_and_fails_its_parent(runtime: ActorRuntime) -> None:
    family = Family(runtime)
    child = await family.child()
    await failing(child, ZeroDivisionError())
    fresh = await family.child()
    assert fresh is not child
    assert family.parent_class.made == 2
    assert await fresh.ask(1) == 1
    assert family.log == ["started 1", "stopped 1", "started 2"]


async def test_the_used_up_budget_stops_the_child(runtime: ActorRuntime) -> None:
    family = Family(runtime)
    family.parent_class.supervision = SupervisionStrategy(backoff_min_s=0.01, restarts_max=2)
    child = await family.child()
    for _ in range(3):
        await failing(child, ValueError())
    with pytest.raises(Unavailable):
        await child.ask(1)
    assert family.log[-1] == "stopped 3"


async def test_a_failing_start_is_supervised_and_backs_off(runtime: ActorRuntime) -> None:
    def started(self: Child) -> None:
        self.note("started")
        if self.me < 3:
            raise ValueError("not yet")

    family = Family(runtime, started=started)
    child = await family.child()
    assert await child.ask(1) == 1
    assert asyncio.get_running_loop().time() == pytest.approx(3.0, abs=0.01)
    assert [line for line in family.log if line.startswith("started")] == ["started 1", "started 2", "started 3"]


async def test_a_failing_factory_is_supervised(runtime: ActorRuntime) -> None:
    made: list[int] = []

    def factory() -> Child:
        made.append(1)
        if len(made) < 3:
            raise OSError("not yet")
        return type("FreshChild", (Child,), {"log": [], "made": 0})()

    assert await runtime.spawn(factory).ask(1) == 1
    assert len(made) == 3


async def test_there_is_nothing_to_resume_in_a_start_that_failed(runtime: ActorRuntime) -> None:
    def started(self: Child) -> None:
        raise LookupError

    family = Family(runtime, started=started)
    with pytest.raises(Unavailable, match="stopped"):
        await (await family.child()).ask(1)


async def test_a_failing_restarting_hook_and_a_failing_stopped_hook_change_nothing(runtime: ActorRuntime) -> None:
    def restarting(self: Child, error: Exception) -> None:
        raise RuntimeError

    async def stopped(self: Child) -> None:
        raise RuntimeError

    family = Family(runtime, restarting=restarting, stopped=stopped)
    child = await family.child()
    await failing(child, ValueError())
    assert await child.ask(1) == 1
    await runtime.stop(child)
    await runtime.stop(family.parent)
    assert len(runtime) == 0


async def test_a_restart_stops_the_children_first(runtime: ActorRuntime) -> None:
    class Failing(Parent):
        made = 0
        child_class = type("FreshChild", (Child,), {"log": [], "made": 0})

        def receive(self, message: Any) -> ActorRef[Any]:
            if message == "fail":
                raise ValueError
            return self.child

    parent = runtime.spawn(Failing)
    first = await parent.ask("child?")
    with pytest.raises(HandlerFailed):
        await parent.ask("fail")
    second = await parent.ask("child?")
    assert first is not second
    assert Failing.child_class.log == ["started 1", "stopped 1", "started 2"]


async def test_a_child_is_restarted_while_its_parent_awaits_it(runtime: ActorRuntime) -> None:
    class Awaiting(Parent):
        made = 0
        child_class = type("FreshChild", (Child,), {"log": [], "made": 0})

        async def receive(self, message: Any) -> Any:
            with pytest.raises(HandlerFailed):
                await self.child.ask(ValueError())
            return await self.child.ask(1)

    assert await runtime.spawn(Awaiting).ask("go") == 1


async def test_an_actor_that_is_stopped_while_it_backs_off_does_not_come_back(runtime: ActorRuntime) -> None:
    family = Family(runtime)
    child = await family.child()
    await failing(child, ValueError())
    await runtime.stop(child)
    await asyncio.sleep(10)
    assert family.log == ["started 1", "restarting after ValueError 1"]


async def test_a_stop_in_the_last_moment_of_the_backoff_wins(runtime: ActorRuntime) -> None:
    family = Family(runtime)
    child = await family.child()
    await failing(child, ValueError())
    await asyncio.sleep(0)
    backoff = child.cell.life._backoff
    assert backoff is not None
    # Both run in one turn of the loop, the stop first.
    loop = asyncio.get_running_loop()
    loop.call_at(backoff.when() - 1e-10, child.cell.post, child.cell.life.stop)
    await asyncio.sleep(10)
    assert family.log == ["started 1", "restarting after ValueError 1"]


async def test_a_decider_that_fails_escalates(runtime: ActorRuntime) -> None:
    def broken(error: Exception) -> Directive:
        raise RuntimeError

    family = Family(runtime)
    family.parent_class.supervision = SupervisionStrategy(broken)
    child = await family.child()
    await failing(child, ValueError())
    assert await family.child() is not child


async def test_the_settings_supervise_top_level_actors() -> None:
    runtime = ActorRuntime(
        clock=SystemClock(),
        randomness=EvenRandomness(),
        settings=ActorSettings(supervision=SupervisionStrategy(lambda error: Directive.ESCALATE)),
    )
    ref = runtime.spawn(type("FreshChild", (Child,), {"log": [], "made": 0}))
    await failing(ref, ValueError())
    with pytest.raises(Unavailable):
        await ref.ask(1)
    other = runtime.spawn(type("FreshChild", (Child,), {"log": [], "made": 0}))
    assert await other.ask(1) == 1
    await runtime.shutdown(1.0)

"""One message at a time, in order; plain handlers inline, async ones in a task; how an ask ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest

from actorkit.actor import Actor, ActorRef, ActorRuntime, ActorSettings, Turn, current_turn
from actorkit.clock import SystemClock
from actorkit.errors import CallingOutAfterEmit, HandlerFailed, OutcomeUnknown, Rejected, Unavailable

from .conftest import EvenRandomness, Recorder


class Slow(Actor[Any]):
    """Waits for the future it is sent."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.done: list[Any] = []

    async def receive(self, message: asyncio.Future[Any]) -> object:
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            result = await message
        finally:
            self.inside -= 1
        self.done.append(result)
        return result


class SoldOut(Rejected, code="tests.actor.sold-out"):
    pass


def future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


async def test_messages_of_one_sender_arrive_in_order_tells_and_asks_alike(runtime: ActorRuntime) -> None:
    actor = Recorder()
    ref = runtime.spawn(lambda: actor)
    asks = [ref.ask(number) if number % 3 == 0 else ref.tell(number) for number in range(300)]
    await ref.ask("last")
    assert actor.seen == [*range(300), "last"]
    assert [ask.result() for ask in asks if ask is not None] == list(range(0, 300, 3))


async def test_an_actor_with_async_handlers_handles_one_message_at_a_time_in_order(runtime: ActorRuntime) -> None:
    actor = Slow()
    ref = runtime.spawn(lambda: actor)
    gates = [future() for _ in range(5)]
    asks = [ref.ask(gate) for gate in gates]
    for number in reversed(range(5)):
        gates[number].set_result(number)
    assert await asyncio.gather(*asks) == [0, 1, 2, 3, 4]
    assert actor.most == 1
    assert actor.done == [0, 1, 2, 3, 4]


async def test_a_plain_handler_creates_no_task(runtime: ActorRuntime) -> None:
    ref = runtime.spawn(Recorder)
    await ref.ask("ready")
    before = asyncio.all_tasks()

    def look(_: Recorder) -> object:
        return asyncio.current_task(), asyncio.all_tasks()

    assert await ref.ask(look) == (None, before)


async def test_an_async_handler_runs_in_a_task_of_its_own(runtime: ActorRuntime) -> None:
    class Modern(Actor[str]):
        async def receive(self, message: str) -> str:
            task = asyncio.current_task()
            assert task is not None
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await asyncio.Event().wait()
            return task.get_name()

    assert await runtime.spawn(Modern, "modern").ask("go") == "/modern"


async def test_an_actor_yields_to_the_loop_after_its_share_of_messages(runtime: ActorRuntime) -> None:
    ref = runtime.spawn(Recorder)
    await ref.ask("ready")
    handled = []
    for _ in range(200):
        ref.tell(lambda actor: handled.append(1))
    batches = []
    while len(handled) < 200:
        await asyncio.sleep(0)
        batches.append(len(handled))
    assert batches == [64, 128, 192, 200]


async def test_the_mailbox_waits_until_an_async_started_has_ended(runtime: ActorRuntime) -> None:
    gate = future()

    class Late(Recorder):
        async def started(self) -> None:
            self.seen.append(await gate)

    actor = Late()
    ref = runtime.spawn(lambda: actor)
    ask = ref.ask("message")
    await asyncio.sleep(1)
    assert actor.seen == []
    gate.set_result("started")
    await ask
    assert actor.seen == ["started", "message"]


async def test_a_stop_goes_before_the_messages_that_wait(runtime: ActorRuntime) -> None:
    actor = Recorder()
    ref = runtime.spawn(lambda: actor)
    first = ref.ask(lambda actor: actor.context.stop())
    second = ref.ask("second")
    await first
    with pytest.raises(Unavailable):
        await second
    assert actor.seen == []


async def test_rejected_reaches_the_asker_as_itself_and_is_no_failure(runtime: ActorRuntime) -> None:
    actor = Recorder()
    ref = runtime.spawn(lambda: actor)
    refusal = SoldOut("only 2 left", remaining=2)

    def refuse(_: Recorder) -> None:
        raise refusal

    with pytest.raises(SoldOut) as caught:
        await ref.ask(refuse)
    assert caught.value is refusal
    ref.tell(refuse)
    assert await ref.ask("still the same instance") == actor.seen[0]


async def test_a_failing_handler_ends_the_ask_with_handler_failed_and_its_cause(runtime: ActorRuntime) -> None:
    ref = runtime.spawn(Recorder)

    def fail(_: Recorder) -> None:
        raise KeyError("no such thing")

    with pytest.raises(HandlerFailed) as caught:
        await ref.ask(fail)
    assert isinstance(caught.value.__cause__, KeyError)


async def test_a_handler_that_is_cancelled_from_inside_has_failed(runtime: ActorRuntime) -> None:
    class Cancelled(Actor[bool]):
        async def receive(self, message: bool) -> None:
            if message:
                raise asyncio.CancelledError

    ref = runtime.spawn(Cancelled)
    with pytest.raises(HandlerFailed) as caught:
        await ref.ask(True)
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    assert await ref.ask(False) is None


async def test_exceptions_that_are_no_exception_are_failures_too(runtime: ActorRuntime) -> None:
    class Panic(BaseException):
        pass

    ref = runtime.spawn(Recorder)

    def panic(_: Recorder) -> None:
        raise Panic

    with pytest.raises(HandlerFailed) as caught:
        await ref.ask(panic)
    assert isinstance(caught.value.__cause__, Panic)
    assert await ref.ask("works") == "works"


async def test_an_ask_whose_message_waits_at_the_deadline_is_surely_not_executed(runtime: ActorRuntime) -> None:
    actor = Slow()
    ref = runtime.spawn(lambda: actor)
    gate, never = future(), future()
    never.set_result("never")
    running = ref.ask(gate, deadline_s=60.0)
    waiting = ref.ask(never, deadline_s=0.5)
    begin = asyncio.get_running_loop().time()
    with pytest.raises(Unavailable):
        await waiting
    assert 0.5 <= asyncio.get_running_loop().time() - begin <= 0.6
    gate.set_result("first")
    await running
    await ref.ask(never)
    assert actor.done == ["first", "never"]


async def test_an_ask_whose_handler_runs_at_the_deadline_has_an_unknown_outcome(runtime: ActorRuntime) -> None:
    actor = Slow()
    ref = runtime.spawn(lambda: actor)
    gate = future()
    with pytest.raises(OutcomeUnknown):
        await ref.ask(gate, deadline_s=0.5)
    gate.set_result("late")
    again = future()
    again.set_result("again")
    assert await ref.ask(again) == "again"
    assert actor.done == ["late", "again"]


async def test_cancelling_an_ask_takes_back_a_waiting_message_and_leaves_a_running_handler_alone(
    runtime: ActorRuntime,
) -> None:
    actor = Slow()
    ref = runtime.spawn(lambda: actor)
    gate, taken_back, last = future(), future(), future()
    running, waiting = ref.ask(gate), ref.ask(taken_back)
    taken_back.set_result("taken back")
    last.set_result("last")
    await asyncio.sleep(0.01)
    running.cancel()
    waiting.cancel()
    gate.set_result("ran")
    await ref.ask(last)
    assert actor.done == ["ran", "last"]


async def test_a_handler_past_its_time_limit_is_cancelled_and_has_failed() -> None:
    runtime = ActorRuntime(
        clock=SystemClock(), randomness=EvenRandomness(), settings=ActorSettings(handler_limit_s=0.2)
    )
    ref = runtime.spawn(Slow)
    with pytest.raises(HandlerFailed) as caught:
        await ref.ask(future())
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert 0.2 <= asyncio.get_running_loop().time() <= 0.3
    ready = future()
    ready.set_result(1)
    assert await ref.ask(ready) == 1
    await runtime.shutdown(1.0)
    assert len(runtime.deadlines) == 0


leaking: ContextVar[str] = ContextVar("leaking", default="unset")


async def test_context_variables_of_the_sender_do_not_cross_the_mailbox(runtime: ActorRuntime) -> None:
    leaking.set("of the test")
    ref = runtime.spawn(Recorder)
    assert await ref.ask(lambda _: leaking.get()) == "unset"


async def test_the_turn_is_current_in_plain_and_async_handlers_and_nowhere_else(runtime: ActorRuntime) -> None:
    def path() -> str | None:
        turn = current_turn.get()
        return turn.path if turn is not None else None

    class Async(Actor[Any]):
        async def receive(self, message: Any) -> str | None:
            await asyncio.sleep(0.01)
            return path()

    assert await runtime.spawn(Recorder, "plain").ask(lambda _: path()) == "/plain"
    assert await runtime.spawn(Async, "async").ask(None) == "/async"
    assert path() is None


class Gate:
    """A turn that keeps everything back."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.effects: list[Callable[[], None]] = []
        self.closed = True

    def hold(self, effect: Callable[[], None]) -> bool:
        if self.closed:
            self.effects.append(effect)
        return self.closed

    def before_ask(self, target: str) -> None:
        if self.closed:
            raise CallingOutAfterEmit(target)


class Gated(Recorder):
    gate: Gate

    def new_turn(self) -> Turn:
        self.gate = Gate(self.context.path)
        return self.gate


async def test_what_leaves_a_turn_that_holds_it_leaves_when_the_turn_lets_it(runtime: ActorRuntime) -> None:
    actor, other = Gated(), Recorder()
    ref, target = runtime.spawn(lambda: actor), runtime.spawn(lambda: other)

    class Sender(Gated):
        async def receive(self, message: ActorRef[Any]) -> None:
            await message.send("sent", deadline_s=1.0)

    def leave(actor: Gated) -> None:
        target.tell("told")
        actor.context.timers.once("soon", 0.1, "fired")

    await ref.ask(leave)
    sender = Sender()
    await runtime.spawn(lambda: sender).ask(target)
    await asyncio.sleep(1)
    assert (other.seen, actor.seen) == ([], [])
    for effect in (*actor.gate.effects, *sender.gate.effects):
        effect()
    await asyncio.sleep(1)
    assert (other.seen, actor.seen) == (["told", "sent"], ["fired"])


async def test_a_turn_may_forbid_to_ask(runtime: ActorRuntime) -> None:
    ref, target = runtime.spawn(Gated), runtime.spawn(Recorder, "target")
    with pytest.raises(HandlerFailed) as caught:
        await ref.ask(lambda _: target.ask("reply?"))
    assert isinstance(caught.value.__cause__, CallingOutAfterEmit)
    assert caught.value.__cause__.target == "/target"


async def test_an_effect_that_is_let_out_late_finds_a_full_mailbox_or_a_stopped_timer_table(
    runtime: ActorRuntime,
) -> None:
    actor = Gated()
    ref = runtime.spawn(lambda: actor)
    gate, slow = future(), runtime.spawn(Slow, mailbox=1)
    slow.tell(gate)
    await asyncio.sleep(0.01)
    slow.tell(gate)
    await ref.ask(lambda actor: (slow.tell("too many"), actor.context.timers.once("soon", 0.1, "fired"))[0])
    await runtime.stop(ref)
    for effect in actor.gate.effects:
        effect()
    assert [letter.message for letter in runtime.dead_letters.newest] == ["too many"]
    gate.set_result(None)
    await asyncio.sleep(1)
    assert actor.seen == []


async def test_a_handler_may_cancel_its_asker(runtime: ActorRuntime) -> None:
    actor = Recorder()
    ref = runtime.spawn(lambda: actor)
    await ref.ask("ready")

    async def ask() -> None:
        await ref.ask(lambda _: asking.cancel())

    asking = asyncio.create_task(ask())
    await asyncio.wait([asking])
    assert asking.cancelled()
    await ref.ask("still the same instance")
    assert actor.seen == ["ready", "still the same instance"]


async def test_what_expires_runs_in_nobodys_turn(runtime: ActorRuntime) -> None:
    class Item:
        turn: Any = "not expired"

        def expire(self) -> None:
            self.turn = current_turn.get()

    item = Item()
    runtime.spawn(Recorder).tell(lambda _: runtime.deadlines.add(asyncio.get_running_loop().time(), item))
    await asyncio.sleep(1)
    assert item.turn is None

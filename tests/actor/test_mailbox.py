"""Bounded mailboxes, back-pressure, and putting messages back in front."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest

from actorkit.actor import Actor, ActorRef, ActorRuntime, ActorSettings, Reason
from actorkit.actor.mailbox import Senders
from actorkit.clock import SystemClock
from actorkit.errors import ActorStopped, ConfigurationError, Overloaded, Unavailable

from .conftest import EvenRandomness, Recorder


class Closed(Actor[Any]):
    """Handles nothing until its gate is opened; then everything is recorded."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.seen: list[Any] = []

    async def receive(self, message: Any) -> object:
        await self.gate.wait()
        self.seen.append(message)
        return message


async def closed(runtime: ActorRuntime, mailbox: int) -> tuple[Closed, ActorRef[Any]]:
    """An actor that is busy with the message "busy"."""
    actor = Closed()
    ref = runtime.spawn(lambda: actor, "closed", mailbox=mailbox)
    ref.tell("busy")
    await asyncio.sleep(0.01)
    return actor, ref


async def test_tell_on_a_full_mailbox_raises_overloaded_and_delivers_nothing(runtime: ActorRuntime) -> None:
    actor, ref = await closed(runtime, 2)
    ref.tell(1)
    ref.tell(2)
    with pytest.raises(Overloaded) as caught:
        ref.tell(3)
    assert caught.value.limit == 2
    actor.gate.set()
    await asyncio.sleep(0.01)
    assert await ref.ask(4) == 4
    assert actor.seen == ["busy", 1, 2, 4]


async def test_ask_on_a_full_mailbox_fails_with_overloaded(runtime: ActorRuntime) -> None:
    actor, ref = await closed(runtime, 1)
    ref.tell(1)
    ask = ref.ask(2)
    assert ask.done()
    with pytest.raises(Overloaded):
        await ask
    actor.gate.set()


async def test_asks_that_expired_in_a_mailbox_make_room(runtime: ActorRuntime) -> None:
    actor, ref = await closed(runtime, 2)
    expired = [ref.ask(number, deadline_s=0.1) for number in range(2)]
    await asyncio.wait(expired)
    assert [type(ask.exception()) for ask in expired] == [Unavailable, Unavailable]
    ref.tell("fits")
    actor.gate.set()
    await ref.ask("last")
    assert actor.seen == ["busy", "fits", "last"]


async def test_asks_that_were_cancelled_make_room_after_their_deadline(runtime: ActorRuntime) -> None:
    actor, ref = await closed(runtime, 1)
    ref.ask("given up", deadline_s=0.1).cancel()
    await asyncio.sleep(0.3)
    ref.tell("fits")
    actor.gate.set()
    await asyncio.sleep(0.01)
    await ref.ask("last")
    assert actor.seen == ["busy", "fits", "last"]


async def test_send_waits_for_room_and_senders_get_in_in_their_order(runtime: ActorRuntime) -> None:
    actor, ref = await closed(runtime, 1)
    ref.tell(0)
    sends = []
    for number in range(1, 6):
        sends.append(asyncio.create_task(ref.send(number, deadline_s=60.0)))
        await asyncio.sleep(0.01)
    assert not any(send.done() for send in sends)
    actor.gate.set()
    await asyncio.gather(*sends)
    await asyncio.sleep(1)
    assert actor.seen == ["busy", 0, 1, 2, 3, 4, 5]


async def test_nobody_overtakes_a_waiting_sender(runtime: ActorRuntime) -> None:
    actor, ref = await closed(runtime, 1)
    ref.tell(0)
    send = asyncio.create_task(ref.send("first", deadline_s=60.0))
    await asyncio.sleep(0.01)
    actor.gate.set()
    refused = 0
    while not send.done():
        try:
            ref.tell("pushing")
        except Overloaded:
            refused += 1
        await asyncio.sleep(0)
    await asyncio.sleep(1)
    assert refused > 0
    assert actor.seen[:3] == ["busy", 0, "first"]


async def test_send_into_room_does_not_wait(runtime: ActorRuntime) -> None:
    ref = runtime.spawn(Recorder)
    sending = ref.send("at once", deadline_s=1.0)
    with pytest.raises(StopIteration):
        sending.send(None)


async def test_send_without_room_in_time_is_overloaded_and_delivers_nothing(runtime: ActorRuntime) -> None:
    actor, ref = await closed(runtime, 1)
    ref.tell(0)
    with pytest.raises(Overloaded):
        await ref.send("too late", deadline_s=0.2)
    actor.gate.set()
    await asyncio.sleep(1)
    assert actor.seen == ["busy", 0]


async def test_a_cancelled_send_delivers_nothing(runtime: ActorRuntime) -> None:
    actor, ref = await closed(runtime, 1)
    ref.tell(0)
    send = asyncio.create_task(ref.send("cancelled", deadline_s=60.0))
    await asyncio.sleep(0.01)
    send.cancel()
    await asyncio.wait([send])
    actor.gate.set()
    await asyncio.sleep(1)
    assert actor.seen == ["busy", 0]


async def test_the_line_of_senders_is_bounded() -> None:
    runtime = ActorRuntime(clock=SystemClock(), randomness=EvenRandomness(), settings=ActorSettings(senders_max=1))
    actor, ref = await closed(runtime, 1)
    ref.tell(0)
    send = asyncio.create_task(ref.send(1, deadline_s=60.0))
    await asyncio.sleep(0.01)
    with pytest.raises(Overloaded):
        await ref.send(2, deadline_s=60.0)
    actor.gate.set()
    await send
    await runtime.shutdown(1.0)


async def test_waiting_senders_of_a_stopped_actor_are_told_and_their_messages_are_dead_letters(
    runtime: ActorRuntime,
) -> None:
    actor, ref = await closed(runtime, 1)
    ref.tell(0)
    send = asyncio.create_task(ref.send("waiting", deadline_s=60.0))
    await asyncio.sleep(0.01)
    stop = asyncio.create_task(runtime.stop(ref))
    await asyncio.sleep(0.01)
    actor.gate.set()
    await stop
    with pytest.raises(ActorStopped):
        await send
    with pytest.raises(ActorStopped):
        await ref.send("late", deadline_s=1.0)
    assert [letter.message for letter in runtime.dead_letters.newest] == [0, "waiting", "late"]
    assert runtime.dead_letters.counts[Reason.STOPPED] == 3


async def test_requeued_messages_come_next_in_order_and_beyond_the_bound(runtime: ActorRuntime) -> None:
    actor = Recorder()
    ref = runtime.spawn(lambda: actor, mailbox=2)
    ref.tell(lambda actor: actor.context.requeue(["a", "b", "c"]))
    ref.tell("waiting")
    await asyncio.sleep(0.01)
    assert actor.seen == ["a", "b", "c", "waiting"]


async def test_requeue_from_outside_of_a_turn_wakes_the_actor(runtime: ActorRuntime) -> None:
    actor = Recorder()
    ref = runtime.spawn(lambda: actor)
    await ref.ask("ready")
    actor.context.requeue(["a", "b"])
    await asyncio.sleep(0.01)
    assert actor.seen == ["ready", "a", "b"]
    await runtime.stop(ref)
    actor.context.requeue(["late"])
    assert runtime.dead_letters.counts[Reason.STOPPED] == 1


@pytest.mark.parametrize("name", ["", "a/b", "$1"])
async def test_names_are_checked(runtime: ActorRuntime, name: str) -> None:
    with pytest.raises(ConfigurationError):
        runtime.spawn(Recorder, name)


async def test_a_name_is_unique_among_the_living_and_free_again_afterwards(runtime: ActorRuntime) -> None:
    first = runtime.spawn(Recorder, "one")
    with pytest.raises(ConfigurationError):
        runtime.spawn(Recorder, "one")
    await runtime.stop(first)
    second = runtime.spawn(Recorder, "one")
    assert await second.ask("hello") == "hello"
    with pytest.raises(Unavailable):
        await first.ask("the first one is not the second one")


async def test_senders_get_into_a_plain_actor_and_into_one_that_restarts(runtime: ActorRuntime) -> None:
    class Late(Recorder):
        async def started(self) -> None:
            await asyncio.sleep(0.1)

    made: list[Late] = []

    def factory() -> Late:
        made.append(Late())
        return made[-1]

    def fail(_: Recorder) -> None:
        raise ValueError

    ref = runtime.spawn(factory, mailbox=1)
    ref.tell("first")
    await ref.send(fail, deadline_s=1.0)
    # It gets in when the failing one is taken out, although nothing is handled before the backoff is over.
    begin = asyncio.get_running_loop().time()
    await ref.send("second", deadline_s=1.0)
    assert asyncio.get_running_loop().time() == begin
    await asyncio.sleep(1)
    assert [actor.seen for actor in made] == [["first"], ["second"]]


async def test_a_sender_that_is_let_in_at_its_very_deadline_is_in() -> None:
    loop = asyncio.get_running_loop()
    line, mailbox = Senders(loop, 10, "/a"), deque[Any]()
    # Both run in one turn of the loop, the admission first.
    loop.call_at(1.0 - 1e-10, line.admit, mailbox, 1)
    assert await line.wait("message", 1.0)
    assert list(mailbox) == ["message"]


async def test_a_sender_that_has_just_been_cancelled_is_not_let_in() -> None:
    line, mailbox = Senders(asyncio.get_running_loop(), 10, "/a"), deque[Any]()
    waiting = [asyncio.create_task(line.wait(number, 1.0)) for number in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    line.admit(mailbox, 1)
    await asyncio.wait(waiting)
    assert (list(mailbox), waiting[1].result(), len(line.line)) == ([1], True, 0)

"""Dead letters: counted by reason, the newest kept, told to subscribers."""

from __future__ import annotations

import asyncio

import pytest

from actorkit.actor import ActorRuntime, DeadLetter, DeadLetters, Reason
from actorkit.errors import Unavailable

from .conftest import Recorder


def test_all_are_counted_and_the_newest_are_kept() -> None:
    letters = DeadLetters(kept=2)
    for number in range(5):
        letters.record("/a", number, Reason.STOPPED)
    letters.record("/b", "full", Reason.MAILBOX_FULL)
    assert letters.counts == {Reason.STOPPED: 5, Reason.MAILBOX_FULL: 1}
    assert letters.counts[Reason.STASH_FULL] == 0
    assert letters.newest == (
        DeadLetter("/a", 4, Reason.STOPPED),
        DeadLetter("/b", "full", Reason.MAILBOX_FULL),
    )


def test_subscribers_are_told_until_they_unsubscribe() -> None:
    letters = DeadLetters(kept=1)
    told: list[DeadLetter] = []
    unsubscribe = letters.subscribe(told.append)
    letters.record("/a", 1, Reason.STOPPED)
    unsubscribe()
    unsubscribe()
    letters.record("/a", 2, Reason.STOPPED)
    assert [letter.message for letter in told] == [1]


async def test_a_tell_to_a_stopped_actor_is_a_dead_letter_and_an_ask_is_unavailable(runtime: ActorRuntime) -> None:
    ref = runtime.spawn(Recorder, "gone")
    await runtime.stop(ref)
    ref.tell("told")
    with pytest.raises(Unavailable):
        await ref.ask("asked")
    assert runtime.dead_letters.newest == (DeadLetter("/gone", "told", Reason.STOPPED),)


async def test_what_waits_when_an_actor_stops_is_a_dead_letter(runtime: ActorRuntime) -> None:
    ref = runtime.spawn(Recorder, "stopping")
    ref.tell(lambda actor: actor.context.stop())
    ref.tell("waiting")
    await asyncio.sleep(0.01)
    assert runtime.dead_letters.newest == (DeadLetter("/stopping", "waiting", Reason.STOPPED),)


async def test_a_failing_subscriber_does_not_keep_an_actor_from_stopping(runtime: ActorRuntime) -> None:
    def fail(letter: DeadLetter) -> None:
        raise ValueError(letter)

    runtime.dead_letters.subscribe(fail)
    ref = runtime.spawn(Recorder)
    ref.tell("waiting")
    await runtime.stop(ref)
    ref.tell("told")
    assert runtime.dead_letters.counts[Reason.STOPPED] == 2

"""Whatever happens to actors, by seed: every ask ends in time, and none of its outcomes lies."""

from __future__ import annotations

import asyncio
import random
from typing import Any, NamedTuple

import pytest

from actorkit.actor import Actor, ActorRef, ActorRuntime, ActorSettings, Directive, SupervisionStrategy, by_type
from actorkit.clock import SystemClock
from actorkit.errors import ActorkitError, HandlerFailed, OutcomeUnknown, Overloaded, Rejected, Unavailable

from .conftest import EvenRandomness


class Do(NamedTuple):
    sender: int
    number: int
    what: str
    wait_s: float


class Busy(Actor[Do]):
    """Does what it is told, and keeps a record that outlives its instances."""

    def __init__(self, begun: list[Do], ended: list[Do]) -> None:
        self.begun = begun
        self.ended = ended

    def receive(self, message: Do) -> Any:
        if message.what == "stash" and message not in self.begun[-50:]:
            self.begun.append(message)
            self.context.stash()
            self.context.timers.once("unstash", message.wait_s, message._replace(what="unstash"))
            return None
        if message.what == "unstash":
            self.context.unstash_all()
            return None
        if message.what == "wait":
            return self.wait(message)
        if message.what == "stash":
            self.begun.remove(message)
        self.begun.append(message)
        if message.what == "fail":
            raise ValueError
        if message.what == "fail and stop":
            raise KeyError
        if message.what == "refuse":
            raise Rejected("no")
        self.ended.append(message)
        return message

    async def wait(self, message: Do) -> Do:
        self.begun.append(message)
        await asyncio.sleep(message.wait_s)
        self.ended.append(message)
        return message


KINDS = ["plain"] * 6 + ["wait"] * 4 + ["stash"] * 2 + ["refuse", "fail"] + ["fail and stop"]
STRATEGY = SupervisionStrategy(
    by_type({KeyError: Directive.STOP}), backoff_min_s=0.1, backoff_max_s=0.5, restarts_max=1000
)


@pytest.mark.parametrize("seed", range(40))
async def test_every_ask_ends_in_time_and_tells_the_truth(seed: int) -> None:
    rng = random.Random(seed)
    loop = asyncio.get_running_loop()
    settings = ActorSettings(mailbox_max=8, stash_max=4, supervision=STRATEGY, handler_limit_s=rng.choice([None, 0.6]))
    runtime = ActorRuntime(clock=SystemClock(), randomness=EvenRandomness(), settings=settings)
    begun: list[Do] = []
    ended: list[Do] = []
    refs: list[ActorRef[Do]] = []

    def spawn() -> ActorRef[Do]:
        return runtime.spawn(lambda: Busy(begun, ended))

    refs += [spawn(), spawn()]
    outcomes: dict[Do, Any] = {}

    async def sender(sender: int) -> None:
        for number in range(30):
            message = Do(sender, number, rng.choice(KINDS), rng.choice([0.0, 0.05, 0.3, 1.0]))
            which = rng.randrange(2)
            deadline_s, begin = rng.choice([0.05, 0.4, 2.0]), loop.time()
            try:
                outcomes[message] = await refs[which].ask(message, deadline_s=deadline_s)
            except ActorkitError as error:
                outcomes[message] = error
                if isinstance(error, Unavailable) and "has stopped" in error.why:
                    refs[which] = spawn()
            assert loop.time() - begin <= deadline_s + 0.1 + 1e-6, message
            await asyncio.sleep(rng.choice([0.0, 0.0, 0.1]))

    await asyncio.gather(*(sender(number) for number in range(6)))
    await runtime.shutdown(10.0)
    assert len(outcomes) == 180
    for message, outcome in outcomes.items():
        times = begun.count(message)
        if isinstance(outcome, HandlerFailed):
            assert message.what.startswith("fail") or (message.what == "wait" and settings.handler_limit_s), message
            assert message not in ended, message
        elif isinstance(outcome, Unavailable | Overloaded):
            # A stashed message has been looked at, but not handled.
            assert times == 0 or (message.what == "stash" and message not in ended), message
        elif isinstance(outcome, OutcomeUnknown):
            assert message.what == "wait", message
            assert times == 1, message
        elif isinstance(outcome, Rejected):
            assert message.what == "refuse", message
        else:
            assert outcome == message
            assert (times, ended.count(message)) == (1, 1), message
    assert len(runtime) == 0
    assert len(runtime.deadlines) == 0

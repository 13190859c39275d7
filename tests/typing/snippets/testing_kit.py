"""What editors and type checkers know of tests that are written with the kit. Only the marked lines may be reported."""

# pyright: strict

from __future__ import annotations

from typing import assert_type

from actorkit import Event
from actorkit.testing import Given, Outcome, given
from tests.typing.snippets.pool import Pool, PoolState, Released, Reserved


class Undeclared(Event):
    text: str


def sentences() -> None:
    new = given(Pool)
    assert_type(new, Given[Pool, PoolState, Reserved | Released])
    outcome = given(Pool, Reserved("r", 3), id="p").at(5).with_ids("r1").when(lambda pool: pool.reserve(3))
    assert_type(outcome, Outcome[Pool, PoolState, Reserved | Released, str])
    outcome.emits(Reserved, Released("r")).replies("r1").replies(lambda reply: reply.startswith("r"))
    outcome.state(lambda state: state.free == 4).state_equals(PoolState()).rejects("sold out", left=1)
    assert_type(outcome.and_when(lambda pool: pool.free()).reply, int)
    assert_type(outcome.and_when(lambda pool: pool.held()).reply, dict[str, int])
    assert_type(outcome.state_after.free, int)
    for event in outcome.events:
        assert_type(event, Reserved | Released)
    outcome.publishes(Pool.availability, 7).publishes(Pool.availability, lambda free: free == 7)
    new.calling(Pool, "other", lambda pool: pool.reserve(3)).answers("r1").when(lambda pool: pool.look(1))


def wrong_sentences() -> None:
    outcome = given(Pool).when(lambda pool: pool.reserve(3))
    given(Reserved)  # error
    given(Pool, "text")  # error
    given(Pool).when(lambda pool: pool.reserve("three"))  # error
    given(Pool).when(lambda pool: pool.unheard_of())  # error
    given(Pool).when(lambda pool: pool.state)  # error
    outcome.and_when(lambda pool: pool.reserve(unit=3))  # error
    outcome.emits(Undeclared)  # error
    outcome.emits(Undeclared("x"))  # error
    outcome.replies(3)  # error
    outcome.state(lambda state: state.unheard_of == 3)  # error
    outcome.state_equals(Reserved("r", 3))  # error
    outcome.rejects(Reserved)  # error
    given(Pool).calling(Pool, "other", lambda pool: pool.reserve(3)).answers(3)  # error

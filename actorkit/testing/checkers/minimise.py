"""From a wrong history to the few answers that contradict each other.

Leaving operations out of a wrong history until it is small would make a lie of it: without the release that explains
it, a right answer looks wrong. So nothing is taken away that could explain anything. Instead, what was answered is
*weakened*, one after the other: an operation that changes something may have happened in its time or not, and with
whatever answer; a read or a refusal is dropped, since it says something and does nothing. A history that is wrong after
that was wrong before. What is left with its answer is a contradiction, whatever the rest did.

Before that, everything after the first answer that fits nowhere is cut off; and where the history is long, what was
answered long before that is replaced by the states that were possible then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from actorkit.testing.checkers.attempts import Effect
from actorkit.testing.checkers.history import Outcome
from actorkit.testing.checkers.model import Model
from actorkit.testing.checkers.search import Found, Start, changes_nothing, ordered, search

__all__ = ["WrongHistory", "minimise"]

_WINDOWS: Final = (range(20, 100), range(4, 20))
"""How many answers before the wrong one are looked at one by one: far back, where that gives something short."""
_SHORT: Final = 12
_STEPS_ALL: Final = 100_000
_STEPS_EACH: Final = 5_000


class WrongHistory(msgspec.Struct, frozen=True):
    """Answers that contradict each other, and what was possible."""

    culprit: Effect
    """The first answer that fits nowhere."""
    effects: list[Effect]
    """What is worth looking at, in the order in which it was sent; the culprit is among it."""
    contradiction: frozenset[int]
    """The numbers of those operations whose answers contradict each other. The others in ``effects`` may have happened
    or not and may have been told anything: it does not help."""
    left_out: int
    """How many more effects there were up to then; whatever became of them, it does not help either."""
    before: list[str]
    """Where what is left out begins earlier than the rest: the states that were possible after that."""
    possible: list[tuple[str, str]]
    """States that were possible when it came to the culprit, and what the right answer would have been in each."""


def minimise(effects: Sequence[Effect], model: Model[Any], found: Found, *, steps_max: int) -> WrongHistory:
    """The shortest contradiction in effects that ``search`` has found wrong, within a number of steps."""
    tried: list[WrongHistory] = []
    for window in _WINDOWS:
        tried.append(_Minimiser(effects, model, found, window, min(steps_max, _STEPS_ALL)).run())
        if len(tried[-1].effects) <= _SHORT:
            break
    return min(tried, key=lambda wrong: len(wrong.effects))


class _Minimiser:
    def __init__(
        self, effects: Sequence[Effect], model: Model[Any], found: Found, window: range, steps_max: int
    ) -> None:
        self.model = model
        self.found = found
        self.steps_left = steps_max
        ending, endless = ordered(effects)
        self.culprit = ending[found.reached]
        end = self.culprit.ended
        assert end is not None
        self.first = _cut(ending, found.reached, window)
        self.starts = [Start(model.initial())]
        cut = None
        if self.first:
            self.starts = search(effects, model, steps_max=found.steps, note_at=self.first).at
            cut = ending[self.first - 1].ended
        self.under_way = {_number(effect) for effect in ending[self.first :] if cut and effect.began <= cut}
        """What may have taken effect before the cut, with its answer: that cannot be weakened any more."""
        # What was answered later may or may not have happened by then; if it did, then with the answer that it got.
        later = [msgspec.structs.replace(effect, ended=None) for effect in ending[found.reached + 1 :]]
        self.answered = [*ending[self.first : found.reached], *(effect for effect in later if effect.began <= end)]
        """All that was answered otherwise than with the culprit, and matters."""
        self.unknown = [effect for effect in endless if effect.began <= end]

    def run(self) -> WrongHistory:
        weakened: list[Effect | None] = list(self.answered)
        if self._search([*weakened, self.culprit, *self.unknown]).linearizable is False:
            self._weaken(weakened)
        shown = self._without_bystanders(weakened)
        everything = sorted([*self.answered, self.culprit, *self.unknown], key=_began)
        certain = {_number(effect) for effect in weakened if effect is not None and not _is_free(effect)}
        describe, expected = self.model.describe, self.model.expected
        return WrongHistory(
            culprit=self.culprit,
            effects=[effect for effect in everything if _number(effect) in shown],
            contradiction=frozenset({*certain, _number(self.culprit)}),
            left_out=self.first + len(everything) - len(shown),
            before=list(dict.fromkeys(describe(start.state) for start in self.starts)) if self.first else [],
            possible=list(
                dict.fromkeys((describe(state), expected(state, self.culprit.operation)) for state in self.found.states)
            ),
        )

    def _search(self, some: Sequence[Effect | None]) -> Found:
        effects = [effect for effect in some if effect is not None]
        budget = max(0, min(_STEPS_EACH, self.steps_left))
        found = search(effects, self.model, steps_max=budget, starts=self.starts)
        self.steps_left -= found.steps
        return found

    def _weaken(self, effects: list[Effect | None]) -> None:
        """Weakens, in place, as many answers as possible: first many at once, then fewer."""
        size = max(1, len(effects) // 2)
        while effects:
            for first in range(0, len(effects), size):
                before = effects[first : first + size]
                effects[first : first + size] = map(self._weaker, before)
                if (
                    effects[first : first + size] != before
                    and self._search([*effects, self.culprit, *self.unknown]).linearizable is not False
                ):
                    effects[first : first + size] = before
            if size == 1 or self.steps_left <= 0:
                return
            size = (size + 1) // 2

    def _weaker(self, effect: Effect | None) -> Effect | None:
        if effect is None or _is_free(effect) or _number(effect) in self.under_way:
            return effect
        if changes_nothing(effect.operation, self.model):
            return None
        operation = msgspec.structs.replace(effect.operation, outcome=Outcome.UNKNOWN, value=None)
        return msgspec.structs.replace(effect, operation=operation, optional=effect.ended is not None)

    def _without_bystanders(self, weakened: Sequence[Effect | None]) -> set[int]:
        """The numbers of what is worth showing.

        What may have happened or not goes if the other answers, up to the culprit, make sense without it: what explains
        them stays, since nobody would understand them.
        """
        shown = [effect for effect in [*weakened, *self.unknown] if effect is not None]
        size = max(1, len(shown))
        while shown:
            free = [effect for effect in shown if _is_free(effect)]
            for first in range(0, len(free), size):
                gone = {id(effect) for effect in free[first : first + size]}
                fewer = [effect for effect in shown if id(effect) not in gone]
                if self._search(fewer).linearizable:
                    shown = fewer
            if size == 1 or self.steps_left <= 0:
                break
            size = (size + 1) // 2
        return {_number(effect) for effect in [*shown, self.culprit]}


def _cut(ending: Sequence[Effect], reached: int, window: range) -> int:
    """Where to begin: at the start, or else where little is under way."""
    best, least = 0, len(ending)
    if reached >= window.stop:
        for low in range(reached - window.start, reached - window.stop, -1):
            end = ending[low - 1].ended
            under_way = sum(end is not None and effect.began <= end for effect in ending[low : low + 1_000])
            if under_way < least:
                best, least = low, under_way
    return best


def _is_free(effect: Effect) -> bool:
    """Whether it may have happened or not, with whatever answer."""
    return effect.optional or effect.operation.outcome is Outcome.UNKNOWN


def _number(effect: Effect) -> int:
    return effect.operation.number


def _began(effect: Effect) -> tuple[int, int]:
    return effect.began

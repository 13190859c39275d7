"""The search for an order of effects that explains every answer.

Intuition: walk along the answers in the order in which they came. Before an answer may be passed, its effect must have
been placed; what may be placed next is whatever had been sent by then. Where nothing fits, go back and place something
else. What has been tried is remembered: from the same state with the same effects placed, the future is the same.

That is the algorithm of Wing and Gong ("Testing and verifying concurrent objects", 1993) with Lowe's memory of
configurations ("Testing for linearizability", 2017) and the just-in-time view of what may come next, as in porcupine
(Horn and Kroening, "Faster linearizability checking via P-compositionality", 2015). Which effects are placed is kept as
the number of answers passed and a bit set of those placed ahead of them, so that a configuration stays small however
long the history is. Added here:

- Effects of unknown outcome are tried last and only where they change something; of equal ones the oldest first, since
  all of them stay possible. A configuration that has used a superset of them, all else equal, is not looked at again:
  whatever it can explain, the other one can too.
- A read or a refusal that fits is placed at once, without alternatives: it changes nothing for anybody else.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from actorkit.testing.checkers.attempts import Effect
from actorkit.testing.checkers.history import Operation, Outcome
from actorkit.testing.checkers.model import Model

__all__ = ["Found", "Start", "changes_nothing", "ordered", "search"]

_STATES_KEPT = 16


class Start(NamedTuple):
    """Where a search begins: a state, and the numbers of the operations that have taken effect already."""

    state: Any
    placed: frozenset[int] = frozenset()


class Found(msgspec.Struct):
    """How a search ended."""

    linearizable: bool | None
    """``None``: it gave up when its steps were used up."""
    steps: int
    """How often the model was asked."""
    order: list[Effect]
    """The effects in an order that explains everything, where there is one."""
    reached: int
    """How many answers could be explained at most."""
    states: list[Any]
    """Where not all could be: states in which that many had been explained, a few of them."""
    at: list[Start]
    """How it may have been after as many answers as was asked for."""


class _Configuration(NamedTuple):
    low: int
    """Answers passed."""
    ahead: int
    """Effects placed whose answers have not been passed: bit k stands for the answer number low + k."""
    used: int
    """Endless effects that have been placed."""
    state: Any
    effect: Effect | None
    """What was placed last."""


def ordered(effects: Sequence[Effect]) -> tuple[list[Effect], list[Effect]]:
    """Effects with an end in the order of their ends, and those without in the order of their beginnings."""
    ending = [(effect.ended, n, effect) for n, effect in enumerate(effects) if effect.ended is not None]
    endless = [(effect.began, n, effect) for n, effect in enumerate(effects) if effect.ended is None]
    return [effect for _, _, effect in sorted(ending)], [effect for _, _, effect in sorted(endless)]


def changes_nothing(operation: Operation, model: Model[Any]) -> bool:
    """A read or a refusal: it says something about the state and leaves it as it is."""
    return operation.outcome is Outcome.REJECTED or operation.name in model.reads


def search(
    effects: Sequence[Effect],
    model: Model[Any],
    *,
    steps_max: int,
    starts: Sequence[Start] | None = None,
    note_at: int = -1,
) -> Found:
    """Looks for an order of one entity's effects that explains every answer, from one of the ``starts``.

    ``note_at``: after how many answers to note how it may have been.
    """
    return _Search(effects, model, steps_max, note_at).run(starts or [Start(model.initial())])


class _Search:
    def __init__(self, effects: Sequence[Effect], model: Model[Any], steps_max: int, note_at: int) -> None:
        self.model = model
        self.steps_left = steps_max
        self.steps_max = steps_max
        self.ending, self.endless = ordered(effects)
        self.pure = [changes_nothing(effect.operation, model) and not effect.optional for effect in self.ending]
        self.useless = 0
        """Endless effects that need not be tried: reads and refusals."""
        for n, effect in enumerate(self.endless):
            self.useless |= changes_nothing(effect.operation, model) << n
        ends = [effect.ended for effect in self.ending if effect.ended is not None]
        self.candidates: list[list[int]] = [[] for _ in self.ending]
        """For each number of answers passed: what had been sent before the next answer came, by the order of answers,
        which is most often the order of effects too."""
        for n, effect in enumerate(self.ending):
            for low in range(bisect_left(ends, effect.began), n + 1):
                self.candidates[low].append(n)
        begins = [effect.began for effect in self.endless]
        self.endless_begun = [bisect_right(begins, end) for end in ends]
        self.seen: dict[tuple[int, int, Any], list[int]] = {}
        self.older = _older(self.endless)
        self.note_at = note_at
        self.at: list[Start] = []

    def run(self, starts: Sequence[Start]) -> Found:
        reached, states = -1, dict[Any, None]()
        for start in starts:
            self.steps_left -= 1
            first = self._first(start)
            if not self._is_new(first):
                continue
            stack = [(first, self._successors(first))]
            while stack:
                configuration, successors = stack[-1]
                low = configuration.low
                if low > reached:
                    reached, states = low, {}
                if low == reached and len(states) < _STATES_KEPT:
                    states[configuration.state] = None
                if low == len(self.ending):
                    order = [placed.effect for placed, _ in stack if placed.effect is not None]
                    return self._found(True, order, low, [])
                following = next(successors, None)
                if self.steps_left < 0:
                    return self._found(None, [], reached, list(states))
                if following is None:
                    stack.pop()
                elif self._is_new(following):
                    stack.append((following, self._successors(following)))
        return self._found(False, [], reached, list(states))

    def _found(self, linearizable: bool | None, order: list[Effect], reached: int, states: list[Any]) -> Found:
        return Found(linearizable, self.steps_max - self.steps_left, order, reached, states, self.at)

    def _first(self, start: Start) -> _Configuration:
        low, ahead = _pass(0, _bits(self.ending, start.placed))
        return _Configuration(low, ahead, _bits(self.endless, start.placed), start.state, None)

    def _is_new(self, configuration: _Configuration) -> bool:
        low, ahead, used, state, _ = configuration
        known = self.seen.setdefault((low, ahead, state), [])
        self.steps_left -= len(known) // 4
        if any(before & used == before for before in known):
            return False
        known[:] = [before for before in known if before & used != used]
        known.append(used)
        if low == self.note_at:
            placed = [*_chosen(self.ending[low:], ahead), *_chosen(self.endless, used)]
            self.at.append(Start(state, frozenset(placed)))
        return True

    def _successors(self, configuration: _Configuration) -> Iterator[_Configuration]:
        low, ahead, used, state, _ = configuration
        if low == len(self.ending):
            return
        for n in self.candidates[low]:
            bit = 1 << (n - low)
            if ahead & bit:
                continue
            effect = self.ending[n]
            outcomes = self._outcomes(state, effect)
            new_low, new_ahead = _pass(low, ahead | bit)
            for outcome in outcomes:
                yield _Configuration(new_low, new_ahead, used, outcome, effect)
            if self.pure[n] and len(outcomes) == 1 and outcomes[0] == state:
                return
        for n in range(self.endless_begun[low]):
            bit = 1 << n
            older = self.older[n]
            if (used | self.useless) & bit or (used & older) != older:
                continue
            effect = self.endless[n]
            for outcome in self._step(state, effect.operation):
                if outcome != state:
                    yield _Configuration(low, ahead, used | bit, outcome, effect)

    def _outcomes(self, state: Any, effect: Effect) -> Sequence[Any]:
        outcomes = self._step(state, effect.operation)
        return [*(each for each in outcomes if each != state), state] if effect.optional else outcomes

    def _step(self, state: Any, operation: Operation) -> Sequence[Any]:
        self.steps_left -= 1
        return [] if self.steps_left < 0 else list(self.model.step(state, operation))


def _pass(low: int, ahead: int) -> tuple[int, int]:
    """Passes every answer whose effect has been placed."""
    while ahead & 1:
        ahead >>= 1
        low += 1
    return low, ahead


def _bits(effects: Sequence[Effect], numbers: frozenset[int]) -> int:
    return sum(1 << n for n, effect in enumerate(effects) if effect.operation.number in numbers) if numbers else 0


def _chosen(effects: Sequence[Effect], bits: int) -> Iterator[int]:
    """The numbers of the operations that the bits stand for."""
    for n in range(bits.bit_length()):
        if bits >> n & 1:
            yield effects[n].operation.number


def _older(endless: Sequence[Effect]) -> list[int]:
    """For each effect the bit of the next older one that is equal to it; 0: there is none."""
    newest: dict[bytes, int] = {}
    older: list[int] = []
    for n, effect in enumerate(endless):
        operation = effect.operation
        same = msgspec.json.encode(
            (operation.name, operation.arguments, operation.outcome, operation.value), order="deterministic"
        )
        older.append(1 << newest[same] if same in newest else 0)
        newest[same] = n
    return older

"""Supervision: what happens to an actor whose handler failed, decided by its parent.

A fault is not handled where it happens, since the state it left behind cannot be trusted there. The parent's strategy
turns the exception into a directive, and limits how often it may say "restart": restarts back off exponentially, and
their number within a window is a budget, so that an actor that cannot work does not restart for ever.

Everything here is pure. Source: Hewitt's actors by way of Erlang/OTP (intensity and period) and Pekko (directives,
``BackoffSupervisor``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

__all__ = ["Directive", "RestartHistory", "SupervisionStrategy", "Verdict", "by_type", "supervise"]


class Directive(Enum):
    """What the parent may do about a failed child."""

    RESUME = "resume"
    """Go on with the next message and the same instance, keeping its state."""
    RESTART = "restart"
    """Replace the instance by a fresh one. Reference, watchers and mailbox stay; children and timers do not."""
    STOP = "stop"
    """Stop it; its watchers are told, its mailbox becomes dead letters."""
    ESCALATE = "escalate"
    """Stop it, and let the parent itself fail with the same exception."""


Decider = Callable[[Exception], Directive]


def _restart(error: Exception) -> Directive:
    return Directive.RESTART


def by_type(
    directives: Mapping[type[Exception], Directive], *, otherwise: Directive = Directive.RESTART
) -> Callable[[Exception], Directive]:
    """A decider: the directive of the nearest class among the exception's bases."""
    table = dict(directives)

    def decide(error: Exception) -> Directive:
        return next((table[cls] for cls in type(error).__mro__ if cls in table), otherwise)

    return decide


@dataclass(frozen=True, slots=True)
class SupervisionStrategy:
    """Restart with backoff, at most 10 times in 60 s, then stop. Raises ``ValueError`` on bounds that are none."""

    decider: Decider = _restart

    backoff_min_s: float = 0.1
    """delay = min(backoff_max_s, backoff_min_s * 2 ** restarts in the window), then spread by the jitter."""
    backoff_max_s: float = 10.0
    """The ten restarts of the defaults take 0.1 + 0.2 + … + 6.4 + 3 * 10 = 43 s, so that the budget can be reached."""
    jitter: float = 0.2
    """The delay is multiplied by a number drawn evenly from 1 ± jitter, so that many do not restart in step."""

    restarts_max: int = 10
    window_s: float = 60.0
    """At most ``restarts_max`` restarts within any ``window_s`` seconds."""
    exhausted: Directive = Directive.STOP
    """What to do when the budget is used up: STOP or ESCALATE."""

    def __post_init__(self) -> None:
        if not 0 <= self.backoff_min_s <= self.backoff_max_s:
            raise ValueError("0 <= backoff_min_s <= backoff_max_s must hold")
        if not 0 <= self.jitter < 1 or self.restarts_max < 0 or self.window_s <= 0:
            raise ValueError("0 <= jitter < 1, restarts_max >= 0 and window_s > 0 must hold")
        if self.exhausted not in (Directive.STOP, Directive.ESCALATE):
            raise ValueError("exhausted is Directive.STOP or Directive.ESCALATE")


class RestartHistory(NamedTuple):
    """When an actor was restarted, in seconds of one monotonic clock, oldest first; never more than the budget."""

    at_s: tuple[float, ...] = ()


class Verdict(NamedTuple):
    """The decision on one failure."""

    directive: Directive
    delay_s: float
    """Before the restart; 0 for the other directives."""
    history: RestartHistory
    """To be passed in at the next failure."""


def supervise(
    strategy: SupervisionStrategy, history: RestartHistory, error: Exception, now_s: float, uniform: float
) -> Verdict:
    """Decide on one failure. ``uniform`` is in [0, 1). Raises only what the strategy's own decider raises."""
    directive = strategy.decider(error)
    recent = tuple(at for at in history.at_s if at > now_s - strategy.window_s)
    if directive is not Directive.RESTART:
        return Verdict(directive, 0.0, RestartHistory(recent))
    if len(recent) >= strategy.restarts_max:
        return Verdict(strategy.exhausted, 0.0, RestartHistory(recent))
    # The exponent is bounded by the budget; ldexp-like overflow is cut before it can happen.
    delay_s = min(strategy.backoff_max_s, strategy.backoff_min_s * 2.0 ** min(len(recent), 60))
    spread = 1 + strategy.jitter * (2 * uniform - 1)
    return Verdict(Directive.RESTART, delay_s * spread, RestartHistory((*recent, now_s)))

"""The settings of the actor runtime. Each says its unit, its default and what it costs."""

from __future__ import annotations

from dataclasses import dataclass, field

from actorkit.actor.supervision import SupervisionStrategy

__all__ = ["ActorSettings"]


@dataclass(frozen=True, slots=True)
class ActorSettings:
    """One set per runtime. All of them are bounds, so none may be unlimited except ``handler_limit_s``."""

    mailbox_max: int = 1_000
    """Messages waiting for one actor. Memory: mailbox_max * message size for each overloaded actor. Higher values hide
    overload behind waiting time: a full mailbox takes mailbox_max * handling time to drain."""

    stash_max: int = 1_000
    """Messages that one actor has put aside."""

    timers_max: int = 1_000
    """Named timers of one actor. A fired timer may stand in the mailbox beyond ``mailbox_max``."""

    senders_max: int = 1_000
    """Senders that wait for room in one mailbox at once; the next ``send`` is refused."""

    turn_messages: int = 64
    """Messages that one actor handles before the loop serves others. Higher: less overhead, later everybody else."""

    handler_limit_s: float | None = None
    """How long an ``async`` handler may run before it is cancelled and counts as failed; precise to 100 ms. A handler
    that suppresses its cancellation goes on, and its actor waits for it. Plain handlers cannot be interrupted."""

    dead_letters_kept: int = 128
    """The newest dead letters kept for looking at, with their messages."""

    supervision: SupervisionStrategy = field(default_factory=SupervisionStrategy)
    """How failures of top-level actors are treated, which have no parent of the application's own."""

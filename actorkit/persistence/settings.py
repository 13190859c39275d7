"""Settings of persistent actors."""

from __future__ import annotations

import msgspec

__all__ = ["PersistenceSettings"]


class PersistenceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How persistent actors are kept. Every limit has a reason; raise one only with the memory that it costs."""

    deadline_default_s: float = 5.0
    """The deadline of a call that gives none."""

    handler_timeout_s: float = 30.0
    """A handler that runs longer is cancelled, and what it emitted is discarded. Longer: an entity may hang longer."""

    mailbox_max_calls: int = 10_000
    """Calls that wait for one entity; one more is answered ``Overloaded``. About 1 KiB each."""

    pending_max_answers: int = 10_000
    """Answers of one entity that wait for commits; beyond that the entity takes no calls until some have left."""

    recoveries_max: int = 64
    """Entities that rebuild their state at the same time; the others wait. More: faster after a start, with more memory
    and less left for the entities that are up."""

    recovery_page_events: int = 5_000
    """Events that recovery reads at once; between pages other work gets its turn."""

    retry_window_s: float = 60.0
    """How far back, by event time, a command that the framework sends again is looked for among the entity's events.
    At least the longest deadline in use: nothing is sent again after its deadline."""

    snapshot_every_events: int = 1_000
    """A snapshot is taken after this many events (more where the state is large, since a snapshot's cost grows with it:
    at least its size in bytes / 100). Fewer: quicker recovery for more writing; 0: none."""

    snapshot_after_recovery_s: float = 0.5
    """A recovery that took longer is followed by a snapshot, so that the next one is quicker."""

    snapshots_keep: int = 2
    """Snapshots of one entity that are kept; the older ones stand in where the newest turns out corrupt."""

    snapshots_max_waiting: int = 256
    """Snapshots that wait to be stored; beyond that the oldest waiting one is dropped, since all are expendable."""

    keys_window_s: float = 26 * 3600
    """How long an idempotency key is remembered, by event time: the promised 24 h and a margin of 2 h."""

    keys_max: int = 100_000
    """Keys that one entity remembers; beyond that new ones are answered ``Overloaded`` rather than old ones
    forgotten."""

    keys_in_memory: int = 4_096
    """Newest keys of one entity that are held in memory; older ones are looked up in the store, one read for each new
    key. About 300 bytes each."""

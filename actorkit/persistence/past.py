"""The past of an entity: its state at a version or at a time, read from the journal without disturbing the live one."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from actorkit.errors import VersionNotReached
from actorkit.ids import PersistenceId
from actorkit.journal.protocols import Store
from actorkit.persistence.declaration import EntityType
from actorkit.persistence.recovery import recover

__all__ = ["Past", "read_past"]

S = TypeVar("S")


class Past(msgspec.Struct, Generic[S], frozen=True):
    """An entity as it was."""

    state: S
    version: int
    """The sequence of the last event that the state includes; 0: none."""
    time_us: int
    """That event's time, in microseconds since 1970 UTC; 0: none."""


class _PastEntity:
    """Stands in for a live entity, so that the actor's methods that only look at the state work on a past one."""

    def __init__(self, pid: PersistenceId, state: Any, sequence: int) -> None:
        self.pid = pid
        self.state = state
        self.sequence = sequence


async def read_past(
    store: Store,
    entity_type: EntityType,
    stream: str,
    *,
    page_events: int,
    version: int | None = None,
    time_us: int | None = None,
) -> tuple[Past[Any], Any]:
    """The state after event ``version``, or after the last event not later than ``time_us``, or (neither) the newest.

    With it comes an actor that has this state, for its published methods. Raises ``VersionNotReached`` for a version in
    the future, ``EventError`` and ``JournalError`` as recovery does.
    """
    recovery = await recover(
        store, entity_type, stream, page_events=page_events, max_sequence=version, max_time_us=time_us
    )
    if version is not None and recovery.sequence < version:
        raise VersionNotReached(stream, version, recovery.sequence)
    actor = entity_type.cls()
    actor.attach(_PastEntity(PersistenceId.parse(stream), recovery.state, recovery.sequence))
    return Past(recovery.state, recovery.sequence, recovery.time_us), actor

"""What a store holds, read out once so that it can be judged without one (the only checker that touches a store).

::

    contents = await read_contents(store)
    violations = audit_journal(contents) + check_acknowledged(contents, history)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from actorkit.journal.protocols import Capabilities, Recorded, ShardStatus, Store, StoredSnapshot

__all__ = ["Contents", "StoredOutcome", "command_id_of", "outcome_of", "read_contents"]

_PAGE: Final = 1_000


class Contents(msgspec.Struct, frozen=True):
    """All of a store, or what a test makes up instead."""

    capabilities: Capabilities
    logs: dict[int, list[Recorded]]
    """By shard, every record in the order in which reading the log gives it."""
    status: dict[int, ShardStatus]
    streams: dict[str, list[Recorded]]
    """By stream, its events in the order in which reading the stream gives them."""
    snapshots: dict[str, list[StoredSnapshot]] = {}

    def records(self, stream: str | None = None) -> list[Recorded]:
        """The records of one stream, or of all, in the order of the logs."""
        return [record for log in self.logs.values() for record in log if stream is None or record.stream == stream]

    def by_stream(self) -> dict[str, list[Recorded]]:
        """The records of each stream, outcomes too, in the order of the logs."""
        found: dict[str, list[Recorded]] = {}
        for record in self.records():
            found.setdefault(record.stream, []).append(record)
        return found


async def read_contents(store: Store, *, page: int = _PAGE, snapshots_max: int = 100) -> Contents:
    """Everything that an open store holds. Nothing may be appended meanwhile."""
    status = {each.shard: each for each in await store.status()}
    logs: dict[int, list[Recorded]] = {}
    for shard in status:
        log = logs[shard] = []
        after = 0
        while more := await store.read_log(shard, after=after, limit=page):
            log += more
            if more[-1].position <= after:
                # The store goes round in circles: the audit says so of what there is.
                break
            after = more[-1].position
    names = _names(logs.values())
    streams: dict[str, list[Recorded]] = {}
    snapshots: dict[str, list[StoredSnapshot]] = {}
    for name in names:
        events = streams[name] = []
        after = 0
        while more := await store.read_stream(name, after=after, limit=page):
            events += more
            if more[-1].sequence <= after:
                break
            after = more[-1].sequence
        snapshots[name] = await store.load_snapshots(name, limit=snapshots_max)
    return Contents(store.capabilities, logs, status, streams, snapshots)


def _names(logs: Iterable[list[Recorded]]) -> list[str]:
    return sorted({record.stream for log in logs for record in log})


# What the product writes beside an event is read here by its form alone: arrays in MessagePack.


class StoredOutcome(msgspec.Struct, frozen=True, array_like=True):
    """How a command ended, as the journal has it: with a reply, or (then ``code`` is set) with a refusal."""

    digest: bytes
    reply: Any = None
    code: str = ""
    reason: str = ""
    details: dict[str, Any] = {}


_outcomes = msgspec.msgpack.Decoder(StoredOutcome)
_metadata = msgspec.msgpack.Decoder(list[Any])


def command_id_of(record: Recorded) -> str | None:
    """The command that wrote the record; ``None`` where that is not readable."""
    try:
        first = _metadata.decode(record.metadata)[:1]
    except msgspec.MsgspecError:
        return None
    return first[0] if first and isinstance(first[0], str) and first[0] else None


def outcome_of(record: Recorded) -> StoredOutcome | None:
    """How the record's command ended, where that is stored with it and readable."""
    if record.outcome is None:
        return None
    try:
        return _outcomes.decode(record.outcome)
    except msgspec.MsgspecError:
        return None

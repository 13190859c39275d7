"""Audit of a journal: is what it holds a history that can have happened, and is everything there that was acknowledged?

- F: per shard positions rise (without holes, where the engine says so); per stream sequences have no holes and nothing
  is there twice; times and epochs never fall; no command and no idempotency key has two effects.
- I: what callers were told is stored, with the same answer; what they were told was not executed is not.
- P7: a snapshot is what the events up to it add up to.

Which operation a record belongs to is found by its command id or its idempotency key; what has neither can be judged
by a model only (see ``linearizability``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final

from actorkit.ids import shard_of
from actorkit.journal.protocols import Recorded
from actorkit.persistence.declaration import EntityType
from actorkit.persistence.snapshots import event_digest, open_snapshot, restore_state
from actorkit.testing.checkers.attempts import KEY_REUSED
from actorkit.testing.checkers.contents import Contents, StoredOutcome, command_id_of, outcome_of
from actorkit.testing.checkers.history import History, Operation, Outcome, plain
from actorkit.testing.checkers.violation import Violation

__all__ = ["audit_journal", "check_acknowledged", "check_snapshots"]

_KEYS_WINDOW_US: Final = 24 * 3600 * 1_000_000


def audit_journal(contents: Contents, *, keys_window_us: int = _KEYS_WINDOW_US) -> list[Violation]:
    """F: what can be seen of the journal alone. A key may act again after ``keys_window_us``."""
    violations = [
        violation for shard in contents.logs for violation in _check_log(shard, contents.logs[shard], contents)
    ]
    for stream, records in contents.by_stream().items():
        violations += _check_stream(stream, records, contents)
        violations += _check_commands(stream, records)
        violations += _check_keys(stream, records, keys_window_us)
    for stream in contents.streams.keys() - contents.by_stream().keys():
        violations.append(Violation("F", stream, "reading the stream gives events, reading the logs gives none"))
    return violations


# ---------------------------------------------------------------------------------------------------------------- logs


def _check_log(shard: int, log: Sequence[Recorded], contents: Contents) -> Iterator[Violation]:
    subject = f"shard {shard}"
    gapless = contents.capabilities.gapless_positions
    position, epoch = 0, 1
    for record in log:
        where = f"position {record.position} ({record.stream}, event {record.sequence})"
        if record.shard != shard:
            yield Violation("F", subject, f"{where} says that it is of shard {record.shard}")
        if record.position <= position:
            yield Violation("F", subject, f"{where} comes after position {position}")
        elif gapless and record.position != position + 1:
            yield Violation("F", subject, f"{where} comes after position {position}: what was between is lost")
        if record.epoch < epoch:
            yield Violation("F", subject, f"{where} was written under epoch {record.epoch}, after epoch {epoch}")
        position, epoch = record.position, max(epoch, record.epoch)
    status = contents.status.get(shard)
    if status is None:
        return
    if status.head != position:
        yield Violation("F", subject, f"its head is at position {status.head}, its last record at {position}")
    if log and status.epoch < epoch:
        yield Violation("F", subject, f"its epoch is {status.epoch}, and epoch {epoch} has written")


# ------------------------------------------------------------------------------------------------------------- streams


def _check_stream(stream: str, records: Sequence[Recorded], contents: Contents) -> Iterator[Violation]:
    home = shard_of(stream, len(contents.status)) if contents.status else None
    for shard in {record.shard for record in records} - {home}:
        if home is not None:
            yield Violation("F", stream, f"it has records in shard {shard}, and belongs to shard {home}")
    sequence, time_us = 0, 0
    for record in records:
        where = f"event {record.sequence}" if record.sequence else f"the outcome at position {record.position}"
        if record.time_us < time_us:
            yield Violation("F", stream, f"{where} is {time_us - record.time_us} µs older than the event before it")
        if record.sequence == 0:
            if record.outcome is None or record.type:
                yield Violation("F", stream, f"{where} is neither an event nor an outcome")
            continue
        if record.sequence <= sequence:
            yield Violation("F", stream, f"{where} comes after event {sequence}: it is there twice, or out of order")
        elif record.sequence != sequence + 1:
            yield Violation("F", stream, f"{where} comes after event {sequence}: what was between is lost")
        # Outcomes without events are not read in a recovery: after one, an event may have an earlier time than they.
        sequence, time_us = record.sequence, record.time_us
    events = [record for record in records if record.sequence]
    if contents.streams.get(stream, []) != events:
        count = len(contents.streams.get(stream, []))
        yield Violation("F", stream, f"reading it gives {count} events, other ones than the {len(events)} in the log")


def _check_commands(stream: str, records: Sequence[Recorded]) -> Iterator[Violation]:
    """What one command wrote lies together, and its outcome, if it is stored, with the last of it."""
    ended: set[str] = set()
    current: str | None = None
    for record in records:
        command = command_id_of(record)
        if command is None:
            current = None
            continue
        if command != current and command in ended:
            yield Violation("F", stream, f"command {command} has a second effect at position {record.position}")
        ended.add(command)
        # Once its outcome is there, whatever comes under the same id is another effect.
        current = command if record.outcome is None else None


def _check_keys(stream: str, records: Sequence[Recorded], window_us: int) -> Iterator[Violation]:
    newest: dict[str, Recorded] = {}
    for record in records:
        if record.key is None:
            continue
        before = newest.get(record.key)
        if before is not None and record.time_us - before.time_us <= window_us:
            what = f"key {record.key!r} has a second effect at position {record.position}, after {before.position}"
            yield Violation("F", stream, what)
        newest[record.key] = record


# -------------------------------------------------------------------------------------------------------- acknowledged


def check_acknowledged(
    contents: Contents,
    history: History | Iterable[Operation],
    *,
    refusals_decided_anew: Collection[str] = (),
    entities: Collection[str] | None = None,
    complete: bool = True,
) -> list[Violation]:
    """I: what callers were told, against what is stored.

    ``refusals_decided_anew``: codes of refusals that are not stored (``remembered=False``). ``entities``: the streams
    that the history is about; by default those that occur in it. ``complete``: nobody else has used keys on them.
    """
    operations = history.operations if isinstance(history, History) else tuple(history)
    by_entity: dict[str, list[Operation]] = {}
    for operation in operations:
        by_entity.setdefault(operation.entity, []).append(operation)
    streams = contents.by_stream()
    violations: list[Violation] = []
    for entity in sorted(by_entity) if entities is None else entities:
        checked = _Acknowledged(entity, streams.get(entity, []), by_entity.get(entity, []), refusals_decided_anew)
        violations += checked.by_key()
        violations += checked.by_command_id()
        if complete:
            violations += checked.strangers()
    return violations


class _Acknowledged:
    def __init__(
        self, entity: str, records: Sequence[Recorded], operations: Sequence[Operation], anew: Collection[str]
    ) -> None:
        self.entity = entity
        self.operations = operations
        self.unstored = {*anew, *KEY_REUSED}
        self.keyed = {record.key: record for record in records if record.key is not None}
        # The last record of a command has its outcome.
        self.commands = {command: record for record in records if (command := command_id_of(record)) is not None}
        executed = [each for each in operations if each.outcome is not Outcome.NOT_EXECUTED]
        self.keys_executed = {each.key for each in executed if each.key is not None and each.code not in self.unstored}

    def by_key(self) -> Iterator[Violation]:
        for operation in self.operations:
            key, record = operation.key, self.keyed.get(operation.key or "")
            if key is None:
                continue
            who = f"operation {operation.number} ({operation.name}, key {key!r})"
            if operation.outcome is Outcome.NOT_EXECUTED:
                # Where a later attempt was executed, only command ids tell them apart.
                if record is not None and key not in self.keys_executed:
                    yield self._violation(f"{who} was not executed, and is stored at position {record.position}")
            elif operation.outcome is Outcome.UNKNOWN or operation.code in self.unstored:
                continue
            elif record is None:
                yield self._violation(f"{who} was answered, and nothing of it is stored")
            else:
                yield from self._same_answer(who, operation, record)

    def by_command_id(self) -> Iterator[Violation]:
        for operation in self.operations:
            record = self.commands.get(operation.command_id or "")
            if record is None:
                continue
            who = f"operation {operation.number} ({operation.name}, command {operation.command_id})"
            if operation.outcome is Outcome.NOT_EXECUTED:
                yield self._violation(f"{who} was not executed, and is stored at position {record.position}")
            elif operation.outcome is not Outcome.UNKNOWN and operation.key is None:
                yield from self._same_answer(who, operation, record)

    def strangers(self) -> Iterator[Violation]:
        asked = {operation.key for operation in self.operations}
        for key, record in self.keyed.items():
            if key not in asked:
                yield self._violation(f"key {key!r} has an effect at position {record.position}, and nobody used it")

    def _same_answer(self, who: str, operation: Operation, record: Recorded) -> Iterator[Violation]:
        outcome = outcome_of(record)
        if outcome is None:
            yield self._violation(f"{who} was answered, and position {record.position} has no outcome that is readable")
            return
        told, stored = _told(operation), _stored(outcome)
        if told != stored:
            yield self._violation(f"{who} was told {told!r}, and position {record.position} has {stored!r}")

    def _violation(self, what: str) -> Violation:
        return Violation("I", self.entity, what)


def _told(operation: Operation) -> Any:
    if operation.outcome is Outcome.REJECTED:
        return {"code": operation.code, "details": dict(operation.details)}
    return operation.value


def _stored(outcome: StoredOutcome) -> Any:
    return {"code": outcome.code, "details": plain(outcome.details)} if outcome.code else plain(outcome.reply)


# ----------------------------------------------------------------------------------------------------------- snapshots


def check_snapshots(
    contents: Contents, entity_types: Iterable[EntityType], *, may_go_back: bool = False
) -> list[Violation]:
    """P7: every snapshot that recovery would use is what the events up to it add up to.

    Damaged ones and those of another schema are left alone: recovery does so too. One of an event that the journal does
    not have was let out before it was durable, unless the store ``may_go_back`` (a restore, an unsynced tail).
    """
    types = {entity_type.name: entity_type for entity_type in entity_types}
    violations: list[Violation] = []
    for stream, snapshots in contents.snapshots.items():
        entity_type = types.get(stream.partition("/")[0])
        if entity_type is None:
            continue
        events = contents.streams.get(stream, [])
        for snapshot in snapshots:
            body = open_snapshot(entity_type, snapshot)
            if isinstance(body, str):
                continue
            before = events[: snapshot.sequence]
            if len(before) < snapshot.sequence or not before or event_digest(before[-1]) != body.event:
                if not may_go_back:
                    what = f"the snapshot of event {snapshot.sequence} is of an event that the journal does not have"
                    violations.append(Violation("P2", stream, what))
                continue
            state = entity_type.new_state()
            page = [(each.sequence, each.type, each.version, each.payload, each.time_us) for each in before]
            entity_type.fold(state, stream, page, 0)
            if restore_state(entity_type, body) != state:
                what = f"the snapshot of event {snapshot.sequence} is not what the events up to it add up to"
                violations.append(Violation("P7", stream, what))
    return violations

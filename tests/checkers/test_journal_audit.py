"""The journal's audit: a real run passes, and each thing that must not be is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from actorkit import ActorSystem, Event, PersistentActor, Rejected, State, applies, command, query
from actorkit.errors import OutcomeUnknown
from actorkit.ids import shard_of
from actorkit.journal.memory import MemoryJournal
from actorkit.journal.protocols import Recorded, ShardStatus, StoredSnapshot
from actorkit.persistence.actor import entity_type_of
from actorkit.persistence.snapshots import encode_snapshot, event_digest
from actorkit.testing.checkers import (
    Contents,
    Recorder,
    Violation,
    audit_journal,
    check_acknowledged,
    check_snapshots,
    read_contents,
)

CAPABILITIES = MemoryJournal().capabilities
SHARDS = 4
STREAM = "tally/a"
HOME = shard_of(STREAM, SHARDS)


class Added(Event):
    by: int


class TallyState(State):
    total: int = 0

    @applies(Added)
    def added(self, event: Added) -> None:
        self.total += event.by


class TooMuch(Rejected, code="tests.checkers.too-much"):
    """More than ten."""


class Tally(PersistentActor[TallyState, Added], name="tally"):
    @command
    def add(self, by: int) -> int:
        if by > 10:
            raise TooMuch("at most ten", by=by)
        for _ in range(by):
            self.emit(Added(1))
        return self.state.total

    @query
    def total(self) -> int:
        return self.state.total


# --------------------------------------------------------------------------------------------------- records by hand


def metadata(command_id: str) -> bytes:
    return msgspec.msgpack.encode([command_id, "add"])


def outcome(reply: Any = None, code: str = "", details: dict[str, Any] | None = None) -> bytes:
    return msgspec.msgpack.encode([b"", reply, code, "", details or {}])


def record(position: int, sequence: int, command_id: str = "", **changed: Any) -> Recorded:
    values: dict[str, Any] = {
        "shard": HOME,
        "position": position,
        "stream": STREAM,
        "sequence": sequence,
        "type": "Added" if sequence else "",
        "version": 1,
        "payload": msgspec.msgpack.encode({"by": 1}) if sequence else b"",
        "time_us": position,
        "epoch": 1,
        "metadata": metadata(command_id or f"c{position}"),
        "key": None,
        "outcome": outcome(sequence),
        **changed,
    }
    return Recorded(**values)


def contents(*records: Recorded, **changed: Any) -> Contents:
    status = {
        shard: ShardStatus(shard, "", 1, records[-1].position if shard == HOME and records else 0, 0.0)
        for shard in range(SHARDS)
    }
    values: dict[str, Any] = {
        "capabilities": CAPABILITIES,
        "logs": {HOME: list(records)},
        "status": status,
        "streams": {STREAM: [each for each in records if each.sequence]} if records else {},
        **changed,
    }
    return Contents(**values)


RIGHT = [record(1, 1), record(2, 2, outcome=None), record(3, 3, "c2"), record(4, 0, key="k")]


def told(violations: list[Violation]) -> str:
    return "\n".join(str(violation) for violation in violations)


def test_what_is_right_passes() -> None:
    assert audit_journal(contents()) == []
    assert told(audit_journal(contents(*RIGHT))) == ""


def head_is_elsewhere(found: Contents) -> Contents:
    status = {**found.status, HOME: msgspec.structs.replace(found.status[HOME], head=9)}
    return msgspec.structs.replace(found, status=status)


def epoch_is_behind(found: Contents) -> Contents:
    records = [msgspec.structs.replace(each, epoch=2) for each in found.logs[HOME]]
    return contents(*records)


def stream_lacks_an_event(found: Contents) -> Contents:
    return msgspec.structs.replace(found, streams={STREAM: found.streams[STREAM][:-1]})


def stream_is_no_log(found: Contents) -> Contents:
    return msgspec.structs.replace(found, streams={**found.streams, "tally/other": found.streams[STREAM]})


def changed(index: int, **values: Any) -> Callable[[Contents], Contents]:
    def change(_: Contents) -> Contents:
        records = list(RIGHT)
        records[index] = msgspec.structs.replace(records[index], **values)
        return contents(*records)

    return change


def with_more(*records: Recorded) -> Callable[[Contents], Contents]:
    return lambda _: contents(*RIGHT, *records)


WRONG: list[tuple[Callable[[Contents], Contents], str]] = [
    (changed(1, position=1), "comes after position 1"),
    (changed(3, position=9), "what was between is lost"),
    (changed(0, epoch=2), "under epoch 1, after epoch 2"),
    (epoch_is_behind, "its epoch is 1, and epoch 2 has written"),
    (head_is_elsewhere, "its head is at position 9"),
    (changed(0, shard=HOME + 1), "says that it is of shard"),
    (changed(1, sequence=1), "there twice, or out of order"),
    (changed(2, sequence=4), "comes after event 2: what was between is lost"),
    (changed(1, time_us=0), "1 µs older"),
    (changed(3, outcome=None), "neither an event nor an outcome"),
    (changed(2, metadata=metadata("c1")), "command c1 has a second effect"),
    (with_more(record(5, 4, "c2")), "command c2 has a second effect"),
    (with_more(record(5, 4, key="k")), "key 'k' has a second effect at position 5, after 4"),
    (stream_lacks_an_event, "reading it gives 2 events"),
    (stream_is_no_log, "reading the logs gives none"),
]


@pytest.mark.parametrize(("change", "what"), WRONG, ids=[what for _, what in WRONG])
def test_what_must_not_be_is_found(change: Callable[[Contents], Contents], what: str) -> None:
    assert what in told(audit_journal(change(contents(*RIGHT))))


def test_a_stream_in_the_wrong_shard_is_found() -> None:
    other = (HOME + 1) % SHARDS
    moved = [msgspec.structs.replace(each, shard=other) for each in RIGHT]
    found = contents(logs={other: moved}, streams={STREAM: [each for each in moved if each.sequence]})
    assert f"belongs to shard {HOME}" in told(audit_journal(found))


def test_positions_may_have_holes_where_the_engine_says_so() -> None:
    holes = msgspec.structs.replace(CAPABILITIES, gapless_positions=False)
    records = [msgspec.structs.replace(each, position=each.position * 7) for each in RIGHT]
    assert audit_journal(contents(*records, capabilities=holes)) == []
    assert audit_journal(contents(*records)) != []


def test_a_key_may_act_again_after_its_window() -> None:
    again = contents(*RIGHT, record(5, 4, key="k", time_us=100))
    assert audit_journal(again, keys_window_us=95) == []
    assert audit_journal(again, keys_window_us=96) != []


# -------------------------------------------------------------------------------------------------------- acknowledged


def history_of(*rows: tuple[str | None, str | None, str, Any]) -> Recorder:
    """Operations by key, command id, how they ended, and value."""
    recorder = Recorder()
    for at_us, (key, command_id, ended, value) in enumerate(rows):
        number = recorder.invoke("a", STREAM, "add", (1,), at_us=at_us, key=key, command_id=command_id)
        if ended == "rejected":
            recorder.rejected(number, value, {}, at_us=at_us)
        elif ended == "failed":
            recorder.failed(number, OutcomeUnknown(STREAM, "lost"), at_us=at_us)
        else:
            getattr(recorder, ended)(number, value, at_us=at_us)
    return recorder


KEYED = contents(
    record(1, 1, "c1", key="k", outcome=outcome(1)), record(2, 0, "c2", key="no", outcome=outcome(code="x"))
)


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([("k", None, "replied", 1), ("no", None, "rejected", "x")], ""),
        ([("k", None, "failed", None), ("no", None, "failed", None)], ""),
        ([("k", None, "not_executed", ""), ("k", None, "replied", 1), ("no", None, "rejected", "x")], ""),
        ([("k", None, "replied", 2), ("no", None, "rejected", "x")], "was told 2, and position 1 has 1"),
        ([("k", None, "replied", 1), ("no", None, "replied", 1)], "was told 1, and position 2 has"),
        ([("k", None, "rejected", "x"), ("no", None, "rejected", "x")], "and position 1 has 1"),
        ([("k", None, "replied", 1)], "key 'no' has an effect at position 2, and nobody used it"),
        ([("k", None, "not_executed", ""), ("no", None, "rejected", "x")], "was not executed, and is stored"),
        ([("other", None, "replied", 1)], "was answered, and nothing of it is stored"),
        ([("other", None, "rejected", "x")], "was answered, and nothing of it is stored"),
        ([(None, "c1", "replied", 1)], "nobody used it"),
        ([(None, "c1", "replied", 5)], "was told 5, and position 1 has 1"),
        ([(None, "c1", "not_executed", "")], "(add, command c1) was not executed, and is stored at position 1"),
        (
            [("k", "c1", "not_executed", ""), ("k", "c3", "replied", 1)],
            "(add, command c1) was not executed, and is stored",
        ),
        ([(None, "c9", "replied", 5), (None, None, "replied", 5)], "nobody used it"),
    ],
)
def test_what_was_acknowledged_is_there(rows: list[tuple[str | None, str | None, str, Any]], what: str) -> None:
    found = told(check_acknowledged(KEYED, history_of(*rows).history()))
    assert (what in found) if what else found == ""


def test_refusals_that_are_not_remembered_need_not_be_there() -> None:
    history = history_of(("other", None, "rejected", "anew"), ("k", None, "replied", 1), ("no", None, "rejected", "x"))
    assert check_acknowledged(KEYED, history.history(), refusals_decided_anew={"anew"}) == []
    assert check_acknowledged(KEYED, history.history()) != []


def test_an_outcome_that_cannot_be_read_is_found() -> None:
    broken = contents(record(1, 1, "c1", key="k", outcome=b"\xc1"))
    assert "no outcome that is readable" in told(
        check_acknowledged(broken, history_of(("k", None, "replied", 1)).history())
    )


def test_others_may_have_used_keys_where_the_history_is_not_complete() -> None:
    history = history_of(("k", None, "replied", 1)).history()
    assert check_acknowledged(KEYED, history, complete=False) == []
    assert check_acknowledged(KEYED, history, complete=False, entities=["tally/none"]) == []


# ----------------------------------------------------------------------------------------------------------- real runs


async def run(journal: MemoryJournal) -> Recorder:
    """Some commands on a real system."""
    recorder = Recorder()
    at_us = 0
    async with ActorSystem(journal=journal, entities=[Tally], shards=SHARDS) as system:
        for n in range(30):
            key = f"k{n // 2}" if n % 3 else None
            call = system.get(Tally, f"e{n % 3}").add
            by = 11 if n % 7 == 0 else n // 2 % 4 + 1
            at_us += 2
            number = recorder.invoke("a", f"tally/e{n % 3}", "add", (by,), at_us=at_us, key=key)
            try:
                reply = await (call(by) if key is None else call.options(idempotency_key=key)(by))
            except Rejected as refusal:
                recorder.failed(number, refusal, at_us=at_us + 1)
            else:
                recorder.replied(number, reply, at_us=at_us + 1)
    return recorder


async def test_a_real_run_passes() -> None:
    journal = MemoryJournal()
    recorder = await run(journal)
    await journal.open(None)
    found = await read_contents(journal, page=3)
    assert len(found.records()) > 30
    assert told(audit_journal(found)) == ""
    assert told(check_acknowledged(found, recorder.history())) == ""


class GoingInCircles(MemoryJournal):
    """Gives the same page for ever."""

    async def read_log(self, shard: int, *, after: int, limit: int) -> list[Recorded]:
        return await super().read_log(shard, after=0, limit=limit)

    async def read_stream(self, stream: str, *, after: int, limit: int) -> list[Recorded]:
        return await super().read_stream(stream, after=0, limit=limit)


async def test_a_store_that_goes_in_circles_is_read_and_found() -> None:
    journal = GoingInCircles()
    await run(journal)
    await journal.open(None)
    found = told(audit_journal(await read_contents(journal)))
    assert "comes after position" in found
    assert "there twice" in found


# ----------------------------------------------------------------------------------------------------------- snapshots


async def with_snapshots() -> Contents:
    journal = MemoryJournal()
    await run(journal)
    await journal.open(None)
    entity_type = entity_type_of(Tally)
    found = await read_contents(journal)
    snapshots: dict[str, list[StoredSnapshot]] = {}
    for stream, events in found.streams.items():
        state = entity_type.new_state()
        for event in events[:5]:
            entity_type.fold(state, stream, [(event.sequence, event.type, 1, event.payload, 0)], event.sequence - 1)
        if len(events) >= 5:
            digest = event_digest(events[4])
            snapshots[stream] = [encode_snapshot(entity_type, stream, 5, events[4].time_us, digest, state)]
    assert snapshots
    return msgspec.structs.replace(found, snapshots=snapshots)


async def test_snapshots_are_what_the_events_add_up_to() -> None:
    found = await with_snapshots()
    entity_type = entity_type_of(Tally)
    assert check_snapshots(found, [entity_type]) == []
    assert check_snapshots(found, []) == []
    stream, (snapshot,) = next(iter(found.snapshots.items()))
    events = found.streams[stream]
    wrong = encode_snapshot(entity_type, stream, 5, 0, event_digest(events[4]), TallyState(total=99))
    (violation,) = check_snapshots(msgspec.structs.replace(found, snapshots={stream: [wrong]}), [entity_type])
    assert violation.invariant == "P7"
    early = msgspec.structs.replace(found, snapshots={stream: [snapshot]}, streams={stream: events[:4]})
    assert [each.invariant for each in check_snapshots(early, [entity_type])] == ["P2"]
    assert check_snapshots(early, [entity_type], may_go_back=True) == []
    damaged = msgspec.structs.replace(snapshot, payload=snapshot.payload[:-1])
    assert check_snapshots(msgspec.structs.replace(found, snapshots={stream: [damaged]}), [entity_type]) == []

"""Golden files (a shell): what a journal of today looks like, kept so that tomorrow's program is held to it.

An event is stored for ever, and read by every later version of the program. A renamed member, a type made narrower, a
forgotten upcaster: nothing of that fails a test which writes and reads with the same program. A golden file holds
histories as they were stored (the bytes, and beside them for people what they meant), and each run reads all of them
with the program as it is.

Entries are only ever added, by ``--golden-update``. What an earlier program wrote cannot be changed in the journals
either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from actorkit.errors import EventError
from actorkit.persistence.actor import PersistentActor, entity_type_of
from actorkit.persistence.declaration import EntityType
from actorkit.persistence.events import Event
from actorkit.testing.foldings import encoded_state
from actorkit.testing.rendering import shown

__all__ = ["GoldenEvent", "GoldenFile", "GoldenHistory", "GoldenState", "golden_events"]

_UPDATE = "run pytest with --golden-update, look at what it has added, and commit the file"
_READ_OLD = (
    "journals hold such events. Give new members a default; for any other change raise the event's version in its "
    "class line and lift the old form with @upcasts(event, version=<the old one>)"
)
_KEEP = "journals hold such events: keep the class and its @applies method, also if nothing emits it any more"
_GONE = (
    "a member that was renamed keeps its stored name with field(name=...), or the event gets a new version and an "
    "upcaster; one that was dropped on purpose goes into the entry's list 'ignored'"
)
_STATE = (
    "the same events give another state than they gave before, so entities change when they are next recovered. Decide "
    "new things in new events; if the past is to count otherwise on purpose, set the history's 'state' to null"
)


class GoldenEvent(msgspec.Struct):
    """One event as it was stored."""

    name: str
    version: int
    payload: str
    """Hexadecimal."""
    reads_as: dict[str, dict[str, Any]]
    """Its members, by the version of the class that read them: first its own, then those it was lifted to."""
    ignored: list[str] = []
    """Members that programs no longer read, on purpose. Added by hand."""


class GoldenState(msgspec.Struct):
    """The state after a history, and its snapshot."""

    schema: str
    snapshot: str
    reads_as: dict[str, Any]


class GoldenHistory(msgspec.Struct):
    """Events of one entity, from its first on."""

    events: list[GoldenEvent]
    state: GoldenState | None


class GoldenFile(msgspec.Struct):
    """What journals may hold of one entity type."""

    entity: str
    histories: list[GoldenHistory]


def golden_events(
    actor: type[PersistentActor[Any, Any]], path: Path | str, history: Sequence[Event], *, update: bool = False
) -> None:
    """Reads everything that the golden file of an entity type holds, and compares it with what it meant when written.

    ``history`` is an example of an entity's life, in which each event that the class emits occurs at least once. With
    ``update`` it is added to the file where the file lacks an event, or an event's version, that the class emits now.

    Raises ``AssertionError`` with what cannot be read, and what to do about it; then nothing is written.
    """
    __tracebackhide__ = True
    path = Path(path)
    entity_type = entity_type_of(actor)
    file = _read(path, entity_type)
    check = _Check(entity_type, str(path))
    for number, known in enumerate(file.histories, 1):
        check.history(number, known)
    if file.entity != entity_type.name:
        check.problem(
            f"it is of {file.entity!r}, and the class is stored as {entity_type.name!r}",
            f"keep the stored name in the class line, as in class {actor.__name__}(..., name={file.entity!r})",
        )
    missing = _emitted(entity_type) - {(event.name, event.version) for each in file.histories for event in each.events}
    lacking = missing - {(event.event_name, event.event_version) for event in history}
    if lacking:
        check.problem(f"the test's history has no {_named(lacking)}", "add an example of each, in an order that can be")
    if update:
        check.raise_problems()
        _update(path, file, entity_type, history if missing else ())
        return
    if missing - lacking:
        check.problem(f"it has no {_named(missing - lacking)}, which {entity_type.name} emits now", _UPDATE)
    for what in check.unrecorded:
        check.problem(what, _UPDATE)
    check.raise_problems()


class _Check:
    """Collects what is wrong."""

    def __init__(self, entity_type: EntityType, path: str) -> None:
        self._entity_type = entity_type
        self._path = path
        self._problems: list[tuple[str, str]] = []
        self.unrecorded: list[str] = []
        """Events that are lifted to a version of which nobody has looked at the result."""

    def problem(self, what: str, advice: str) -> None:
        self._problems.append((what, advice))

    def raise_problems(self) -> None:
        __tracebackhide__ = True
        if not self._problems:
            return
        lines = [f"{self._path} and the program do not agree:"]
        for what, advice in self._problems:
            lines += [f"  - {what}", f"    → {advice}"]
        raise AssertionError("\n".join(lines))

    def history(self, number: int, known: GoldenHistory) -> None:
        entity_type, before = self._entity_type, len(self._problems)
        state = entity_type.new_state()
        for sequence, stored in enumerate(known.events, 1):
            where = f"history {number}, event {sequence} ({stored.name!r}, version {stored.version})"
            try:
                event = entity_type.codec.decode(stored.name, stored.version, bytes.fromhex(stored.payload))
            except EventError as error:
                self.problem(f"{where}: {error.why}", _READ_OLD if stored.name in entity_type.codec.by_name else _KEEP)
                continue
            self._event(where, stored, event)
            if len(self._problems) > before:
                continue
            try:
                entity_type.apply(state, event)
            except Exception as error:  # noqa: BLE001 - whatever the author's method raises is the finding
                self.problem(
                    f"{where}: applying it failed: {error!r}", "what was once accepted must be applied for ever"
                )
        if known.state is not None and len(self._problems) == before:
            self._state(f"history {number}", known.state, state)

    def _event(self, where: str, stored: GoldenEvent, event: Event) -> None:
        today = event.event_version
        known = stored.reads_as.get(str(today))
        if known is None:
            self.unrecorded.append(f"{where} is lifted to version {today}, which nobody has looked at yet")
            return
        for what, gone in _changes(known, _members(event), stored.ignored):
            self.problem(f"{where}: {what}", _GONE if gone else _READ_OLD)

    def _state(self, where: str, known: GoldenState, state: Any) -> None:
        for what, gone in _changes(known.reads_as, _members(state), ()):
            # A member that the state has no longer is no harm: states are made of events.
            if not gone:
                self.problem(f"{where}, state: {what}", _STATE)
        if known.schema != self._entity_type.schema.hex():
            return
        try:
            snapshot = msgspec.msgpack.decode(bytes.fromhex(known.snapshot), type=self._entity_type.state)
        except msgspec.MsgspecError as error:
            self.problem(
                f"{where}, snapshot: {error}", "change a member's declared type, so that old snapshots are not used"
            )
            return
        for what, _ in _changes(known.reads_as, _members(snapshot), ()):
            self.problem(f"{where}, snapshot: {what}", "rename a member, so that old snapshots are not used")


def _members(record: msgspec.Struct) -> dict[str, Any]:
    """What a record holds, under the names it is stored under, as JSON has it."""
    pairs = zip(record.__struct_encode_fields__, record.__struct_fields__, strict=True)
    values = {stored: getattr(record, name) for stored, name in pairs}
    plain = {stored: value for stored, value in values.items() if value is not msgspec.UNSET}
    try:
        encoded = msgspec.json.encode(plain, order="deterministic")
    except TypeError:
        # Keys that are no text have no order; sets are in the way only together with them.
        encoded = msgspec.json.encode(plain)
    return msgspec.json.decode(encoded, type=dict[str, Any])


def _changes(known: Mapping[str, Any], today: Mapping[str, Any], ignored: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """What the members are no longer, and whether one is gone; new ones are no change."""
    for name, value in known.items():
        if name in ignored:
            continue
        if name not in today:
            yield f"its member {name!r} ({shown(value)}) is not read any more", True
        elif today[name] != value:
            yield f"its member {name!r} was read as {shown(value)}, and is now {shown(today[name])}", False


def _emitted(entity_type: EntityType) -> set[tuple[str, int]]:
    return {(event.event_name, event.event_version) for event in entity_type.events}


def _named(kinds: set[tuple[str, int]]) -> str:
    return ", ".join(f"{name!r} version {version}" for name, version in sorted(kinds))


def _read(path: Path, entity_type: EntityType) -> GoldenFile:
    if not path.exists():
        return GoldenFile(entity_type.name, [])
    try:
        return msgspec.json.decode(path.read_bytes(), type=GoldenFile)
    except msgspec.MsgspecError as error:
        raise AssertionError(f"{path} is no golden file: {error}; take it back from version control") from error


def _update(path: Path, file: GoldenFile, entity_type: EntityType, history: Sequence[Event]) -> None:
    changed = bool(history)
    for stored in (event for each in file.histories for event in each.events):
        event: Event = entity_type.codec.decode(stored.name, stored.version, bytes.fromhex(stored.payload))
        if str(event.event_version) not in stored.reads_as:
            stored.reads_as[str(event.event_version)] = _members(event)
            changed = True
    if history:
        file.histories.append(_recorded(entity_type, history))
    if changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n")


def _recorded(entity_type: EntityType, history: Sequence[Event]) -> GoldenHistory:
    state = entity_type.new_state()
    events: list[GoldenEvent] = []
    for event in history:
        payload, stored = entity_type.codec.encode(event)
        entity_type.apply(state, stored)
        version = event.event_version
        events.append(GoldenEvent(event.event_name, version, payload.hex(), {str(version): _members(stored)}))
    snapshot = encoded_state(entity_type, state)
    return GoldenHistory(events, GoldenState(entity_type.schema.hex(), snapshot.hex(), _members(state)))

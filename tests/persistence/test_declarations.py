"""What a class may declare is checked when it is defined; what was stored once can be read by later programs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import msgspec
import pytest

from actorkit import (
    Event,
    PersistentActor,
    Rejected,
    State,
    applies,
    command,
    field,
    published,
    query,
    upcasts,
)
from actorkit.errors import DeclarationError, UndecodableEvent, UnknownEvent, UnknownEventVersion
from actorkit.persistence.actor import entity_type_of
from actorkit.persistence.events import EventCodec
from tests.persistence.actors import Account
from tests.persistence.kit import Nodes, ScriptedJournal


class Opened(Event, name="door.opened"):
    by: str


class Closed(Event, name="door.closed"):
    by: str


class Door(State):
    open: bool = False
    last: str = ""

    @applies(Opened)
    def opened(self, event: Opened) -> None:
        self.open, self.last = True, event.by

    @applies(Closed)
    def closed(self, event: Closed) -> None:
        self.open, self.last = False, event.by


# ------------------------------------------------------------------------------------------------- what is refused


def test_an_event_that_the_state_does_not_apply_is_refused() -> None:
    class Painted(Event, name="door.painted"):
        color: str

    with pytest.raises(DeclarationError, match=r"Painted.*@applies\(Painted\)"):

        class Bad(PersistentActor[Door, Opened | Painted]):
            pass


def test_two_events_of_one_name_are_refused() -> None:
    class Other(Event, name="door.opened"):
        at: int

    class Both(State):
        @applies(Opened)
        def opened(self, event: Opened) -> None: ...

        @applies(Other)
        def other(self, event: Other) -> None: ...

    with pytest.raises(DeclarationError, match=r"same name 'door\.opened'"):

        class Bad(PersistentActor[Both, Opened | Other]):
            pass


def test_a_state_that_applies_an_event_twice_is_refused() -> None:
    with pytest.raises(DeclarationError, match="applies Opened twice"):

        class Bad(State):
            @applies(Opened)
            def one(self, event: Opened) -> None: ...

            @applies(Opened)
            def two(self, event: Opened) -> None: ...


def test_an_event_field_that_cannot_be_encoded_is_refused() -> None:
    class Strange(Event, name="strange"):
        what: type

    class Strangeness(State):
        @applies(Strange)
        def strange(self, event: Strange) -> None: ...

    with pytest.raises(DeclarationError, match="Strange cannot be encoded"):

        class Bad(PersistentActor[Strangeness, Strange]):
            pass


def test_a_state_field_that_cannot_be_encoded_is_refused() -> None:
    class Odd(State):
        what: type = int

        @applies(Opened)
        def opened(self, event: Opened) -> None: ...

    with pytest.raises(DeclarationError, match="Odd"):

        class Bad(PersistentActor[Odd, Opened]):
            pass


def test_a_state_field_without_a_default_is_refused() -> None:
    class NoDefault(State):
        free: int

        @applies(Opened)
        def opened(self, event: Opened) -> None: ...

    with pytest.raises(DeclarationError, match="give each of its fields a default"):

        class Bad(PersistentActor[NoDefault, Opened]):
            pass


def test_handlers_that_cannot_travel_are_refused() -> None:
    with pytest.raises(DeclarationError, match="does not say what it returns"):

        class NoReturn(PersistentActor[Door, Opened]):
            @command
            def go(self, by: str):  # type: ignore[no-untyped-def]
                ...

    with pytest.raises(DeclarationError, match=r"'by' of .* has no type"):

        class NoType(PersistentActor[Door, Opened]):
            @command
            def go(self, by) -> None: ...  # type: ignore[no-untyped-def]

    with pytest.raises(DeclarationError, match=r"takes \*by"):

        class Variadic(PersistentActor[Door, Opened]):
            @command
            def go(self, *by: str) -> None: ...

    with pytest.raises(DeclarationError, match=r"takes \*by"):

        class Keywords(PersistentActor[Door, Opened]):
            @query
            def go(self, **by: str) -> None: ...

    with pytest.raises(DeclarationError, match="cannot travel"):

        class Unencodable(PersistentActor[Door, Opened]):
            @command
            def go(self, by: type) -> None: ...

    with pytest.raises(DeclarationError, match="cannot be resolved"):

        class Unresolved(PersistentActor[Door, Opened]):
            @command
            def go(self, by: NoSuchType) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises((DeclarationError, RuntimeError)):

        class Renamed(PersistentActor[Door, Opened]):
            @command
            def go(self) -> None: ...

            gone = go


class Bare:
    """No record: it has no form in MessagePack."""


def test_what_cannot_be_published_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"Bad\.shown does not say what it publishes"):

        class Bad(PersistentActor[Door, Opened]):
            @published
            def shown(self):  # type: ignore[no-untyped-def]
                return 1

    with pytest.raises(DeclarationError, match="publishes nothing but None"):

        class Nothing(PersistentActor[Door, Opened]):
            @published
            def shown(self) -> None: ...

    with pytest.raises(DeclarationError, match="Bare has no form in MessagePack"):

        class Unencodable(PersistentActor[Door, Opened]):
            @published
            def shown(self) -> dict[str, Bare] | None: ...

    with pytest.raises(DeclarationError, match="cannot be resolved"):

        class Unresolved(PersistentActor[Door, Opened]):
            @published
            def shown(self) -> NoSuchType: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(DeclarationError, match="must be a plain method"):

        class Waiting(PersistentActor[Door, Opened]):
            @published
            async def shown(self) -> int:
                return 1


@pytest.mark.parametrize("version", [0, 65_536])
def test_the_version_of_what_is_published_has_two_bytes(version: int) -> None:
    with pytest.raises(DeclarationError, match="1 to 65535"):

        class Bad(PersistentActor[Door, Opened]):
            @published(version=version)
            def shown(self) -> int:
                return 1


def test_what_is_published_travels_as_its_declared_type() -> None:
    class Shown(PersistentActor[Door, Opened | Closed], name="shown-door"):
        @published(version=3)
        def since(self) -> datetime | None:
            return None

        @published
        def which(self) -> Opened | int | None:
            return None

    since, which = Shown.since, Shown.which
    assert (since.version, which.version) == (3, 1)
    assert since.type is datetime
    moment = datetime(2026, 5, 4, 3, 2, 1, 7, tzinfo=UTC)
    assert since.decode(since.encode(moment)) == moment
    for data in (b"", b"\xc0", which.encode(5), b"\xff" * 10, since.encode(moment)[:-1], since.encode(moment) + b"x"):
        with pytest.raises(ValueError, match="no value of what since publishes"):
            since.decode(data)
    since.check(None)
    since.check(moment)
    with pytest.raises(DeclarationError, match="declares to publish"):
        since.check("noon")  # type: ignore[arg-type]
    with pytest.raises(DeclarationError, match="cannot be encoded"):
        which.encode(1 << 70)


def test_something_that_is_no_event_is_refused() -> None:
    with pytest.raises(DeclarationError, match="no subclass of Event"):

        class Bad(PersistentActor[Door, str]):  # type: ignore[type-var]
            pass


@pytest.mark.parametrize("name", ["a/b", "/"])
def test_a_name_with_a_slash_is_refused(name: str) -> None:
    with pytest.raises(DeclarationError, match="slash"):

        class Bad(PersistentActor[Door, Opened], name=name):
            pass


def test_an_event_version_below_one_is_refused() -> None:
    with pytest.raises(DeclarationError, match="at least 1"):

        class Bad(Event, version=0):
            pass


def test_two_refusals_of_one_code_are_refused() -> None:
    with pytest.raises(DeclarationError, match="is taken by"):

        class Copy(Rejected, code="tests.broke"):
            pass


async def test_two_classes_of_one_name_are_refused_by_a_system(nodes: Nodes) -> None:
    class Twin(PersistentActor[Door, Opened], name="account"):
        pass

    system = await nodes.start()
    system.get(Account, "a")
    with pytest.raises(DeclarationError, match="has the name 'account'"):
        system.get(Twin, "a")


async def test_a_class_that_declares_no_state_cannot_be_addressed(nodes: Nodes) -> None:
    class Vague(PersistentActor[Any, Any]):
        pass

    system = await nodes.start()
    for cls in (Vague, PersistentActor, str):
        with pytest.raises(DeclarationError):
            system.get(cls, "x")  # type: ignore[type-var]


@pytest.mark.parametrize("id", ["", "x" * 257])
async def test_an_id_has_a_size(nodes: Nodes, id: str) -> None:
    system = await nodes.start()
    with pytest.raises(ValueError, match="1 to 256"):
        system.get(Account, id)


@pytest.mark.parametrize("id", ["a/b", "ü", "../..", " ", "x" * 256, "\0", "a\nb"])
async def test_any_other_text_is_an_id(nodes: Nodes, id: str) -> None:
    system = await nodes.start()
    assert await system.get(Account, id).put(1) == 1
    assert (await system.state_at(Account, id, version=1)).state.balance == 1


async def test_a_reference_has_commands_and_queries_only(nodes: Nodes) -> None:
    system = await nodes.start()
    account: Any = system.get(Account, "a")
    for hidden in ("state", "emit", "context", "total", "version", "_entity", "attach", "unheard_of"):
        with pytest.raises(AttributeError, match="has only its commands and queries"):
            getattr(account, hidden)
    assert "put" in dir(account)
    assert "state" not in dir(account)
    assert account == system.get(Account, "a")
    assert len({account, system.get(Account, "a"), system.get(Account, "b")}) == 2


async def test_arguments_that_do_not_fit_raise_at_once(nodes: Nodes) -> None:
    system = await nodes.start()
    account: Any = system.get(Account, "a")
    for call in (account.put(), account.put(1, "n", 2), account.put(1, amount=2), account.put(unheard_of=1)):
        with pytest.raises(TypeError):
            await call
    assert await account.balance() == 0


async def test_a_value_of_another_type_than_declared_is_the_callers_mistake_and_not_the_events(nodes: Nodes) -> None:
    system = await nodes.start()
    account: Any = system.get(Account, "a")
    for call in (account.put("1"), account.put(1.5), account.put(True), account.put(amount=1, note=2)):
        with pytest.raises(
            TypeError, match=r"Account\.put: Expected `\w+`, got `\w+` - in the argument `(amount|note)`"
        ):
            await call
    assert Account.runs == [], "no handler has seen it"
    assert await account.balance() == 0


# -------------------------------------------------------------------------------------------------------- what is right


async def test_subclasses_inherit_handlers_and_may_override_them(nodes: Nodes) -> None:
    class Base(PersistentActor[Door, Opened | Closed], name="base-door"):
        @command
        def open(self, by: str) -> str:
            self.emit(Opened(by))
            return "base"

        @query
        def is_open(self) -> bool:
            return self.state.open

        @published
        def shown(self) -> bool | None:
            return self.state.open

    class Special(Base, PersistentActor[Door, Opened | Closed], name="special-door"):
        @command
        def open(self, by: str) -> str:
            self.emit(Opened(by), Closed(by))
            return "special"

    system = await nodes.start()
    assert await system.get(Base, "x").open("me") == "base"
    assert await system.get(Base, "x").is_open() is True
    assert await system.get(Special, "x").open("me") == "special"
    assert await system.get(Special, "x").is_open() is False


def test_a_state_inherits_what_it_applies_and_may_override_it() -> None:
    class Loud(Door):
        times: int = 0

        @applies(Opened)
        def opened_loudly(self, event: Opened) -> None:
            self.times += 1

    class LoudDoor(PersistentActor[Loud, Opened | Closed], name="loud-door"):
        pass

    entity_type = entity_type_of(LoudDoor)
    state = entity_type.new_state()
    entity_type.apply(state, Opened("x"))
    entity_type.apply(state, Closed("x"))
    assert (state.times, state.open, state.last) == (1, False, "x")


def test_events_are_immutable() -> None:
    with pytest.raises(AttributeError):
        Opened("x").by = "y"  # type: ignore[misc]


async def test_what_is_applied_is_what_the_journal_will_give_back(nodes: Nodes) -> None:
    class Listed(Event, name="listed"):
        items: list[str]

    class Lists(State):
        items: list[str] = field(default_factory=list[str])

        @applies(Listed)
        def listed(self, event: Listed) -> None:
            self.items = event.items

    kept: list[str] = ["1"]

    class Lister(PersistentActor[Lists, Listed], name="lister"):
        @command
        def take(self) -> list[str]:
            self.emit(Listed(kept))
            kept.append("sneaked in")
            return self.state.items

        @command
        def wrong(self) -> None:
            self.emit(Listed(items=[1]))  # type: ignore[list-item]

    system = await nodes.start()
    assert await system.get(Lister, "l").take() == ["1"]
    with pytest.raises(Exception, match="does not fit its own declaration"):
        await system.get(Lister, "l").wrong()


# ------------------------------------------------------------------------------------------------------ as time goes by


async def test_a_retired_event_is_no_longer_emitted_and_can_still_be_replayed(nodes: Nodes) -> None:
    class Old(PersistentActor[Door, Opened | Closed], name="door"):
        @command
        def open(self, by: str) -> None:
            self.emit(Opened(by))

    class New(PersistentActor[Door, Closed], name="door"):
        @command
        def open(self, by: str) -> None:
            self.emit(Opened(by))  # type: ignore[arg-type]

        @query
        def last(self) -> str:
            return self.state.last

    journal = nodes.journal()
    async with nodes.running(journal) as system:
        await system.get(Old, "d").open("me")
    system = await nodes.start(ScriptedJournal(journal.inner))
    assert await system.get(New, "d").last() == "me"
    with pytest.raises(Exception, match="does not declare"):
        await system.get(New, "d").open("you")


async def test_a_renamed_class_keeps_its_name_in_the_journal(nodes: Nodes) -> None:
    class DoorOpened(Event, name="door.opened"):
        by: str
        how: str = "gently"

    class House(State):
        last: str = ""

        @applies(DoorOpened)
        def opened(self, event: DoorOpened) -> None:
            self.last = f"{event.by} {event.how}"

    class Old(PersistentActor[Door, Opened | Closed], name="door"):
        @command
        def open(self, by: str) -> None:
            self.emit(Opened(by))

    class Entrance(PersistentActor[House, DoorOpened], name="door"):
        @query
        def last(self) -> str:
            return self.state.last

    journal = nodes.journal()
    async with nodes.running(journal) as system:
        await system.get(Old, "d").open("me")
    system = await nodes.start(ScriptedJournal(journal.inner))
    assert await system.get(Entrance, "d").last() == "me gently"


class Named(Event, name="named", version=3):
    first: str
    last: str


@upcasts(Named, version=1)
def _split(members: dict[str, Any]) -> dict[str, Any]:
    first, _, rest = members["name"].partition(" ")
    return {"first": first, "rest": rest}


@upcasts(Named, version=2)
def _rename(members: dict[str, Any]) -> dict[str, Any]:
    return {"first": members["first"], "last": members["rest"]}


def test_old_versions_are_lifted_step_by_step() -> None:
    codec = EventCodec([Named])
    for version, members in [(1, {"name": "A B"}), (2, {"first": "A", "rest": "B"}), (3, {"first": "A", "last": "B"})]:
        assert codec.decode("named", version, msgspec.msgpack.encode(members)) == Named("A", "B")


def test_a_newer_version_an_unknown_name_and_bytes_that_do_not_fit_are_told_apart() -> None:
    codec = EventCodec([Named, Opened])
    good = msgspec.msgpack.encode({"first": "A", "last": "B"})
    with pytest.raises(UnknownEventVersion, match="newer one wrote it") as newer:
        codec.decode("named", 4, good, stream="x/y", sequence=7)
    assert (newer.value.stream, newer.value.sequence, newer.value.version) == ("x/y", 7, 4)
    with pytest.raises(UnknownEvent, match=r"door\.opened, named"):
        codec.decode("renamed", 1, good)
    for version, bad in [(3, b"\xff"), (3, b"\x80"), (1, b"\x80"), (1, b"\x05"), (2, msgspec.msgpack.encode({}))]:
        with pytest.raises(UndecodableEvent):
            codec.decode("named", version, bad)


def test_a_missing_upcaster_is_said_to_be_missing() -> None:
    class Gap(Event, name="gap", version=3):
        x: int

    @upcasts(Gap, version=1)
    def _(members: dict[str, Any]) -> dict[str, Any]:
        return members

    with pytest.raises(UndecodableEvent, match="no upcaster from version 2"):
        EventCodec([Gap]).decode("gap", 1, msgspec.msgpack.encode({"x": 1}))


@pytest.mark.parametrize(
    ("gives", "words"), [(None, r"None \(is a return missing\?\)"), ([1], "a list, not the event's members")]
)
def test_an_upcaster_that_returns_no_members_is_named(gives: Any, words: str) -> None:
    class Forgetful(Event, name="forgetful", version=3):
        x: int

    @upcasts(Forgetful, version=1)
    def _forget(members: dict[str, Any]) -> dict[str, Any]:
        return cast("dict[str, Any]", gives)

    upcasts(Forgetful, version=2)(dict)
    with pytest.raises(UndecodableEvent, match=rf"upcaster from version 1 \(.*_forget\) returned {words}"):
        EventCodec([Forgetful]).decode("forgetful", 1, msgspec.msgpack.encode({"x": 1}))


def test_upcasters_that_make_no_sense_are_refused() -> None:
    for version in (0, 3, 4):
        with pytest.raises(DeclarationError, match="makes no sense"):
            upcasts(Named, version=version)(dict)
    with pytest.raises(DeclarationError, match="two upcasters"):
        upcasts(Named, version=1)(dict)


def test_members_that_an_older_program_does_not_know_are_ignored() -> None:
    assert EventCodec([Opened]).decode("door.opened", 1, msgspec.msgpack.encode({"by": "x", "new": 1})) == Opened("x")


def test_an_event_that_is_not_declared_is_not_encoded() -> None:
    class Copy(Event, name="door.opened"):
        by: str

    codec = EventCodec([Opened])
    for event in (Copy("x"), Closed("x")):
        with pytest.raises(DeclarationError, match="not among the declared events"):
            codec.encode(event)

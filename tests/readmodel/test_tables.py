"""What travels and what applications read: how one becomes the other."""

from __future__ import annotations

from actorkit import PersistentActor, published
from actorkit.persistence.actor import entity_type_of
from actorkit.readmodel.counters import ReadModelCounters
from actorkit.readmodel.stamp import VALUE_MAX_BYTES, encode_value, stamp_of
from actorkit.readmodel.tables import Tables
from tests.persistence.actors import AccountState, Put


class Purse(PersistentActor[AccountState, Put], name="purse"):
    @published
    def balance(self) -> int | None:
        return self.state.balance or None


class NewerPurse(PersistentActor[AccountState, Put], name="purse"):
    @published(version=2)
    def balance(self) -> str | None:
        return str(self.state.balance)

    @published
    def cents(self) -> int | None:
        return self.state.balance * 100


class Letter(PersistentActor[AccountState, Put], name="letter"):
    @published
    def text(self) -> str:
        return ""


def tables_of(*classes: type[PersistentActor[AccountState, Put]]) -> Tables:
    tables = Tables(ReadModelCounters())
    for cls in classes:
        tables.add(entity_type_of(cls))
    return tables


def test_what_another_version_of_the_program_publishes_is_passed_on() -> None:
    entries = {
        "purse/balance/p": encode_value(stamp_of(5, 2), b"\xa17"),
        "purse/cents/p": encode_value(stamp_of(5, 1), b"\x07"),
        "card/limit/c/1": encode_value(stamp_of(3, 1), b"\x09"),
    }
    tables = tables_of(Purse)
    tables.take(0, entries)
    tables.take(0, {"card/limit/c/1": encode_value(stamp_of(2, 1), b"\x08")})
    assert {key: tables.encode(key) for key in tables.keys(0)} == entries
    table = tables.get("purse", "balance")
    assert table is not None
    table.values.publish("p", 6, 8)
    assert tables.encode("purse/balance/p") == encode_value(stamp_of(6, 1), b"\x08")


def test_of_a_value_that_cannot_travel_nothing_is_shown_rather_than_an_older_one() -> None:
    key = "letter/text/p"
    owner, reader = tables_of(Letter), tables_of(Letter)
    for sequence, value in ((1, "good"), (2, "x" * VALUE_MAX_BYTES), (3, "good"), (4, 5)):
        table, shown = owner.get("letter", "text"), reader.get("letter", "text")
        assert table is not None
        assert shown is not None
        table.values.publish("p", sequence, value)
        data = owner.encode(key)
        assert data is not None
        reader.take(0, {key: data})
        assert shown.values.version("p") == sequence
        entry = shown.values.entries.get("p")
        assert (None if entry is None else entry.value) == ("good" if value == "good" else None)


def test_what_nobody_has_committed_is_not_passed_on() -> None:
    tables = tables_of(Purse)
    tables.take(0, {"card/limit/c": encode_value(stamp_of(9, 1), b"\x09")})
    tables.forget(0, greater_than=8)
    assert tables.encode("card/limit/c") is None


def test_what_is_published_has_a_digest_of_its_own_in_whatever_order_it_is_declared() -> None:
    class Card(PersistentActor[AccountState, Put], name="card"):
        @published
        def limit(self) -> int | None:
            return None

    assert tables_of(Purse, Card).views == tables_of(Card, Purse).views
    digests = {tables_of().views, tables_of(Purse).views, tables_of(Purse, Card).views, tables_of(NewerPurse).views}
    assert len(digests) == 4

"""Golden files: what an earlier program wrote is read by this one, or the test says what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest

from actorkit import Event, PersistentActor, State, applies, field, upcasts
from actorkit.testing import golden_events
from examples.capacity_service.entity import Pool

# ----------------------------------------------------------------- the same entity, as five programs over the years


def program(change: str = "") -> tuple[type[PersistentActor[Any, Any]], list[Event]]:
    """The class and an example of its events; ``change`` says what has been done to it since the first program."""
    if change == "renamed":

        class Paid(Event, name="tests.golden.paid"):
            amount: int = 0
            tags: set[str] = field(default_factory=set[str])

    elif change == "kept its stored name":

        class Paid(Event, name="tests.golden.paid"):  # type: ignore[no-redef]
            amount: int = field(name="euros")
            tags: set[str] = field(default_factory=set[str])

    elif change == "narrower":

        class Paid(Event, name="tests.golden.paid"):  # type: ignore[no-redef]
            euros: bool
            tags: set[str] = field(default_factory=set[str])

    elif change in ("cents", "cents without an upcaster"):

        class Paid(Event, name="tests.golden.paid", version=2):  # type: ignore[no-redef]
            cents: int
            tags: set[str] = field(default_factory=set[str])

        if change == "cents":

            @upcasts(Paid, version=1)
            def _(old: dict[str, Any]) -> dict[str, Any]:
                return {"cents": old["euros"] * 100, "tags": old["tags"]}

    else:

        class Paid(Event, name="tests.golden.paid"):  # type: ignore[no-redef]
            euros: int
            tags: set[str] = field(default_factory=set[str])
            note: str = "" if change == "a new member" else field(name="nt", default="")

    class Closed(Event, name="tests.golden.shut" if change == "closed under another name" else "tests.golden.closed"):
        pass

    class Ledger(State):
        total: int = 0
        if change == "state with another member":
            closed: int = 0
        else:
            closed: bool = False  # type: ignore[no-redef]
        rate: ClassVar[int] = 2 if change == "counts otherwise" else 1

        @applies(Paid)
        def paid(self, event: Any) -> None:
            if change == "fails to apply":
                raise ValueError("no longer allowed")
            self.total += self.rate * getattr(event, "euros", getattr(event, "amount", 0))

        @applies(Closed)
        def was_closed(self, event: Closed) -> None:
            self.closed = True

    class Book(PersistentActor[Ledger, Paid | Closed], name="tests.golden.book"):
        pass

    paid: Any = Paid
    return Book, [paid(5, {"b", "a"}), Closed()]


def check(path: Path, change: str = "", *, update: bool = False) -> None:
    actor, history = program(change)
    golden_events(actor, path, history, update=update)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """What the first program has left."""
    path = tmp_path / "golden" / "book.json"
    check(path, update=True)
    return path


def complaint(path: Path, change: str, *, update: bool = False) -> str:
    before = path.read_bytes()
    with pytest.raises(AssertionError) as broken:
        check(path, change, update=update)
    assert path.read_bytes() == before
    return str(broken.value)


def test_a_file_has_the_bytes_and_what_they_mean(path: Path) -> None:
    file = json.loads(path.read_text())
    [history] = file["histories"]
    assert file["entity"] == "tests.golden.book"
    assert [event["name"] for event in history["events"]] == ["tests.golden.paid", "tests.golden.closed"]
    assert history["events"][0]["reads_as"] == {"1": {"euros": 5, "tags": ["a", "b"], "nt": ""}}
    assert bytes.fromhex(history["events"][0]["payload"]).startswith(b"\x83\xa5euros\x05")
    assert history["state"]["reads_as"] == {"total": 5, "closed": True}


def test_the_same_program_passes_and_an_update_changes_nothing(path: Path) -> None:
    before = path.read_bytes()
    check(path)
    check(path, update=True)
    assert path.read_bytes() == before


@pytest.mark.parametrize("change", ["a new member", "kept its stored name", "state with another member"])
def test_changes_that_do_no_harm_pass(path: Path, change: str) -> None:
    if change in ("a new member", "kept its stored name"):
        file = json.loads(path.read_text())
        del file["histories"][0]["events"][0]["reads_as"]["1"]["nt"]
        path.write_text(json.dumps(file))
    check(path, change)


def test_without_a_file_it_says_how_to_make_one(tmp_path: Path) -> None:
    actor, history = program()
    with pytest.raises(AssertionError) as broken:
        golden_events(actor, tmp_path / "new.json", history)
    assert "it has no 'tests.golden.closed' version 1, 'tests.golden.paid' version 1" in str(broken.value)
    assert "run pytest with --golden-update" in str(broken.value)
    assert not (tmp_path / "new.json").exists()


def test_a_history_without_an_event_that_is_emitted_is_not_enough(tmp_path: Path) -> None:
    actor, history = program()
    with pytest.raises(AssertionError, match=r"the test's history has no 'tests\.golden\.closed' version 1"):
        golden_events(actor, tmp_path / "new.json", history[:1], update=True)
    assert not (tmp_path / "new.json").exists()


def test_a_renamed_member_with_a_default_is_found_although_it_decodes(path: Path) -> None:
    for update in (False, True):
        message = complaint(path, "renamed", update=update)
        assert (
            "history 1, event 1 ('tests.golden.paid', version 1): its member 'euros' (5) is not read any more"
            in message
        )
        assert "keeps its stored name with field(name=...)" in message


def test_a_member_that_was_dropped_on_purpose_is_said_to_be_in_the_file(path: Path) -> None:
    file = json.loads(path.read_text())
    file["histories"][0]["events"][0]["ignored"] = ["euros", "nt"]
    file["histories"][0]["state"] = None
    path.write_text(json.dumps(file))
    check(path, "renamed")


def test_bytes_that_do_not_fit_any_more_are_found(path: Path) -> None:
    message = complaint(path, "narrower", update=True)
    assert "event 1 ('tests.golden.paid', version 1): Expected `bool`, got `int` - at `$.euros`" in message
    assert "raise the event's version in its class line and lift the old form with @upcasts" in message


def test_a_version_without_an_upcaster_is_found(path: Path) -> None:
    message = complaint(path, "cents without an upcaster", update=True)
    assert "there is no upcaster from version 1" in message


def test_a_name_that_is_not_declared_any_more_is_found(path: Path) -> None:
    message = complaint(path, "closed under another name", update=True)
    assert "event 2 ('tests.golden.closed', version 1): no event of that name is declared" in message
    assert "keep the class and its @applies method, also if nothing emits it any more" in message


def test_events_that_cannot_be_applied_or_give_another_state_are_found(path: Path) -> None:
    assert "applying it failed: ValueError('no longer allowed')" in complaint(path, "fails to apply")
    message = complaint(path, "counts otherwise")
    assert "history 1, state: its member 'total' was read as 5, and is now 10" in message
    assert "set the history's 'state' to null" in message


def test_a_new_version_is_added_with_what_the_old_one_becomes_and_old_entries_stay(path: Path) -> None:
    first = json.loads(path.read_text())["histories"][0]
    # The state counts what the events say, which are cents now.
    message = complaint(path, "cents")
    assert "is lifted to version 2, which nobody has looked at yet" in message
    assert "history 1, state: its member 'total' was read as 5, and is now 0" in message
    file = json.loads(path.read_text())
    file["histories"][0]["state"] = first["state"] = None
    path.write_text(json.dumps(file))
    actor, history = program("cents")
    golden_events(actor, path, history, update=True)
    golden_events(actor, path, history)
    now = json.loads(path.read_text())["histories"]
    assert now[0]["events"][0]["reads_as"].pop("2") == {"cents": 500, "tags": ["a", "b"]}
    assert now[0]["events"] == first["events"]
    assert now[1]["events"][0]["version"] == 2


def test_a_snapshot_that_this_program_would_read_otherwise_is_found(path: Path) -> None:
    file = json.loads(path.read_text())
    state = file["histories"][0]["state"]
    state["snapshot"] = state["snapshot"].replace(b"total\x05".hex(), b"total\x06".hex())
    path.write_text(json.dumps(file))
    assert "history 1, snapshot: its member 'total' was read as 5, and is now 6" in complaint(path, "")
    state["snapshot"] = "c0"
    path.write_text(json.dumps(file))
    assert "history 1, snapshot: Expected `object`, got `None`" in complaint(path, "")


def test_a_file_of_another_entity_or_of_nothing(path: Path) -> None:
    message_of = r"it is of 'tests\.golden\.book', and the class is stored as 'pool'"
    with pytest.raises(AssertionError, match=message_of):
        golden_events(Pool, path, [])
    path.write_text("{")
    with pytest.raises(AssertionError, match="is no golden file"):
        golden_events(Pool, path, [])

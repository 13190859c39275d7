"""The documents of one node: which is the newest one of a shard, and what is believed of it."""

from __future__ import annotations

import msgspec
import pytest

from actorkit.errors import UpdateRefused
from actorkit.readmodel.catalog import Catalog, Refusal
from actorkit.readmodel.documents import Document, Update
from actorkit.readmodel.stamp import encode_value, stamp_of

ENTRY = {"pool/free/p": encode_value(stamp_of(1, 1), b"\x07")}


def update_of(epoch: int) -> Update:
    update = Document(0, epoch, ENTRY, position=1).missing(0, 0)
    assert update is not None
    return update


def test_what_the_store_had_said_before_a_shard_was_taken_over_takes_nothing_back() -> None:
    """A read of the store that began before the take-over may be answered after it."""
    catalog = Catalog(2, owned_since=lambda shard: 6)
    document = Document(0, 6, ENTRY, position=1)
    assert catalog.begin(document)
    catalog.verified({0: 5, 1: 5})
    assert catalog.written_here(0) is document
    assert catalog.take(update_of(5)) == {}


def test_what_was_verified_once_stays_so() -> None:
    catalog = Catalog(1, owned_since=lambda shard: 0)
    assert catalog.take(update_of(6)) is Refusal.UNVERIFIED
    catalog.verified({0: 6})
    catalog.verified({0: 5})
    assert catalog.take(update_of(6)) == ENTRY


def test_a_position_says_nothing_of_views_that_its_writer_did_not_know() -> None:
    for views, position in ((7, 1), (8, None)):
        catalog = Catalog(1, owned_since=lambda shard: 0, views=views)
        update = Document(0, 6, ENTRY, position=1, views=7).missing(0, 0)
        assert update is not None
        catalog.verified({0: 6})
        assert catalog.take(update) == ENTRY
        assert catalog.position(0) == position


def test_no_activation_has_the_epoch_of_a_shard_that_was_never_activated() -> None:
    catalog = Catalog(1, owned_since=lambda shard: 0)
    for epoch in (0, -1):
        with pytest.raises(UpdateRefused, match="no activation has"):
            catalog.take(msgspec.structs.replace(update_of(1), epoch=epoch))

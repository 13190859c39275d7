"""The lease of one shard, as a pure thing of numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actorkit.ids import shard_of
from actorkit.sharding.activation import Lease

SECONDS = st.floats(0, 1e6)


@given(SECONDS, st.floats(0.1, 100), st.floats(-0.05, 0.05), st.floats(0, 200))
def test_a_lease_is_never_valid_longer_than_the_store_grants_it(
    asked_at_s: float, duration_s: float, rate: float, later_s: float
) -> None:
    """The store grants it at or after it was asked for; its clock runs up to 5 % faster or slower than ours."""
    lease = Lease(0.05)
    lease.acquired(1, asked_at_s, duration_s)
    if lease.is_valid(asked_at_s + later_s):
        assert later_s * (1 + rate) <= duration_s * 1.0 + 1e-6


def test_a_lease_that_was_lost_is_not_valid_however_long_it_had_to_run() -> None:
    lease = Lease(0.0)
    assert not lease.is_valid(0)
    lease.acquired(1, 0, 10)
    assert lease.is_valid(9.9)
    assert not lease.is_valid(10)
    lease.lost()
    assert not lease.is_valid(1)
    lease.acquired(2, 20, 10)
    assert lease.is_valid(21)


def test_memory_counts_only_if_nobody_else_can_have_had_the_shard() -> None:
    lease = Lease(0.0)
    assert not lease.acquired(5, 0, 1), "we never had it"
    lease.lost()
    assert lease.acquired(6, 0, 1), "we raised our own epoch"
    lease.lost()
    assert not lease.acquired(8, 0, 1), "epoch 7 was somebody else's"


def test_memory_counts_from_the_first_epoch_since_which_nobody_else_can_have_had_the_shard() -> None:
    lease = Lease(0.0)
    since: list[int] = []
    for epoch in (5, 6, 7, 9, 10, 13):
        lease.acquired(epoch, 0, 1)
        since.append(lease.unbroken_since)
        lease.lost()
        assert lease.unbroken_since == since[-1]
    assert since == [5, 5, 5, 9, 9, 13]


@given(st.text(min_size=1), st.integers(1, 1024))
def test_the_shard_of_a_stream_is_within_bounds_and_always_the_same(stream: str, shards: int) -> None:
    shard = shard_of(stream, shards)
    assert 0 <= shard < shards
    assert shard == shard_of(stream, shards)


def test_the_shard_of_a_stream_is_the_same_for_ever() -> None:
    """Entities would be looked for in other shards' logs if this changed."""
    assert [shard_of(stream, 256) for stream in ("Pool/gpu-a100", "Pool/ü", "account/a")] == SHARDS_FOR_EVER


SHARDS_FOR_EVER = [248, 151, 118]


def test_what_was_left_behind_may_have_written_as_others_may() -> None:
    lease = Lease(0.05)
    assert not lease.acquired(3, 0.0, 3.0)
    assert lease.acquired(4, 1.0, 3.0)
    lease.left_behind()
    lease.lost()
    assert not lease.acquired(5, 2.0, 3.0)
    assert lease.unbroken_since == 5
    assert lease.acquired(6, 3.0, 3.0)

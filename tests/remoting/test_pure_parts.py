"""The small decisions: which connection stays, how long to wait, what fits, who may come in."""

from __future__ import annotations

from functools import partial
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorkit.errors import ConfigurationError
from actorkit.ids import NodeId
from actorkit.remoting import RemotingSettings
from actorkit.remoting.admission import Admission
from actorkit.remoting.arbitration import Existing, Incoming, admits
from actorkit.remoting.backoff import Backoff
from actorkit.remoting.outbox import Outbox
from actorkit.remoting.route import Route, RouteInput, RouteState
from actorkit.remoting.security import host_and_port

A, B = NodeId("a", "1"), NodeId("b", "1")
B_AGAIN = NodeId("b", "2")


def test_of_two_handshakes_that_cross_exactly_one_is_let_in() -> None:
    at_a = admits(A, Incoming(B, 1, b""), None, greeting=True)
    at_b = admits(B, Incoming(A, 1, b""), None, greeting=True)
    assert (at_a, at_b) == (False, True)
    assert admits(A, Incoming(B, 1, b""), None, greeting=False)


@pytest.mark.parametrize(
    ("incoming", "existing", "admitted"),
    [
        # We made the open one: only who knows that it is over comes in.
        (Incoming(B, 9, b"s1"), Existing(B, b"s1", None), True),
        (Incoming(B, 9, b""), Existing(B, b"s1", None), False),
        (Incoming(B, 9, b"s0"), Existing(B, b"s1", None), False),
        # They made it: a later attempt of theirs replaces it, an earlier one that comes late does not.
        (Incoming(B, 2, b""), Existing(B, b"s1", 1), True),
        (Incoming(B, 1, b"s1"), Existing(B, b"s1", 2), False),
        # Another incarnation ends whatever there was.
        (Incoming(B_AGAIN, 1, b""), Existing(B, b"s1", None), True),
        (Incoming(B_AGAIN, 1, b""), Existing(B, b"s1", 7), True),
    ],
)
def test_an_open_connection_gives_way_to_those_who_know_it_is_over(
    incoming: Incoming, existing: Existing, admitted: bool
) -> None:
    for local in (A, NodeId("z", "1")):
        assert admits(local, incoming, existing, greeting=False) is admitted


def test_waits_grow_to_a_limit_and_never_below_half() -> None:
    for drawn, part in ((0.0, 1.0), (0.999_999, 0.5)):
        backoff = Backoff(0.05, 1.0, partial(float, drawn))
        waits = [backoff.failed() for _ in range(100)]
        assert waits == pytest.approx([part * min(1.0, 0.05 * 2**number) for number in range(100)], rel=1e-5)
        backoff.succeeded()
        assert backoff.failed() == pytest.approx(part * 0.05, rel=1e-5)


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=100))
def test_an_outbox_keeps_order_and_bounds_and_cuts_batches(payloads: list[bytes]) -> None:
    outbox = Outbox(max_messages=50, max_bytes=1500, batch_max_bytes=100)
    taken = [payload for payload in payloads if outbox.offer(payload)]
    assert len(taken) == len(outbox) <= 50
    assert sum(map(len, taken)) == outbox.size_bytes <= 1500
    batches: list[list[bytes]] = []
    while outbox:
        batches.append(outbox.take_batch())
    assert [payload for batch in batches for payload in batch] == taken
    assert all(sum(map(len, batch)) <= 100 or len(batch) == 1 for batch in batches)
    assert outbox.size_bytes == 0


def test_what_moves_to_another_outbox_keeps_its_order_and_what_finds_no_room_is_counted() -> None:
    first, second = (Outbox(max_messages=3, max_bytes=100, batch_max_bytes=100) for _ in range(2))
    second.offer(b"0")
    for payload in (b"1", b"2", b"3"):
        first.offer(payload)
    assert first.move_to(second) == 1
    assert second.take_batch() == [b"0", b"1", b"2"]
    assert not first


def test_a_host_may_connect_so_often_and_others_are_not_affected() -> None:
    admission = Admission(rate_per_s=10.0, burst=5)
    assert [admission.admit(0.0, "bad") for _ in range(7)] == [True] * 5 + [False] * 2
    assert admission.admit(0.0, "good")
    assert admission.admit(0.1, "bad")
    assert not admission.admit(0.1, "bad")
    assert [admission.admit(100.0, "bad") for _ in range(6)] == [True] * 5 + [False]


def test_hosts_are_forgotten_rather_than_kept_without_bound() -> None:
    admission = Admission(rate_per_s=1.0, burst=1)
    for number in range(5_000):
        assert admission.admit(0.0, str(number))
    assert len(admission._buckets) == 1_000


def test_what_cannot_happen_to_a_route_raises() -> None:
    route = Route("b:1", RemotingSettings(), lambda: 0.5)
    possible = set()
    for state, event in product(RouteState, RouteInput):
        route.state = state
        try:
            route.step(event)
        except KeyError:
            continue
        possible.add((state, event))
    assert len(possible) == 11
    # A connection that others make is welcome in every state but one in which there is one.
    welcome = set(RouteState) - {RouteState.OPEN}
    assert {state for state, event in possible if event is RouteInput.OPENED} == welcome


@pytest.mark.parametrize(
    "address", ["", "host", "host:", ":1", "host:x", "host:-1", "host:65536", "host:1.5", "host:²"]
)
def test_what_is_no_address_is_said_to_be_none(address: str) -> None:
    with pytest.raises(ConfigurationError, match="host:port"):
        host_and_port(address)


def test_addresses_have_a_host_and_a_port() -> None:
    assert host_and_port("n1.example:80") == ("n1.example", 80)
    assert host_and_port("[::1]:0") == ("::1", 0)

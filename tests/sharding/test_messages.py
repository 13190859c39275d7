"""Messages between regions: what arrives is what was sent, and nothing else is believed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorkit.errors import (
    CallCycle,
    CallError,
    HandlerFailed,
    IdempotencyKeyReused,
    OutcomeUnknown,
    Overloaded,
    RecoveryFailed,
    Rejected,
    Unavailable,
    UndecodableMessage,
)
from actorkit.ids import PersistenceId
from actorkit.sharding.messages import (
    MESSAGES,
    TEXT_MAX_CHARS,
    Failure,
    RemoteCall,
    RemoteReply,
    RemoteReturn,
    ShardAnswer,
    ShardQuestion,
    ShardReleased,
    Standing,
    failure_of,
)
from actorkit.tracing import Trace
from actorkit.wire.codec import Codec


class Full(Rejected, code="test.full"):
    """A refusal that is known on both sides."""


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | TEXT
FACTS = st.dictionaries(TEXT, PLAIN | st.lists(PLAIN, max_size=3) | st.dictionaries(TEXT, PLAIN, max_size=3))
COUNT = st.integers(0, 2**63 - 1)
ERRORS: st.SearchStrategy[CallError] = st.one_of(
    st.builds(lambda cls, reason, facts: cls(reason, **facts), st.sampled_from([Rejected, Full]), TEXT, FACTS),
    st.builds(IdempotencyKeyReused, TEXT),
    st.builds(lambda what, n, s: Overloaded(what, limit=n, retry_after_s=s), TEXT, COUNT, st.floats(0, 1e6)),
    st.builds(
        lambda cls, target, why: cls(target, why),
        st.sampled_from([Unavailable, HandlerFailed, RecoveryFailed, CallCycle, OutcomeUnknown]),
        TEXT,
        TEXT,
    ),
)
ANSWERS = st.builds(ShardAnswer, COUNT, st.sampled_from(Standing), COUNT, TEXT)
CALLS = st.builds(
    RemoteCall,
    number=COUNT,
    shard=COUNT,
    tenure=COUNT,
    entity_type=TEXT,
    entity_id=TEXT.filter(bool),
    handler=TEXT,
    arguments=st.binary(max_size=50),
    command_id=TEXT,
    remaining_s=st.floats(0, 1e9),
    attempt=st.integers(1, 9),
    key=st.none() | TEXT,
    chain=st.lists(st.builds(PersistenceId, TEXT, TEXT), max_size=3).map(tuple),
    trace=st.builds(Trace, TEXT, TEXT, TEXT),
)
OTHERS = st.one_of(
    st.builds(RemoteReply, COUNT, st.binary(max_size=50), st.none() | st.builds(failure_of, ERRORS, TEXT)),
    st.builds(RemoteReturn, st.lists(COUNT, max_size=5).map(tuple), ANSWERS, st.lists(COUNT, max_size=5).map(tuple)),
    ANSWERS,
    st.builds(ShardQuestion, st.lists(COUNT, max_size=5).map(tuple)),
    st.builds(ShardReleased, COUNT, COUNT),
)


@pytest.fixture(scope="module")
def codec() -> Codec:
    codec = Codec()
    for message_type in MESSAGES:
        codec.declare(message_type)
    return codec


@given(message=CALLS | OTHERS)
def test_what_arrives_is_what_was_sent(codec: Codec, message: msgspec.Struct) -> None:
    assert codec.decode(codec.encode(message)) == message


def facts_of(error: CallError) -> Any:
    if isinstance(error, Rejected):
        return error.code, error.reason, dict(error.details)
    return error.args


@given(error=ERRORS)
def test_every_error_arrives_as_itself_with_all_its_facts(codec: Codec, error: CallError) -> None:
    sent = RemoteReply(7, failure=failure_of(error, "Pool/a"))
    arrived = codec.decode(codec.encode(sent))
    assert isinstance(arrived, RemoteReply)
    assert arrived.failure is not None
    twin = arrived.failure.error()
    assert type(twin) is type(error)
    assert facts_of(twin) == facts_of(error)
    assert str(twin) == str(error)


def every_error(cls: type[CallError] = CallError) -> list[type[CallError]]:
    known = [sub for sub in cls.__subclasses__() if sub.__module__ == "actorkit.errors"]
    return [*known, *(below for sub in known for below in every_error(sub))]


def test_no_way_in_which_a_call_can_end_was_forgotten() -> None:
    tried = {Rejected, IdempotencyKeyReused, Overloaded, Unavailable, HandlerFailed, RecoveryFailed, CallCycle}
    assert set(every_error()) == tried | {OutcomeUnknown}


def test_a_refusal_that_is_not_declared_here_arrives_as_a_plain_one() -> None:
    details = msgspec.msgpack.encode({"left": 2})
    twin = Failure("rejected", "sold-out.elsewhere", "only 2 are left", details=details).error()
    assert type(twin) is Rejected
    assert (twin.reason, twin.details) == ("only 2 are left", {"left": 2})


def test_an_error_of_ones_own_arrives_as_the_nearest_that_is_known() -> None:
    class Busy(HandlerFailed):
        """Raised by somebody's own code."""

    twin = failure_of(Busy("Pool/a", "busy"), "").error()
    assert type(twin) is HandlerFailed
    assert twin.args == ("Pool/a", "busy")


def test_an_error_of_a_later_version_leaves_the_outcome_open() -> None:
    assert isinstance(Failure("postponed", "Pool/a", "later").error(), OutcomeUnknown)
    assert isinstance(Failure("rejected", "test.full", "x", details=b"\xc1").error(), OutcomeUnknown)
    assert isinstance(Failure("rejected", "test.full", "x", details=b"\x91" * 50_000).error(), OutcomeUnknown)


def test_a_refusal_that_cannot_travel_fails_as_it_does_within_a_process() -> None:
    for refusal in (Full("no", what=object()), Full("no \ud800"), Full("no", big=2**70)):
        failure = failure_of(refusal, "Pool/a")
        assert isinstance(failure.error(), HandlerFailed)
        msgspec.msgpack.encode(failure)


def test_explanations_are_cut_and_never_keep_an_error_from_travelling() -> None:
    failure = failure_of(Unavailable("Pool/\ud800", "x" * 10_000), "")
    assert len(failure.why) == TEXT_MAX_CHARS
    msgspec.msgpack.encode(failure)


@pytest.mark.parametrize(
    "forged",
    [
        ["shard-call", -1, 0, 0, "Pool", "a", "read", b"\x90", "c", 1.0],
        ["shard-call", 0, 0, 0, "Pool", "", "read", b"\x90", "c", 1.0],
        ["shard-call", 0, 0, 0, "Pool", "x" * 300, "read", b"\x90", "c", 1.0],
        ["shard-call", 0, 0, 0, "Pool", "a", "read", b"\x90", "c", float("nan")],
        ["shard-call", 0, 0, 0, "Pool", "a", "read", b"\x90", "c", float("inf")],
        ["shard-call", 0, 0, 0, "Pool", "a", "read", b"\x90", "c", -1.0],
        ["shard-call", 0, 0, 0, "Pool", "a", "read", b"\x90", "c", 1.0, 0],
        ["shard-call", 0, 0, 0, "Pool", "a", "read", "no bytes", "c", 1.0],
        ["shard-answer", 0, "mine"],
        ["shard-released", 1.5, 1],
        ["shard-return", [1, "2"], [0, "owned"]],
    ],
)
def test_what_no_region_sends_is_not_believed(codec: Codec, forged: list[Any]) -> None:
    with pytest.raises(UndecodableMessage):
        codec.decode(msgspec.msgpack.encode(forged))

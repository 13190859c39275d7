"""One connection as a state machine, and everything that a hostile other end can do to it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorkit.ids import NodeId
from actorkit.remoting import RemotingSettings
from actorkit.remoting.association import Association, State
from actorkit.remoting.handshake import Challenge, Hello, Local, Reason, decode, encode
from actorkit.testing.simulation import stream
from actorkit.wire import Codec, FrameKind, Sealer
from actorkit.wire.frames import HEADER_BYTES, handshake_frame, open_handshake
from tests.remoting.nodes import SECRET, Note

SETTINGS = RemotingSettings()
KEY = SECRET.encode()


def local(name: str, **changes: object) -> Local:
    made = Local(node=NodeId(name, "life-1"), address=f"{name}:9080", cluster="tests", secret=KEY)
    return msgspec.structs.replace(made, **changes)


class Ends:
    """Numbers nonces, so that each end has its own."""

    def __init__(self, seed: int = 1) -> None:
        self.random = stream(seed, "nonces")
        self.codec = Codec()
        self.codec.declare(Note)

    def initiator(self, who: Local, now_s: float = 0.0) -> Association:
        made = self.acceptor(who, now_s)
        made.initiate(attempt=1, last_session=b"")
        return made

    def acceptor(self, who: Local, now_s: float = 0.0) -> Association:
        return Association(who, self.codec, SETTINGS, now_s, self.random.randbytes(32))

    def note(self, association: Association, number: int) -> bytes:
        return association.seal_batch(0.0, [self.codec.encode(Note(number))])


def take(association: Association) -> list[bytes]:
    """What it wants to send; it goes on wherever it has to be told to."""
    if association.state is State.MEETING:
        association.prove()
    if association.state is State.JUDGING:
        association.accept()
    frames, association.outgoing = association.outgoing, []
    return frames


def connect(
    initiator: Association,
    acceptor: Association,
    tamper: Callable[[bytes], bytes] = lambda frame: frame,
) -> list[bytes]:
    """Passes frames to and fro until nobody has any more; returns them all."""
    passed: list[bytes] = []
    while frames := [(acceptor, frame) for frame in take(initiator)] + [(initiator, frame) for frame in take(acceptor)]:
        for target, frame in frames:
            passed.append(frame)
            target.receive(0.0, tamper(frame))
    return passed


@pytest.mark.parametrize("secret", [KEY, b""])
def test_two_nodes_of_a_cluster_get_to_know_each_other(secret: bytes) -> None:
    ends = Ends()
    a, b = ends.initiator(local("a", secret=secret)), ends.acceptor(local("b", secret=secret))
    connect(a, b)
    assert a.state is b.state is State.OPEN
    assert a.peer is not None
    assert b.peer is not None
    assert (a.peer.node, a.peer.address) == (NodeId("b", "life-1"), "b:9080")
    assert (b.peer.node, b.peer.address) == (NodeId("a", "life-1"), "a:9080")
    assert a.session == b.session != b""
    for number in range(3):
        assert b.receive(0.0, ends.note(a, number)) == [Note(number)]
        assert a.receive(0.0, ends.note(b, number)) == [Note(number)]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cluster": "others"}, Reason.CLUSTER),
        ({"versions": (2, 3)}, Reason.VERSION),
        ({"secret": b"another secret, just as long"}, Reason.SECRET),
        ({"secret": b""}, Reason.SECRET),
        ({"node": NodeId("b", "life-1")}, Reason.ITSELF),
    ],
)
def test_who_does_not_belong_is_refused_and_told_why(changes: dict[str, object], reason: str) -> None:
    ends = Ends()
    a, b = ends.initiator(local("a", **changes)), ends.acceptor(local("b"))
    connect(a, b)
    assert a.state is b.state is State.ENDED
    assert a.reason == reason
    assert a.why.startswith("it refuses: ")
    assert b.why.startswith("refused: ")


@pytest.mark.parametrize(
    ("ours", "theirs", "spoken"),
    [((1, 1), (1, 2), 1), ((1, 2), (1, 1), 1), ((1, 2), (2, 3), 2), ((2, 3), (1, 2), 2), ((1, 3), (2, 4), 3)],
)
def test_adjacent_protocol_versions_talk(ours: tuple[int, int], theirs: tuple[int, int], spoken: int) -> None:
    ends = Ends()
    a, b = ends.initiator(local("a", versions=ours)), ends.acceptor(local("b", versions=theirs))
    connect(a, b)
    assert a.peer is not None
    assert b.peer is not None
    assert a.peer.version == b.peer.version == spoken
    assert b.receive(0.0, ends.note(a, 1)) == [Note(1)]


def test_an_acceptor_who_does_not_belong_is_noticed_by_the_initiator() -> None:
    for changes in ({"cluster": "others"}, {"secret": b""}, {"version": 9}, {"authenticated": False}):
        ends = Ends()
        a = ends.initiator(local("a"))
        said = Challenge(1, "tests", "b", "life-1", "b:9080", True, bytes(32))
        fields = {name: value for name, value in changes.items() if name != "secret"}
        a.receive(0.0, handshake_frame(FrameKind.CHALLENGE, encode(msgspec.structs.replace(said, **fields))))
        if a.state is State.MEETING:
            a.prove()
            a.receive(0.0, handshake_frame(FrameKind.ACCEPTED, b"\x91\xc4\x00"))
        assert a.state is State.ENDED
        assert a.why


def test_whoever_accepts_without_the_secret_is_not_believed() -> None:
    ends = Ends()
    a, b = ends.initiator(local("a")), ends.acceptor(local("b", secret=b"another secret, just as long"))
    # It lets everybody in, and says so.
    (hello,) = take(a)
    b.receive(0.0, hello)
    (challenge,) = take(b)
    a.receive(0.0, challenge)
    take(a)
    b.state = State.JUDGING
    (accepted,) = take(b)
    a.receive(0.0, accepted)
    assert a.state is State.ENDED
    assert "secret" in a.why


def test_a_replayed_handshake_proves_nothing() -> None:
    ends = Ends()
    a, b = ends.initiator(local("a")), ends.acceptor(local("b"))
    hello, challenge, proof, accepted = connect(a, b)
    again = ends.acceptor(local("b"))
    for frame in (hello, proof):
        again.receive(0.0, frame)
    assert again.state is State.ENDED
    assert "secret" in again.why
    victim = ends.initiator(local("a"))
    victim.receive(0.0, challenge)
    take(victim)
    victim.receive(0.0, accepted)
    assert victim.state is State.ENDED


def test_a_reflected_handshake_proves_nothing() -> None:
    ends = Ends()
    # What a says to the attacker, the attacker says to a, on a connection of his own.
    a, own = ends.initiator(local("a")), ends.acceptor(local("a"))
    connect(a, own)
    assert a.state is own.state is State.ENDED
    assert a.reason == Reason.ITSELF
    # The same under another name: a's own proof and frames are of the other role.
    a, other = ends.initiator(local("a")), ends.initiator(local("a"))
    (hello,) = take(a)
    challenge = decode(Hello, open_handshake(hello)[1])
    forged = encode(Challenge(1, "tests", "b", "life-1", "b:9080", True, challenge.nonce))
    for each in (a, other):
        each.receive(0.0, handshake_frame(FrameKind.CHALLENGE, forged))
        take(each)
        take(each)
    proof = a._secrets.proof_of("initiator") if a._secrets else b""
    a.receive(0.0, handshake_frame(FrameKind.ACCEPTED, b"\x91" + msgspec.msgpack.encode(proof)))
    assert a.state is State.ENDED


def test_frames_that_come_back_to_their_sender_are_refused() -> None:
    ends = Ends()
    a, b = ends.initiator(local("a")), ends.acceptor(local("b"))
    connect(a, b)
    assert a.receive(0.0, ends.note(a, 1)) == ()
    assert a.state is State.ENDED


@given(st.integers(0, 3), st.data())
def test_whatever_is_changed_on_the_way_ends_the_handshake(which: int, data: st.DataObject) -> None:
    ends = Ends()
    a, b = ends.initiator(local("a")), ends.acceptor(local("b"))
    count = 0

    def tamper(frame: bytes) -> bytes:
        nonlocal count
        count += 1
        if count - 1 != which:
            return frame
        changed = bytearray(frame)
        changed[data.draw(st.integers(0, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
        return bytes(changed)

    connect(a, b, tamper)
    # A changed last frame leaves the acceptor open, and the initiator, who hangs up, not.
    assert a.state is not State.OPEN
    assert b.state is not State.OPEN or which == 3


def test_a_man_in_the_middle_of_a_handshake_cannot_add_lower_or_repeat_anything() -> None:
    def offer_less(frame: bytes) -> bytes:
        kind, body = open_handshake(frame)
        if kind is not FrameKind.HELLO:
            return frame
        return handshake_frame(kind, encode(msgspec.structs.replace(decode(Hello, body), newest=1)))

    ends = Ends()
    a, b = ends.initiator(local("a", versions=(1, 2))), ends.acceptor(local("b", versions=(1, 2)))
    connect(a, b, offer_less)
    assert a.state is b.state is State.ENDED
    # He passes everything on, so that they are connected through him, and then says something of his own.
    for forge in (Sealer(1, b"").seal, Sealer(1, KEY).seal, Sealer(1, bytes(32)).seal):
        a, b = ends.initiator(local("a")), ends.acceptor(local("b"))
        connect(a, b)
        assert b.receive(0.0, forge(FrameKind.BATCH, b"\x91" + ends.codec.encode(Note(1)))) == ()
        assert b.state is State.ENDED
        assert "MAC" in b.why
    a, b = ends.initiator(local("a")), ends.acceptor(local("b"))
    connect(a, b)
    first = ends.note(a, 1)
    assert b.receive(0.0, first) == [Note(1)]
    assert b.receive(0.0, first) == ()
    assert b.state is State.ENDED


def test_without_a_secret_a_peer_with_one_is_not_talked_to() -> None:
    for ours, theirs in ((KEY, b""), (b"", KEY)):
        ends = Ends()
        a, b = ends.initiator(local("a", secret=ours)), ends.acceptor(local("b", secret=theirs))
        connect(a, b)
        assert a.state is b.state is State.ENDED
        assert "secret" in a.why


LIVING = [state for state in State if state is not State.ENDED]
LEGAL = {
    (State.GREETING, FrameKind.CHALLENGE),
    (State.GREETING, FrameKind.REFUSAL),
    (State.PROVING, FrameKind.ACCEPTED),
    (State.PROVING, FrameKind.REFUSAL),
    (State.LISTENING, FrameKind.HELLO),
    (State.CHALLENGING, FrameKind.PROOF),
    (State.OPEN, FrameKind.BATCH),
    (State.OPEN, FrameKind.HEARTBEAT),
    (State.OPEN, FrameKind.FAREWELL),
}


def brought_to(state: State) -> tuple[Association, Association]:
    """The end that is in that state, and the other one."""
    ends = Ends()
    a, b = ends.initiator(local("a")), ends.acceptor(local("b"))
    steps: list[tuple[State, Association, Association]] = [(State.GREETING, a, b), (State.LISTENING, b, a)]
    (hello,) = take(a)
    if state in (State.GREETING, State.LISTENING):
        return next((own, other) for at, own, other in steps if at is state)
    b.receive(0.0, hello)
    if state is State.CHALLENGING:
        return b, a
    (challenge,) = take(b)
    a.receive(0.0, challenge)
    if state is State.MEETING:
        return a, b
    (proof,) = take(a)
    if state is State.PROVING:
        return a, b
    b.receive(0.0, proof)
    if state is State.JUDGING:
        return b, a
    (accepted,) = take(b)
    a.receive(0.0, accepted)
    return a, b


@pytest.mark.parametrize(("state", "kind"), list(product(LIVING, FrameKind)))
def test_a_frame_out_of_its_turn_ends_the_connection(state: State, kind: FrameKind) -> None:
    association, other = brought_to(state)
    assert association.state is state
    session = other._sealer
    frame = session.seal(kind, b"\x90") if session and state is State.OPEN else handshake_frame(kind, b"\x90")
    assert association.receive(0.0, frame) in ((), [])
    if (state, kind) == (State.OPEN, FrameKind.BATCH):
        assert association.state is State.OPEN
    else:
        # Legal ones among them are not what they should be inside.
        assert association.state is State.ENDED
        assert association.why
    assert association.receive(0.0, frame) in ((), [])


def test_the_table_of_transitions_is_what_the_protocol_says() -> None:
    assert set(Association._TRANSITIONS) == LEGAL


@given(st.sampled_from([State.GREETING, State.LISTENING, State.CHALLENGING, State.PROVING, State.OPEN]), st.data())
def test_garbage_ends_the_connection_in_any_state(state: State, data: st.DataObject) -> None:
    association, _ = brought_to(state)
    kind = data.draw(st.sampled_from(FrameKind))
    junk = data.draw(st.binary(max_size=200))
    association.receive(0.0, data.draw(st.sampled_from([junk, handshake_frame(kind, junk)])))
    assert association.state is State.ENDED


def test_heartbeats_are_said_when_nothing_else_is_and_silence_ends_it() -> None:
    ends = Ends()
    a, b = ends.initiator(local("a")), ends.acceptor(local("b"))
    connect(a, b)
    assert a.next_tick_s == SETTINGS.heartbeat_s
    for beats in range(1, 3):
        now_s = beats * SETTINGS.heartbeat_s
        a.tick(now_s - 0.01)
        assert take(a) == []
        a.tick(now_s)
        (beat,) = take(a)
        assert len(beat) == HEADER_BYTES
        assert b.receive(now_s, beat) == ()
        # What is said anyway spares a heartbeat.
        b.seal_batch(now_s, [])
        b.tick(now_s + SETTINGS.heartbeat_s / 2)
        assert take(b) == []
    assert ended_at(a, SETTINGS.idle_timeout_s) == "nothing was heard of it for 3 s"
    assert ended_at(b, 2 * SETTINGS.heartbeat_s + SETTINGS.idle_timeout_s) == "nothing was heard of it for 3 s"


def ended_at(association: Association, now_s: float) -> str:
    association.tick(now_s - 0.01)
    assert association.state is State.OPEN
    association.tick(now_s)
    return association.why


def test_a_handshake_has_a_deadline_in_every_state() -> None:
    for state in LIVING:
        if state is State.OPEN:
            continue
        association, _ = brought_to(state)
        association.tick(SETTINGS.handshake_timeout_s - 0.1)
        assert association.state is state
        assert association.next_tick_s == SETTINGS.handshake_timeout_s
        association.tick(SETTINGS.handshake_timeout_s)
        assert "took more than" in association.why


def test_a_farewell_is_told_from_a_break() -> None:
    ends = Ends()
    a, b = ends.initiator(local("a")), ends.acceptor(local("b"))
    connect(a, b)
    a.bid_farewell()
    (farewell,) = take(a)
    b.receive(0.0, farewell)
    assert b.why == "it has stopped in an orderly way"


def test_overlong_names_and_wrong_nonces_are_refused() -> None:
    good = Hello(1, 1, "tests", "a", "life-1", "a:9080", True, bytes(32))
    for changes in (
        {"name": "x" * 257},
        {"name": ""},
        {"nonce": bytes(31)},
        {"newest": 0},
        {"newest": 256},
        {"attempt": -1},
        {"last_session": bytes(33)},
        {"authenticated": 1},
    ):
        acceptor = Ends().acceptor(local("b"))
        acceptor.receive(0.0, handshake_frame(FrameKind.HELLO, encode(msgspec.structs.replace(good, **changes))))
        assert acceptor.state is State.ENDED
        assert acceptor.outgoing == []

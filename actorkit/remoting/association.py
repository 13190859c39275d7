"""Association: one connection as a state machine, from its first frame to its end.

It does no I/O and reads no clock: frames and times go in, frames and messages come out. What may come in which state
stands in ``_TRANSITIONS``; anything else ends the connection, because a peer that does not keep to the protocol is no
peer. In two states its owner decides how it goes on: ``MEETING`` (the other end has said who it is; ``prove`` or
``end``) and ``JUDGING`` (the other end has proved itself; ``accept`` or ``refuse``).

::

    initiator   GREETING ─Challenge─► MEETING ─prove─► PROVING ─Accepted─► OPEN ─► ENDED
    acceptor    LISTENING ─Hello─► CHALLENGING ─Proof─► JUDGING ─accept─► OPEN ─► ENDED
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import ClassVar

import msgspec

from actorkit.errors import FrameError, WireError
from actorkit.ids import NodeId
from actorkit.remoting.arbitration import Incoming
from actorkit.remoting.events import Peer
from actorkit.remoting.handshake import (
    Accepted,
    Challenge,
    Hello,
    Local,
    Proof,
    Reason,
    Refusal,
    Secrets,
    common_version,
    decode,
    encode,
)
from actorkit.remoting.settings import RemotingSettings
from actorkit.wire.codec import Codec
from actorkit.wire.frames import FrameKind, Opener, Sealer, batch_body, handshake_frame, open_handshake

__all__ = ["Association", "State"]

Body = bytes | memoryview


class State(Enum):
    """How far a connection has come."""

    GREETING = "greeting"
    MEETING = "meeting"
    PROVING = "proving"
    LISTENING = "listening"
    CHALLENGING = "challenging"
    JUDGING = "judging"
    OPEN = "open"
    ENDED = "ended"


_BATCH = FrameKind.BATCH
_OPEN = State.OPEN


class Association:
    """One connection. ``initiate`` and ``listen`` make one; its owner sends ``outgoing`` after each call."""

    def __init__(self, local: Local, codec: Codec, settings: RemotingSettings, now_s: float, nonce: bytes) -> None:
        """``nonce`` is 32 unpredictable bytes of which nobody has heard before."""
        self.state = State.LISTENING
        self.why = ""
        """Once it has ended: why."""
        self.reason = ""
        """The other end's reason, where it has refused; one of ``Reason``."""
        self.says_why = False
        """It has ended with a frame that tells the other end so."""
        self.peer: Peer | None = None
        """Who is there; not to be believed before the state is ``JUDGING`` or ``OPEN``."""
        self.incoming: Incoming | None = None
        """Where the other end began: what arbitration goes by."""
        self.session = b""
        self.outgoing: list[bytes] = []
        """Frames to be sent, in this order. The owner takes them out."""
        self.refused: list[WireError] = []
        """Why messages were dropped. The owner takes them out."""
        self._local = local
        self._codec = codec
        self._settings = settings
        self._nonce = nonce
        self._began_s = now_s
        self._heard_s = now_s
        self._said_s = now_s
        self._hello = b""
        self._secrets: Secrets | None = None
        self._sealer: Sealer | None = None
        self._opener: Opener | None = None

    def initiate(self, *, attempt: int, last_session: bytes) -> None:
        """Begins the handshake from this side."""
        local = self._local
        hello = Hello(
            oldest=local.versions[0],
            newest=local.versions[1],
            cluster=local.cluster,
            name=local.node.name,
            incarnation=local.node.incarnation,
            address=local.address,
            authenticated=bool(local.secret),
            nonce=self._nonce,
            attempt=attempt,
            last_session=last_session,
        )
        self._hello = encode(hello)
        self.state = State.GREETING
        self.outgoing.append(handshake_frame(FrameKind.HELLO, self._hello))

    # --------------------------------------------------------------------------------------------------------- frames

    def receive(self, now_s: float, frame: bytes) -> Sequence[msgspec.Struct]:
        """What a frame brings: messages, once the connection is open. A bad frame ends the connection."""
        if self.state is State.ENDED:
            return ()
        try:
            kind, body = open_handshake(frame) if self._opener is None else self._opener.open(frame)
            if kind is _BATCH and self.state is _OPEN:
                # As the table says; it is what almost all frames are.
                self._heard_s = now_s
                return self._on_batch(body)
            handle = self._TRANSITIONS.get((self.state, kind))
            if handle is None:
                raise FrameError(f"a {kind.name} frame came where none may come ({self.state.value})")
            self._heard_s = now_s
            return handle(self, body)
        except FrameError as error:
            self.end(str(error))
            return ()

    def seal_batch(self, now_s: float, payloads: Sequence[bytes]) -> bytes:
        """A frame with these encoded messages; it must be sent next."""
        assert self._sealer is not None
        assert self.state is State.OPEN
        self._said_s = now_s
        return self._sealer.seal(FrameKind.BATCH, batch_body(payloads))

    def _on_batch(self, body: Body) -> Sequence[msgspec.Struct]:
        messages, refused = self._codec.decode_batch(body)
        if refused:
            self.refused.extend(refused)
        return messages

    def _on_heartbeat(self, body: Body) -> Sequence[msgspec.Struct]:
        if body:
            raise FrameError(f"a heartbeat carries nothing, this one has {len(body)} bytes")
        return ()

    def _on_farewell(self, body: Body) -> Sequence[msgspec.Struct]:
        self.end("it has stopped in an orderly way")
        return ()

    # ----------------------------------------------------------------------------------------------- the initiator's

    def _on_challenge(self, body: Body) -> Sequence[msgspec.Struct]:
        challenge = decode(Challenge, body)
        local = self._local
        oldest, newest = local.versions
        if challenge.cluster != local.cluster:
            raise FrameError(f"it belongs to the cluster {challenge.cluster!r}, this node to {local.cluster!r}")
        if not oldest <= challenge.version <= newest:
            raise FrameError(f"it wants to speak protocol {challenge.version}, this node speaks {oldest} to {newest}")
        if challenge.authenticated != bool(local.secret):
            raise FrameError(_one_has_no_secret(ours=bool(local.secret)))
        self.peer = Peer(NodeId(challenge.name, challenge.incarnation), challenge.address, challenge.version)
        self._secrets = Secrets(local.secret, self._hello, bytes(body))
        self.state = State.MEETING
        return ()

    def prove(self) -> None:
        """In ``MEETING``: goes on with the one who is there."""
        assert self.state is State.MEETING
        assert self._secrets is not None
        self.state = State.PROVING
        self._say(FrameKind.PROOF, encode(Proof(self._secrets.proof_of("initiator"))))

    def _on_accepted(self, body: Body) -> Sequence[msgspec.Struct]:
        assert self._secrets is not None
        if not self._secrets.proves("acceptor", decode(Accepted, body).proof):
            raise FrameError("it does not know the cluster's secret")
        self._open(ours="initiator", theirs="acceptor")
        return ()

    def _on_refusal(self, body: Body) -> Sequence[msgspec.Struct]:
        refusal = decode(Refusal, body)
        self.reason = refusal.reason
        self.end(f"it refuses: {refusal.why}")
        return ()

    # ------------------------------------------------------------------------------------------------ the acceptor's

    def _on_hello(self, body: Body) -> Sequence[msgspec.Struct]:
        hello = decode(Hello, body)
        local = self._local
        node = NodeId(hello.name, hello.incarnation)
        version = common_version(local.versions, (hello.oldest, hello.newest))
        if hello.cluster != local.cluster:
            self.refuse(Reason.CLUSTER, f"this is a node of the cluster {local.cluster!r}")
        elif node == local.node:
            self.refuse(Reason.ITSELF, "this is the same node")
        elif version is None:
            oldest, newest = local.versions
            self.refuse(Reason.VERSION, f"this node speaks protocol versions {oldest} to {newest}")
        elif hello.authenticated != bool(local.secret):
            self.refuse(Reason.SECRET, _one_has_no_secret(ours=hello.authenticated))
        else:
            challenge = Challenge(
                version=version,
                cluster=local.cluster,
                name=local.node.name,
                incarnation=local.node.incarnation,
                address=local.address,
                authenticated=bool(local.secret),
                nonce=self._nonce,
            )
            said = encode(challenge)
            self._secrets = Secrets(local.secret, bytes(body), said)
            self.peer = Peer(node, hello.address, version)
            self.incoming = Incoming(node, hello.attempt, hello.last_session)
            self.state = State.CHALLENGING
            self._say(FrameKind.CHALLENGE, said)
        return ()

    def _on_proof(self, body: Body) -> Sequence[msgspec.Struct]:
        assert self._secrets is not None
        if self._secrets.proves("initiator", decode(Proof, body).proof):
            self.state = State.JUDGING
        else:
            self.refuse(Reason.SECRET, "the proof does not fit this cluster's secret")
        return ()

    def accept(self) -> None:
        """In ``JUDGING``: lets the peer in."""
        assert self.state is State.JUDGING
        assert self._secrets is not None
        self._say(FrameKind.ACCEPTED, encode(Accepted(self._secrets.proof_of("acceptor"))))
        self._open(ours="acceptor", theirs="initiator")

    def refuse(self, reason: str, why: str) -> None:
        """Before it is open: tells the other end why not, and ends."""
        self.says_why = True
        self._say(FrameKind.REFUSAL, encode(Refusal(reason, why[:512])))
        self.end(f"refused: {why}")

    # ------------------------------------------------------------------------------------------------------- its life

    def _open(self, *, ours: str, theirs: str) -> None:
        secrets, peer = self._secrets, self.peer
        assert secrets is not None
        assert peer is not None
        self._sealer = Sealer(peer.version, secrets.key_of(ours))
        self._opener = Opener(peer.version, secrets.key_of(theirs), self._settings.wire)
        self.session = secrets.session
        self._said_s = self._heard_s
        self.state = State.OPEN

    def _say(self, kind: FrameKind, body: bytes) -> None:
        self.outgoing.append(handshake_frame(kind, body))

    def bid_farewell(self) -> None:
        """Tells the peer that this node stops, and ends."""
        if self.state is State.OPEN:
            assert self._sealer is not None
            self.says_why = True
            self.outgoing.append(self._sealer.seal(FrameKind.FAREWELL))
        self.end("this node stops")

    def end(self, why: str) -> None:
        """It is over, whatever was going on. The first reason stays."""
        if self.state is not State.ENDED:
            self.state = State.ENDED
            self.why = why

    def tick(self, now_s: float) -> None:
        """Does what is due: a heartbeat, or the end of one that is silent for too long."""
        settings = self._settings
        if self.state is State.ENDED:
            return
        if self.state is not State.OPEN:
            if now_s >= self._began_s + settings.handshake_timeout_s:
                self.end(f"the handshake took more than {settings.handshake_timeout_s:g} s ({self.state.value})")
            return
        if now_s >= self._heard_s + settings.idle_timeout_s:
            self.end(f"nothing was heard of it for {settings.idle_timeout_s:g} s")
        elif now_s >= self._said_s + settings.heartbeat_s:
            assert self._sealer is not None
            self._said_s = now_s
            self.outgoing.append(self._sealer.seal(FrameKind.HEARTBEAT))

    @property
    def next_tick_s(self) -> float:
        """When ``tick`` has something to do next, unless anything happens before."""
        settings = self._settings
        if self.state is not State.OPEN:
            return self._began_s + settings.handshake_timeout_s
        return min(self._heard_s + settings.idle_timeout_s, self._said_s + settings.heartbeat_s)

    _TRANSITIONS: ClassVar[dict[tuple[State, FrameKind], _Handler]] = {
        (State.GREETING, FrameKind.CHALLENGE): _on_challenge,
        (State.GREETING, FrameKind.REFUSAL): _on_refusal,
        (State.PROVING, FrameKind.ACCEPTED): _on_accepted,
        (State.PROVING, FrameKind.REFUSAL): _on_refusal,
        (State.LISTENING, FrameKind.HELLO): _on_hello,
        (State.CHALLENGING, FrameKind.PROOF): _on_proof,
        (State.OPEN, FrameKind.BATCH): _on_batch,
        (State.OPEN, FrameKind.HEARTBEAT): _on_heartbeat,
        (State.OPEN, FrameKind.FAREWELL): _on_farewell,
    }
    """Which frame may come in which state, and what it does."""


_Handler = Callable[[Association, Body], Sequence[msgspec.Struct]]


def _one_has_no_secret(*, ours: bool) -> str:
    has, lacks = ("this node", "the other") if ours else ("the other node", "this one")
    return f"{has} has a secret and {lacks} has none: give all nodes of a cluster the same"

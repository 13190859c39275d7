"""Handshake: who is there, which protocol is spoken, and the proof that both know the cluster's secret.

::

    initiator                                                     acceptor
       ── Hello     versions, cluster, node, address, nonce ──►
       ◄── Challenge  version, cluster, node, address, nonce ──
       ── Proof     HMAC(secret, "initiator", transcript) ──►              it knows the secret, so: let it in
       ◄── Accepted HMAC(secret, "acceptor", transcript) ──                it knows it too

The transcript is a hash of the Hello and the Challenge as they were on the wire. So a proof holds for these two nodes,
these two nonces, this version and this direction only: it can neither be replayed, nor reflected to the one who made
it, nor be got by changing what was offered. Both directions get keys of their own, derived from the secret and the
transcript; whoever passes the handshake on unchanged still has no key, and so cannot add a frame of his own.

The initiator proves itself first, so that a stranger who knocks gets nothing from which he could guess at secrets. This
is the challenge-response of ISO/IEC 9798-4 (mutual, three passes), with keys derived as in HKDF's second step.
"""

from __future__ import annotations

from hashlib import sha256
from hmac import compare_digest, digest
from typing import Annotated, Final, TypeVar

import msgspec

from actorkit.errors import FrameError
from actorkit.ids import NodeId

__all__ = [
    "NONCE_BYTES",
    "PROTOCOL_VERSIONS",
    "SECRET_MIN_BYTES",
    "Accepted",
    "Challenge",
    "Hello",
    "Local",
    "Proof",
    "Reason",
    "Refusal",
    "Secrets",
    "common_version",
    "decode",
    "encode",
]

PROTOCOL_VERSIONS: Final = (1, 1)
"""The oldest and the newest that this program speaks. A release that raises one keeps the other for one release."""

NONCE_BYTES: Final = 32
SECRET_MIN_BYTES: Final = 16

_SESSION_BYTES = 16

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Nonce = Annotated[bytes, msgspec.Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
Version = Annotated[int, msgspec.Meta(ge=1, le=255)]
Digest = Annotated[bytes, msgspec.Meta(max_length=32)]


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """The initiator says who it is."""

    oldest: Version
    newest: Version
    cluster: Name
    name: Name
    incarnation: Name
    address: Name
    authenticated: bool
    """Whether it has a secret and expects one."""
    nonce: Nonce
    attempt: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Numbers its attempts, so that a late one is told from a new one."""
    last_session: Digest = b""
    """Its last session with this peer, which is over on its side."""


class Challenge(msgspec.Struct, frozen=True, array_like=True):
    """The acceptor says who it is, and what is to be proved."""

    version: Version
    cluster: Name
    name: Name
    incarnation: Name
    address: Name
    authenticated: bool
    nonce: Nonce


class Proof(msgspec.Struct, frozen=True, array_like=True):
    """The initiator's proof; empty without a secret."""

    proof: Digest


class Accepted(msgspec.Struct, frozen=True, array_like=True):
    """The acceptor's proof; empty without a secret."""

    proof: Digest


class Reason:
    """Why a connection is refused, as a name that programs go by."""

    CLUSTER = "other-cluster"
    VERSION = "no-common-version"
    ITSELF = "itself"
    SECRET = "wrong-secret"  # noqa: S105 - a name
    DUPLICATE = "connected-already"
    BUSY = "busy"
    STOPPING = "stopping"


class Refusal(msgspec.Struct, frozen=True, array_like=True):
    """No connection, and why. Not authenticated: it says no more than that the link will be closed."""

    reason: Annotated[str, msgspec.Meta(max_length=64)]
    why: Annotated[str, msgspec.Meta(max_length=512)]


class Local(msgspec.Struct, frozen=True, kw_only=True):
    """This node, as it introduces itself."""

    node: NodeId
    address: str
    cluster: str
    secret: bytes = b""
    versions: tuple[int, int] = PROTOCOL_VERSIONS


Part = TypeVar("Part", Hello, Challenge, Proof, Accepted, Refusal)

encode = msgspec.msgpack.Encoder().encode
"""A part of the handshake as the body of its frame."""

_decoders = {part: msgspec.msgpack.Decoder(part) for part in (Hello, Challenge, Proof, Accepted, Refusal)}


def decode(part: type[Part], body: bytes | memoryview) -> Part:
    """Raises ``FrameError`` where the body is not that part."""
    try:
        decoded = _decoders[part].decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise FrameError(f"this is no {part.__name__}: {error}") from error
    assert isinstance(decoded, part)
    return decoded


def common_version(ours: tuple[int, int], theirs: tuple[int, int]) -> int | None:
    """The newest that both speak."""
    version = min(ours[1], theirs[1])
    return version if version >= max(ours[0], theirs[0]) else None


class Secrets:
    """What follows from a secret and one handshake. Without a secret all proofs and keys are empty."""

    __slots__ = ("_secret", "_transcript", "session")

    def __init__(self, secret: bytes, hello: bytes, challenge: bytes) -> None:
        """``hello`` and ``challenge`` are the bodies as they were on the wire."""
        self._secret = secret
        sized = len(hello).to_bytes(4, "big") + hello + len(challenge).to_bytes(4, "big") + challenge
        self._transcript = sha256(sized).digest()
        self.session = self._transcript[:_SESSION_BYTES]
        """Names the session on both sides. No secret."""

    def proof_of(self, role: str) -> bytes:
        """What only the owner of the secret can say, in that role."""
        return self._derived(f"proof of {role}")

    def proves(self, role: str, proof: bytes) -> bool:
        """Whether it is that."""
        return compare_digest(proof, self.proof_of(role))

    def key_of(self, role: str) -> bytes:
        """The key of frames that this role sends."""
        return self._derived(f"frames of {role}")

    def _derived(self, purpose: str) -> bytes:
        if not self._secret:
            return b""
        return digest(self._secret, f"actorkit remoting: {purpose}: ".encode() + self._transcript, "sha256")

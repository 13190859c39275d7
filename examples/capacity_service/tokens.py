"""Consistency tokens: which write a client has seen, in a form that it only carries around.

A token is the URL-safe Base64 of a checksum and what it covers: the token's own version, the pool and the sequence
number of its event. The checksum finds accidents, not forgers: a made-up token can do no more than let its sender wait.
"""

from __future__ import annotations

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec

__all__ = ["TOKEN_PATTERN", "Token", "TokenError", "decode_token", "encode_token"]

TOKEN_MAX: Final = 1024
TOKEN_PATTERN: Final = r"^[A-Za-z0-9_-]{1,1024}\Z"  # noqa: S105 - not a secret
_CHECKSUM_BYTES: Final = 8
_FORMAT: Final = 1

_is_token: Final = re.compile(r"[A-Za-z0-9_-]{1,1024}").fullmatch


class TokenError(ValueError):
    """The text is not a token that a service of this version has made."""


class Token(NamedTuple):
    """A write: the pool, and the version that it has brought it to."""

    pool_id: str
    version: int


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(tuple[int, str, int])


def encode_token(pool_id: str, version: int) -> str:
    covered = _encoder.encode((_FORMAT, pool_id, version))
    return urlsafe_b64encode(_checksum(covered) + covered).rstrip(b"=").decode("ascii")


def decode_token(text: str) -> Token:
    """Raises ``TokenError``."""
    if _is_token(text) is None:
        raise TokenError(f"a token has 1 to {TOKEN_MAX} characters out of A-Z a-z 0-9 _ -")
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        checksum, covered = raw[:_CHECKSUM_BYTES], raw[_CHECKSUM_BYTES:]
        if _checksum(covered) != checksum:
            raise TokenError("the token is damaged: its checksum does not fit")
        form, pool_id, version = _decoder.decode(covered)
    except (binascii.Error, msgspec.MsgspecError) as error:
        raise TokenError("the token is damaged") from error
    if form != _FORMAT:
        raise TokenError(f"the token is of version {form}, which is not known here")
    if text != encode_token(pool_id, version):
        raise TokenError("the token is damaged: it is not in the form in which tokens are made")
    return Token(pool_id, version)


def _checksum(covered: bytes) -> bytes:
    return blake2b(covered, digest_size=_CHECKSUM_BYTES).digest()

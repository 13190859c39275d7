"""Consistency tokens: which write a client has seen, in a form that it only carries around.

A token is the Base64 of a checksum and what it covers: the token's own format, the sequence number of the write's event
and its pool. The checksum finds accidents, not forgers: a made-up token can do no more than let its sender wait.
"""

from __future__ import annotations

import re
from binascii import Error, a2b_base64, b2a_base64
from typing import Final, NamedTuple
from zlib import crc32

__all__ = ["TOKEN_PATTERN", "Token", "TokenError", "decode_token", "encode_token"]

TOKEN_PATTERN: Final = r"^[A-Za-z0-9+/]{1,1022}={0,2}\Z"  # noqa: S105 - not a secret
_CHECKSUM_BYTES: Final = 4

_is_token: Final = re.compile(r"[A-Za-z0-9+/]{1,1022}={0,2}").fullmatch
_covered: Final = re.compile(rb"1 ([0-9]{1,19}) ([A-Za-z0-9._:-]{1,128})").fullmatch


class TokenError(ValueError):
    """The text is not a token that a service of this version has made."""


class Token(NamedTuple):
    """A write: the pool, and the version that it has brought it to."""

    pool_id: str
    version: int


def encode_token(pool_id: str, version: int) -> str:
    covered = f"1 {version} {pool_id}".encode("ascii")
    return b2a_base64(crc32(covered).to_bytes(_CHECKSUM_BYTES, "big") + covered, newline=False).decode("ascii")


def decode_token(text: str) -> Token:
    """Raises ``TokenError``."""
    if _is_token(text) is None:
        raise TokenError("a token has at most 1,024 characters, and is in Base64")
    try:
        raw = a2b_base64(text, strict_mode=True)
    except Error:
        raise TokenError("the token is damaged: it is not in Base64") from None
    checksum, covered = raw[:_CHECKSUM_BYTES], raw[_CHECKSUM_BYTES:]
    if crc32(covered).to_bytes(_CHECKSUM_BYTES, "big") != checksum:
        raise TokenError("the token is damaged: its checksum does not fit")
    found = _covered(covered)
    if found is None:
        raise TokenError("the token is of a format that is not known here")
    token = Token(found[2].decode("ascii"), int(found[1]))
    if text != encode_token(token.pool_id, token.version):
        raise TokenError("the token is damaged: it is not in the form in which tokens are made")
    return token

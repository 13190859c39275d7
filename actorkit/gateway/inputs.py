"""Checks of what comes in with a request besides its path: headers and tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable
from copy import copy
from functools import lru_cache
from hashlib import sha256
from typing import Final

from actorkit.gateway.problems import INVALID_REQUEST, UNAUTHENTICATED, UNSUPPORTED_MEDIA_TYPE, Problem

__all__ = ["BearerTokens", "check_json_content_type", "parse_idempotency_key", "single"]

_is_key: Final = re.compile(r"[ -~]{1,128}").fullmatch
_is_token: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*").fullmatch
_CHARSET: Final = re.compile(r"""\s*charset\s*=\s*("?)utf-8\1\s*""", re.IGNORECASE)


def single(name: str, values: list[str]) -> str | None:
    """The one value of a header, or ``None`` where it is absent. Raises ``Problem`` if it is there twice."""
    if not values:
        return None
    if len(values) > 1:
        raise Problem(INVALID_REQUEST, f"the header {name} is given {len(values)} times")
    return values[0]


def parse_idempotency_key(values: list[str]) -> str | None:
    """Raises ``Problem`` unless there is no key or one of 1 to 128 printable ASCII characters."""
    key = single("Idempotency-Key", values)
    if key is not None and _is_key(key) is None:
        raise Problem(INVALID_REQUEST, "an Idempotency-Key has 1 to 128 printable ASCII characters")
    return key


def check_json_content_type(values: list[str]) -> None:
    """Raises ``Problem`` unless there is one content type and it is JSON in UTF-8."""
    value = single("Content-Type", values)
    if value is None or not _is_json(value):
        raise Problem(UNSUPPORTED_MEDIA_TYPE, "the Content-Type must be application/json")


@lru_cache(maxsize=256)
def _is_json(content_type: str) -> bool:
    media_type, *parameters = content_type.split(";")
    if media_type.strip().lower() != "application/json":
        return False
    return all(not parameter.strip() or _CHARSET.fullmatch(parameter) for parameter in parameters)


class BearerTokens:
    """The tokens that clients may show, kept as digests: a comparison of digests does not tell how near a guess was."""

    def __init__(self, tokens: Iterable[str]) -> None:
        self._digests = frozenset(sha256(token.encode("ascii")).digest() for token in tokens)
        if not self._digests:
            raise ValueError("there is no token in it")

    def __or__(self, other: BearerTokens) -> BearerTokens:
        """Those of both."""
        both = copy(self)
        both._digests = self._digests | other._digests
        return both

    @classmethod
    def parse(cls, text: str) -> BearerTokens:
        """One token a line; empty lines and those that begin with # do not count. Raises ``ValueError``."""
        tokens: list[str] = []
        for number, line in enumerate(text.splitlines(), 1):
            token = line.strip()
            if not token or token.startswith("#"):
                continue
            if _is_token(token) is None:
                raise ValueError(f"line {number} is not a bearer token: it may have letters, digits and ._~+/- only")
            tokens.append(token)
        return cls(tokens)

    def check(self, values: list[str]) -> None:
        """Raises ``Problem`` unless one of the tokens is shown."""
        scheme, _, shown = (values[0] if len(values) == 1 else "").partition(" ")
        token = shown.strip().encode("utf-8", "replace")
        if scheme.lower() != "bearer" or sha256(token).digest() not in self._digests:
            raise Problem(
                UNAUTHENTICATED,
                "send a valid token as Authorization: Bearer <token>",
                headers={"WWW-Authenticate": "Bearer"},
            )

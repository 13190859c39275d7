"""Heads of requests that have come before: a client sends the same one again and again, mostly.

Whatever a head says follows from its bytes alone. So one that was parsed and found right is kept, and the next request
that begins with the same bytes needs neither. Heads that differ each time, as with an idempotency key, are not kept.

Memory is bounded: twice ``_KEPT_MAX`` heads at most, and of these the ones that come again stay.

Pure.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

from multidict import CIMultiDictProxy

__all__ = ["END", "Head", "Heads"]

R = TypeVar("R")

END: Final = b"\r\n\r\n"
"""What separates a head from its body."""
_KEPT_MAX: Final = 512
_BYTES_MAX: Final = 2048


class Head(Generic[R]):
    """What a head says."""

    __slots__ = ("body_bytes", "headers", "method", "route", "target")

    def __init__(self, method: str, target: str, headers: CIMultiDictProxy[str], route: R, body_bytes: int) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.route = route
        self.body_bytes = body_bytes


class Heads(Generic[R]):
    """The last ones, by their bytes up to ``END``."""

    def __init__(self) -> None:
        self._recent: dict[bytes, Head[R]] = {}
        self._before: dict[bytes, Head[R]] = {}

    def get(self, raw: bytes) -> Head[R] | None:
        """What these bytes have said before, if that is still known."""
        head = self._recent.get(raw)
        if head is None:
            head = self._before.get(raw)
            if head is not None:
                self.keep(raw, head)
        return head

    def keep(self, raw: bytes, head: Head[R]) -> None:
        """Remembers what they say, unless they are unusually many."""
        if len(raw) > _BYTES_MAX:
            return
        if len(self._recent) == _KEPT_MAX:
            self._before, self._recent = self._recent, {}
        self._recent[raw] = head

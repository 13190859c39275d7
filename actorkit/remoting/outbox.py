"""Outbox: encoded messages that wait for one peer, within bounds."""

from __future__ import annotations

from collections import deque

__all__ = ["Outbox"]


class Outbox:
    """First in, first out."""

    __slots__ = ("_batch_max_bytes", "_max_bytes", "_max_messages", "_payloads", "size_bytes")

    def __init__(self, *, max_messages: int, max_bytes: int, batch_max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._batch_max_bytes = batch_max_bytes
        self._payloads: deque[bytes] = deque()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._payloads)

    def offer(self, payload: bytes) -> bool:
        """Takes it, unless that would exceed a bound."""
        size_bytes = self.size_bytes + len(payload)
        if len(self._payloads) >= self._max_messages or size_bytes > self._max_bytes:
            return False
        self._payloads.append(payload)
        self.size_bytes = size_bytes
        return True

    def take_batch(self) -> list[bytes]:
        """The next messages, as many as go in one frame; at least one where there is any."""
        payloads = self._payloads
        batch: list[bytes] = []
        if self.size_bytes <= self._batch_max_bytes:
            batch.extend(payloads)
            self.clear()
            return batch
        size_bytes = 0
        while payloads and (not batch or size_bytes + len(payloads[0]) <= self._batch_max_bytes):
            batch.append(payloads.popleft())
            size_bytes += len(batch[-1])
        self.size_bytes -= size_bytes
        return batch

    def clear(self) -> int:
        """Throws everything away; returns how many there were."""
        count = len(self._payloads)
        self._payloads.clear()
        self.size_bytes = 0
        return count

    def move_to(self, other: Outbox) -> int:
        """Hands everything over in order; returns how many found no room there."""
        lost = sum(not other.offer(payload) for payload in self._payloads)
        self.clear()
        return lost

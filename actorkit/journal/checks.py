"""What every journal refuses, and how large an append counts: the same rules for all backends."""

from __future__ import annotations

from actorkit.journal.protocols import Append

__all__ = ["append_bytes", "refusal", "storable"]

_INT64_MAX = (1 << 63) - 1


def append_bytes(append: Append) -> int:
    """How many bytes of content an append carries: payloads, metadata (kept once per event), outcome."""
    outcome = append.outcome
    size = len(append.metadata) if outcome is None else len(append.metadata) + len(outcome)
    for event in append.events:
        size += len(event[2])
    return size


def refusal(append: Append, *, shards: int, payload_max_bytes: int) -> str | None:
    """Why a journal never stores this append, or ``None`` if it does. Cheap: every append passes here."""
    for event in append.events:
        if len(event[2]) > payload_max_bytes:
            return f"the payload of {event[0]} has {len(event[2])} bytes: at most {payload_max_bytes} are stored"
    if len(append.metadata) > payload_max_bytes:
        return f"the metadata has {len(append.metadata)} bytes: at most {payload_max_bytes} are stored"
    outcome = append.outcome
    if outcome is not None and len(outcome) > payload_max_bytes:
        return f"the outcome has {len(outcome)} bytes: at most {payload_max_bytes} are stored"
    if outcome is None and not append.events:
        return "there is nothing to store: neither an event nor an outcome"
    if not 0 <= append.shard < shards:
        return f"there is no shard {append.shard}: the journal has {shards}"
    return None


def storable(append: Append) -> str | None:
    """Why an engine cannot represent this append, or ``None`` if it can.

    Engines store text as UTF-8 and numbers in 64 bits. Violations are so rare that the hot path does not look for
    them: a backend calls this when a batch turned out not to be representable, to find out which append it was.
    """
    texts = [append.stream, append.key or "", *(event.type for event in append.events)]
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError as error:
        return f"{error.object[:40]!r} cannot be written as UTF-8"
    numbers = [append.time_us, append.expected, append.epoch, *(event.version for event in append.events)]
    if any(abs(number) > _INT64_MAX for number in numbers):
        return "a number does not fit in 64 bits"
    return None

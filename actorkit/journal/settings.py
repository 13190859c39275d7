"""What can be set about journals, with units, formulas and costs."""

from __future__ import annotations

import msgspec

__all__ = ["WriterSettings"]


class WriterSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The group-commit writer of a process."""

    batch_max_appends: int = 4096
    """The most appends in one commit. More amortises a flush better, but a commit lasts longer (about 10 µs each)."""
    batch_max_bytes: int = 8 << 20
    """The most content in one commit; a single larger append still goes, alone."""
    queue_max_appends: int = 65_536
    """How many appends may wait for the next commits; beyond that, ``Overloaded``. About 1 s of work at full speed."""
    queue_max_bytes: int = 64 << 20
    """How much content may wait; this bounds the writer's memory."""
    append_timeout_s: float = 10.0
    """How long a commit may take until its appends count as uncertain. Longer than the store's own time limits."""
    overdue_max_batches: int = 4
    """How many batches may be without an answer after their timeout; beyond that, nothing more is sent to the store."""
    close_timeout_s: float = 5.0
    """How long closing waits for what is queued; then the rest is given up."""

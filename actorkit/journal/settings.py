"""What can be set about journals, with units, formulas and costs."""

from __future__ import annotations

import msgspec

__all__ = ["SqliteSettings", "WriterSettings"]


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


class SqliteSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A journal in one SQLite file."""

    busy_timeout_s: float = 5.0
    """How long one call waits for other processes: first for its turn at the file, then for SQLite's own lock."""
    gate_max_s: float = 0.25
    """How long a process waits for the one that is next in line before it goes around it, which may have been stopped.
    Shorter: less delay by that, for less fairness where turns last long. Well below ``lease_renew_timeout_s``."""
    payload_max_bytes: int = 1 << 20
    """The largest payload, metadata or outcome of one record. Large records hold up everything behind them."""
    jobs_max: int = 1024
    """How many writes may wait for the writer's thread; beyond that, ``JournalUnavailable``."""
    reads_max: int = 10_000
    """How many reads may be under way or waiting; beyond that, ``JournalUnavailable``."""
    replay_max_bytes: int = 4 << 20
    """The most payload that a replay reads at once; a single larger one still is, alone. It holds three such pages."""
    streams_cached_max: int = 100_000
    """How many streams' numbers the writer remembers, at about 250 bytes each; others cost one look-up per batch."""
    checkpoint_pages: int = 16_000
    """After about how many pages (4 KiB) in the log file its content moves to the database. Fewer: the same pages are
    written more often (4,000 cost a tenth of the throughput); more: a larger file, a longer start after a crash."""
    wal_max_bytes: int = 256 << 20
    """Beyond this size the log file is cut, for which readers are waited for. Twice ``checkpoint_pages`` or more."""
    truncate_timeout_s: float = 0.2
    """How long cutting the log file waits for readers while appends wait; then it is tried again later."""
    cache_max_kib: int = 64 << 10
    """The writer's page cache."""
    process_after_appends: int | None = 1_000
    """After so many appends in commits of 16 or more, a process of its own stores them, which makes about twice as many
    a second and costs about 30 MiB. 0: from the start; ``None``: never (as where no process can be started)."""

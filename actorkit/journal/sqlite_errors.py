"""What an error of SQLite means for what was asked.

The question is always: is it stored? Before anything was written the answer is no. After a commit that failed nobody
knows: such a commit was seen absent in the same file, and present again after a kill. After a sync that failed not even
a later success means anything, because the kernel then counts the lost pages as written (Rebello et al., "Can
applications recover from fsync failures?", 2020): the process must end.
"""

from __future__ import annotations

import sqlite3

from actorkit.errors import AppendUncertain, JournalCorrupt, JournalError, JournalFailed, JournalUnavailable

__all__ = ["is_busy", "is_fatal", "no_turn", "read_error", "write_error"]

_FATAL = frozenset(
    {
        "SQLITE_IOERR_FSYNC",
        "SQLITE_IOERR_DIR_FSYNC",
        "SQLITE_IOERR_VNODE",
        "SQLITE_IOERR_DATA",
        "SQLITE_IOERR_CORRUPTFS",
        "SQLITE_READONLY_DBMOVED",
        "SQLITE_NOTADB",
    }
)


def _name(error: BaseException) -> str:
    return getattr(error, "sqlite_errorname", None) or ""


def is_busy(error: BaseException) -> bool:
    """Whether somebody else holds a lock on the file."""
    return _name(error).startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def is_fatal(error: BaseException) -> bool:
    """Whether nothing that the file says can be trusted from now on."""
    name = _name(error)
    return name in _FATAL or name.startswith("SQLITE_CORRUPT")


def no_turn(file: str, within_s: float) -> str:
    """What is said where another process has had the turn at the file for so long."""
    return (
        f"{file}: no turn within {within_s:g} s, nothing was stored; retry. Another process has the lock beside the "
        "file and keeps it: if it is stopped, let it go on or kill it"
    )


def write_error(error: sqlite3.Error, file: str, *, written: bool) -> JournalError:
    """The error of a write; ``written`` says whether anything may have reached the disk by then."""
    text = f"{file}: {error} ({_name(error) or type(error).__name__})"
    translated: JournalError
    if is_fatal(error):
        translated = JournalFailed(f"{text}: what is on disk is no longer known, this process must end")
    elif written:
        translated = AppendUncertain(f"{text}: whether the write is stored is unknown")
    elif is_busy(error):
        translated = JournalUnavailable(f"{text}: another process holds the file, nothing was stored; retry")
    else:
        translated = JournalUnavailable(f"{text}: nothing was stored")
    translated.__cause__ = error
    return translated


def read_error(error: sqlite3.Error, file: str) -> JournalError:
    """The error of a read."""
    text = f"{file}: {error} ({_name(error) or type(error).__name__})"
    translated: JournalError
    if _name(error).startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        translated = JournalCorrupt(f"{text}: restore the file from a backup")
    else:
        translated = JournalUnavailable(text)
    translated.__cause__ = error
    return translated

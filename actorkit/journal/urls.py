"""From a URL to a journal.

::

    memory://                     in this process, for tests and first steps
    sqlite:///relative.db         a file, from the current directory
    sqlite:////absolute.db        a file
"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from actorkit.clock import Clock
from actorkit.errors import ConfigurationError
from actorkit.journal.memory import MemoryJournal
from actorkit.journal.protocols import Store
from actorkit.journal.sqlite import SqliteJournal

__all__ = ["journal_from_url"]

_THERE_ARE = "there are memory://, sqlite:///relative.db and sqlite:////absolute.db"


def journal_from_url(url: str, *, clock: Clock) -> Store:
    """The journal that a URL names, not yet opened. Raises ``ConfigurationError`` for a URL that names none."""
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise ConfigurationError(f"the journal URL {url!r} has parameters, and no journal takes any: {_THERE_ARE}")
    if parts.scheme == "memory":
        if parts.netloc or parts.path.strip("/"):
            raise ConfigurationError(f"the journal URL {url!r} names a place in memory: write memory://")
        return MemoryJournal(clock=clock)
    if parts.scheme == "sqlite":
        file = unquote(parts.path)[1:]
        if parts.netloc or not file:
            raise ConfigurationError(f"the journal URL {url!r} names no file: {_THERE_ARE}")
        return SqliteJournal(file, clock=clock)
    if parts.scheme in ("postgresql", "postgres", "nats"):
        raise ConfigurationError(f"this version of actorkit has no journal for {parts.scheme}:// yet: {_THERE_ARE}")
    raise ConfigurationError(f"the journal URL {url!r} is of no known kind: {_THERE_ARE}")

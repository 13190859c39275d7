"""URLs of journals."""

from __future__ import annotations

from pathlib import Path

import pytest

from actorkit.clock import SystemClock
from actorkit.errors import ConfigurationError
from actorkit.journal.memory import MemoryJournal
from actorkit.journal.sqlite import SqliteJournal
from actorkit.journal.urls import journal_from_url


def test_memory() -> None:
    assert isinstance(journal_from_url("memory://", clock=SystemClock()), MemoryJournal)


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("sqlite:///my.db", Path.cwd() / "my.db"),
        ("sqlite:////var/lib/my.db", Path("/var/lib/my.db")),
        ("sqlite:///a/b%20c.db", Path.cwd() / "a" / "b c.db"),
    ],
)
def test_sqlite(url: str, file: Path) -> None:
    journal = journal_from_url(url, clock=SystemClock())
    assert isinstance(journal, SqliteJournal)
    assert journal.file == file


@pytest.mark.parametrize(
    "url",
    [
        "",
        "my.db",
        "sqlite://",
        "sqlite:///",
        "sqlite://host/my.db",
        "sqlite:///my.db?mode=ro",
        "memory://x",
        "mysql://x",
    ],
)
def test_other_urls_say_what_there_is(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"sqlite:///relative\.db|write memory://"):
        journal_from_url(url, clock=SystemClock())


@pytest.mark.parametrize("url", ["postgresql://host/db", "nats://host"])
def test_journals_to_come(url: str) -> None:
    with pytest.raises(ConfigurationError, match="yet"):
        journal_from_url(url, clock=SystemClock())

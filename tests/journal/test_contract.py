"""The contract, for the journals that we ship."""

from __future__ import annotations

from pathlib import Path

import pytest

from actorkit.journal.memory import MemoryJournal
from actorkit.journal.sqlite import SqliteJournal
from actorkit.testing.journal_spec import JournalSpec, MakeStore


class TestMemoryJournal(JournalSpec):
    @pytest.fixture
    def make(self) -> MakeStore:
        return lambda clock: MemoryJournal(clock=clock)


class TestSqliteJournal(JournalSpec):
    @pytest.fixture
    def make(self, tmp_path: Path) -> MakeStore:
        return lambda clock: SqliteJournal(tmp_path / "journal.db", clock=clock)

"""What a crash leaves, for the durable journals that we ship. The simulated one has it in ``tests/simulation``."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from actorkit.journal.protocols import Store
from actorkit.journal.sqlite import SqliteJournal
from actorkit.testing.journal_crash_spec import CrashStore, JournalCrashSpec
from actorkit.testing.journal_spec import MakeStore, SteppedClock


class TestSqliteCrashes(JournalCrashSpec):
    """A crash of the process: what is left is in the files, whatever the process was about to do with them."""

    @pytest.fixture
    def make(self, tmp_path: Path) -> MakeStore:
        return lambda clock: SqliteJournal(tmp_path / "journal.db", clock=clock)

    @pytest.fixture
    def crash(self, tmp_path: Path, clock: SteppedClock) -> CrashStore:
        async def crash(store: Store) -> Store:
            # The log last, and without its index: what it has gained meanwhile was written after the crash's beginning.
            for name in ("journal.db", "journal.db-wal"):
                shutil.copy(tmp_path / name, tmp_path / name.replace("journal", "left"))
            return SqliteJournal(tmp_path / "left.db", clock=clock)

        return crash

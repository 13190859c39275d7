"""The snapshot writer: what fails is dropped, and what must end the process is not kept to itself."""

from __future__ import annotations

import asyncio

from actorkit.errors import JournalFailed, JournalUnavailable
from actorkit.journal.memory import MemoryJournal
from actorkit.journal.protocols import StoredSnapshot
from actorkit.persistence.snapshot_writer import SnapshotWriter


class FailingStore(MemoryJournal):
    """Raises instead of saving, as often as it was told to."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__()
        self.errors = list(errors)
        self.asked: list[str] = []

    async def save_snapshot(self, snapshot: StoredSnapshot, *, keep: int) -> None:
        self.asked.append(snapshot.stream)
        if self.errors:
            raise self.errors.pop(0)
        await super().save_snapshot(snapshot, keep=keep)


async def saved(store: FailingStore) -> tuple[SnapshotWriter, list[JournalFailed]]:
    """Three snapshots, and what reached ``fatal``."""
    await store.open(4)
    fatal: list[JournalFailed] = []
    writer = SnapshotWriter(store, keep=1, waiting_max=10, fatal=fatal.append)
    for name in "abc":
        writer.save(StoredSnapshot(f"pool/{name}", 1, 1, b""))
    while writer._task is not None:
        await asyncio.sleep(0)
    return writer, fatal


async def test_a_snapshot_that_cannot_be_saved_is_dropped() -> None:
    writer, fatal = await saved(FailingStore(JournalUnavailable("locked")))
    assert (writer.saved, writer.failed, fatal) == (2, 1, [])


async def test_a_failed_sync_of_a_snapshot_is_fatal() -> None:
    failure = JournalFailed("fsync: input/output error")
    store = FailingStore(failure)
    writer, fatal = await saved(store)
    assert fatal == [failure]
    assert store.asked == ["pool/a"]
    assert (writer.saved, writer.failed) == (0, 1)

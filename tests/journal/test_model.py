"""Random histories: every journal does what a few plain dicts do."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actorkit.journal.memory import MemoryJournal
from actorkit.journal.protocols import Append, Appended, AppendResult, Conflict, Fenced, NewEvent, Refused, Store
from actorkit.journal.settings import SqliteSettings
from actorkit.journal.sqlite import SqliteJournal

SHARDS = 3
PAYLOAD_MAX_BYTES = 50


class Model:
    """Epochs, logs and streams, and nothing else."""

    def __init__(self) -> None:
        self.epochs = [0] * SHARDS
        self.logs: list[list[tuple[str, int, bytes, str | None]]] = [[] for _ in range(SHARDS)]
        self.sequences: dict[str, int] = {}

    def append(self, append: Append) -> AppendResult:
        if any(len(event.payload) > PAYLOAD_MAX_BYTES for event in append.events):
            return Refused("")
        if append.epoch != self.epochs[append.shard] or append.epoch == 0:
            return Fenced(self.epochs[append.shard])
        sequence = self.sequences.get(append.stream, 0)
        if append.expected != sequence:
            return Conflict(sequence)
        log = self.logs[append.shard]
        for event in append.events[:-1]:
            sequence += 1
            log.append((append.stream, sequence, event.payload, None))
        if append.events:
            sequence += 1
            log.append((append.stream, sequence, append.events[-1].payload, append.key))
        else:
            log.append((append.stream, 0, b"", append.key))
        self.sequences[append.stream] = sequence
        return Appended(len(log))


@st.composite
def appends(draw: st.DrawFn) -> tuple[int, int, int, tuple[bytes, ...], str | None]:
    """Stream number, how far the expected sequence is off, how far the epoch is off, payloads, key."""
    off = st.sampled_from([0] * 8 + [1, -1])
    sizes = st.sampled_from([0, 1, 2, 3, 50] * 3 + [51])
    payloads = draw(st.lists(sizes.map(lambda size: b"x" * size), max_size=3))
    key = draw(st.sampled_from(["k1", "k2", None]))
    return draw(st.integers(0, 5)), draw(off), draw(off), tuple(payloads), key


STEPS = st.lists(
    st.one_of(
        st.lists(appends(), max_size=8),
        st.integers(0, SHARDS - 1),
        st.just("reopen"),
    ),
    max_size=12,
)
Steps = list[list[tuple[int, int, int, tuple[bytes, ...], str | None]] | int | str]


async def run(make: Callable[[], Store], steps: Steps) -> None:
    model = Model()
    store = make()
    await store.open(SHARDS)
    try:
        for time_us, step in enumerate(steps, 1):
            if step == "reopen":
                if store.capabilities.durable:
                    await store.close()
                    store = make()
                await store.open(SHARDS)
            elif isinstance(step, int):
                model.epochs[step] += 1
                await store.acquire([step], owner="me", duration_s=60)
            elif isinstance(step, list):
                await compare_batch(model, store, step, time_us)
        await compare_contents(model, store)
    finally:
        await store.close()


async def compare_batch(
    model: Model, store: Store, step: list[tuple[int, int, int, tuple[bytes, ...], str | None]], time_us: int
) -> None:
    batch: list[Append] = []
    expected: list[AppendResult] = []
    for number, off_sequence, off_epoch, payloads, key in step:
        stream = f"pool/{number}"
        shard = number % SHARDS
        append = Append(
            shard=shard,
            epoch=max(0, model.epochs[shard] + off_epoch),
            stream=stream,
            expected=max(0, model.sequences.get(stream, 0) + off_sequence),
            events=tuple(NewEvent("Added", 1, payload) for payload in payloads),
            time_us=time_us,
            metadata=b"m",
            key=key,
            outcome=None if payloads else b"no",
        )
        batch.append(append)
        expected.append(model.append(append))
    got = [Refused("") if isinstance(result, Refused) else result for result in await store.append(batch)]
    assert got == expected


async def compare_contents(model: Model, store: Store) -> None:
    assert [(s.epoch, s.head) for s in await store.status()] == [
        (epoch, len(log)) for epoch, log in zip(model.epochs, model.logs, strict=True)
    ]
    for shard, log in enumerate(model.logs):
        records = await store.read_log(shard, after=0, limit=1000)
        assert [(r.stream, r.sequence, r.payload, r.key) for r in records] == log
        assert [r.position for r in records] == list(range(1, len(log) + 1))
    records = [record for log in model.logs for record in log]
    assert await store.streams("pool", after="", limit=100) == sorted({stream for stream, _, _, _ in records})
    for number in range(6):
        stream = f"pool/{number}"
        read = await store.read_stream(stream, after=0, limit=1000)
        assert [r.sequence for r in read] == list(range(1, model.sequences.get(stream, 0) + 1))
        keyed = [(r[1], r[2], r[3]) for r in records if r[0] == stream and r[3] is not None]
        recent = await store.recent_keys(stream, since_us=0, limit=1000)
        assert [(r.sequence, r.payload, r.key) for r in recent] == keyed[::-1]
        assert await store.count_keys(stream, since_us=0) == len(keyed)
        for key in ("k1", "k2"):
            found = await store.find_key(stream, key, since_us=0)
            newest = [record for record in keyed if record[2] == key][-1:]
            assert ([(found.sequence, found.payload, found.key)] if found is not None else []) == newest


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_memory_is_as_the_model(steps: Steps) -> None:
    asyncio.run(run(lambda: MemoryJournal(payload_max_bytes=PAYLOAD_MAX_BYTES), steps))


@pytest.mark.parametrize("streams_cached_max", [2, 100])
def test_sqlite_is_as_the_model(streams_cached_max: int) -> None:
    made = SqliteSettings(
        payload_max_bytes=PAYLOAD_MAX_BYTES, streams_cached_max=streams_cached_max, checkpoint_pages=20
    )

    @settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
    @given(STEPS)
    def check(steps: Steps) -> None:
        with tempfile.TemporaryDirectory() as directory:
            asyncio.run(run(lambda: SqliteJournal(Path(directory) / "journal.db", settings=made), steps))

    check()

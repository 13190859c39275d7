"""How fast does an entity come back: from 100,000 events, and from a snapshot?

Ours is everything from opening the system's reference to the first answer: taking the shard, reading, checking that no
event is missing, decoding, folding. The floor decodes and folds in a plain loop what one SELECT hands it.
"""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import msgspec

import actorkit
from actorkit import ActorSystem
from bench.measure import interleaved, result, scratch
from bench.pools import Pool, PoolState, Reserved

EVENTS = 100_000
EVENTS_AT_ONCE = 1_000
ROUNDS = 7
TARGET = 0.6

Snapshot = tuple[Any, ...]


async def _fill(journal: Path) -> None:
    async with ActorSystem(journal=f"sqlite:///{journal}") as system:
        pool = system.get(Pool, "pool")
        for _ in range(EVENTS // EVENTS_AT_ONCE):
            await pool.reserve_each(EVENTS_AT_ONCE)


def _snapshots(journal: Path) -> list[Snapshot]:
    db = sqlite3.connect(journal)
    rows = db.execute("SELECT stream, sequence, time_us, payload FROM snapshot").fetchall()
    db.close()
    return rows


def _set_snapshots(journal: Path, rows: list[Snapshot]) -> None:
    db = sqlite3.connect(journal)
    db.execute("DELETE FROM snapshot")
    db.executemany("INSERT INTO snapshot(stream, sequence, time_us, payload) VALUES (?, ?, ?, ?)", rows)
    db.commit()
    db.close()


async def _ours(journal: Path) -> float:
    """Recoveries a second, each from the first message to its answer."""
    async with ActorSystem(journal=f"sqlite:///{journal}") as system:
        begin_s = time.perf_counter()
        free = await system.get(Pool, "pool").free()
        took_s = time.perf_counter() - begin_s
    assert free == 10**12 - EVENTS
    return 1 / took_s


async def _floor(journal: Path) -> float:
    db = sqlite3.connect(journal)
    begin_s = time.perf_counter()
    state, after = PoolState(), 0
    snapshot = db.execute("SELECT sequence, payload FROM snapshot").fetchone()
    if snapshot is not None:
        after, payload = snapshot
        state = msgspec.msgpack.decode(_state_of(payload), type=PoolState)
    decode = msgspec.msgpack.Decoder(Reserved).decode
    for (payload,) in db.execute("SELECT payload FROM record WHERE sequence > ? ORDER BY stream, sequence", (after,)):
        state.reserved(decode(payload))
    took_s = time.perf_counter() - begin_s
    db.close()
    assert state.free == 10**12 - EVENTS
    return 1 / took_s


def _state_of(payload: bytes) -> bytes:
    """The encoded state within a stored snapshot: behind the checksum, the last member."""
    _, _, _, state = msgspec.msgpack.decode(payload[16:])
    assert isinstance(state, bytes)
    return state


def run() -> list[dict[str, Any]]:
    """From events alone, and from a snapshot with its tail."""
    lines: list[dict[str, Any]] = []
    with scratch() as directory:
        journal = directory / "recovery.db"
        actorkit.run(_fill(journal))
        newest = max(_snapshots(journal), key=lambda row: row[1])
        for name, snapshots in (
            (f"recovery from {EVENTS:,} events", []),
            (f"recovery from a snapshot and {EVENTS - newest[1]:,} events", [newest]),
        ):

            async def ours(snapshots: list[Snapshot] = snapshots) -> float:
                # Recovery takes a snapshot itself when it took long: each turn begins with the same ones.
                _set_snapshots(journal, snapshots)
                return await _ours(journal)

            async def floor(snapshots: list[Snapshot] = snapshots) -> float:
                _set_snapshots(journal, snapshots)
                return await _floor(journal)

            values, floors = actorkit.run(interleaved(ours, floor, rounds=ROUNDS))
            question = f"{name}, against decoding and folding in a plain loop"
            lines.append(result(question, "1/s", values, floors, target=TARGET))
    return lines


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))

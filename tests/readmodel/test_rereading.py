"""Entities that could not be read are read again, as often as that is asked for."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from actorkit.errors import JournalUnavailable
from actorkit.readmodel.rereading import Rereading


class Reader:
    """Stands in for the one that reads the journal."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.fails = 0
        self.go = asyncio.Event()

    async def read_stream(self, entity_type: Any, stream: str) -> bool:
        self.began.append(stream)
        await self.go.wait()
        if self.fails:
            self.fails -= 1
            raise JournalUnavailable("the test says so")
        return True


def rereading(reader: Reader) -> Rereading:
    return Rereading(cast("Any", reader), fatal=lambda error: None)


async def ended(reading: Rereading) -> None:
    async with asyncio.timeout(60):
        while reading.busy:
            await asyncio.sleep(0.01)


async def test_what_is_asked_for_while_it_is_being_read_is_read_once_more() -> None:
    reader = Reader()
    reading = rereading(reader)
    reading.add(1, "pool/p", cast("Any", None))
    while not reader.began:
        await asyncio.sleep(0)
    reading.add(1, "pool/p", cast("Any", None))
    reader.go.set()
    await ended(reading)
    assert reader.began == ["pool/p", "pool/p"]
    assert not reading.pending(1)


async def test_what_cannot_be_read_is_tried_again_and_holds_up_no_other() -> None:
    reader = Reader()
    reader.go.set()
    reader.fails = 1
    reading = rereading(reader)
    reading.add(1, "pool/p", cast("Any", None))
    reading.add(1, "pool/q", cast("Any", None))
    assert reading.pending(1)
    await ended(reading)
    assert reader.began == ["pool/p", "pool/q", "pool/p"]

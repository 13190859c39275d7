"""View (a shell): the read model as applications see it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Generic, TypeVar

from actorkit.readmodel.lww_map import Entry, LwwMap

__all__ = ["View"]

V = TypeVar("V")


class View(Generic[V]):
    """What all entities of one type last published, by entity id.

    Reading costs a dictionary lookup and never asks an entity. It shows only what is durable, and each key never goes
    back; between keys there is no order.
    """

    def __init__(self, values: LwwMap[V]) -> None:
        self._values = values

    def get(self, id: str) -> Entry[V] | None:
        """The value of one entity and the version that it shows; ``None`` if it publishes nothing."""
        return self._values.entries.get(id)

    def items(self) -> Mapping[str, Entry[V]]:
        """All of it: a live, read-only mapping. Do not await while iterating over it."""
        return self._values.entries

    def __len__(self) -> int:
        return len(self._values.entries)

    async def wait_for(self, id: str, *, version: int, deadline_s: float) -> None:
        """Returns once the view shows this version of the entity, or a later one.

        Raises ``TimeoutError``, and ``Overloaded`` where too many wait for the view already.
        """
        if self._values.version(id) >= version:
            return
        seen = asyncio.Event()
        self._values.when(id, version, seen.set)
        try:
            async with asyncio.timeout(deadline_s):
                await seen.wait()
        finally:
            self._values.forget(id, seen.set)

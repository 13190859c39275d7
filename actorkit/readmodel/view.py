"""View (a shell): the read model as applications see it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

from actorkit.readmodel.changes import Changes
from actorkit.readmodel.derived import Derived
from actorkit.readmodel.entry import Entry
from actorkit.readmodel.index import Found
from actorkit.readmodel.lww_map import LwwMap

__all__ = ["View"]

T = TypeVar("T")
V = TypeVar("V")


class View(Generic[V]):
    """What all entities of one type last published, by entity id.

    Reading costs a dictionary lookup and never asks an entity. It shows only what is durable, and each key never goes
    back; between keys there is no order.
    """

    def __init__(self, values: LwwMap[V], name: str = "") -> None:
        """``name`` is that of the type and of the method, for people."""
        self._values = values
        self._name = f"the view {name}" if name else "the view"

    def get(self, id: str) -> Entry[V] | None:
        """The value of one entity and the version that it shows; ``None`` if it publishes nothing."""
        return self._values.entries.get(id)

    def items(self) -> Mapping[str, Entry[V]]:
        """All of it: a live, read-only mapping. Do not await while iterating over it."""
        return self._values.entries

    @property
    def revision(self) -> int:
        """Grows with each change: what was found is what would be found now for as long as it stays the same."""
        return self._values.revision

    def scan(self, predicate: Callable[[V], object], *, limit: int | None = None) -> Found[V]:
        """The first entries, in the order of their ids, for whose value the predicate holds; looks at all of them.

        ``limit`` is as for ``find``.
        """
        return self._values.find({}, where=predicate, limit=limit)

    def find(
        self,
        *,
        where: Callable[[V], object] | None = None,
        ids: Iterable[str] | None = None,
        limit: int | None = None,
        **conditions: Any,
    ) -> Found[V]:
        """The first entries, in the order of their ids, that meet all conditions.

        The conditions are on fields that ``@published(indexes=...)`` names: a value, as in ``region="eu"``, or a range
        from ``actorkit.readmodel``, as in ``starts_at=before(noon)``; ``None`` is no condition, and an entry
        whose field is ``None`` meets none. ``ids``: only of these. ``where`` is asked last, of what is left. ``limit``:
        how many at most, 0 or more; ``None``: all.

        The condition that the fewest entries meet decides what it costs: well below a microsecond for each of these,
        and somewhat more where they have to be sorted. Raises ``DeclarationError`` for a field without an index,
        ``TypeError`` for a condition that its values cannot meet, such as a time without a zone, and ``ValueError`` for
        a limit below 0.
        """
        return self._values.find(conditions, where=where, ids=ids, limit=limit)

    def changes(
        self,
        *,
        where: Callable[[V], object] | None = None,
        present: bool = False,
        after: int | None = None,
        **conditions: Any,
    ) -> Changes[V]:
        """What changes from now on, as ``async for change in view.changes()``; ``Changes`` says in which order.

        ``present``: first everything that is there already, in the order of ids. With conditions, as for ``find``, only
        what meets them; what does not any more is told once, as ``None``. ``after`` is the ``position`` of another
        iterator over this view: it goes on from there (see ``resumed``), and may tell again of what has gone. Raises
        ``Overloaded`` where too many follow the view already.
        """
        return Changes(self._values, conditions, where, present=present, after=after)

    def derive(self, function: Callable[[V], T]) -> Derived[V, T]:
        """Keeps ``function`` of each value, such as its encoded form: computed when asked for, once for each value."""
        return Derived(self._values, function)

    def __len__(self) -> int:
        return len(self._values.entries)

    async def wait_for(self, id: str, *, version: int, deadline_s: float) -> None:
        """Returns once the view shows this version of the entity, or a later one.

        Raises ``TimeoutError`` (the entity itself may be far ahead), and ``Overloaded`` where too many wait for the
        view already.
        """
        if self._values.version(id) >= version:
            return
        seen = asyncio.Event()
        self._values.when(id, version, seen.set)
        try:
            async with asyncio.timeout(deadline_s):
                await seen.wait()
        except TimeoutError:
            reached = self._values.version(id)
            if reached < version:
                shown = f"shows version {reached} of {id!r}" if reached else f"knows of no event of {id!r}"
                raise TimeoutError(
                    f"{self._name} {shown}, and did not show version {version} within {deadline_s:g} s: wait longer, "
                    "or ask the entity itself"
                ) from None
        finally:
            self._values.forget(id, seen.set)

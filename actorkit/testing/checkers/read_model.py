"""The read model: does it show what the journal holds, and never go back? (Invariant E.)

What a node showed is taken down as ``Seen``, one by one, whenever somebody looks. A node is one life of it: after a
restart under the same name it is another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from actorkit.journal.protocols import Store
from actorkit.persistence.declaration import EntityType
from actorkit.persistence.past import read_past
from actorkit.testing.checkers.history import plain
from actorkit.testing.checkers.violation import Violation

__all__ = ["Seen", "check_converged", "check_seen", "read_published"]


class Seen(msgspec.Struct, frozen=True):
    """One entry of a view, as one node showed it."""

    node: str
    key: str
    version: int
    value: Any
    at_us: int = 0

    @classmethod
    def all_of(cls, node: str, entries: Mapping[str, Any], *, at_us: int = 0) -> list[Seen]:
        """All entries of a view's ``items()`` at this moment."""
        return [cls(node, key, entry.version, plain(entry.value), at_us) for key, entry in entries.items()]


def check_seen(seen: Iterable[Seen]) -> list[Violation]:
    """Per node and key versions never go back, and a version has one value, on whatever node."""
    violations: list[Violation] = []
    newest: dict[tuple[str, str], Seen] = {}
    values: dict[tuple[str, int], Seen] = {}
    for each in seen:
        before = newest.get((each.node, each.key))
        if before is not None and each.version < before.version:
            what = f"{each.node} showed version {each.version} at {each.at_us} µs, after version {before.version}"
            violations.append(Violation("E", each.key, what))
        newest[each.node, each.key] = each
        same = values.setdefault((each.key, each.version), each)
        if same.value != each.value:
            what = f"version {each.version} is {each.value!r} on {each.node}, and was {same.value!r} on {same.node}"
            violations.append(Violation("E", each.key, what))
    return violations


def check_converged(node: str, entries: Mapping[str, Any], published: Mapping[str, tuple[int, Any]]) -> list[Violation]:
    """A view's ``items()`` after healing, against what ``read_published`` makes of the journal."""
    shown = {each.key: (each.version, each.value) for each in Seen.all_of(node, entries)}
    violations: list[Violation] = []
    for key in sorted({*shown, *published}):
        version, value = published.get(key, (0, None))
        right = None if value is None else (version, value)
        there = shown.get(key)
        if there == right:
            continue
        if there is not None and there[0] > version:
            what = f"{node} shows version {there[0]}, and the journal ends with version {version}"
            violations.append(Violation("I", key, what))
        else:
            violations.append(Violation("E", key, f"{node} shows {there!r}, and the journal has {right!r}"))
    return violations


async def read_published(
    store: Store, entity_type: EntityType, view: str, *, page: int = 1_000
) -> dict[str, tuple[int, Any]]:
    """What every entity of a type publishes under this name, by its events; ``None`` for a value: nothing."""
    published: dict[str, tuple[int, Any]] = {}
    after = ""
    while names := await store.streams(entity_type.name, after=after, limit=page):
        for stream in names:
            past, actor = await read_past(store, entity_type, stream, page_events=page)
            if past.version:
                value = entity_type.published[view].value(actor)
                published[stream.partition("/")[2]] = past.version, None if value is None else plain(value)
        after = names[-1]
    return published

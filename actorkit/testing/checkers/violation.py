"""What a checker found: which promise is broken, where, and what shows it."""

from __future__ import annotations

import msgspec

__all__ = ["Violation"]


class Violation(msgspec.Struct, frozen=True):
    """One thing that must not be."""

    invariant: str
    """The letter of the invariant (A to I, as in ``docs/guarantees.md``), or the promise (P1 to P13)."""
    subject: str
    """What it is about: an entity, a shard, a node."""
    what: str
    """What is wrong, in a sentence that says what was expected too."""

    def __str__(self) -> str:
        return f"[{self.invariant}] {self.subject}: {self.what}"

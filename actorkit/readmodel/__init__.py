"""The read model: what all entities publish, on every node.

``View`` is how applications read it, ``conditions`` are for its ``find``, ``Changes`` follows it.
"""

from actorkit.readmodel.changes import Change, Changes
from actorkit.readmodel.conditions import Range, after, at_least, at_most, before, between
from actorkit.readmodel.derived import Derived
from actorkit.readmodel.entry import Entry
from actorkit.readmodel.index import Found
from actorkit.readmodel.view import View

__all__ = [
    "Change",
    "Changes",
    "Derived",
    "Entry",
    "Found",
    "Range",
    "View",
    "after",
    "at_least",
    "at_most",
    "before",
    "between",
]

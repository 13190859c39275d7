"""The output gate: nothing leaves before what it depends on is durable.

Commands run one after the other without waiting for the disk; what they answer stands in line here. An answer with an
append of its own may leave when that append is durable; one that rests on memory (a query, a refusal, a no-op) when
everything before it is. Since appends of one entity land in order, the line is a plain queue whose head leaves when it
is durable. (Compare the "output commit" problem in Elnozahy et al., "A Survey of Rollback-Recovery Protocols", 2002,
and "externally synchronous" I/O in Nightingale et al., "Rethink the Sync", 2006.)

Pure: the entity tells it what has landed, and delivers what it gives out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from actorkit.errors import CallError, JournalError, Overloaded
from actorkit.journal.protocols import Append, AppendResult, StoredSnapshot
from actorkit.persistence.calls import EntityCall

__all__ = ["Answer", "Gate"]

Effect = Callable[[], None]


class Answer(msgspec.Struct, eq=False):
    """What a call that has been handled gives out, once it may."""

    call: EntityCall
    reply: Any
    rejected: CallError | None
    sequence: int
    """The entity's sequence that the answer has seen."""
    epoch: int
    """The shard's epoch when the handler ran; that of its append, if it has one."""
    from_memory: bool = False
    """It has no append of its own, so it needs a valid lease as well."""
    durable: bool = False
    """Nothing of its own is still on its way: so from the start where it has no append."""
    confirmed: bool = False
    """The store has confirmed, after the handler ended, that the shard is ours under this epoch."""
    discards: bool = False
    """The state must be rebuilt without what the handler had emitted before this answer is given."""
    outcome: Append | None = None
    """The append of a command that emitted nothing: if it is lost, it can be made again as it was."""
    failure: AppendResult | JournalError | Overloaded | None = None
    effects: Sequence[Effect] = ()
    views: Sequence[tuple[str, Any]] = ()
    snapshot: StoredSnapshot | None = None
    gone_out: bool = False
    """Its handler has asked somebody whose own deduplication does not cover a second run."""


class Gate:
    """The answers of one entity that wait, in the order in which their calls were handled."""

    __slots__ = ("_unbroken", "committed", "outstanding", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Answer] = deque()
        """What waits, in order. Its head leaves once it is durable."""
        self.outstanding = 0
        """Appends on their way to the journal."""
        self.committed = 0
        """The entity's sequence as far as everything up to it is known to be durable."""
        self._unbroken = True

    def __len__(self) -> int:
        return len(self.waiting)

    def hold(self, answer: Answer) -> None:
        """Takes an answer into the line; one with an append of its own counts as outstanding from now on."""
        self.waiting.append(answer)
        if not answer.from_memory:
            self.outstanding += 1

    def landed(self, answer: Answer) -> None:
        """The answer's append is durable."""
        self.outstanding -= 1
        answer.durable = True
        # An append before it may have been stored as well, or not: whoever finds out reads from there on.
        if self._unbroken:
            self.committed = max(self.committed, answer.sequence)

    def failed(self, answer: Answer, failure: AppendResult | JournalError | Overloaded) -> None:
        """The answer's append was not stored, or may not have been: neither it nor any later answer leaves now."""
        self.outstanding -= 1
        answer.failure = failure
        self._unbroken = False

    def drain(self) -> list[Answer]:
        """Takes out everything, for it to be settled otherwise."""
        answers = list(self.waiting)
        self.waiting.clear()
        self._unbroken = True
        return answers

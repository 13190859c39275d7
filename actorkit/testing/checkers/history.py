"""A history: what callers asked for, when, and what they were told; the material that everything else here judges.

An operation is an interval. It began when its caller sent it and ended when the caller heard of it, and took effect, if
it did, at some moment between. One whose outcome is unknown has no end: it may take effect at any later time, or never.
(Herlihy and Wing, "Linearizability: a correctness condition for concurrent objects", 1990.)

Record with ``Recorder``; keep as JSON lines with ``History.lines`` and ``History.from_lines``: a header, then one
operation a line. Values are plain (what JSON can hold), so that a history outlives the program that made it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

import msgspec

from actorkit.errors import Overloaded, Rejected, Unavailable

__all__ = ["History", "HistoryError", "Operation", "Outcome", "Recorder", "plain"]

_FORMAT: Final = 1


class HistoryError(ValueError):
    """A line of a recorded history cannot be read."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(line, why)
        self.line = line
        """From 1."""
        self.why = why

    def __str__(self) -> str:
        return f"line {self.line} of the history: {self.why}"


class Outcome(enum.Enum):
    """How an operation ended for its caller."""

    REPLIED = "replied"
    """With its reply: it has taken effect."""
    REJECTED = "rejected"
    """Refused by the actor: that is an answer too, and must have been right."""
    NOT_EXECUTED = "not_executed"
    """``Overloaded`` or ``Unavailable``: it must never take effect."""
    UNKNOWN = "unknown"
    """``OutcomeUnknown``, or never answered: it may take effect at any time after it was sent, once, or never."""


class Operation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call as its caller saw it."""

    number: int
    """Its own within the history, from 1."""
    client: str
    """Who called: one thing after the other, unless it says so by overlapping operations."""
    entity: str
    """The persistence id as text, as in ``pool/p1``."""
    name: str
    """The command or query."""
    arguments: tuple[Any, ...] = ()
    """As the handler takes them, in order; plain values."""
    key: str | None = None
    """The idempotency key. It is scoped to the entity: where keys are scoped to the call too, put the call into it."""
    command_id: str | None = None
    """What the journal knows the command by, where the caller can tell."""
    invoked_us: int
    invoked_order: int = 0
    """Which of what happened in the same microsecond came first, where the recorder knows; else 0."""
    completed_us: int | None = None
    """When the caller heard of it; ``None``: never."""
    completed_order: int = 0
    outcome: Outcome = Outcome.UNKNOWN
    value: Any = None
    """The reply; of a refusal ``{"code", "details"}``; otherwise what is known of the reason, as text."""

    @property
    def code(self) -> str | None:
        """The code of the refusal, where it is one."""
        return self.value["code"] if self.outcome is Outcome.REJECTED else None

    @property
    def details(self) -> Mapping[str, Any]:
        """The details of the refusal, where it is one."""
        return self.value.get("details", {}) if self.outcome is Outcome.REJECTED else {}

    @property
    def began(self) -> tuple[int, int]:
        """Comparable with ``ended``: operation a was over before b began where ``a.ended < b.began``."""
        return self.invoked_us, self.invoked_order

    @property
    def ended(self) -> tuple[int, int] | None:
        """When it surely was over, or ``None`` where it may take effect at any later time."""
        if self.completed_us is None or self.outcome is Outcome.UNKNOWN:
            return None
        return self.completed_us, self.completed_order


class _Header(msgspec.Struct, frozen=True, omit_defaults=True):
    format: int
    seed: int | None = None
    ran: str = ""


class History(msgspec.Struct, frozen=True):
    """Operations in the order of their numbers, and what made them."""

    operations: tuple[Operation, ...]
    seed: int | None = None
    ran: str = ""
    """What ran: the command that repeats it, if there is one."""

    def lines(self) -> Iterator[str]:
        """As JSON lines, each with its line feed."""
        encoder = msgspec.json.Encoder()
        yield encoder.encode(_Header(_FORMAT, self.seed, self.ran)).decode() + "\n"
        for operation in self.operations:
            yield encoder.encode(operation).decode() + "\n"

    @classmethod
    def from_lines(cls, lines: Iterable[str | bytes]) -> History:
        """What ``lines`` wrote. Raises ``HistoryError`` at the first line that is not as it must be."""
        numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
        first = next(numbered, None)
        if first is None:
            raise HistoryError(1, "there is none: a history begins with a header, at least")
        header = _decode(first[0], first[1], _Header, "header")
        if header.format != _FORMAT:
            raise HistoryError(first[0], f"it has format {header.format}, and format {_FORMAT} is what is read here")
        operations: list[Operation] = []
        seen: set[int] = set()
        for number, line in numbered:
            operation = _decode(number, line, Operation, "operation")
            why = _wrong(operation, seen)
            if why is not None:
                raise HistoryError(number, why)
            seen.add(operation.number)
            operations.append(operation)
        return cls(tuple(operations), header.seed, header.ran)

    @classmethod
    def merged(cls, histories: Sequence[History]) -> History:
        """One history of several recorders, whose clocks must agree.

        Which of two recorders' events came first within a microsecond is not known: such operations are concurrent.
        """
        operations = [
            msgspec.structs.replace(operation, invoked_order=0, completed_order=0)
            for history in histories
            for operation in history.operations
        ]
        operations.sort(key=lambda each: (each.invoked_us, each.client, each.number))
        numbered = (msgspec.structs.replace(each, number=number) for number, each in enumerate(operations, 1))
        return cls(tuple(numbered), None, "; ".join(history.ran for history in histories if history.ran))


def _decode(number: int, line: str | bytes, kind: type[Any], what: str) -> Any:
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise HistoryError(number, f"it is no {what}: {error}") from error


def _wrong(operation: Operation, seen: set[int]) -> str | None:
    """Why an operation that can be decoded makes no sense, or ``None``."""
    if operation.number in seen:
        return f"operation {operation.number} was there before"
    if operation.completed_us is None:
        if operation.outcome is not Outcome.UNKNOWN:
            return f"it ended ({operation.outcome.value}), but does not say when: completed_us is missing"
    elif (operation.completed_us, operation.completed_order) < operation.began:
        return "it was completed before it was invoked"
    value: object = operation.value
    fields = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    if operation.outcome is Outcome.REJECTED and not isinstance(fields.get("code"), str):
        return f'the value of a refusal is {{"code": …, "details": …}}, not {value!r}'
    return None


def plain(value: Any) -> Any:
    """The value as JSON would bring it back: records as objects, tuples as lists, times as text."""
    return msgspec.json.decode(msgspec.json.encode(value))


class Recorder:
    """Takes down what callers do and hear. Reads no clock: say what time it is.

    ::

        number = recorder.invoke("client-1", "pool/p1", "reserve", (3, None), at_us=now_us())
        try:
            reply = await system.get(Pool, "p1").reserve(3, None)
        except BaseException as error:
            recorder.failed(number, error, at_us=now_us())
            raise
        recorder.replied(number, reply, at_us=now_us())

    What is never completed ends as an unknown outcome. The order of its calls is the order of events within one
    microsecond, so that virtual time loses nothing.
    """

    def __init__(self, *, operations_max: int = 1_000_000) -> None:
        self._operations: list[Operation] = []
        self._open: set[int] = set()
        self._operations_max = operations_max
        self._order = 0

    def __len__(self) -> int:
        return len(self._operations)

    @property
    def pending(self) -> int:
        """How many operations have not ended yet."""
        return len(self._open)

    def invoke(
        self,
        client: str,
        entity: str,
        name: str,
        arguments: Sequence[Any] = (),
        *,
        at_us: int,
        key: str | None = None,
        command_id: str | None = None,
    ) -> int:
        """A caller sends something; returns its number, for one of the other methods to name later."""
        if len(self._operations) >= self._operations_max:
            raise OverflowError(f"the history has {self._operations_max} operations: that is what it may hold")
        self._order += 1
        number = len(self._operations) + 1
        self._operations.append(
            Operation(
                number=number,
                client=client,
                entity=entity,
                name=name,
                arguments=tuple(plain(list(arguments))),
                key=key,
                command_id=command_id,
                invoked_us=at_us,
                invoked_order=self._order,
            )
        )
        self._open.add(number)
        return number

    def replied(self, number: int, value: Any, *, at_us: int) -> None:
        self._complete(number, Outcome.REPLIED, plain(value), at_us)

    def rejected(self, number: int, code: str, details: Mapping[str, Any], *, at_us: int) -> None:
        self._complete(number, Outcome.REJECTED, {"code": code, "details": plain(dict(details))}, at_us)

    def not_executed(self, number: int, why: str, *, at_us: int) -> None:
        self._complete(number, Outcome.NOT_EXECUTED, why, at_us)

    def unknown(self, number: int, why: str, *, at_us: int) -> None:
        self._complete(number, Outcome.UNKNOWN, why, at_us)

    def failed(self, number: int, error: BaseException, *, at_us: int) -> None:
        """The call raised this. Anything but the errors that promise something counts as an unknown outcome."""
        if isinstance(error, Rejected):
            self.rejected(number, error.code, error.details, at_us=at_us)
        elif isinstance(error, Overloaded | Unavailable):
            self.not_executed(number, f"{type(error).__name__}: {error}", at_us=at_us)
        else:
            self.unknown(number, f"{type(error).__name__}: {error}", at_us=at_us)

    def _complete(self, number: int, outcome: Outcome, value: Any, at_us: int) -> None:
        if number not in self._open:
            raise ValueError(f"operation {number} has ended already, or was never begun")
        self._open.remove(number)
        self._order += 1
        self._operations[number - 1] = msgspec.structs.replace(
            self._operations[number - 1],
            completed_us=at_us,
            completed_order=self._order,
            outcome=outcome,
            value=value,
        )

    def history(self, *, seed: int | None = None, ran: str = "") -> History:
        """All of it up to now; what has not ended yet is of unknown outcome."""
        return History(tuple(self._operations), seed, ran)

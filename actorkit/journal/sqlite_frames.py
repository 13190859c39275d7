"""What passes between a journal and its append process: batches one way, what became of them the other.

A frame is its length in four bytes, big-endian, and a MessagePack value. Answers come in the order of the batches.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

import msgspec

from actorkit.errors import AppendUncertain, JournalCorrupt, JournalError, JournalFailed, JournalUnavailable
from actorkit.journal.protocols import Append, Appended, AppendResult, Conflict, Fenced, Refused
from actorkit.journal.settings import SqliteSettings

__all__ = [
    "ANSWER_MAX_BYTES",
    "FORMAT",
    "HEADER_BYTES",
    "Answer",
    "Hello",
    "decode_batch",
    "error_of",
    "frame",
    "length_of",
    "open_answer",
    "results_answer",
]

HEADER_BYTES: Final = 4
ANSWER_MAX_BYTES: Final = 64 << 20
"""No answer is longer. Text that somebody printed between the answers seems to be: its first letter stands for more."""


FORMAT: Final = repr([(cls.__name__, *cls.__struct_fields__) for cls in (Append, Appended, SqliteSettings)])
"""What frames look like. Where the program was replaced on disk while it runs, the append process is of the new one."""


class Hello(msgspec.Struct, frozen=True):
    """The first frame: which file, and how."""

    file: bytes
    """As the file system has it, which need not be UTF-8."""
    settings: SqliteSettings
    format: str


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What became of one batch; to ``Hello``: that the file is open, or why not. After a ``JournalFailed`` there comes
    one more answer that says so, to whoever waits or to nobody, and nothing else.
    """

    positions: list[int] | None = None
    """Everything was appended, up to these positions."""
    results: list[tuple[int, int | str]] | None = None
    """Not everything was: for each append the kind of its result, and what that says."""
    error: tuple[str, str] | None = None
    """The batch as a whole has failed."""
    unreadable: bool = False
    """The batch holds what its declared types do not allow, and was not looked at any further."""


_APPENDED, _FENCED, _CONFLICT, _REFUSED, _CORRUPT = range(5)
_ERRORS: dict[str, type[JournalError]] = {
    error.__name__: error
    for error in (AppendUncertain, JournalCorrupt, JournalError, JournalFailed, JournalUnavailable)
}
_decoder = msgspec.msgpack.Decoder(list[Append])


def frame(value: object) -> bytes:
    """Raises ``UnicodeEncodeError`` or ``OverflowError`` for what MessagePack cannot hold."""
    content = msgspec.msgpack.encode(value)
    return struct.pack(">I", len(content)) + content


def length_of(header: bytes | bytearray) -> int:
    (length,) = struct.unpack(">I", header)
    assert isinstance(length, int)
    return length


def decode_batch(content: bytes) -> list[Append]:
    """Raises ``msgspec.MsgspecError`` where a value has not the type that it was declared with."""
    return _decoder.decode(content)


def results_answer(results: Sequence[AppendResult]) -> Answer:
    """What is sent for the results of a batch."""
    if all(type(result) is Appended for result in results):
        return Answer(positions=[result.position for result in results if isinstance(result, Appended)])
    return Answer(results=[_described(result) for result in results])


def _described(result: AppendResult) -> tuple[int, int | str]:
    match result:
        case Appended(position=position):
            return _APPENDED, position
        case Fenced(epoch=epoch):
            return _FENCED, epoch
        case Conflict(sequence=sequence):
            return _CONFLICT, sequence
        case Refused(why=why):
            return _REFUSED, why
        case JournalCorrupt():
            return _CORRUPT, str(result)


def open_answer(answer: Answer) -> list[AppendResult]:
    """The results of a batch. Raises the ``JournalError`` that it failed with."""
    if answer.positions is not None:
        return [Appended(position) for position in answer.positions]
    error = error_of(answer)
    if error is not None:
        raise error
    return [_result(kind, what) for kind, what in answer.results or ()]


def error_of(answer: Answer) -> JournalError | None:
    """What the batch as a whole has failed with."""
    if answer.error is None:
        return None
    name, text = answer.error
    return _ERRORS.get(name, AppendUncertain)(text)


def _result(kind: int, what: int | str) -> AppendResult:
    if isinstance(what, str):
        return Refused(what) if kind == _REFUSED else JournalCorrupt(what)
    if kind == _APPENDED:
        return Appended(what)
    return Fenced(what) if kind == _FENCED else Conflict(what)

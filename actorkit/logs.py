"""Structured logs: one line is one event with fields, and every line of a turn says whose turn it was.

``current`` holds the fields of whatever is being handled. It is a context variable, so it follows a handler through its
awaits and never reaches another actor's lines. The runtime sets it once per actor; what stands there for a persistent
actor knows the command that is being handled. ``configure`` installs the processor that reads it; applications with a
structlog set-up of their own add ``turn_fields`` to their processors.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any, Final, Protocol, TextIO

import structlog

__all__ = ["LogFields", "configure", "current", "logger", "turn_fields"]


class LogFields(Protocol):
    """What can say whose turn it is. It is only asked when a line is written."""

    def log_fields(self) -> Mapping[str, str]:
        """``actor``, ``entity``, ``command`` and ``trace``; empty ones are left out of the line."""
        ...


current: Final[ContextVar[Mapping[str, str] | LogFields | None]] = ContextVar("actorkit_log_fields", default=None)
"""The fields of the turn that runs here, if any."""


def turn_fields(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: adds the fields of the current turn; what the line says itself is kept."""
    fields = current.get()
    if fields is None:
        return line
    pairs = fields if isinstance(fields, Mapping) else fields.log_fields()
    for name, value in pairs.items():
        if value:
            line.setdefault(name, value)
    return line


def configure(*, json: bool = False, level: int | str = logging.INFO, stream: TextIO | None = None) -> None:
    """Set structlog up for the process: one JSON object a line, or columns for people.

    ``level`` is a number of ``logging`` or its name; lines below it cost next to nothing. ``stream`` defaults to
    stderr. Raises ``ValueError`` on an unknown level.
    """
    threshold = logging.getLevelNamesMapping().get(level.upper()) if isinstance(level, str) else level
    if threshold is None:
        raise ValueError(f"{level!r} is no log level: use one of {', '.join(logging.getLevelNamesMapping())}")
    out = stream if stream is not None else sys.stderr
    processors: list[Any] = [
        turn_fields,
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.StackInfoRenderer(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if json:
        # Local variables stay out of tracebacks: they may hold anything, secrets included.
        tracebacks = structlog.processors.ExceptionRenderer(
            structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        )
        processors += [tracebacks, structlog.processors.JSONRenderer(default=repr)]
    else:
        processors += [
            structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )


def logger(**fields: str) -> Any:
    """A structlog logger bound to fields; it follows whatever ``configure`` says when a line is written."""
    return structlog.get_logger(**fields)

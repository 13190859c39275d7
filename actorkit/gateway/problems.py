"""Errors as RFC 9457 problem details: what an HTTP client is told, and whether it may simply try again.

Every call on an actor ends in one of a few ways (see ``actorkit.errors``), and each of them has one problem type here.
An application adds the types of its own refusals, by the ``code`` of the ``Rejected`` that its actors raise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from actorkit.errors import (
    CallCycle,
    HandlerFailed,
    IdempotencyKeyReused,
    JournalUnavailable,
    OutcomeUnknown,
    Overloaded,
    RecoveryFailed,
    Rejected,
    Unavailable,
)

__all__ = [
    "IDEMPOTENCY_KEY_REUSED",
    "INTERNAL_ERROR",
    "INVALID_REQUEST",
    "METHOD_NOT_ALLOWED",
    "NOT_FOUND",
    "OUTCOME_UNKNOWN",
    "OVERLOADED",
    "PROBLEM_JSON",
    "READ_MODEL_BEHIND",
    "REQUEST_TOO_LARGE",
    "STANDARD",
    "UNAUTHENTICATED",
    "UNAVAILABLE",
    "UNSUPPORTED_MEDIA_TYPE",
    "Problem",
    "ProblemType",
    "problem_of",
]

PROBLEM_JSON: Final = "application/problem+json"


class ProblemType(msgspec.Struct, frozen=True):
    """One kind of problem. ``members`` are the details of a refusal that its problem shows."""

    name: str
    status: int
    title: str
    retryable: bool = False
    members: tuple[str, ...] = ()

    @property
    def uri(self) -> str:
        return f"/problems/{self.name}"


INVALID_REQUEST: Final = ProblemType("invalid-request", 400, "The request is not as it must be")
UNAUTHENTICATED: Final = ProblemType("unauthenticated", 401, "A valid bearer token is required")
NOT_FOUND: Final = ProblemType("not-found", 404, "There is nothing at this path")
METHOD_NOT_ALLOWED: Final = ProblemType("method-not-allowed", 405, "The path does not take this method")
REQUEST_TOO_LARGE: Final = ProblemType("request-too-large", 413, "The request body is too large")
UNSUPPORTED_MEDIA_TYPE: Final = ProblemType("unsupported-media-type", 415, "The request body must be uncompressed JSON")
IDEMPOTENCY_KEY_REUSED: Final = ProblemType(
    "idempotency-key-reused", 422, "The idempotency key was used before for another request"
)
OVERLOADED: Final = ProblemType("overloaded", 429, "The service is at its limit", retryable=True)
INTERNAL_ERROR: Final = ProblemType("internal-error", 500, "The service has a defect")
UNAVAILABLE: Final = ProblemType("unavailable", 503, "The request was not executed", retryable=True)
OUTCOME_UNKNOWN: Final = ProblemType("outcome-unknown", 504, "The request may or may not have been executed")
READ_MODEL_BEHIND: Final = ProblemType("read-model-behind", 504, "The read model has not caught up yet", retryable=True)

STANDARD: Final = (
    INVALID_REQUEST,
    UNAUTHENTICATED,
    NOT_FOUND,
    METHOD_NOT_ALLOWED,
    REQUEST_TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE,
    IDEMPOTENCY_KEY_REUSED,
    OVERLOADED,
    INTERNAL_ERROR,
    UNAVAILABLE,
    OUTCOME_UNKNOWN,
    READ_MODEL_BEHIND,
)


class Problem(Exception):
    """A problem to be answered. Handlers raise it for what they find themselves; the errors of calls become one."""

    def __init__(
        self,
        type: ProblemType,
        detail: str,
        *,
        retryable: bool | None = None,
        members: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        closes: bool = False,
    ) -> None:
        """``closes``: what was wrong leaves the connection in no state to go on."""
        super().__init__(type, detail)
        self.type = type
        self.detail = detail
        self.retryable = type.retryable if retryable is None else retryable
        self.members: Mapping[str, Any] = members or {}
        self.headers: Mapping[str, str] = headers or {}
        self.closes = closes

    def __str__(self) -> str:
        return f"{self.type.name}: {self.detail}"

    def body(self) -> bytes:
        type = self.type
        return msgspec.json.encode(
            {
                "type": type.uri,
                "title": type.title,
                "status": type.status,
                "detail": self.detail,
                "retryable": self.retryable,
                **self.members,
            }
        )


def problem_of(
    error: Exception, *, refusals: Mapping[str, ProblemType], keyed: bool, headers: Mapping[str, str] | None = None
) -> Problem:
    """What a client is told about an error of a call.

    ``refusals`` has a type for each code of the application's refusals; ``keyed``: the request has an idempotency key,
    so that repeating it is safe whatever became of it; ``headers`` go with a refusal, which is an answer like another.
    An error that nobody has foreseen is ``internal-error``, and its text, which may hold anything, is not shown.
    """
    match error:
        case Problem():
            return error
        case IdempotencyKeyReused():
            return Problem(IDEMPOTENCY_KEY_REUSED, "the key came with another body before: take a new one")
        case Rejected():
            return _refusal(error, refusals, headers)
        case Overloaded():
            return Problem(OVERLOADED, str(error), headers={"Retry-After": str(max(1, math.ceil(error.retry_after_s)))})
        case HandlerFailed() | RecoveryFailed() | CallCycle():
            return Problem(INTERNAL_ERROR, "the request ran into a defect of the service and was not executed")
        case Unavailable() | JournalUnavailable():
            return Problem(UNAVAILABLE, str(error))
        case OutcomeUnknown():
            advice = "repeat it with the same key" if keyed else "look before you repeat it"
            return Problem(OUTCOME_UNKNOWN, f"the outcome was not known within the deadline: {advice}", retryable=keyed)
        case _:
            return Problem(INTERNAL_ERROR, "the request ran into a defect of the service")


def _refusal(error: Rejected, refusals: Mapping[str, ProblemType], headers: Mapping[str, str] | None) -> Problem:
    type = refusals.get(error.code)
    if type is None:
        type = ProblemType(error.code, 409, "The request was refused")
    if type is OVERLOADED:
        headers = {**(headers or {}), "Retry-After": "1"}
    members = {name: error.details[name] for name in type.members if name in error.details}
    return Problem(type, error.reason or type.title, members=members, headers=headers)

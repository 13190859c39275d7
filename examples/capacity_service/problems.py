"""The service's own problems, besides those that every service on actorkit has."""

from __future__ import annotations

from typing import Final

from actorkit.gateway.problems import INVALID_REQUEST, OVERLOADED, ProblemType

__all__ = ["REFUSALS"]

POOL_NOT_FOUND: Final = ProblemType("pool-not-found", 404, "There is no such pool")
RESERVATION_NOT_FOUND: Final = ProblemType("reservation-not-found", 404, "There is no such reservation")
INSUFFICIENT_CAPACITY: Final = ProblemType(
    "insufficient-capacity", 409, "Less remains than was requested", members=("remaining", "requested")
)
RESERVATION_CONFLICT: Final = ProblemType(
    "reservation-conflict", 409, "The reservation id was used before for another quantity"
)

REFUSALS: Final = {
    type.name: type
    for type in (
        POOL_NOT_FOUND,
        RESERVATION_NOT_FOUND,
        INSUFFICIENT_CAPACITY,
        RESERVATION_CONFLICT,
        INVALID_REQUEST,
        OVERLOADED,
    )
}
"""By the code of the refusals in ``domain``."""

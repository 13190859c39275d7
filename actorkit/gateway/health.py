"""Health: whether the loop runs, and whether the node can serve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from actorkit.gateway.handlers import Answer, Endpoint, Incoming
from actorkit.gateway.problems import UNAVAILABLE, Problem

__all__ = ["health_endpoints"]

_LIVE: Final = Answer(b'{"status":"live"}')
_READY: Final = Answer(b'{"status":"ready"}')


def health_endpoints(not_ready: Callable[[], str | None]) -> tuple[Endpoint[Any], ...]:
    """``GET /health/live`` depends on nothing but the loop; ``GET /health/ready`` says why the node cannot serve."""

    async def live(_: Incoming[Any]) -> Answer:
        return _LIVE

    async def ready(_: Incoming[Any]) -> Answer:
        reason = not_ready()
        if reason is not None:
            raise Problem(UNAVAILABLE, reason)
        return _READY

    return (
        Endpoint("GET", "/health/live", live, always=True),
        Endpoint("GET", "/health/ready", ready, always=True),
    )

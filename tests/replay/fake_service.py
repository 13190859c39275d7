"""The part of the capacity service that a replay talks to, in memory, with faults on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

Handler = Callable[[dict[str, Any]], dict[str, Any]]
Fault = Callable[[int, str], str | None]
"""Of a request's number and path: "refuse" (503), "unknown" (504 after acting), "cut" (no answer, after acting)."""


class Problem(Exception):
    def __init__(self, status: int, name: str, retryable: bool = False, **details: Any) -> None:
        self.status = status
        self.body = {"type": f"https://example.org/problems/{name}", "detail": name, "retryable": retryable, **details}


class FakeService:
    def __init__(self, *, fault: Fault = lambda number, path: None, oversells_by: int = 0) -> None:
        self.capacities: dict[str, int] = {}
        self.held: dict[str, dict[str, int]] = {}
        self.availability_asked = asyncio.Event()
        self.not_shown: set[str] = set()
        """Pools of which the read model shows nothing."""
        self.requests = 0
        self.acted = 0
        self._answers: dict[tuple[str, str, str], tuple[int, dict[str, Any]]] = {}
        self._fault = fault
        self._oversells_by = oversells_by

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/rpc/pools", self._keyed(self._create))
        app.router.add_post("/rpc/reserve", self._keyed(self._reserve))
        app.router.add_post("/rpc/release", self._keyed(self._release))
        app.router.add_get("/rpc/pools/{pool_id}", self._get)
        app.router.add_post("/rpc/availability", self._availability)
        return app

    def _keyed(self, act: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            self.requests += 1
            fault = self._fault(self.requests, request.path)
            if fault == "refuse":
                return _answer(503, Problem(503, "unavailable", retryable=True).body)
            body = await request.json()
            pool_id = body.get("pool_id") or body["reservation_id"].partition("~")[0]
            place = (request.path, pool_id, request.headers["Idempotency-Key"])
            if place not in self._answers:
                self.acted += 1
                try:
                    self._answers[place] = (200, act(body))
                except Problem as problem:
                    self._answers[place] = (problem.status, problem.body)
            if fault == "unknown":
                return _answer(504, Problem(504, "outcome-unknown", retryable=True).body)
            if fault == "cut":
                assert request.transport is not None
                request.transport.close()
            return _answer(*self._answers[place])

        return handle

    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        self.capacities[body["pool_id"]] = body["capacity"]
        self.held.setdefault(body["pool_id"], {})
        return self._figures(body["pool_id"])

    def _reserve(self, body: dict[str, Any]) -> dict[str, Any]:
        pool_id, held = body["pool_id"], self.held[body["pool_id"]]
        remaining = self.capacities[pool_id] - len(held)
        if remaining + self._oversells_by < 1:
            raise Problem(409, "insufficient-capacity", remaining=remaining, requested=1)
        held[body["reservation_id"]] = 1
        full_id = f"{pool_id}~{body['reservation_id']}"
        return {"reservation_id": full_id, "pool_id": pool_id, "quantity": 1, "remaining": remaining - 1, "version": 1}

    def _release(self, body: dict[str, Any]) -> dict[str, Any]:
        pool_id, _, part = body["reservation_id"].partition("~")
        released = self.held[pool_id].pop(part, 0)
        return {"released": released, "held": 0, "remaining": self._figures(pool_id)["remaining"], "version": 1}

    def _figures(self, pool_id: str) -> dict[str, Any]:
        capacity, reserved = self.capacities[pool_id], len(self.held[pool_id])
        return {"pool_id": pool_id, "capacity": capacity, "reserved": reserved, "remaining": capacity - reserved}

    async def _availability(self, request: web.Request) -> web.StreamResponse:
        wanted = (await request.json())["pool_ids"]
        self.availability_asked.set()
        return _answer(200, {"pools": [self._figures(pool) for pool in wanted if pool not in self.not_shown]})

    async def _get(self, request: web.Request) -> web.Response:
        return _answer(200, self._figures(request.match_info["pool_id"]))


def _answer(status: int, body: dict[str, Any]) -> web.Response:
    return web.json_response(body, status=status)

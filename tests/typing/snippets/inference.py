"""What editors and type checkers know of calls on a reference. No line here may be reported."""

# pyright: strict

from __future__ import annotations

from asyncio import Future
from collections.abc import Coroutine
from typing import Any, assert_type

from actorkit import ActorSystem, Past, View
from tests.typing.snippets.pool import Pool, PoolState


async def plain_and_async_handlers(system: ActorSystem) -> None:
    pool = system.get(Pool, "p")
    assert_type(pool, Pool)
    assert_type(await pool.reserve(3), str)
    assert_type(await pool.reserve(units=3), str)
    assert_type(await pool.release("r"), int)
    assert_type(await pool.release("r", force=True), int)
    assert_type(await pool.free(), int)
    assert_type(await pool.held(), dict[str, int])
    assert_type(await pool.look(1), str | None)
    assert_type(pool.reserve.begin(3), Future[str])
    assert_type(await pool.release.begin("r", force=True), int)


async def options_keep_the_types(system: ActorSystem) -> None:
    pool = system.get(Pool, "p")
    assert_type(await pool.reserve.options(idempotency_key="k", deadline_s=2)(3), str)
    assert_type(await pool.release.options(idempotency_key="k")("r", force=True), int)
    call: Coroutine[Any, Any, str] = pool.reserve(3)
    assert_type(await call, str)


async def the_rest_of_the_system(system: ActorSystem) -> None:
    assert_type(await system.state_at(Pool, "p", version=1), Past[PoolState])
    assert_type((await system.state_at(Pool, "p", version=1)).state.free, int)
    view = system.view(Pool.availability)
    assert_type(view, View[int])
    assert_type(system.view(Pool.described), View[str])
    assert_type(Pool.availability.decode(Pool.availability.encode(3)), int)
    entry = view.get("p")
    if entry is not None:
        assert_type(entry.value, int)

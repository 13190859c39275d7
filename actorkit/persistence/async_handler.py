"""Running an ``async`` handler (a shell): in a task, within its time limit, cancelled only on purpose."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from actorkit import logs
from actorkit.actor.turn import current_turn
from actorkit.errors import Rejected
from actorkit.persistence.calls import EntityCall
from actorkit.persistence.turn import EntityTurn

if TYPE_CHECKING:
    from actorkit.persistence.entity import Entity

__all__ = ["RunningHandler", "begin"]


class RunningHandler:
    """One handler that is running, among the deadlines by its time limit."""

    __slots__ = ("call", "cut_off", "exceeded", "task")

    def __init__(self, call: EntityCall, task: asyncio.Task[Any]) -> None:
        self.call = call
        self.task = task
        self.exceeded = False
        self.cut_off = False
        """Its shard goes to another node: the call is undone, and runs there."""

    def expire(self) -> None:
        self.exceeded = True
        self.task.cancel()

    def end(self) -> None:
        """It is cut off, unless it has come to its end already."""
        self.cut_off = True
        self.task.cancel()


def begin(entity: Entity, call: EntityCall, turn: EntityTurn) -> Coroutine[Any, Any, None] | None:
    """Starts the handler; returns what is left to be awaited.

    A handler that never has to wait costs no turn of the loop where Python can start tasks at once (3.12).
    """
    running = _run(entity, call, turn)
    if sys.version_info >= (3, 12):
        task = asyncio.Task(running, loop=entity.services.loop, eager_start=True)
        if not task.done():
            return _join(task)
        task.result()
        return None
    return running


async def _join(task: asyncio.Task[None]) -> None:
    await task


async def _run(entity: Entity, call: EntityCall, turn: EntityTurn) -> None:
    current_turn.set(turn)
    logs.current.set(turn)
    task = asyncio.current_task()
    assert task is not None
    limit = RunningHandler(call, task)
    services = entity.services
    entity.running = limit
    timeout_s = services.settings.handler_timeout_s
    services.deadlines.add(services.loop.time() + timeout_s, limit)
    rejected: Rejected | None = None
    reply: Any = None
    error: Exception | None = None
    try:
        reply = await call.handler.invoke(entity.actor, *call.args)
    except Rejected as refusal:
        rejected = refusal
    except asyncio.CancelledError:
        if limit.exceeded:
            task.uncancel()
            error = TimeoutError(f"the handler did not end within {timeout_s:g} s and was cancelled")
        elif limit.cut_off:
            task.uncancel()
            # Nothing of it has been sent to the journal: then it is as if it had never begun.
            entity.settling.fail(doubt=False)
        elif task.cancelling():
            entity.cancelled(call, turn)
            raise
        else:
            error = RuntimeError("the handler was cancelled by what it awaited")
    except Exception as raised:  # noqa: BLE001 - a handler may raise anything; its caller is told
        error = raised
    finally:
        entity.running = None
        services.deadlines.discard(limit)
    entity.conclude(call, turn, reply, rejected, error)

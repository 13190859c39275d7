"""Background (a shell): tasks of the read model, without which it would grow old unnoticed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from actorkit.errors import JournalFailed

__all__ = ["start"]

_log = structlog.get_logger("actorkit.readmodel")


def start(work: Coroutine[Any, Any, None], name: str, fatal: Callable[[JournalFailed], None]) -> asyncio.Task[None]:
    """Runs the work beside everything else. Where it crashes, which is a defect, ``fatal`` is told."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.critical("readmodel.crashed", task=task.get_name(), exc_info=error)
            fatal(JournalFailed(f"{task.get_name()} crashed: {error!r}"))

    task = asyncio.get_running_loop().create_task(work, name=f"actorkit.readmodel.{name}")
    task.add_done_callback(ended)
    return task

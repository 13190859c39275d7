"""ActorRuntime (a shell): all actors of one process, in a tree under one guardian."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, Final, TypeVar

from actorkit import logs
from actorkit.actor.actor import Actor
from actorkit.actor.cell import Cell
from actorkit.actor.dead_letters import DeadLetters
from actorkit.actor.deadlines import Deadlines
from actorkit.actor.lifecycle import State
from actorkit.actor.ref import ActorRef
from actorkit.actor.settings import ActorSettings
from actorkit.clock import Clock, Randomness
from actorkit.errors import ConfigurationError
from actorkit.ids import ActorPath

__all__ = ["ROOT", "ActorRuntime"]

N = TypeVar("N")

ROOT: Final = ActorPath("/")
"""The guardian: the parent of top-level actors."""

_CANCEL_GRACE_S: Final = 0.1
"""How long ``shutdown`` waits for cancelled handlers to end, beyond its deadline."""

_DEFAULTS: Final = ActorSettings()


class _Guardian(Actor[Any]):
    """Does nothing but supervise."""

    def receive(self, message: Any) -> object:
        return None


class ActorRuntime:
    """One per process, or per simulated node. Make it while its loop runs: it belongs to that loop and thread."""

    def __init__(
        self, *, clock: Clock, randomness: Randomness, settings: ActorSettings = _DEFAULTS, name: str = "actorkit"
    ) -> None:
        self.name = name
        self.clock = clock
        self.randomness = randomness
        self.settings = settings
        self.loop = asyncio.get_running_loop()
        self.deadlines = Deadlines(self.loop)
        self.dead_letters = DeadLetters(settings.dead_letters_kept)
        self.variables: Context = copy_context()
        """What every actor's own context starts from: that of whoever made the runtime, not of whoever spawns."""
        self._cells: dict[str, Cell] = {}
        self._names = 0
        self._closing = False
        guardian = type("Guardian", (_Guardian,), {"supervision": settings.supervision})
        self._root = Cell(self, ROOT, None, guardian, settings.mailbox_max)
        self._cells[ROOT] = self._root
        self._root.variables.run(self._root.life.start)

    def __len__(self) -> int:
        """How many actors live, the guardian not counted."""
        return len(self._cells) - (ROOT in self._cells)

    def spawn(
        self,
        factory: Callable[[], Actor[N]],
        name: str | None = None,
        *,
        mailbox: int | None = None,
        under: ActorPath = ROOT,
    ) -> ActorRef[N]:
        """Start an actor under another one. ``factory`` makes its instance, soon and again at each restart.

        ``mailbox`` bounds its messages (None: ``ActorSettings.mailbox_max``); messages may be sent at once. Raises
        ``ConfigurationError`` if the name is taken or malformed, or if the parent does not live or is stopping.
        """
        parent = self._cells.get(under)
        if self._closing or parent is None or parent.life.state in (State.STOPPING, State.STOPPED):
            raise ConfigurationError(f"there is no actor at {under} that could have children: it has stopped")
        if name is None:
            self._names += 1
            name = f"${self._names}"
        elif not name or "/" in name or name.startswith("$"):
            raise ConfigurationError(f"{name!r} is no name for an actor: it may not be empty, hold a / or begin with $")
        if name in parent.life.children:
            raise ConfigurationError(f"there is an actor named {name!r} under {under}: choose another name")
        bound = self.settings.mailbox_max if mailbox is None else mailbox
        if bound < 1:
            raise ConfigurationError(f"a mailbox has room for at least one message, not {bound}")
        path = ActorPath(f"{under.rstrip('/')}/{name}")
        cell = Cell(self, path, parent, factory, bound)
        parent.life.children[name] = cell
        self._cells[path] = cell
        cell.post(cell.life.start)
        return cell.ref

    async def stop(self, ref: ActorRef[Any]) -> None:
        """Stop an actor after the message it is handling, its children first; returns when it has stopped.

        Awaited by that actor or one of its children it would wait for itself: use ``context.stop()`` there.
        """
        ref.cell.post(ref.cell.life.stop)
        await ref.cell.life.when_stopped()

    async def shutdown(self, deadline_s: float) -> None:
        """Stop everything, children before parents, each after the message it is handling.

        What has not stopped after ``deadline_s`` seconds is cancelled and logged: its running ask ends with
        ``OutcomeUnknown``, and its ``stopped`` is not run. Returns within the deadline + 0.1 s of grace for the
        cancelled handlers. Asks that were waiting end with ``Unavailable``. A second call waits for the same end.
        """
        self._closing = True
        root = self._root
        root.post(root.life.stop)
        await asyncio.wait([root.life.when_stopped()], timeout=deadline_s)
        if root.life.state is not State.STOPPED:
            await self._abort()
        self.deadlines.close()

    def forget(self, cell: Cell) -> None:
        """An actor has stopped. For the runtime's own parts."""
        if self._cells.get(cell.path) is cell:
            del self._cells[cell.path]

    async def _abort(self) -> None:
        left = sorted(self._cells.values(), key=lambda cell: cell.path.rstrip("/").count("/"), reverse=True)
        running = [cell.task for cell in left if cell.task is not None]
        log = logs.logger(system=self.name)
        for cell in left:
            if cell is not self._root:
                log.warning("actor cancelled at the deadline of the shutdown", actor=cell.path)
            cell.life.abort("it was cancelled at the deadline of the shutdown")
        if running:
            _, stuck = await asyncio.wait(running, timeout=_CANCEL_GRACE_S)
            for task in stuck:
                log.error("a handler ignores its cancellation", actor=task.get_name())

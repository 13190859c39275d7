"""Life (a shell): an actor's instance, its state, its children and who watches it.

All of it runs between turns of its own cell, except what a child reports (``child_failed``, ``child_stopped``): that is
decided at once, because the parent may be awaiting that very child.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from actorkit import logs
from actorkit.actor.lifecycle import State, Step, after
from actorkit.actor.supervision import Directive, RestartHistory, SupervisionStrategy, Verdict, supervise
from actorkit.actor.timers import Timers
from actorkit.actor.turn import current_turn
from actorkit.actor.watch import Signal, Terminated

if TYPE_CHECKING:
    from actorkit.actor.actor import Actor
    from actorkit.actor.cell import Cell
    from actorkit.actor.ref import ActorRef

__all__ = ["Life"]


class Life:
    """What happens to one actor from its start to its end, over all of its instances."""

    def __init__(self, cell: Cell, factory: Callable[[], Actor[Any]]) -> None:
        self.cell = cell
        self.state = State.STARTING
        self.children: dict[str, Cell] = {}
        """By name; insertion order is age."""
        self.timers = self._new_timers()
        self.strategy = SupervisionStrategy()
        """How failures of the children are treated: as the newest instance says."""
        self._factory = factory
        self._actor: Actor[Any] | None = None
        self._history = RestartHistory()
        self._backoff_s = 0.0
        self._backoff: asyncio.TimerHandle | None = None
        self._failure: Exception | None = None
        """Why it is being stopped, if it failed."""
        self._watching: dict[Cell, None] = {}
        self._watchers: dict[Cell, None] = {}
        self._waiting: list[asyncio.Future[None]] = []
        cell.variables.run(logs.current.set, {"actor": cell.path})

    # ---------------------------------------------------------------------------------------------------- start

    def start(self) -> None:
        """Make an instance and start it."""
        if self.state is not State.STARTING:
            return
        from actorkit.actor.context import ActorContext  # a cycle: the context hands out references to cells

        try:
            actor = self._factory()
            actor.context = ActorContext(self.cell, self.cell.runtime)
            current_turn.set(actor.new_turn())
        except Exception as error:  # noqa: BLE001 - a factory's failure is supervised like any other
            self.failed(error)
            return
        self._actor = actor
        self.strategy = actor.supervision
        self._call(actor.started, self._started)

    def _started(self, error: Exception | None) -> None:
        if error is not None:
            self.failed(error)
            return
        assert self._actor is not None
        self.state = after(self.state, Step.STARTED)
        self.cell.receive = self._actor.receive
        self.cell.ready = True

    # -------------------------------------------------------------------------------------------------- failure

    def failed(self, error: Exception) -> None:
        """A handler, a hook or a child that escalates has failed: do what the parent says."""
        if self.state not in (State.STARTING, State.READY):
            # It is on its way out of this instance already, for an earlier reason.
            self._log("actor failed again while it was " + self.state.value, error)
            return
        parent = self.cell.parent
        if parent is None:
            self._log("failure escalated to the top: the actor that escalated stays stopped", error)
            return
        verdict = parent.life.child_failed(self._history, error)
        self._history = verdict.history
        directive = verdict.directive
        if directive is Directive.RESUME and self.state is State.STARTING:
            # There is nothing to resume: it has never been ready.
            directive = Directive.STOP
        self._log("actor failed", error, directive=directive.value, backoff_s=round(verdict.delay_s, 3))
        if directive is Directive.RESTART:
            self._restart(error, verdict.delay_s)
        elif directive is not Directive.RESUME:
            self._failure = error
            self.stop()
            if directive is Directive.ESCALATE:
                parent.post(partial(parent.life.failed, error))

    def child_failed(self, history: RestartHistory, error: Exception) -> Verdict:
        """What to do about a child's failure."""
        runtime = self.cell.runtime
        try:
            return supervise(self.strategy, history, error, runtime.loop.time(), runtime.randomness.uniform())
        except Exception as broken:  # noqa: BLE001 - a decider that fails decides nothing: let the parent's parent do it
            self._log("the decider failed", broken)
            return Verdict(Directive.ESCALATE, 0.0, history)

    def _restart(self, error: Exception, delay_s: float) -> None:
        self.state = after(self.state, Step.FAIL)
        self.cell.ready = False
        self.timers.close()
        self._backoff_s = delay_s
        actor = self._actor
        if actor is None:
            self._end_children()
        else:
            self._call(partial(actor.restarting, error), self._prepared)

    def _prepared(self, error: Exception | None) -> None:
        if error is not None:
            self._log("restarting failed", error)
        self._end_children()

    def _back_off(self) -> None:
        self.cell.unstash_all()
        loop = self.cell.loop
        self._backoff = loop.call_later(self._backoff_s, self.cell.post, self._fresh)

    def _fresh(self) -> None:
        if self.state is not State.RESTARTING:
            return
        self._backoff = None
        self._actor = None
        self.timers = self._new_timers()
        self.state = after(self.state, Step.FRESH)
        self.start()

    # ----------------------------------------------------------------------------------------------------- stop

    def stop(self) -> None:
        """Stop: children first, then ``stopped``, then whoever watches is told. Ignored if it is under way."""
        if self.state in (State.STOPPING, State.STOPPED):
            return
        if self.state is State.RESTARTING:
            # That instance has had its last hook.
            self._actor = None
        if self._backoff is not None:
            self._backoff.cancel()
        self.state = after(self.state, Step.STOP)
        self.timers.close()
        self.cell.close("the actor has stopped")
        self._end_children()

    def _end_children(self) -> None:
        for child in tuple(self.children.values()):
            child.post(child.life.stop)
        self._children_ended()

    def _children_ended(self) -> None:
        """Go on with what waited for the last child."""
        if self.children:
            return
        if self.state is State.RESTARTING and self._backoff is None:
            self._back_off()
        elif self.state is State.STOPPING:
            if self._actor is None:
                self._stopped(None)
            else:
                actor, self._actor = self._actor, None
                self._call(actor.stopped, self._stopped)

    def child_stopped(self, child: Cell, name: str) -> None:
        """A child is gone; its name is free."""
        if self.children.get(name) is child:
            del self.children[name]
        if not self.children and self.state in (State.RESTARTING, State.STOPPING):
            self.cell.post(self._children_ended)

    def _stopped(self, error: Exception | None) -> None:
        if error is not None:
            self._log("stopped failed", error)
        self.state = after(self.state, Step.STOPPED)
        self._announce()

    def abort(self, why: str) -> None:
        """End it now: what runs is cancelled, ``stopped`` is not run. Its children are to be aborted before it."""
        if self.state is State.STOPPED:
            return
        if self._backoff is not None:
            self._backoff.cancel()
        self.timers.close()
        self.state = after(self.state, Step.ABORT)
        self.cell.abort(why)
        self._announce()

    def _announce(self) -> None:
        """Tell everybody that it has stopped, and let go of them."""
        cell = self.cell
        cell.receive = _gone
        self._actor = None
        cell.runtime.forget(cell)
        for watched in self._watching:
            watched.life.drop_watcher(cell)
        self._watching.clear()
        for watcher in tuple(self._watchers):
            watcher.post(partial(watcher.life.notice, cell, self._failure))
        self._watchers.clear()
        if cell.parent is not None:
            cell.parent.life.child_stopped(cell, cell.path.rpartition("/")[2])
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)
        self._waiting.clear()

    def when_stopped(self) -> asyncio.Future[None]:
        """Ends when it has stopped. May be cancelled."""
        waiting: asyncio.Future[None] = self.cell.loop.create_future()
        if self.state is State.STOPPED:
            waiting.set_result(None)
        else:
            self._waiting.append(waiting)
        return waiting

    # ---------------------------------------------------------------------------------------------------- watch

    def watch(self, ref: ActorRef[Any]) -> None:
        """What ``ActorContext.watch`` promises."""
        cell = ref.cell
        self._watching[cell] = None
        if cell.life.state is State.STOPPED:
            self.cell.post(partial(self.notice, cell, cell.life._failure))  # noqa: SLF001 - of the same class
        else:
            cell.life.add_watcher(self.cell)

    def unwatch(self, ref: ActorRef[Any]) -> None:
        """What ``ActorContext.unwatch`` promises."""
        self._watching.pop(ref.cell, None)
        ref.cell.life.drop_watcher(self.cell)

    def add_watcher(self, watcher: Cell) -> None:
        """Have that actor told when this one stops."""
        self._watchers[watcher] = None

    def drop_watcher(self, watcher: Cell) -> None:
        """Undo ``add_watcher``."""
        self._watchers.pop(watcher, None)

    def notice(self, stopped: Cell, error: Exception | None) -> None:
        """A watched actor has stopped."""
        if stopped not in self._watching:
            return
        del self._watching[stopped]
        self.signal(Terminated(stopped.ref, error))

    def signal(self, signal: Signal) -> None:
        """Deliver a signal, as a turn of its own. An actor without an instance has nobody to tell."""
        if self.state is State.READY and self._actor is not None:
            self._call(partial(self._actor.signal, signal), self._signalled)

    def _signalled(self, error: Exception | None) -> None:
        if error is not None:
            self.failed(error)

    # ---------------------------------------------------------------------------------------------------- tools

    def _call(self, hook: Callable[[], Any], then: Callable[[Exception | None], None]) -> None:
        """Run a hook, plain or async, and then ``then`` with what it raised."""
        try:
            result = hook()
        except Exception as error:  # noqa: BLE001 - a hook's failure is supervised like any other
            then(error)
            return
        if inspect.isawaitable(result):
            self.cell.occupy(_awaiting(result), partial(self._called, then))
        else:
            then(None)

    def _called(self, then: Callable[[Exception | None], None], task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            then(RuntimeError("a hook was cancelled"))
            return
        error = task.exception()
        if error is None or isinstance(error, Exception):
            then(error)
        else:
            then(RuntimeError(f"a hook raised {error!r}"))

    def _new_timers(self) -> Timers:
        cell = self.cell
        return Timers(cell.loop, cell.runtime.settings.timers_max, cell.path, cell.fired)

    def _log(self, event: str, error: Exception, **facts: Any) -> None:
        logs.logger(actor=self.cell.path).error(event, error=repr(error), exc_info=error, **facts)


async def _awaiting(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _gone(message: object) -> object:
    raise AssertionError("a message was handled after its actor had stopped")

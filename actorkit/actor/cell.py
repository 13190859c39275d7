"""Cell (a shell): one actor's mailbox, and the loop that takes it through its turns.

The cell is a queue and one callback. Whoever finds it asleep schedules ``run``; ``run`` handles up to
``turn_messages`` messages inline and goes back to sleep, or schedules itself again. Nothing is allocated for a plain
turn but the asker's envelope: the actor's context variables are set once, in a ``contextvars`` context of its own in
which every callback runs. A coroutine returned by the handler runs in a task, and the cell is *occupied* until it ends.

What the actor is (its instance, children, watchers, state) is the business of ``Life``; its decisions reach the cell as
system messages, which go first and only between turns.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from contextvars import Context
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, cast

from actorkit import logs
from actorkit.actor.dead_letters import Reason
from actorkit.actor.life import Life
from actorkit.actor.mailbox import Ask, Senders
from actorkit.actor.ref import ActorRef
from actorkit.actor.stash import Stash, StashFull
from actorkit.actor.timers import Timer
from actorkit.errors import ActorStopped, CallError, HandlerFailed, OutcomeUnknown, Overloaded, Rejected, Unavailable
from actorkit.ids import ActorPath

if TYPE_CHECKING:
    from actorkit.actor.actor import Actor
    from actorkit.actor.runtime import ActorRuntime

__all__ = ["Cell"]

NOTHING: Final = object()
"""No message is being handled, or the one that was has been put aside."""


class _Limit:
    """The time limit of one running handler."""

    __slots__ = ("exceeded", "task")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task = task
        self.exceeded = False

    def expire(self) -> None:
        self.exceeded = True
        self.task.cancel()


class Cell:
    """The runtime's side of one actor. All of it runs on one loop."""

    __slots__ = (
        "_limit",
        "_senders",
        "_stash",
        "_then",
        "asleep",
        "capacity",
        "current",
        "deadlines",
        "has_expired",
        "life",
        "loop",
        "mailbox",
        "parent",
        "path",
        "ready",
        "receive",
        "ref",
        "runtime",
        "system",
        "task",
        "turns",
        "variables",
    )

    def __init__(
        self,
        runtime: ActorRuntime,
        path: ActorPath,
        parent: Cell | None,
        factory: Callable[[], Actor[Any]],
        capacity: int,
    ) -> None:
        self.runtime = runtime
        self.path = path
        self.parent = parent
        self.loop = runtime.loop
        self.deadlines = runtime.deadlines
        self.mailbox: deque[Any] = deque()
        self.capacity = capacity
        """-1 once it is stopping: the one comparison of the hot path then covers that, too."""
        self.system: deque[Callable[[], None]] = deque()
        self.asleep = True
        """Nobody has scheduled ``run``, and no coroutine of the actor is running."""
        self.ready = False
        """Messages may be handled: the actor has started and is neither restarting nor stopping."""
        self.receive: Callable[[Any], object] = _not_started
        self.current: Any = NOTHING
        self.task: asyncio.Task[Any] | None = None
        self.has_expired = False
        """There may be asks in the mailbox that have ended at their deadline and only take up room."""
        self.turns = range(runtime.settings.turn_messages)
        self.variables: Context = runtime.variables.copy()
        self._then: Callable[[asyncio.Task[Any]], None] | None = None
        self._limit: _Limit | None = None
        self._stash = Stash(runtime.settings.stash_max, path)
        self._senders = Senders(self.loop, runtime.settings.senders_max, path)
        self.ref: ActorRef[Any] = ActorRef(self)
        self.life = Life(self, factory)

    # ------------------------------------------------------------------------------------------------ coming in

    def wake(self) -> None:
        """Have ``run`` called soon, unless it will be anyway."""
        if self.asleep:
            self.asleep = False
            self.loop.call_soon(self.run, context=self.variables)

    def post(self, action: Callable[[], None]) -> None:
        """A system message: done between two turns, before all waiting messages, in order."""
        self.system.append(action)
        self.wake()

    def refusal(self) -> CallError | None:
        """Why a message cannot be taken in now, for its asker; None if there is room after all."""
        if self.capacity < 0:
            return Unavailable(self.path, "the actor has stopped")
        if self.has_expired:
            self._drop_expired()
            if len(self.mailbox) < self.capacity:
                return None
        return Overloaded(f"the mailbox of {self.path}", limit=self.capacity)

    def has_room_for(self, message: object) -> bool:
        """What ``tell`` does at the bound. False: the message has become a dead letter. Raises ``Overloaded``."""
        refusal = self.refusal()
        if refusal is None:
            return True
        if isinstance(refusal, Overloaded):
            raise refusal
        self.bury(message, Reason.STOPPED)
        return False

    def put_or_bury(self, message: object) -> None:
        """A message that was held back and now leaves: its sender is past being told."""
        refusal = self.refusal() if len(self.mailbox) >= self.capacity else None
        if refusal is None:
            self.mailbox.append(message)
            self.wake()
        else:
            self.bury(message, Reason.MAILBOX_FULL if isinstance(refusal, Overloaded) else Reason.STOPPED)

    async def put(self, message: object, deadline_s: float) -> None:
        """What ``ActorRef.send`` promises."""
        if not self._senders.line and (len(self.mailbox) < self.capacity or self.refusal() is None):
            self.mailbox.append(message)
            self.wake()
            return
        if self.capacity < 0:
            self.bury(message, Reason.STOPPED)
            raise ActorStopped(self.path)
        try:
            admitted = await self._senders.wait(message, deadline_s)
        except TimeoutError:
            raise Overloaded(f"the mailbox of {self.path}", limit=self.capacity) from None
        if not admitted:
            raise ActorStopped(self.path)

    def fired(self, timer: Timer) -> None:
        """A timer's message goes in beyond the bound: there is at most one for each timer."""
        if self.capacity < 0:
            return
        if len(self.mailbox) >= self.capacity + self.runtime.settings.timers_max:
            # Only stale ones, cancelled while they were waiting, can have filled that.
            self._drop_expired()
        self.mailbox.append(timer)
        self.wake()

    def requeue(self, messages: Iterable[Any]) -> None:
        """To the front, in order, beyond the bound."""
        if self.capacity < 0:
            for message in messages:
                self.bury(message, Reason.STOPPED)
            return
        self.mailbox.extendleft(reversed(list(messages)))
        self.wake()

    def stash(self) -> None:
        """What ``ActorContext.stash`` promises."""
        if self.current is NOTHING:
            raise RuntimeError(f"{self.path} handles no message that could be put aside")
        self._stash.add(self.current)
        if type(self.current) is Ask:
            self.current.running = False
        self.current = NOTHING

    def unstash_all(self) -> None:
        """To the front, in their order."""
        items = self._stash.take_all()
        if items:
            self.mailbox.extendleft(reversed(items))
            self.wake()

    # ---------------------------------------------------------------------------------------------------- turns

    def run(self) -> None:
        """Handle what is there, up to the budget. Runs from the loop, in the actor's own context."""
        mailbox = self.mailbox
        system = self.system
        if (system or not self.ready) and not self._settle():
            return
        receive = self.receive
        for _ in self.turns:
            if not mailbox:
                break
            item = mailbox.popleft()
            ask = type(item) is Ask
            if ask:
                # Expired while it waited, and so promised as not executed; or nobody waits for it any more.
                if item.future.done():
                    item.bucket.pop(item, None)
                    continue
                message = item.message
            elif type(item) is Timer:
                if not item.taken():
                    continue
                item = message = item.message
            else:
                message = item
            self.current = item
            try:
                result = receive(message)
                if type(result) is CoroutineType:
                    self._begin(item, cast("Coroutine[Any, Any, Any]", result))
                    return
                if ask and self.current is not NOTHING:
                    item.bucket.pop(item, None)
                    # The handler may have cancelled its asker.
                    if not item.future.done():
                        item.future.set_result(result)
            except BaseException as error:  # noqa: BLE001 - supervision is for whatever a handler raises
                self._failed(error)
                if not self._settle():
                    return
                receive = self.receive
            # Only a failure or a system message can end the actor's readiness.
            if system:
                if not self._settle():
                    return
                receive = self.receive
        self.current = NOTHING
        if self._senders.line:
            self._senders.admit(self.mailbox, self.capacity)
        if mailbox:
            self.loop.call_soon(self.run, context=self.variables)
        else:
            self.asleep = True

    def _settle(self) -> bool:
        """Do the system messages. True: messages may be handled now. False: ``run`` is to end."""
        self.current = NOTHING
        while self.task is None and self.system:
            self.system.popleft()()
        if self.task is not None:
            return False
        if not self.ready:
            self._senders.admit(self.mailbox, self.capacity)
            self.asleep = True
        return self.ready

    def _begin(self, item: Any, coroutine: Coroutine[Any, Any, Any]) -> None:
        if type(item) is Ask:
            item.running = True
        limit_s = self.runtime.settings.handler_limit_s
        if self._senders.line:
            self._senders.admit(self.mailbox, self.capacity)
        task = self.occupy(coroutine, self._ended)
        if limit_s is not None:
            self._limit = _Limit(task)
            self.deadlines.add(self.loop.time() + limit_s, self._limit)

    def occupy(
        self, coroutine: Coroutine[Any, Any, Any], then: Callable[[asyncio.Task[Any]], None]
    ) -> asyncio.Task[Any]:
        """Run a coroutine of the actor in a task; nothing else of the actor runs until it ends and ``then`` has run.

        The caller runs within ``run``, which ends after this.
        """
        task = self.loop.create_task(coroutine, name=self.path)
        self.task = task
        self._then = then
        task.add_done_callback(self._released, context=self.variables)
        return task

    def _released(self, task: asyncio.Task[Any]) -> None:
        # After an abort the task is no longer the cell's.
        if task is not self.task:
            if not task.cancelled():
                task.exception()
            return
        then, self.task, self._then = self._then, None, None
        assert then is not None
        then(task)
        if self.task is None:
            self.run()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        limit, self._limit = self._limit, None
        if limit is not None:
            self.deadlines.discard(limit)
        item = self.current
        if task.cancelled():
            overran = limit is not None and limit.exceeded
            self._failed(TimeoutError("it exceeded its time limit") if overran else asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            self._failed(error)
        elif type(item) is Ask:
            item.answer(task.result())
        self.current = NOTHING

    def _failed(self, error: BaseException) -> None:
        """The handler of the current message raised."""
        item, self.current = self.current, NOTHING
        if isinstance(error, StashFull):
            if type(item) is Ask:
                item.fail(error)
            else:
                self.bury(item, Reason.STASH_FULL)
            return
        if isinstance(error, Rejected):
            if type(item) is Ask:
                item.fail(error)
            return
        failure = HandlerFailed(self.path, f"its handler raised {error!r}")
        failure.__cause__ = error
        if type(item) is Ask:
            item.fail(failure)
        if isinstance(error, KeyboardInterrupt | SystemExit):
            self.wake_after_exit()
            raise error
        self.life.failed(error if isinstance(error, Exception) else failure)

    def wake_after_exit(self) -> None:
        """The loop is being left through ``run``: whatever drives it on, for an orderly end, finds the cell usable."""
        self.loop.call_soon(self.run, context=self.variables)

    # ------------------------------------------------------------------------------------------------------ end

    def close(self, why: str) -> None:
        """Take nothing more in, and end what is waiting: asks as not executed, messages as dead letters."""
        self.capacity = -1
        self.ready = False
        waiting = [*self._stash.take_all(), *self.mailbox]
        self.mailbox.clear()
        for item in waiting:
            self.end(item, why)
        for message in self._senders.close():
            self.bury(message, Reason.STOPPED)

    def abort(self, why: str) -> None:
        """As ``close``, and cancel what is running; its outcome does not matter any more."""
        self.close(why)
        self.system.clear()
        task, self.task = self.task, None
        if task is None:
            return
        item, self.current = self.current, NOTHING
        if type(item) is Ask:
            item.fail(OutcomeUnknown(self.path, why))
        if self._limit is not None:
            self.deadlines.discard(self._limit)
        task.cancel()

    def end(self, item: Any, why: str) -> None:
        """End a message that will not be handled."""
        if type(item) is Ask:
            item.fail(Unavailable(self.path, why))
        elif type(item) is not Timer:
            self.bury(item, Reason.STOPPED)

    def bury(self, message: object, reason: Reason) -> None:
        """Record a dead letter."""
        try:
            self.runtime.dead_letters.record(self.path, message, reason)
        except Exception as error:  # noqa: BLE001 - a subscriber's failure must not keep an actor from stopping
            logs.logger(actor=self.path).error("a subscriber to dead letters failed", exc_info=error)

    def _drop_expired(self) -> None:
        self.has_expired = False
        alive = [item for item in self.mailbox if not _is_over(item)]
        self.mailbox.clear()
        self.mailbox.extend(alive)
        self._senders.admit(self.mailbox, self.capacity)


def _is_over(item: Any) -> bool:
    if type(item) is Ask:
        return item.future.done()
    return type(item) is Timer and item.timers.is_stale(item)


def _not_started(message: object) -> object:
    raise AssertionError("a message was handled before its actor had started")

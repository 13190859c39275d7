"""SimulatedLoop (a shell): an asyncio loop on virtual time, for many simulated processes at once.

Time stands still while anything can run, and jumps to the next timer when nothing can: hours pass in milliseconds, and
the same inputs give the same run. There is no selector, no thread and no socket behind it, and asking for one raises.

The idea is that of FoundationDB's simulator (Zhou et al., "FoundationDB: a distributed unbundled transactional key
value store", 2021, section 4) and of TigerBeetle's: all processes of a cluster in one, single-threaded and seeded.
What is scheduled belongs to the process that was running when it was scheduled. Context variables would not do for
that, because actorkit gives its actors contexts of their own.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
import warnings
from asyncio import events
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager
from contextvars import Context, copy_context
from heapq import heapify, heappop, heappush
from struct import Struct
from typing import Any, TypeVar, TypeVarTuple, Unpack

from actorkit.errors import SimulationStuck
from actorkit.testing.simulation.out_of_reach import OutOfReach
from actorkit.testing.simulation.process import MachineClock, Process, State

__all__ = ["ScheduledCall", "SimulatedLoop"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_CRUMB = Struct("<dIQ")
_STEPS_AT_ONE_INSTANT_MAX = 1_000_000
_CANCELLED_KEPT = 64


class ScheduledCall(asyncio.TimerHandle):
    """What ``call_soon`` and ``call_at`` return. It knows its process and its number, by which equal times are told
    apart."""

    # It is a TimerHandle to those who ask, and shares nothing with it but the interface.
    __slots__ = ("args", "callback", "context", "local_s", "loop", "number", "process")

    def __init__(
        self,
        loop: SimulatedLoop,
        process: Process,
        number: int,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context | None,
        local_s: float,
    ) -> None:
        self.loop = loop
        self.process = process
        self.number = number
        self.callback: Callable[..., object] | None = callback
        self.args = args
        self.context = copy_context() if context is None else context
        self.local_s = local_s

    def cancel(self) -> None:
        if self.callback is not None:
            self.callback = None
            self.args = ()
            self.loop.note_cancelled()

    def cancelled(self) -> bool:
        return self.callback is None

    def when(self) -> float:
        return self.local_s

    def get_context(self) -> Context:
        """The context in which it runs."""
        return self.context

    def __repr__(self) -> str:
        return f"<call {self.number} of {self.process.name}: {self.callback!r}>"

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class SimulatedLoop(OutOfReach):
    """Runs scheduled calls in the order of their virtual times, and calls of one time in the order of scheduling."""

    def __init__(self, *, time_max_s: float = float("inf")) -> None:
        """``time_max_s`` is the virtual time after which a run counts as stuck."""
        super().__init__()
        self.now_s = 0.0
        """True time: what no process knows exactly."""
        self.steps = 0
        self.crumbs = bytearray()
        """Time, process and number of each call that ran: what makes the hash of a run."""
        self.on_crumbs: Callable[[bytearray], None] = bytearray.clear
        """Called with ``crumbs`` every now and then, and has to empty them."""
        self.unhandled: list[dict[str, Any]] = []
        """What asyncio would have logged: exceptions that nobody looked at."""
        self.world = Process("world", 0, MachineClock(self._true_s))
        """Where the run itself lives, and all that is no simulated process; its clock shows true time."""
        self.current = self.world
        """The process whose call is running."""
        self._processes = 1
        self._time_max_s = time_max_s
        self._ready: deque[ScheduledCall] = deque()
        self._timers: list[tuple[float, int, ScheduledCall]] = []
        self._numbers = 0
        self._cancelled = 0
        self._steps_max = 0
        self._stopping = False
        self._running = False
        self._closed = False
        self._handler: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None = None
        self._factory: Any = None
        self._generators: list[AsyncGenerator[Any, Any]] = []

    def _true_s(self) -> float:
        return self.now_s

    # ------------------------------------------------------------------------------------------------------ processes

    def new_process(self, name: str, clock: MachineClock | None = None) -> Process:
        """A process that is alive and has nothing to do yet."""
        process = Process(name, self._processes, clock or MachineClock(self._true_s))
        self._processes += 1
        return process

    def new_clock(self, *, started_s: float = 0.0, booted_s: float = 0.0) -> MachineClock:
        """The clocks of a machine, which survive its processes."""
        return MachineClock(self._true_s, started_s=started_s, booted_s=booted_s)

    @contextmanager
    def inside(self, process: Process) -> Generator[None]:
        """What is scheduled within belongs to that process."""
        before, self.current = self.current, process
        try:
            yield
        finally:
            self.current = before

    def start_in(self, process: Process, coroutine: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Runs a coroutine as the process's own, with nothing of the caller's context."""
        with self.inside(process):
            return Context().run(asyncio.Task, coroutine, loop=self, name=name)

    def call_in(self, process: Process, delay_s: float, callback: Callable[..., object], *args: Any) -> ScheduledCall:
        """Calls back in that process after so much true time: how one process reaches another."""
        call = self._new_call(process, callback, args, Context(), 0.0)
        heappush(self._timers, (self.now_s + delay_s, call.number, call))
        return call

    def crash(self, process: Process) -> None:
        """It ends now. What it had scheduled never runs, and neither does any code of its own that would clean up."""
        if process.state is State.DEAD:
            return
        process.state = State.DEAD
        # asyncio knows of all tasks, also of those that it started by itself.
        process.grave.extend(asyncio.all_tasks(self))
        process.grave.extend(process.deferred)
        process.deferred.clear()
        process.grave.extend(call for _, _, call in self._timers if call.process is process)
        self._timers = [entry for entry in self._timers if entry[2].process is not process]
        heapify(self._timers)

    def pause(self, process: Process) -> None:
        """It does nothing from now on, while its clocks go on; what it is sent and what comes due waits.

        A process that is paused twice goes on when it was resumed twice.
        """
        process.holds += 1
        if process.state is State.RUNNING:
            process.state = State.PAUSED
            process.paused_since_s = self.now_s

    def resume(self, process: Process) -> None:
        """It goes on with what has come meanwhile, in that order."""
        process.holds -= 1
        if process.state is not State.PAUSED or process.holds > 0:
            return
        process.state = State.RUNNING
        process.paused_s += self.now_s - process.paused_since_s
        local_s = process.clock.monotonic_s()
        for call in process.deferred:
            if call.local_s > local_s:
                # By its own clock, which has stood still meanwhile, it is not due yet.
                heappush(self._timers, (process.clock.true_at(call.local_s), call.number, call))
            else:
                self._ready.append(call)
        process.deferred.clear()

    def retime(self, clock: MachineClock) -> None:
        """The clock has changed its rate or has stood still: timers of its processes come due at other times now."""
        timers = self._timers
        for place, (_, number, call) in enumerate(timers):
            if call.process.clock is clock and call.local_s:
                timers[place] = (clock.true_at(call.local_s), number, call)
        heapify(timers)

    # ----------------------------------------------------------------------------------------------------- scheduling

    def time(self) -> float:
        """The monotonic clock of the process that is running."""
        return self.current.clock.monotonic_s()

    def _new_call(
        self,
        process: Process,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context | None,
        local_s: float,
    ) -> ScheduledCall:
        if self._closed:
            raise RuntimeError("Event loop is closed")
        self._numbers += 1
        return ScheduledCall(self, process, self._numbers, callback, args, context, local_s)

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> ScheduledCall:
        call = self._new_call(self.current, callback, args, context, 0.0)
        self._ready.append(call)
        return call

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> ScheduledCall:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> ScheduledCall:
        process = self.current
        call = self._new_call(process, callback, args, context, when)
        due_s = process.clock.true_at(when)
        if due_s <= self.now_s:
            # Timers are looked at only when nothing is ready, which a loop that spins at one instant never lets happen.
            self._ready.append(call)
        else:
            heappush(self._timers, (due_s, call.number, call))
        return call

    def note_cancelled(self) -> None:
        """For ``ScheduledCall``: one more that need not be kept."""
        self._cancelled += 1
        timers = self._timers
        if self._cancelled > _CANCELLED_KEPT and 2 * self._cancelled > len(timers):
            self._cancelled = 0
            self._timers = [entry for entry in timers if entry[2].callback is not None]
            heapify(self._timers)

    # -------------------------------------------------------------------------------------------------------- running

    def run_forever(self) -> None:
        if self._closed:
            raise RuntimeError("Event loop is closed")
        if self._running or events._get_running_loop() is not None:  # noqa: SLF001 - exposed for authors of loops
            raise RuntimeError("This event loop, or another one, is already running")
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=self._generators.append, finalizer=None)
        events._set_running_loop(self)  # noqa: SLF001 - as above
        self._running, self._stopping = True, False
        try:
            self._run()
        finally:
            self._running, self._stopping = False, False
            self.current = self.world
            events._set_running_loop(None)  # noqa: SLF001 - as above
            sys.set_asyncgen_hooks(*hooks)

    def run_until_complete(self, future: Generator[Any, None, T] | Awaitable[T]) -> T:
        # Generators as coroutines are gone from asyncio; only the type of this method still has them.
        assert isinstance(future, Awaitable)
        main = asyncio.ensure_future(future, loop=self)
        main.add_done_callback(self._stop)
        try:
            self.run_forever()
        finally:
            main.remove_done_callback(self._stop)
        if not main.done():
            raise RuntimeError("Event loop stopped before Future completed.")
        return main.result()

    def _stop(self, _main: asyncio.Future[Any]) -> None:
        self._stopping = True

    def stop(self) -> None:
        self._stopping = True

    def _run(self) -> None:
        ready, world, crumbs, pack = self._ready, self.world, self.crumbs, _CRUMB.pack
        self._steps_max = self.steps + _STEPS_AT_ONE_INSTANT_MAX
        while not self._stopping:
            if not ready:
                self._jump()
            call = ready.popleft()
            callback = call.callback
            if callback is None:
                continue
            process = call.process
            special = process.state is not State.RUNNING or process.at_step is not None
            if special and not self._may_run(process, call):
                continue
            self.steps += 1
            if self.steps > self._steps_max:
                raise self._spins()
            process.steps += 1
            crumbs += pack(self.now_s, process.number, call.number)
            self.current = process
            # A call that has begun cannot be cancelled any more, and runs once.
            call.callback = None
            try:
                call.context.run(callback, *call.args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - as asyncio does: one callback's failure is not the loop's
                self.call_exception_handler({"message": f"Exception in callback {callback!r}", "exception": error})
            self.current = world

    def _may_run(self, process: Process, call: ScheduledCall) -> bool:
        planned = process.at_step
        if planned is not None and process.steps >= planned[0]:
            process.at_step = None
            planned[1]()
        if process.state is State.PAUSED:
            process.deferred.append(call)
        elif process.state is State.DEAD:
            process.grave.append(call)
        return process.state is State.RUNNING

    def _spins(self) -> SimulationStuck:
        why = f"{_STEPS_AT_ONE_INSTANT_MAX} calls have run at {self.now_s:.6f} s without time going on"
        return SimulationStuck(why, self.waiting())

    def _jump(self) -> None:
        """Nothing can run now: on to the next timer."""
        timers = self._timers
        while timers and timers[0][2].callback is None:
            heappop(timers)
        if not timers:
            raise SimulationStuck("nothing is scheduled any more, and the run has not ended", self.waiting())
        due_s = timers[0][0]
        if due_s > self.now_s:
            if due_s > self._time_max_s:
                raise SimulationStuck(f"it has not ended within {self._time_max_s:g} s", self.waiting())
            self.now_s = due_s
            self._steps_max = self.steps + _STEPS_AT_ONE_INSTANT_MAX
            if len(self.crumbs) > 1 << 16:
                self.on_crumbs(self.crumbs)
        while timers and timers[0][0] <= due_s:
            self._ready.append(heappop(timers)[2])

    def waiting(self) -> list[str]:
        """One line for each task that has not ended: its process where that is known, its name, where it waits."""
        lines: list[str] = []
        for task in asyncio.all_tasks(self):
            stack = task.get_stack(limit=1)
            where = traceback.extract_stack(stack[-1], limit=1)[-1] if stack else None
            place = "nowhere" if where is None else f"{where.filename}:{where.lineno} in {where.name}"
            lines.append(f"{task.get_name()} waits at {place}")
        return sorted(lines)

    # ----------------------------------------------------------------------------------------------------- the rest

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Throws away whatever has not ended, without a trace: it is no longer of this world."""
        if self._running:
            raise RuntimeError("Cannot close a running event loop")
        if self._closed:
            return
        self.on_crumbs(self.crumbs)
        left = asyncio.all_tasks(self)
        self._closed = True
        running = events._get_running_loop()  # noqa: SLF001 - exposed for authors of loops
        # Code on its way out may ask for the running loop; it gets one that does nothing any more.
        events._set_running_loop(self)  # noqa: SLF001 - as above
        try:
            with warnings.catch_warnings():
                # Of coroutines that were to be awaited by those that are ended here.
                warnings.simplefilter("ignore", RuntimeWarning)
                for task in left:
                    _bury(task)
                self._ready.clear()
                self._timers.clear()
        finally:
            events._set_running_loop(running)  # noqa: SLF001 - as above

    async def shutdown_asyncgens(self) -> None:
        self._generators.clear()

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """There is none."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None, **more: Any) -> Any:
        if self._factory is not None:
            return self._factory(self, coro, **({} if context is None else {"context": context}), **more)
        if name is None:
            # asyncio's own numbers go on from run to run.
            name = f"{self.current.name}-{self._numbers}"
        return asyncio.Task(coro, loop=self, name=name, context=context, **more)

    def set_task_factory(self, factory: Any) -> None:
        self._factory = factory

    def get_task_factory(self) -> Any:
        return self._factory

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled: bool) -> None:
        """asyncio's debug mode measures real time: there is none here."""

    def set_exception_handler(self, handler: Any) -> None:
        self._handler = handler

    def get_exception_handler(self) -> Any:
        return self._handler

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.unhandled.append(context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self._closed or not self.current.alive:
            return
        if self._handler is not None:
            self._handler(self, context)
        else:
            self.default_exception_handler(context)


def _bury(task: asyncio.Task[Any]) -> None:
    """Ends a task whose loop is closed. What its code does on the way out reaches nobody."""
    # Else asyncio complains that it was destroyed while pending, which is what is wanted here.
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - what asyncio.gather does too
    coroutine: Any = task.get_coro()
    for _ in range(10):
        try:
            coroutine.close()
            return
        except BaseException:  # noqa: BLE001, S112 - it may raise anything, or go on waiting
            continue

"""The simulated loop: virtual time, processes that crash and pause, clocks that run wrong, and no way out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from actorkit.errors import SimulationEscape, SimulationStuck
from actorkit.testing.simulation import SimulatedLoop


@pytest.fixture
def loop() -> Iterator[SimulatedLoop]:
    loop = SimulatedLoop()
    yield loop
    loop.close()
    assert loop.unhandled == []


async def until(loop: SimulatedLoop, true_s: float) -> None:
    await asyncio.sleep(true_s - loop.now_s)


def test_hours_pass_at_once(loop: SimulatedLoop) -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await asyncio.sleep(7200)
        return loop.time()

    assert loop.time() == 0.0
    assert loop.run_until_complete(main()) == 3600.0


def test_calls_run_in_the_order_of_time_and_then_of_scheduling(loop: SimulatedLoop) -> None:
    ran: list[int] = []

    async def main() -> None:
        for number, delay_s in enumerate((2.0, 1.0, 1.0, 0.0, 2.0)):
            loop.call_later(delay_s, ran.append, number)
        loop.call_soon(ran.append, 5)
        loop.call_later(1.5, ran.append, 6).cancel()
        await asyncio.sleep(3)

    loop.run_until_complete(main())
    assert ran == [3, 5, 1, 2, 0, 4]


def test_asyncio_as_it_is_used(loop: SimulatedLoop) -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(3):
            await asyncio.sleep(0.1)
            yield number

    async def main() -> list[int]:
        queue: asyncio.Queue[int] = asyncio.Queue(1)

        async def put() -> None:
            async for number in numbers():
                await queue.put(number)

        async with asyncio.TaskGroup() as group:
            group.create_task(put())
            taken = [await queue.get() for _ in range(3)]
        done, pending = await asyncio.wait([asyncio.ensure_future(asyncio.sleep(n)) for n in (1, 9)], timeout=2)
        assert (len(done), len(pending)) == (1, 1)
        return taken

    assert loop.run_until_complete(main()) == [0, 1, 2]


def test_a_timer_that_is_due_at_once_comes_before_the_end_of_a_busy_instant(loop: SimulatedLoop) -> None:
    async def main() -> None:
        fired = asyncio.Event()
        loop.call_at(loop.time(), fired.set)
        while not fired.is_set():
            await asyncio.sleep(0)

    loop.run_until_complete(main())


def test_cancelled_timers_are_not_kept(loop: SimulatedLoop) -> None:
    async def main() -> None:
        for _ in range(10_000):
            loop.call_later(1000, print).cancel()
        assert len(loop._timers) < 1000
        await asyncio.sleep(1)

    loop.run_until_complete(main())
    assert loop.now_s == 1.0


# ----------------------------------------------------------------------------------------------------------- no way out


def test_waiting_for_what_never_comes_says_who_waits_where(loop: SimulatedLoop) -> None:
    async def waits_for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        await asyncio.create_task(waits_for_ever(), name="the patient one")

    with pytest.raises(SimulationStuck, match=r"the patient one waits at .*test_loop.py:\d+ in waits_for_ever"):
        loop.run_until_complete(main())


def test_a_run_has_an_end() -> None:
    loop = SimulatedLoop(time_max_s=100)

    async def main() -> None:
        while True:
            await asyncio.sleep(1)

    with pytest.raises(SimulationStuck, match="has not ended within 100 s"):
        loop.run_until_complete(main())
    loop.close()


@pytest.mark.parametrize(
    ("what", "seam"),
    [
        (lambda loop: asyncio.to_thread(print), "one thread"),
        (lambda loop: loop.create_connection(asyncio.Protocol, "localhost", 80), "simulated network"),
        (lambda loop: asyncio.create_subprocess_exec("true"), "World"),
        (lambda loop: loop.call_soon_threadsafe(print), "one thread"),
    ],
)
def test_what_is_outside_is_out_of_reach(
    loop: SimulatedLoop, what: Callable[[SimulatedLoop], object], seam: str
) -> None:
    async def main() -> None:
        result = what(loop)
        if asyncio.iscoroutine(result):
            await result

    with pytest.raises(SimulationEscape, match=seam):
        loop.run_until_complete(main())
    assert loop.escapes


# ------------------------------------------------------------------------------------------------------------ processes


def test_after_a_crash_nothing_of_a_process_runs_not_even_what_cleans_up(loop: SimulatedLoop) -> None:
    ran: list[str] = []
    process = loop.new_process("p")

    async def life() -> None:
        try:
            loop.call_later(2, ran.append, "timer")
            await asyncio.sleep(5)
            ran.append("end")
        finally:
            ran.append("finally")

    async def main() -> None:
        loop.start_in(process, life(), name="life")
        await asyncio.sleep(1)
        loop.crash(process)
        await asyncio.sleep(10)

    loop.run_until_complete(main())
    assert ran == []


def test_a_process_may_end_itself_and_has_no_effect_from_then_on(loop: SimulatedLoop) -> None:
    ran: list[str] = []
    process = loop.new_process("p")

    async def life() -> None:
        loop.crash(process)
        loop.call_soon(ran.append, "soon")
        task = loop.create_task(asyncio.sleep(0))
        await task
        ran.append("went on")

    async def main() -> None:
        loop.start_in(process, life(), name="life")
        await asyncio.sleep(1)

    loop.run_until_complete(main())
    assert ran == []


def test_a_paused_process_finds_everything_in_order_when_it_goes_on(loop: SimulatedLoop) -> None:
    ran: list[tuple[str, float]] = []
    process = loop.new_process("p")

    def note(what: str) -> None:
        ran.append((what, loop.now_s))

    async def life() -> None:
        for delay_s in (3.0, 1.0, 2.0, 9.0):
            loop.call_later(delay_s, note, f"after {delay_s:g}")

    async def main() -> None:
        loop.start_in(process, life(), name="life")
        await asyncio.sleep(0.5)
        loop.pause(process)
        loop.pause(process)
        loop.call_in(process, 1.0, note, "sent")
        await until(loop, 5)
        loop.resume(process)
        await until(loop, 6)
        loop.resume(process)
        await until(loop, 10)

    loop.run_until_complete(main())
    assert ran == [("after 1", 6.0), ("sent", 6.0), ("after 2", 6.0), ("after 3", 6.0), ("after 9", 9.0)]
    assert process.paused_s == 5.5


def test_a_planned_step_comes_in_place_of_the_next_call(loop: SimulatedLoop) -> None:
    ran: list[int] = []
    process = loop.new_process("p")

    async def life() -> None:
        for number in range(10):
            ran.append(number)
            await asyncio.sleep(0)

    async def main() -> None:
        process.at_step = (4, lambda: loop.crash(process))
        loop.start_in(process, life(), name="life")
        await asyncio.sleep(1)

    loop.run_until_complete(main())
    assert ran == [0, 1, 2, 3]


# --------------------------------------------------------------------------------------------------------------- clocks


@pytest.mark.parametrize("rate", [0.95, 1.0, 1.05])
def test_timers_go_by_the_clock_of_their_process(loop: SimulatedLoop, rate: float) -> None:
    clock = loop.new_clock(started_s=500.0)
    process = loop.new_process("p", clock)
    seen: list[tuple[float, float]] = []

    async def life() -> None:
        began_s = loop.time()
        await asyncio.sleep(10)
        seen.append((loop.time() - began_s, loop.now_s))

    async def main() -> None:
        clock.set_rate(rate)
        loop.start_in(process, life(), name="life")
        await asyncio.sleep(20)

    loop.run_until_complete(main())
    [(own_s, true_s)] = seen
    assert own_s >= 10.0
    assert (own_s, true_s) == (pytest.approx(10.0), pytest.approx(10 / rate))


def test_a_timer_follows_when_the_rate_changes(loop: SimulatedLoop) -> None:
    process = loop.new_process("p")
    seen: list[float] = []

    async def life() -> None:
        await asyncio.sleep(10)
        seen.append(loop.now_s)

    async def main() -> None:
        loop.start_in(process, life(), name="life")
        await asyncio.sleep(5)
        process.clock.set_rate(0.5)
        loop.retime(process.clock)
        await asyncio.sleep(20)

    loop.run_until_complete(main())
    assert seen == [pytest.approx(15.0)]


def test_a_suspended_machine_counts_in_its_lease_clock_only(loop: SimulatedLoop) -> None:
    process = loop.new_process("p")
    clock = process.clock
    seen: list[tuple[float, float, float]] = []

    async def life() -> None:
        lease_s, wall_us = clock.lease_s(), clock.wall_us()
        await asyncio.sleep(3)
        seen.append((loop.now_s, clock.lease_s() - lease_s, (clock.wall_us() - wall_us) / 1e6))

    async def main() -> None:
        loop.start_in(process, life(), name="life")
        await asyncio.sleep(1)
        clock.sleep()
        loop.pause(process)
        await asyncio.sleep(100)
        clock.wake()
        loop.retime(clock)
        loop.resume(process)
        await asyncio.sleep(100)

    loop.run_until_complete(main())
    assert seen == [pytest.approx((103.0, 103.0, 103.0))]


def test_the_wall_clock_jumps_and_nothing_else_does(loop: SimulatedLoop) -> None:
    clock = loop.new_clock(booted_s=7.0)
    before = clock.wall_us(), clock.lease_s(), clock.monotonic_s()
    clock.jump(-3600)
    assert (clock.wall_us() - before[0], clock.lease_s(), clock.monotonic_s()) == (-3_600_000_000, 7.0, 0.0)

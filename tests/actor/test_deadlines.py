"""Deadlines expire in time, once, and hold no more than what is in flight."""

from __future__ import annotations

import asyncio

import pytest

from actorkit.actor import Deadlines
from actorkit.errors import SimulationStuck


class Item:
    def __init__(self) -> None:
        self.expired_at: list[float] = []

    def expire(self) -> None:
        self.expired_at.append(asyncio.get_running_loop().time())


@pytest.fixture
async def deadlines() -> Deadlines:
    return Deadlines(asyncio.get_running_loop())


@pytest.mark.parametrize("start_s", [0.0, 0.013, 0.049, 0.05, 7.77])
@pytest.mark.parametrize("delay_s", [0.0, 0.001, 0.05, 0.123, 5.0])
async def test_everything_expires_within_100_ms_after_its_deadline(
    deadlines: Deadlines, start_s: float, delay_s: float
) -> None:
    loop = asyncio.get_running_loop()
    await asyncio.sleep(start_s)
    items = [(Item(), loop.time() + delay_s) for _ in range(2)]
    deadlines.add(items[0][1], items[0][0])
    deadlines.within(delay_s)[items[1][0]] = None
    for step_s in (0.02, 0.02):
        await asyncio.sleep(step_s)
        item = Item()
        items.append((item, loop.time() + delay_s))
        bucket = deadlines.recent.get(delay_s)
        (deadlines.within(delay_s) if bucket is None else bucket)[item] = None
    await asyncio.sleep(delay_s + 0.2)
    for item, deadline in items:
        (at,) = item.expired_at
        assert deadline - 1e-9 <= at <= deadline + 0.1 + 1e-9
    assert len(deadlines) == 0


async def test_what_is_discarded_does_not_expire(deadlines: Deadlines) -> None:
    item, gone = Item(), Item()
    deadlines.add(1.0, item)
    deadlines.add(1.0, gone)
    deadlines.discard(gone)
    deadlines.discard(gone)
    await asyncio.sleep(2)
    assert (len(item.expired_at), len(gone.expired_at)) == (1, 0)


async def test_adding_again_replaces_the_deadline(deadlines: Deadlines) -> None:
    item = Item()
    deadlines.add(1.0, item)
    deadlines.add(3.0, item)
    await asyncio.sleep(5)
    assert [round(at, 1) for at in item.expired_at] == [3.0] or item.expired_at[0] <= 3.1
    assert len(item.expired_at) == 1


async def test_what_is_due_together_expires_in_the_order_of_addition(deadlines: Deadlines) -> None:
    order: list[int] = []

    class Numbered(Item):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

        def expire(self) -> None:
            order.append(self.number)

    for number in range(1000):
        deadlines.add(1.0, Numbered(number))
    await asyncio.sleep(2)
    assert order == list(range(1000))


async def test_expiring_one_may_discard_another(deadlines: Deadlines) -> None:
    class Killer(Item):
        def __init__(self, victims: list[Item]) -> None:
            super().__init__()
            self.victims = victims

        def expire(self) -> None:
            super().expire()
            for victim in self.victims:
                deadlines.discard(victim)

    pair: list[Item] = []
    pair += [Killer(pair), Killer(pair)]
    for item in pair:
        deadlines.add(1.0, item)
    await asyncio.sleep(2)
    assert sorted(len(item.expired_at) for item in pair) == [0, 1]


async def test_the_sweep_rests_when_nothing_is_in_flight(deadlines: Deadlines) -> None:
    item = Item()
    deadlines.add(0.1, item)
    await asyncio.sleep(1)
    # On virtual time a loop with nothing scheduled fails the test; a sweep that went on would hide that.
    with pytest.raises(SimulationStuck, match="nothing is scheduled"):
        asyncio.get_running_loop()._jump()  # type: ignore[attr-defined]
    assert deadlines._sweeper is None
    late = Item()
    deadlines.add(5.0, late)
    await asyncio.sleep(5)
    assert len(late.expired_at) == 1


async def test_memory_is_bounded_by_what_is_in_flight_however_long_the_deadlines(deadlines: Deadlines) -> None:
    keep = Item()
    deadlines.add(100_000.0, keep)
    for number in range(10_000):
        item = Item()
        deadlines.add(1_000.0 + number, item)
        deadlines.discard(item)
        with_own = deadlines.within(2_000.0 + number)
        with_own[item] = None
        del with_own[item]
    assert len(deadlines) == 1
    assert len(deadlines._buckets) < 100
    assert len(deadlines._where) == 1
    assert len(deadlines.recent) <= 64


async def test_closing_expires_nothing(deadlines: Deadlines) -> None:
    item = Item()
    deadlines.add(1.0, item)
    deadlines.close()
    await asyncio.sleep(2)
    assert item.expired_at == []

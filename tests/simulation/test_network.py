"""The simulated network: what arrives, in which order, and what does not."""

from __future__ import annotations

import asyncio
from hashlib import blake2b
from random import Random

import pytest

from actorkit.testing.simulation import Network, NetworkSettings, Process, SimulatedLoop, stream


class Station:
    """Keeps what arrives at an address, and what is refused to it."""

    def __init__(self, loop: SimulatedLoop, network: Network, address: str) -> None:
        self.process: Process = loop.new_process(address)
        self.heard: list[tuple[str, bytes]] = []
        self.refused: list[tuple[str, bytes]] = []
        network.listen(
            address,
            lambda source, message: self.heard.append((source, message)),
            process=self.process,
            refused=lambda target, message: self.refused.append((target, message)),
        )


@pytest.fixture
async def network() -> Network:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulatedLoop)
    return Network(loop, stream(1, "network"), settings=NetworkSettings(delay_s=(0.001, 0.1)))


@pytest.fixture
async def stations(network: Network) -> dict[str, Station]:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulatedLoop)
    return {address: Station(loop, network, address) for address in "abc"}


async def test_within_a_connection_order_is_kept_and_elsewhere_it_is_not(
    network: Network, stations: dict[str, Station]
) -> None:
    for number in range(100):
        network.send("a", "b", b"%d" % number, connection=1)
        network.send("a", "c", b"%d" % number)
    await asyncio.sleep(1)
    sent = [("a", b"%d" % number) for number in range(100)]
    assert stations["b"].heard == sent
    assert stations["c"].heard != sent
    assert sorted(stations["c"].heard) == sorted(sent)


@pytest.mark.parametrize("seed", range(200))
async def test_order_is_kept_whatever_the_clock_is_rounded_to(seed: int) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulatedLoop)
    network = Network(loop, stream(seed, "n"))
    station = Station(loop, network, "b")
    for number in range(300):
        network.send("a", "b", b"%03d" % number, connection=5)
        if number % 3 == 0:
            await asyncio.sleep(0.000_7)
    await asyncio.sleep(1)
    assert [message for _, message in station.heard] == [b"%03d" % number for number in range(300)]


async def test_a_cut_is_one_way_and_takes_what_is_on_its_way(network: Network, stations: dict[str, Station]) -> None:
    network.send("a", "b", b"on its way")
    network.cut("a", "b")
    network.cut("a", "b")
    network.send("a", "b", b"lost")
    network.send("b", "a", b"back")
    network.send("a", "c", b"around")
    await asyncio.sleep(1)
    network.mend("a", "b")
    network.send("a", "b", b"still cut")
    await asyncio.sleep(1)
    network.mend("a", "b")
    network.send("a", "b", b"mended")
    await asyncio.sleep(1)
    assert stations["b"].heard == [("a", b"mended")]
    assert stations["a"].heard == [("b", b"back")]
    assert stations["c"].heard == [("a", b"around")]
    assert network.lost == 3


async def test_messages_are_lost_and_repeated_as_often_as_is_said(
    network: Network, stations: dict[str, Station]
) -> None:
    network.faults.loss = 0.3
    network.faults.duplicates = 0.5
    copies = [network.send("a", "b", b"x") for _ in range(2000)]
    lost = network.lost
    assert 500 < lost < 700
    assert all(network.send("a", "c", b"x", may_repeat=False) == 1 for _ in range(100))
    await asyncio.sleep(10)
    assert len(stations["b"].heard) == sum(copies) - lost
    assert 0.4 < copies.count(2) / (2000 - lost) < 0.6
    assert len(stations["c"].heard) == 100 - (network.lost - lost)


async def test_where_nobody_listens_the_sender_is_told(network: Network, stations: dict[str, Station]) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulatedLoop)
    network.send("a", "nowhere", b"1")
    network.send("a", "b", b"2")
    loop.crash(stations["b"].process)
    network.send("a", "b", b"3")
    await asyncio.sleep(1)
    assert sorted(stations["a"].refused) == [("b", b"3"), ("nowhere", b"1")]
    again = Station(loop, network, "b")
    network.send("a", "b", b"4")
    await asyncio.sleep(1)
    assert (stations["b"].heard, again.heard) == ([], [("a", b"4")])


def test_streams_of_one_seed_are_apart_and_the_same_everywhere() -> None:
    first = [stream(7, name).random() for name in ("a", "b", "a")]
    assert first[0] == first[2] != first[1]
    assert first[0] == Random(int.from_bytes(blake2b(b"7/a", digest_size=16).digest(), "big")).random()

"""Remoting between simulated nodes: order, batches, bounds, and what becomes of a peer."""

from __future__ import annotations

import asyncio

import pytest

from actorkit.remoting import Connected, Disconnected, RemotingSettings, Unreachable
from actorkit.testing.simulation import Network, SimulatedLoop, stream
from tests.remoting.nodes import Note, Talker


@pytest.fixture
async def network() -> Network:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulatedLoop)
    return Network(loop, stream(1, "network"))


@pytest.fixture
async def loop() -> SimulatedLoop:
    running = asyncio.get_running_loop()
    assert isinstance(running, SimulatedLoop)
    return running


async def test_messages_arrive_in_order_and_a_turn_is_a_frame(loop: SimulatedLoop, network: Network) -> None:
    a, b = Talker(loop, network, "a"), Talker(loop, network, "b")
    await asyncio.sleep(0.1)
    for number in range(100):
        a.say(b, number)
    await asyncio.sleep(0.5)
    assert b.numbers() == list(range(100))
    assert a.told == [Connected(b.node, b.address)]
    assert b.told == [Connected(a.node, a.address)]
    frames = a.remoting.counters.frames_sent
    for number in range(100):
        a.say(b, number)
    b.say(a, 1)
    await asyncio.sleep(0.1)
    assert a.remoting.counters.frames_sent - frames <= 2
    assert len(b.heard) == 200
    assert a.numbers() == [1]


async def test_what_goes_back_and_forth_one_at_a_time_leaves_at_once_and_the_rest_of_a_turn_in_one_frame(
    loop: SimulatedLoop, network: Network
) -> None:
    a, b = Talker(loop, network, "a"), Talker(loop, network, "b")
    await asyncio.sleep(0.1)
    assert a.say(b, 0)
    await asyncio.sleep(0.1)
    frames = b.remoting.counters.frames_sent
    # One message alone has come from a, so the first that goes there waits for no others.
    assert b.say(a, 1)
    assert b.remoting.counters.frames_sent == frames + 1
    assert b.remoting.queued_messages == 0
    for number in range(2, 10):
        assert b.say(a, number)
    assert b.remoting.counters.frames_sent == frames + 1
    assert b.remoting.queued_messages == 8
    await asyncio.sleep(0.1)
    assert a.numbers() == list(range(1, 10))
    assert b.remoting.counters.frames_sent == frames + 2
    # Several have come together: those that answer them gather.
    frames = a.remoting.counters.frames_sent
    assert a.say(b, 10)
    assert a.say(b, 11)
    assert a.remoting.counters.frames_sent == frames
    await asyncio.sleep(0.1)
    assert b.numbers() == [0, 10, 11]
    assert a.remoting.counters.frames_sent == frames + 1


async def test_a_peer_that_is_not_there_is_told_and_nothing_was_sent(loop: SimulatedLoop, network: Network) -> None:
    a, b = Talker(loop, network, "a"), Talker(loop, network, "b")
    await asyncio.sleep(0.1)
    loop.crash(b.process)
    a.say(b, 1)
    await asyncio.sleep(0.02)
    assert [type(event) for event in a.told] == [Unreachable]
    again = Talker(loop, network, "b", life=2)
    await asyncio.sleep(2)
    a.say(again, 2)
    await asyncio.sleep(1)
    assert again.numbers() == [2]
    assert a.connected == [again.node]


async def test_a_killed_peer_is_noticed_and_its_next_life_is_another(loop: SimulatedLoop, network: Network) -> None:
    a, b = Talker(loop, network, "a"), Talker(loop, network, "b")
    await asyncio.sleep(0.1)
    a.say(b, 1)
    await asyncio.sleep(5)
    assert a.connected == [b.node]
    loop.crash(b.process)
    await asyncio.sleep(5)
    assert a.connected == []
    again = Talker(loop, network, "b", life=2)
    await asyncio.sleep(0.1)
    again.say(a, 7)
    await asyncio.sleep(1)
    assert a.connected == [again.node]
    assert [type(event) for event in a.told] == [Connected, Disconnected, Connected]
    assert a.numbers() == [7]


async def test_a_connection_that_is_given_up_is_told_at_both_ends_and_made_anew(
    loop: SimulatedLoop, network: Network
) -> None:
    a, b = Talker(loop, network, "a"), Talker(loop, network, "b")
    await asyncio.sleep(0.1)
    a.say(b, 1)
    await asyncio.sleep(0.1)
    a.remoting.disconnect(b.address, "enough")
    await asyncio.sleep(2)
    assert [type(event) for event in a.told[:2]] == [type(event) for event in b.told[:2]] == [Connected, Disconnected]
    a.say(b, 2)
    await asyncio.sleep(2)
    assert b.numbers() == [1, 2]
    a.remoting.disconnect("nobody:9080", "nothing is there")


async def test_stopping_sends_what_is_queued_and_says_farewell(loop: SimulatedLoop, network: Network) -> None:
    a, b = Talker(loop, network, "a"), Talker(loop, network, "b")
    await asyncio.sleep(0.1)
    a.say(b, 1)
    await asyncio.sleep(1)
    a.say(b, 2)
    loop.start_in(a.process, a.remoting.stop(), name="stop")
    await asyncio.sleep(0.1)
    assert b.numbers() == [1, 2]
    assert b.told[1:] == [Disconnected(a.node, a.address, "it has stopped in an orderly way")]


@pytest.mark.parametrize("seed", range(20))
async def test_of_two_simultaneous_connections_one_stays(loop: SimulatedLoop, seed: int) -> None:
    network = Network(loop, stream(seed, "network"))
    a, b = Talker(loop, network, "a"), Talker(loop, network, "b")
    await asyncio.sleep(0.1)
    for number in range(10):
        a.say(b, number)
        b.say(a, number)
    await asyncio.sleep(10)
    assert a.numbers() == list(range(10))
    assert b.numbers() == list(range(10))
    assert a.told == [Connected(b.node, b.address)]
    assert b.told == [Connected(a.node, a.address)]


async def test_what_was_refused_while_waiting_makes_the_next_attempt_begin(
    loop: SimulatedLoop, network: Network
) -> None:
    a, b = Talker(loop, network, "a"), Talker(loop, network, "b")
    await asyncio.sleep(0.1)
    loop.crash(b.process)
    a.say(b, 1)
    await asyncio.sleep(0.02)
    assert isinstance(a.told[-1], Unreachable)
    assert not a.say(b, 2)
    assert a.remoting.counters.messages_not_accepted == 1
    again = Talker(loop, network, "b", life=2)
    await asyncio.sleep(1)
    assert a.connected == [again.node]
    assert again.heard == []


async def test_a_receiver_or_subscriber_that_raises_harms_nobody_else(loop: SimulatedLoop, network: Network) -> None:
    a, b = Talker(loop, network, "a"), Talker(loop, network, "b")

    def fail(*_: object) -> None:
        raise RuntimeError("a defect of the test")

    before = b.remoting.receivers[Note]
    b.remoting.receivers[Note] = fail
    b.remoting.subscribe(fail)
    await asyncio.sleep(0.1)
    a.say(b, 1)
    await asyncio.sleep(0.1)
    b.remoting.receivers[Note] = before
    a.say(b, 2)
    await asyncio.sleep(0.1)
    assert b.numbers() == [2]
    assert b.remoting.counters.receivers_failed == 2
    assert [type(event) for event in a.told] == [Connected]


async def test_an_outbox_that_is_full_takes_no_more_and_the_rest_arrives(loop: SimulatedLoop, network: Network) -> None:
    a = Talker(loop, network, "a", settings=RemotingSettings(outbox_max_messages=10))
    b = Talker(loop, network, "b")
    await asyncio.sleep(0.1)
    assert [a.say(b, number) for number in range(12)] == [True] * 10 + [False] * 2
    await asyncio.sleep(1)
    assert b.numbers() == list(range(10))
    assert a.remoting.queued_messages == 0


async def test_adjacent_protocol_versions_talk_and_others_are_told_apart(loop: SimulatedLoop, network: Network) -> None:
    old = Talker(loop, network, "old", versions=(1, 1))
    new = Talker(loop, network, "new", versions=(1, 2))
    newest = Talker(loop, network, "newest", versions=(2, 3))
    await asyncio.sleep(0.1)
    old.say(new, 1)
    newest.say(new, 2)
    newest.say(old, 3)
    await asyncio.sleep(1)
    assert [(peer.node.name, peer.version) for peer, _ in new.heard] == [("old", 1), ("newest", 2)]
    assert old.heard == []
    unreachable = [event for event in newest.told if isinstance(event, Unreachable)]
    assert "protocol versions 1 to 1" in unreachable[0].why

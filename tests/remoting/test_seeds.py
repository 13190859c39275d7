"""Remoting under everything that a network does, by seed: order, at most once, and events that tell the truth."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest

from actorkit.ids import NodeId
from actorkit.remoting import Connected, Disconnected, PeerEvent, RemotingSettings, Unreachable
from actorkit.testing.simulation import Network, SimulatedLoop, stream
from actorkit.testing.simulation.transport import TcpSettings
from tests.remoting.nodes import SECRET, Note, Talker

NAMES = ("a", "b", "c")
CHAOS_S = 30.0
SMALL = RemotingSettings(outbox_max_messages=50)
TIGHT = TcpSettings(buffer_bytes=300)


class Sender(Talker):
    """A talker that numbers what is accepted for each target, and holds the events against it."""

    def begin(self) -> None:
        self.accepted: dict[str, int] = defaultdict(int)
        self.unsettled: dict[str, list[int]] = defaultdict(list)
        """Accepted, and no event has come since that would account for it."""
        self.not_sent: dict[str, set[int]] = defaultdict(set)
        self.remoting.subscribe(self._account)

    def _account(self, event: PeerEvent) -> None:
        if isinstance(event, Connected):
            return
        if isinstance(event, Unreachable):
            self.not_sent[event.address].update(self.unsettled[event.address])
        self.unsettled[event.address].clear()

    def try_to_say(self, address: str) -> bool:
        with self.loop.inside(self.process):
            number = self.accepted[address] + 1
            self.unsettled[address].append(number)
            if self.remoting.send(address, Note(number, "x" * (number % 50))):
                self.accepted[address] = number
                return True
            self.unsettled[address].remove(number)
            return False


class Chaos:
    """Three nodes, their lives, and what goes wrong."""

    def __init__(self, loop: SimulatedLoop, seed: int) -> None:
        self.loop = loop
        self.seed = seed
        self.random = stream(seed, "chaos")
        self.network = Network(loop, stream(seed, "network"))
        self.lives: dict[str, list[Sender]] = {name: [] for name in NAMES}
        # Only some kinds each time, since all at once hide what a few would show.
        kinds = ("cut", "one way", "loss", "slow", "repeat", "pause", "crash", "leave", "flap", "quiet")
        self.kinds = [kind for kind in kinds if self.random.random() < 0.5] or ["cut"]
        self.secret = SECRET if self.random.random() < 0.5 else None
        for name in NAMES:
            self.start(name)

    def start(self, name: str) -> None:
        lives = self.lives[name]
        if lives and lives[-1].process.alive:
            return
        settings = SMALL if self.random.random() < 0.5 else RemotingSettings()
        tcp = TIGHT if self.random.random() < 0.5 else TcpSettings()
        life = len(lives) + 1
        lives.append(
            Sender(
                self.loop, self.network, name, life=life, seed=self.seed, secret=self.secret, settings=settings, tcp=tcp
            )
        )
        lives[-1].begin()

    @property
    def living(self) -> list[Sender]:
        return [lives[-1] for lives in self.lives.values() if lives[-1].process.alive]

    def later(self, delay_s: float, what: Callable[[], object]) -> None:
        self.loop.call_in(self.loop.world, delay_s, what)

    def something_goes_wrong(self) -> None:
        random, faults = self.random, self.network.faults
        kind = self.kinds[int(random.random() * len(self.kinds))]
        first, second = random.sample(NAMES, 2)
        lasts_s = 0.02 * 500 ** random.random()
        if kind in ("cut", "one way", "flap"):
            pairs = [(first, second), (second, first)]
            for times in range(5 if kind == "flap" else 1):
                for pair in pairs[: 1 if kind == "one way" else 2]:
                    part_s = min(lasts_s, 0.5)
                    begin_s = 2 * times * part_s
                    self.later(begin_s, partial(self.network.cut, *pair))
                    self.later(begin_s + (part_s if kind == "flap" else lasts_s), partial(self.network.mend, *pair))
        elif kind == "loss":
            faults.loss = random.random() / 2
            self.later(lasts_s, partial(setattr, faults, "loss", 0.0))
        elif kind == "slow":
            faults.delay_s = 3 * random.random() ** 2
            self.later(lasts_s, partial(setattr, faults, "delay_s", 0.0))
        elif kind == "repeat":
            faults.duplicates = random.random()
            self.later(lasts_s, partial(setattr, faults, "duplicates", 0.0))
        elif kind == "pause":
            process = self.lives[first][-1].process
            self.loop.pause(process)
            self.later(lasts_s, partial(self.loop.resume, process))
        elif kind == "crash":
            self.loop.crash(self.lives[first][-1].process)
            self.later(min(lasts_s, 2.0), partial(self.start, first))
        elif kind == "leave":
            sender = self.lives[first][-1]
            if sender.process.alive:
                self.loop.start_in(sender.process, sender.remoting.stop(), name="leave")
                self.later(1.0, partial(self.loop.crash, sender.process))
                self.later(1.0 + random.random(), partial(self.start, first))

    async def run(self) -> None:
        random = self.random
        while self.loop.now_s < CHAOS_S:
            await asyncio.sleep(random.random() * 0.4)
            if random.random() < 0.2:
                self.something_goes_wrong()
            for sender in self.living:
                for _ in range(int(random.random() * 20)):
                    sender.try_to_say(f"{random.choice([name for name in NAMES if name != sender.node.name])}:9080")
        await asyncio.sleep(30)
        for name in NAMES:
            self.start(name)
        await asyncio.sleep(5)

    async def progress(self) -> None:
        """Healed: whatever is accepted from now on arrives, and it is accepted."""
        goals: dict[tuple[str, str], int] = {}
        for sender in self.living:
            for name in NAMES:
                address = f"{name}:9080"
                if name == sender.node.name:
                    continue
                async with asyncio.timeout(5):
                    while not sender.try_to_say(address):
                        await asyncio.sleep(0.05)
                goals[sender.node.name, name] = sender.accepted[address]
        await asyncio.sleep(2)
        for (source, target), number in goals.items():
            node = self.lives[source][-1].node
            heard = [note.number for peer, note in self.lives[target][-1].heard if peer.node == node]
            assert heard, (source, target)
            assert heard[-1] == number

    def judge(self) -> None:
        everybody = {sender.node: sender for lives in self.lives.values() for sender in lives}
        for hearer in everybody.values():
            judge_story(hearer)
            for node in {peer.node for peer, _ in hearer.heard}:
                numbers = [note.number for peer, note in hearer.heard if peer.node == node]
                assert all(first < second for first, second in pairwise(numbers)), (hearer.node, node)
                assert not everybody[node].not_sent[hearer.address].intersection(numbers)
        for sender in self.living:
            for address, unsettled in sender.unsettled.items():
                hearer = self.lives[address.partition(":")[0]][-1]
                heard = {note.number for peer, note in hearer.heard if peer.node == sender.node}
                assert heard.issuperset(unsettled), (sender.node, address)


def judge_story(hearer: Talker) -> None:
    """Connections of an address begin and end in turns; within one, messages have no hole."""
    connected: dict[str, NodeId] = {}
    newest: dict[str, int] = {}
    for each in hearer.story:
        if isinstance(each, Connected):
            assert each.address not in connected
            connected[each.address] = each.node
            newest.pop(each.address, None)
        elif isinstance(each, Disconnected):
            assert connected.pop(each.address) == each.node
        elif isinstance(each, Unreachable):
            assert each.address not in connected
        else:
            peer, note = each
            assert connected[peer.address] == peer.node
            if peer.address in newest:
                assert note.number == newest[peer.address] + 1
            newest[peer.address] = note.number


@pytest.mark.parametrize("seed", range(30))
def test_order_at_most_once_and_honest_events_under_faults(seed: int) -> None:
    loop = SimulatedLoop(time_max_s=300.0)

    async def story() -> None:
        chaos = Chaos(loop, seed)
        await chaos.run()
        await chaos.progress()
        chaos.judge()

    try:
        loop.run_until_complete(story())
    finally:
        # Tasks of nodes that have crashed never end: they are thrown away with the loop.
        loop.close()
    assert not loop.unhandled

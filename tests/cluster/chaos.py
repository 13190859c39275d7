"""Everything that may go wrong with a village, at random times and in any combination."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from actorkit.cluster.events import ClusterEvent, Downed
from tests.cluster.village import Life, Village

__all__ = ["Chaos"]


class Chaos:
    """Breaks things for a while, and repairs them. Nodes that crash or are downed start again, as a supervisor would
    see to."""

    def __init__(self, village: Village, names: list[str], *, seeds: int = 3) -> None:
        self.village = village
        self.names = names
        self.seeds = [f"{name}:9080" for name in names[:seeds]]
        self.random = Random(village.random.getrandbits(64))
        self.over = False
        self.done: list[str] = []
        self._cuts: list[set[tuple[str, str]]] = []
        village.on_event = self._on_event

    def begin(self) -> None:
        """All nodes start within a second."""
        for name in self.names:
            self.village.later(self.random.random(), lambda name=name: self._start(name))  # type: ignore[misc]

    def rage(self, for_s: float) -> None:
        """Lets things go wrong for so long."""
        ends_s = self.village.now_s + for_s
        faults: list[Callable[[], None]] = [
            *(self._partition, self._one_way, self._not_transitive, self._flap, self._bad_network),
            *(self._pause, self._crash, self._leave, self._storm),
        ]
        while self.village.now_s < ends_s:
            self.random.choice(faults)()
            self.village.run(self.random.uniform(0.2, 4.0))

    def repair(self) -> None:
        """All that was broken is mended, and every node runs."""
        self.over = True
        self._cuts.clear()
        self.village.heal()
        for name in self.names:
            self._start(name)

    # ---------------------------------------------------------------------------------------------------------- faults

    def _note(self, what: str) -> None:
        self.done.append(f"{self.village.now_s:8.3f} {what}")

    def _on_event(self, life: Life, event: ClusterEvent) -> None:
        if isinstance(event, Downed):
            self._note(f"{life.node} is down: {event.why}")
            life.alive = False
            self._start_later(life.node.name)

    def _start(self, name: str) -> None:
        old = self.village.at.get(f"{name}:9080")
        if old is None or not old.alive:
            self.village.start(name, self.seeds)

    def _start_later(self, name: str) -> None:
        self.village.later(self.random.uniform(0.05, 3.0), lambda: self._start(name))

    def _lives(self) -> list[Life]:
        return [life for life in self.village.at.values() if life.alive]

    def _some(self) -> Life | None:
        lives = self._lives()
        return self.random.choice(lives) if lives else None

    def _for(self, cut: set[tuple[str, str]], low_s: float = 0.5, high_s: float = 12.0) -> None:
        self._cuts.append(cut)
        self._recount()
        self.village.later(self.random.uniform(low_s, high_s), lambda: self._mend(cut))

    def _mend(self, cut: set[tuple[str, str]]) -> None:
        self._cuts = [each for each in self._cuts if each is not cut]
        self._recount()

    def _recount(self) -> None:
        self.village.blocked = set().union(*self._cuts)

    def _addresses(self) -> list[str]:
        return [f"{name}:9080" for name in self.names]

    def _partition(self) -> None:
        one = {address for address in self._addresses() if self.random.random() < 0.5}
        other = set(self._addresses()) - one
        self._note(f"partition {sorted(one)}")
        self._for({(a, b) for a in one for b in other} | {(b, a) for a in one for b in other})

    def _one_way(self) -> None:
        one = self.random.choice(self._addresses())
        others = [each for each in self._addresses() if each != one and self.random.random() < 0.7]
        self._note(f"one way from {one}")
        self._for({(one, each) for each in others})

    def _not_transitive(self) -> None:
        a, b = self.random.sample(self._addresses(), 2)
        self._note(f"{a} and {b} cut")
        self._for({(a, b), (b, a)})

    def _flap(self) -> None:
        a, b = self.random.sample(self._addresses(), 2)
        for number in range(10):
            cut = {(a, b), (b, a)}
            self.village.later(number * 0.6, lambda cut=cut: self._for(cut, 0.2, 0.5))  # type: ignore[misc]

    def _bad_network(self) -> None:
        village = self.village
        village.loss, village.duplicates = self.random.uniform(0, 0.3), self.random.uniform(0, 0.3)
        village.delay_s = (0.0, self.random.uniform(0.01, 1.0))
        self._note(f"loss {village.loss:.2f}, delay {village.delay_s[1]:.2f}")

        def better() -> None:
            village.loss = village.duplicates = 0.0
            village.delay_s = (0.000_2, 0.003)

        village.later(self.random.uniform(1, 6), better)

    def _pause(self) -> None:
        if (life := self._some()) is not None and not life.paused:
            for_s = self.random.uniform(0.1, 12.0)
            self._note(f"{life.node} pauses for {for_s:.1f}")
            self.village.pause(life, for_s)

    def _crash(self) -> None:
        if (life := self._some()) is not None:
            self._note(f"{life.node} crashes")
            self.village.crash(life)
            self._start_later(life.node.name)

    def _leave(self) -> None:
        if (life := self._some()) is not None and not life.paused:
            self._note(f"{life.node} leaves")
            self.village.act(life, lambda core: core.leave(self.village.now_s))
            self.village.later(self.random.uniform(0.0, 1.0), lambda: self._stop(life))

    def _stop(self, life: Life) -> None:
        if life.alive:
            self.village.act(life, lambda core: core.stop(self.village.now_s))

            def ended() -> None:
                life.alive = False
                self._start_later(life.node.name)

            self.village.later(0.5, ended)

    def _storm(self) -> None:
        self._note("storm")
        for life in self._lives():
            if self.random.random() < 0.5:
                self.village.crash(life) if self.random.random() < 0.5 else self._stop(life)
                self._start_later(life.node.name)

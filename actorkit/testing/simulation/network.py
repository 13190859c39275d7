"""Network: messages between simulated processes, with all that networks do to them.

An address is a machine's name, which may be followed by a port (``node-1:9080``); at most one process listens at it.
Messages of one connection between two addresses arrive in the order in which they were sent; those of different
connections, or of none, overtake each other. A link between machines may be cut in one direction, in both, or between
some pairs only. A message to an address where nobody listens is refused, if the sender has asked to hear of that, as a
TCP connection is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from actorkit.testing.simulation.loop import SimulatedLoop
from actorkit.testing.simulation.process import Process

if TYPE_CHECKING:
    from random import Random

__all__ = ["Network", "NetworkFaults", "NetworkSettings"]

Receive = Callable[[str, bytes], None]
"""Called with the sender's address and the message."""

Refused = Callable[[str, bytes], None]
"""Called with the address where nobody listened, and the message that was sent there."""


class NetworkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How fast the network is when nothing is wrong with it."""

    delay_s: tuple[float, float] = (0.000_2, 0.003)


class NetworkFaults:
    """What is wrong at the moment. Probabilities are per message, from 0 to 1."""

    def __init__(self) -> None:
        self.cut: dict[tuple[str, str], list[str]] = {}
        """Pairs (from, to) between which nothing passes, and why: the kinds of faults."""
        self.loss = 0.0
        self.duplicates = 0.0
        self.delay_s = 0.0
        """Up to so much more for each message."""


class Network:
    """All links of a world."""

    def __init__(
        self,
        loop: SimulatedLoop,
        random: Random,
        *,
        settings: NetworkSettings = NetworkSettings(),  # noqa: B008 - frozen
        note: Callable[[str], None] = lambda line: None,
        did: Counter[str] | None = None,
    ) -> None:
        """``did`` counts what each kind of fault has done to messages."""
        self.faults = NetworkFaults()
        self.did = Counter[str]() if did is None else did
        self.sent = 0
        self.lost = 0
        self._loop = loop
        self._random = random
        self._settings = settings
        self._note = note
        self._listeners: dict[str, tuple[Process, Receive, Refused | None]] = {}
        self._last_s: dict[tuple[str, str, int], float] = {}

    @property
    def machines(self) -> list[str]:
        """Where somebody listens, or has listened."""
        return list(dict.fromkeys(map(_machine, self._listeners)))

    def listen(
        self, address: str, receive: Receive, *, process: Process | None = None, refused: Refused | None = None
    ) -> None:
        """From now on messages to the address go to that process (the running one), until another one listens."""
        self._listeners[address] = (process or self._loop.current, receive, refused)

    def send(self, source: str, target: str, message: bytes, *, connection: int = 0, may_repeat: bool = True) -> int:
        """Sends it on its way; whether it arrives nobody knows. ``may_repeat``: it may arrive twice.

        Within a connection other than 0 order is kept. Returns how many copies there are on the way, at least one.
        """
        random, faults = self._random, self.faults
        self.sent += 1
        if faults.loss and random.random() < faults.loss:
            self.did["lost_messages"] += 1
            self._drop(source, target, "lost")
            return 1
        low_s, high_s = self._settings.delay_s
        self.did["slow_network"] += faults.delay_s > 0
        due_s = self._loop.now_s + low_s + (high_s - low_s) * random.random() + faults.delay_s * random.random()
        if connection:
            # A nanosecond apart: times that are equal here may differ by a rounding error once they are scheduled.
            due_s = max(due_s, self._last_s.get((source, target, connection), 0.0) + 1e-9)
            self._last_s[source, target, connection] = due_s
        self._travel(source, target, message, due_s)
        if faults.duplicates and may_repeat and random.random() < faults.duplicates:
            self.did["repeated_requests"] += 1
            self._travel(source, target, message, due_s + faults.delay_s * random.random())
            return 2
        return 1

    def _travel(self, source: str, target: str, message: bytes, due_s: float) -> None:
        listener = self._listeners.get(target)
        delay_s = due_s - self._loop.now_s
        if listener is None or not listener[0].alive:
            self._loop.call_in(self._loop.world, delay_s, self._refuse, source, target, message)
        else:
            self._loop.call_in(listener[0], delay_s, self._arrive, source, target, message, listener[1])

    def _arrive(self, source: str, target: str, message: bytes, receive: Receive) -> None:
        if why := self.faults.cut.get((_machine(source), _machine(target))):
            self.did.update(why)
            self._drop(source, target, "cut")
            return
        self._note(f"network: {source} to {target}: {len(message)} bytes")
        receive(source, message)

    def _refuse(self, source: str, target: str, message: bytes) -> None:
        sender = self._listeners.get(source)
        if sender is None or sender[2] is None or (_machine(source), _machine(target)) in self.faults.cut:
            self._drop(source, target, "refused")
            return
        low_s, high_s = self._settings.delay_s
        delay_s = low_s + (high_s - low_s) * self._random.random()
        self._loop.call_in(sender[0], delay_s, sender[2], target, message)

    def _drop(self, source: str, target: str, why: str) -> None:
        self.lost += 1
        self._note(f"network: {source} to {target}: {why}")

    # ---------------------------------------------------------------------------------------------------------- links

    def cut(self, source: str, target: str, why: str = "partition") -> None:
        """Between two machines nothing passes in this direction until it is mended as often as it was cut.

        What is on its way is lost.

        ``why`` is the kind of fault that counts what is lost as its own.
        """
        self.faults.cut.setdefault((source, target), []).append(why)

    def mend(self, source: str, target: str, why: str = "partition") -> None:
        """Takes back one ``cut``, for the same reason."""
        reasons = self.faults.cut.get((source, target), [])
        if why in reasons:
            reasons.remove(why)
        if not reasons:
            self.faults.cut.pop((source, target), None)


def _machine(address: str) -> str:
    return address.partition(":")[0]

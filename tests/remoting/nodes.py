"""Simulated nodes that only talk: what each has sent, heard and been told, in order."""

from __future__ import annotations

import msgspec

from actorkit.ids import NodeId
from actorkit.remoting import Connected, Disconnected, Peer, PeerEvent, Remoting, RemotingSettings
from actorkit.remoting.handshake import PROTOCOL_VERSIONS
from actorkit.testing.simulation import Network, Process, SeededRandomness, SimulatedLoop, stream
from actorkit.testing.simulation.transport import SimulatedTransport, TcpSettings

SECRET = "a secret of the tests, which is long enough"


class Note(msgspec.Struct, frozen=True, array_like=True, tag="note"):
    """A message with a number and something to carry."""

    number: int
    text: str = ""


class Talker:
    """One life of a node."""

    def __init__(
        self,
        loop: SimulatedLoop,
        network: Network,
        name: str,
        *,
        life: int = 1,
        seed: int = 1,
        cluster: str = "tests",
        secret: str | None = SECRET,
        settings: RemotingSettings = RemotingSettings(),  # noqa: B008 - frozen
        versions: tuple[int, int] = PROTOCOL_VERSIONS,
        tcp: TcpSettings = TcpSettings(),  # noqa: B008 - frozen
    ) -> None:
        self.loop = loop
        self.address = f"{name}:9080"
        self.node = NodeId(name, f"life-{life}")
        self.process: Process = loop.new_process(name)
        self.heard: list[tuple[Peer, Note]] = []
        self.told: list[PeerEvent] = []
        self.story: list[PeerEvent | tuple[Peer, Note]] = []
        """Both, in their order."""
        with loop.inside(self.process):
            self.remoting = Remoting(
                node=self.node,
                address=self.address,
                cluster=cluster,
                transport=SimulatedTransport(loop, network, self.address, settings=tcp),
                randomness=SeededRandomness(stream(seed, f"{name}/{life}")),
                secret=secret,
                settings=settings,
                versions=versions,
            )
        self.remoting.register(Note, self._hear)
        self.remoting.subscribe(self._learn)
        loop.start_in(self.process, self.remoting.start(), name=f"{name}.start")

    def _hear(self, peer: Peer, note: Note) -> None:
        self.heard.append((peer, note))
        self.story.append((peer, note))

    def _learn(self, event: PeerEvent) -> None:
        self.told.append(event)
        self.story.append(event)

    def say(self, target: Talker, number: int, text: str = "") -> bool:
        """Sends from within its own process."""
        with self.loop.inside(self.process):
            return self.remoting.send(target.address, Note(number, text))

    def numbers(self) -> list[int]:
        """What it has heard."""
        return [note.number for _, note in self.heard]

    @property
    def connected(self) -> list[NodeId]:
        """Whom it was told to be connected to, less those it was told to be disconnected from."""
        nodes: list[NodeId] = []
        for event in self.told:
            if isinstance(event, Connected):
                nodes.append(event.node)
            elif isinstance(event, Disconnected):
                nodes.remove(event.node)
        return nodes

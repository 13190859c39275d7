"""The simulated world: nodes, their journal store, the network and everything that goes wrong, from one seed.

``World`` is where to begin; ``swarm`` makes plans of faults. ``SimulatedLoop`` alone is asyncio on virtual time.
"""

from actorkit.testing.simulation.clients import Client
from actorkit.testing.simulation.faults import CATALOGUE, Fault, FaultKind, FaultPlan, swarm
from actorkit.testing.simulation.loop import SimulatedLoop
from actorkit.testing.simulation.network import Network, NetworkSettings
from actorkit.testing.simulation.node import Node, NodeSettings
from actorkit.testing.simulation.process import MachineClock, Process
from actorkit.testing.simulation.randomness import SeededRandomness, stream
from actorkit.testing.simulation.store import SimulatedStore, StoreSettings
from actorkit.testing.simulation.world import World

__all__ = [
    "CATALOGUE",
    "Client",
    "Fault",
    "FaultKind",
    "FaultPlan",
    "MachineClock",
    "Network",
    "NetworkSettings",
    "Node",
    "NodeSettings",
    "Process",
    "SeededRandomness",
    "SimulatedLoop",
    "SimulatedStore",
    "StoreSettings",
    "World",
    "stream",
    "swarm",
]

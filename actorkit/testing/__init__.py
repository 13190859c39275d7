"""What tests of actors need; ``docs/testing.md`` is the guide.

``given`` runs one handler without a loop; ``golden_events`` keeps what a journal of today looks like; ``Probe`` is an
actor that records what it gets. ``ActorSystems`` and ``SimulatedClusters`` are what the fixtures ``actor_system`` and
``simulated_cluster`` of the package's pytest plugin give to a test. ``checkers`` judge what was recorded,
``simulation`` is the world below, and ``journal_spec``, for authors of journals, needs pytest-asyncio.
"""

from actorkit.testing.clusters import SimulatedClient, SimulatedCluster, SimulatedClusters
from actorkit.testing.given import Calling, Given, Outcome, given
from actorkit.testing.golden import golden_events
from actorkit.testing.probe import Probe
from actorkit.testing.systems import ActorSystems

__all__ = [
    "ActorSystems",
    "Calling",
    "Given",
    "Outcome",
    "Probe",
    "SimulatedClient",
    "SimulatedCluster",
    "SimulatedClusters",
    "given",
    "golden_events",
]

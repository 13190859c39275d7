"""What tests of actors need; ``docs/testing.md`` is the guide.

``given`` runs one handler without a loop; ``golden_events`` keeps what a journal of today looks like; ``Probe`` is an
actor that records what it gets. The fixtures ``actor_system``, ``simulated_cluster`` and ``sim_seed`` come with the
package's pytest plugin. ``journal_spec`` is for authors of journals, and needs pytest-asyncio.
"""

from actorkit.testing.given import Calling, Given, Outcome, given
from actorkit.testing.golden import golden_events

__all__ = ["Calling", "Given", "Outcome", "given", "golden_events"]

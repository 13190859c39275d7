"""Random faults in any combination: afterwards there is one cluster, and nobody who was gone has come back."""

from __future__ import annotations

import os

import pytest

from actorkit.cluster.events import MemberDown, MemberJoined, MemberLeft, MemberReachable, MemberUnreachable, MemberUp
from actorkit.ids import NodeId
from tests.cluster.chaos import Chaos
from tests.cluster.village import Life, Village

SEEDS = int(os.environ.get("CLUSTER_SEEDS", "25"))
FOUND = (474, 500)
"""Seeds that have shown a defect once: joining nodes that waited for each other."""


def check_life_stories(life: Life) -> None:
    """No incarnation comes back once this node has seen it go, and events of each come in their order."""
    gone: set[NodeId] = set()
    reachable: dict[NodeId, bool] = {}
    for at_s, event in life.log:
        node = getattr(getattr(event, "member", None), "node", None)
        if node is None:
            continue
        assert node not in gone, f"{life.node} at {at_s:.3f}: {event}, of one that was gone"
        if isinstance(event, MemberDown | MemberLeft):
            gone.add(node)
        elif isinstance(event, MemberJoined):
            assert node not in reachable
            reachable[node] = True
        elif isinstance(event, MemberReachable | MemberUnreachable):
            assert reachable[node] is isinstance(event, MemberUnreachable)
            reachable[node] = isinstance(event, MemberReachable)
        elif isinstance(event, MemberUp) and node != life.node:
            assert node in reachable


@pytest.mark.parametrize("seed", [*range(SEEDS), *FOUND])
def test_after_any_faults_all_live_views_become_one(seed: int) -> None:
    village = Village(seed)
    chaos = Chaos(village, [f"n{number}" for number in range(village.random.randint(2, 9))])
    chaos.begin()
    village.run(village.random.uniform(0.0, 8.0))
    chaos.rage(40.0)
    chaos.repair()
    try:
        village.converges(40.0)
        village.run(10.0)
        assert village.one_cluster()
    except AssertionError:
        print("\n".join(chaos.done))
        raise
    for life in village.lives:
        check_life_stories(life)
        assert len(life.core._news) <= len(list(life.core._view.all(0.0)))
        assert len(life.core._prober._relayed) < 100

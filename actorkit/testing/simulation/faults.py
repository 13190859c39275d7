"""Faults as data: what goes wrong in a run, when, where, for how long and how badly.

A plan is made before the run, from a seed or by hand, can be written as JSON, and can be made smaller by leaving faults
out: that is how a failing run is shrunk. ``swarm`` gives each plan only some kinds of faults, since a run with all of
them at once hides what a few would show (Groce et al., "Swarm testing", 2012).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from actorkit.testing.simulation.randomness import stream

__all__ = ["CATALOGUE", "Fault", "FaultKind", "FaultPlan", "swarm"]


_LASTS_MAX_S = 10.0


class FaultKind(msgspec.Struct, frozen=True):
    """One way in which things go wrong."""

    numbers: tuple[int, ...]
    """Which of the faults of ``docs/guarantees.md`` it is."""
    intensity: str
    """What the intensity, from 0 to 1, means."""
    hits: str
    """Whom it is aimed at: ``node``, ``store`` (or a node's way to it), ``links``."""
    nodes_min: int = 1
    lasts_min_s: float = 0.02
    """What is rarely met needs time."""
    in_swarm: bool = True
    """Whether ``swarm`` draws it by itself."""


CATALOGUE: dict[str, FaultKind] = {
    "partition": FaultKind((1,), "", "node"),
    "one_way_partition": FaultKind((2,), "from 0.5: what is sent to it is lost, else what it sends", "node"),
    "non_transitive_links": FaultKind((3,), "", "links", nodes_min=3),
    "flapping_links": FaultKind((4,), "how often: every 2 s to every 20 ms", "node"),
    "slow_network": FaultKind((5, 7), "up to 5 s more for each message, which so overtake each other", "links"),
    "repeated_requests": FaultKind((6,), "probability that a request arrives twice", "links"),
    "lost_messages": FaultKind((8, 24), "probability, up to a half", "links"),
    "lost_store_answers": FaultKind((8, 19), "probability, up to a half", "store", lasts_min_s=0.2),
    "pause": FaultKind((9, 10), "", "node"),
    "pause_at_step": FaultKind((10,), "after so many parts of 400 steps", "node"),
    "suspend": FaultKind((9,), "", "node"),
    "wall_jump": FaultKind((11,), "0 is an hour back, 1 an hour forth", "node"),
    "clock_rate": FaultKind((12,), "0 is 5 % slow, 1 is 5 % fast", "node"),
    "crash": FaultKind((13, 23), "", "node"),
    "crash_at_step": FaultKind((15, 23), "after so many parts of 400 steps", "node"),
    "store_crash": FaultKind((13, 14), "", "store"),
    "machine_crash": FaultKind((13, 14, 23), "", "node"),
    "read_errors": FaultKind((16,), "probability, up to a half", "store"),
    "write_errors": FaultKind((16,), "probability, up to a half", "store"),
    "sync_error": FaultKind((16, 42), "after so many parts of 20 syncs", "store", lasts_min_s=1.0),
    "disk_full": FaultKind((17,), "", "store"),
    "slow_disk": FaultKind((10,), "up to 300 times slower", "store"),
    "store_unreachable": FaultKind((18,), "from 0.5: connections are refused, else silence", "node"),
    "stolen_shards": FaultKind((20, 21, 44), "the share of shards", "store"),
    "leave": FaultKind((22,), "", "node"),
    "corrupt_snapshots": FaultKind((25,), "", "store"),
    "crash_in_snapshot": FaultKind((26,), "probability for each snapshot", "store", lasts_min_s=2.0),
    "store_goes_back": FaultKind((41,), "by so many parts of what it has", "store", in_swarm=False),
    "late_appends": FaultKind((19, 43), "probability, up to a half", "store", lasts_min_s=0.5),
    "refused_payloads": FaultKind((44,), "probability for each batch, up to a half", "store"),
    "member_partition": FaultKind(
        (1, 2),
        "from other nodes only; below a third: what it sends them is lost, above two thirds: what they send, else both",
        "node",
        nodes_min=2,
    ),
}
"""All kinds. Faults 27 to 29 are the workload's: what it cancels, how slowly it reads, which commands it sends."""


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """One fault of a plan."""

    kind: str
    start_s: float
    duration_s: float
    target: str = ""
    """A node's name, or empty: all of them."""
    intensity: float = 0.5


class FaultPlan(msgspec.Struct, frozen=True):
    """All that goes wrong in a run, and when the world is healed."""

    faults: tuple[Fault, ...] = ()
    heal_at_s: float = 0.0
    """From then on nothing goes wrong any more, whatever the faults say."""

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, data: bytes | str) -> FaultPlan:
        """Raises ``msgspec.ValidationError`` where it is none, or names a kind that does not exist."""
        plan = msgspec.json.decode(data, type=cls)
        unknown = {fault.kind for fault in plan.faults} - CATALOGUE.keys()
        if unknown:
            raise msgspec.ValidationError(f"there are no faults of the kind {', '.join(sorted(unknown))}")
        return plan


def swarm(
    seed: int,
    nodes: Sequence[str],
    *,
    duration_s: float = 20.0,
    kinds: Collection[str] | None = None,
    share: float = 0.2,
    each_max: int = 3,
) -> FaultPlan:
    """A plan of some kinds of faults, each ``share`` likely to be among them, with a few faults of each.

    ``kinds`` restricts it to some, or admits those that are not drawn by themselves. The world is healed after
    ``duration_s``.
    """
    random = stream(seed, "faults")
    faults: list[Fault] = []
    for name, kind in CATALOGUE.items():
        # Drawn also where the kind is left out, so that leaving one out changes no other.
        drawn = random.random() < share
        own = stream(seed, f"faults/{name}")
        wanted = kind.in_swarm if kinds is None else name in kinds
        if not drawn or not wanted or len(nodes) < kind.nodes_min:
            continue
        for _ in range(own.randint(1, each_max)):
            start_s = own.random() * duration_s * 0.9
            target = nodes[int(own.random() * len(nodes))] if kind.hits == "node" else ""
            # As many short ones as long ones.
            lasts_s = kind.lasts_min_s * (_LASTS_MAX_S / kind.lasts_min_s) ** own.random()
            faults.append(Fault(name, round(start_s, 6), round(lasts_s, 6), target, round(own.random(), 6)))
    faults.sort(key=lambda fault: fault.start_s)
    return FaultPlan(tuple(faults), duration_s)

"""Records of members, as Hypothesis draws them."""

from __future__ import annotations

from hypothesis import strategies as st

from actorkit.cluster.member import ACCUSERS_MAX, Member, Reachability, Status
from actorkit.ids import NodeId

__all__ = ["reports"]


@st.composite
def reports(draw: st.DrawFn, *, nodes: int = 1) -> Member:
    """What somebody may say of one of so many members. What is fixed for an incarnation is the same in all."""
    number = draw(st.integers(0, nodes - 1))
    status = draw(st.sampled_from(Status))
    reachability = draw(st.sampled_from(Reachability))
    accusers: tuple[str, ...] = ()
    if reachability is Reachability.SUSPECT:
        accusers = tuple(sorted(draw(st.sets(st.sampled_from("abcdefg"), min_size=1, max_size=ACCUSERS_MAX))))
    return Member(
        NodeId(f"n{number}", "x"),
        f"n{number}:9080",
        status=status,
        version=draw(st.integers(0, 3)),
        reachability=reachability,
        accusers=accusers,
        gone_s=draw(st.sampled_from((0.0, 1.0, 2.0))) if status.gone else 0.0,
    )

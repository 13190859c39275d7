"""One fault of the links after the other befalls three nodes under load; then the verdict.

``python -m tests.processes.link_faults --links proxies --faults slow,half-open``. Callers reach all nodes all the time,
and all nodes reach the journal. As long as a majority hear each other, it has to serve every shard before long; when
the fault is over, so have all. Ends with 1 where that, an answer, or the journal is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from random import Random

from tests.processes.links import Links
from tests.processes.namespaces import Namespaces
from tests.processes.nodes import until
from tests.processes.proxies import Proxies
from tests.processes.story import Story, cluster

__all__ = ["LINKS", "befall"]

LINKS: Mapping[str, Callable[[], Links]] = {"namespaces": Namespaces, "proxies": Proxies}
SERVED_MAX_S = 10.0
"""Twice what is promised: machines of a test service are slow, and do other things meanwhile."""
LASTS_S = (1.0, 9.0)
"""Shorter than a lease, and longer than it takes to be declared gone."""
ONE_IS_CUT_OFF = frozenset({"partition", "deaf", "mute"})
"""The others hear each other, so that they serve everything meanwhile."""


async def befall(story: Story, links: Links, fault: str, random: Random) -> list[str]:
    """Who has ended and should not have, and what was served again too late."""
    nodes = story.nodes
    victim = random.choice(nodes.all)
    others = [node.name for node in nodes.all if node is not victim]
    lasts_s = random.uniform(*LASTS_S)
    took_s: dict[str, float] = {}
    before = links.did.total()
    async with story.load(loyal=True):
        await story.progress(50)
        async with links.faults[fault](victim.name, others, random):
            began_s = time.monotonic()
            if fault in ONE_IS_CUT_OFF:
                # Whoever sends clients to nodes sees that it is not ready.
                victim.was_ready = False
                await until(partial(nodes.unreachable, victim), f"{victim.name} is unreachable")
                await story.served_again_s()
                took_s["meanwhile"] = time.monotonic() - began_s
            await asyncio.sleep(max(0.0, began_s + lasts_s - time.monotonic()))
        took_s["afterwards"] = await story.served_again_s()
        wrong = await nodes.whole_again()
    await until(lambda: story.shows_the_same_everywhere(nodes.all), "all read models show what is committed")
    assert links.did.total() > before, f"{fault} did nothing"
    told = ", ".join(f"{when} after {seconds:.2f} s" for when, seconds in took_s.items())
    print(f"{fault} of {victim.name} for {lasts_s:.1f} s: served {told}", flush=True)
    return wrong + [
        f"{fault} of {victim.name}: served {when} after {seconds:.2f} s only"
        for when, seconds in took_s.items()
        if seconds > SERVED_MAX_S
    ]


async def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--links", choices=LINKS, required=True)
    parser.add_argument("--faults", required=True)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    chosen = parser.parse_args()
    links, random = LINKS[chosen.links](), Random(chosen.seed)
    found: list[str] = []
    with tempfile.TemporaryDirectory() as directory:
        async with cluster(Path(directory), seed=chosen.seed, links=links) as story:
            for fault in chosen.faults.split(","):
                found += await befall(story, links, fault, random)
            found += await story.wrong()
            found += [f"a defect was met: {failure}" for failure in story.failures if " 500 " in failure]
    for finding in found:
        print(f"found: {finding}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

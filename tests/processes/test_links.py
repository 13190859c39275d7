"""Three real nodes whose links fail: faults 32 and 33, with the history and the journal judged."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.processes.namespaces import inside, why_not
from tests.processes.nodes import PROJECT

RUN_MAX_S = 280

pytestmark = pytest.mark.timeout(300)


def run(command: Sequence[str]) -> str:
    done = subprocess.run(
        command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=RUN_MAX_S
    )
    print(done.stdout)
    assert done.returncode == 0
    return done.stdout


def faults(links: str, *names: str) -> list[str]:
    return [sys.executable, "-m", "tests.processes.link_faults", "--links", links, "--faults", ",".join(names)]


@pytest.mark.skipif(why_not() != "", reason=f"platform: no network namespaces: {why_not()}")
def test_a_cluster_survives_partitions_between_network_namespaces() -> None:
    run(inside(faults("namespaces", "partition", "deaf", "mute", "non-transitive", "flapping")))


def test_a_cluster_survives_links_that_are_slow_cut_or_half_open() -> None:
    run(faults("proxies", "partition", "deaf", "mute", "slow", "breaking", "half-open"))

"""The pytest plugin of actorkit: fixtures for tests of actors. It is active wherever actorkit and pytest are installed.

``actor_system`` starts systems on virtual time, ``simulated_cluster`` whole clusters that crash and are cut off,
``sim_seed`` is what makes a run repeatable, ``golden_events`` holds a program to what earlier ones have stored. Test
functions that use one of the first two may be ``async``: they run on the fixture's own loop, with pytest-asyncio or
without. ``docs/testing.md`` is the guide.

It stands outside of the package since pytest imports it at every start, in projects that do not use it, too; importing
anything of the package takes a third of a second. So it imports nothing before a test asks for a fixture.
"""

from __future__ import annotations

import inspect
import random
import re
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from actorkit import Event, PersistentActor
    from actorkit.testing import ActorSystems, SimulatedClusters

# So that a journal that does not keep the contract is told what was instead; pytest does it for tests only.
pytest.register_assert_rewrite(
    "actorkit.testing.journal_spec", "actorkit.testing.journal_lease_spec", "actorkit.testing.journal_crash_spec"
)

_SEED = pytest.StashKey[int]()
_RUNNER = pytest.StashKey["ActorSystems | SimulatedClusters"]()
_SEEDS_MAX = 1 << 32
_SEED_IN_ID = re.compile(r"\[seed=\d+\]|-seed=\d+|seed=\d+-")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("actorkit", "actorkit: tests of actors")
    group.addoption(
        "--sim-seed", type=int, metavar="N", help="the seed of simulated runs (default: another one each time)"
    )
    group.addoption(
        "--sim-runs", type=int, default=1, metavar="N", help="run each test that has a seed with N seeds (default: 1)"
    )
    group.addoption(
        "--golden-update", action="store_true", help="add to golden files what they lack; old entries stay as they are"
    )


def pytest_configure(config: pytest.Config) -> None:
    given: Any = config.getoption("sim_seed")
    config.stash[_SEED] = _new_seed(config) if given is None else given


def _new_seed(config: pytest.Config) -> int:
    """Under pytest-xdist all workers must collect the same tests, so the seed is made of what they share."""
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    if worker is None:
        return random.SystemRandom().randrange(_SEEDS_MAX)
    return int(str(worker["testrunuid"]), 16) % _SEEDS_MAX


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    runs = int(metafunc.config.getoption("sim_runs") or 1)
    pinned = any("sim_seed" in str(mark.args[:1]) for mark in metafunc.definition.iter_markers("parametrize"))
    if runs > 1 and "sim_seed" in metafunc.fixturenames and not pinned:
        first = metafunc.config.stash[_SEED]
        seeds = [(first + number) % _SEEDS_MAX for number in range(runs)]
        metafunc.parametrize("sim_seed", seeds, indirect=True, ids=[f"seed={seed}" for seed in seeds])


# ----------------------------------------------------------------------------------------------------------- fixtures


@pytest.fixture
def sim_seed(request: pytest.FixtureRequest) -> int:
    """The seed of this run: given by --sim-seed, or another one each time. A test that fails prints it."""
    seed: int = getattr(request, "param", request.config.stash[_SEED])
    request.node.stash[_SEED] = seed
    return seed


@pytest.fixture
def actor_system(request: pytest.FixtureRequest, sim_seed: int) -> ActorSystems:
    """Starts ``ActorSystem``s on virtual time: ``system = await actor_system(Pool)``. See ``ActorSystems``."""
    from actorkit.testing import ActorSystems

    systems = ActorSystems(sim_seed)
    _only_world(request, systems)
    return systems


@pytest.fixture
def simulated_cluster(request: pytest.FixtureRequest, sim_seed: int) -> SimulatedClusters:
    """Starts a cluster that crashes and is cut off as the test says, or as the seed does:
    ``cluster = await simulated_cluster(Pool, nodes=2, swarm_s=20)``. See ``SimulatedClusters``."""
    from actorkit.testing import SimulatedClusters

    clusters = SimulatedClusters(sim_seed)
    _only_world(request, clusters)
    return clusters


def _only_world(request: pytest.FixtureRequest, runner: ActorSystems | SimulatedClusters) -> None:
    if _RUNNER in request.node.stash:
        raise pytest.UsageError("a test has one world: use either actor_system or simulated_cluster")
    request.node.stash[_RUNNER] = runner


@pytest.fixture
def golden_events(
    request: pytest.FixtureRequest,
) -> Callable[[type[PersistentActor[Any, Any]], str, Sequence[Event]], None]:
    """Holds an entity class to its golden file: ``golden_events(Pool, "golden/pool.json", [Created(10), ...])``.

    The path is relative to the test's module. See ``actorkit.testing.golden_events``.
    """
    from actorkit.testing import golden_events as check

    directory, update = request.path.parent, bool(request.config.getoption("golden_update"))

    def golden_events(actor: type[PersistentActor[Any, Any]], path: str, history: Sequence[Event]) -> None:
        __tracebackhide__ = True
        check(actor, directory / path, history, update=update)

    return golden_events


# ------------------------------------------------------------------------------------------------------------ running


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs an async test on the loop of the fixture that it uses."""
    runner = pyfuncitem.stash.get(_RUNNER, None)
    function: Any = pyfuncitem.obj
    if type(pyfuncitem).__module__.startswith("pytest_asyncio"):
        # In its automatic mode it has wrapped the test, to be run on a loop of its own.
        function = getattr(function, "__wrapped__", function)
    if runner is None or not inspect.iscoroutinefunction(function):
        return None
    __tracebackhide__ = True
    names = inspect.signature(function).parameters
    runner.run(function(**{name: value for name, value in pyfuncitem.funcargs.items() if name in names}))
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test says how to run it again."""
    report = yield
    seed = item.stash.get(_SEED, None)
    if report.failed and seed is not None:
        runner = item.stash.get(_RUNNER, None)
        told = [] if runner is None else [runner.report()]
        report.sections.append(("simulation", "\n".join([*told, f"repeat with: {_repeat(item, seed)}"])))
    return report


def _repeat(item: pytest.Item, seed: int) -> str:
    return f'pytest "{_SEED_IN_ID.sub("", item.nodeid)}" --sim-seed={seed}'

"""The pytest plugin, in a project of its own: what its tests see, and what is said when they fail."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

pytest_plugins = ["pytester"]

POOL = """
import asyncio
import pytest
from actorkit import Event, PersistentActor, Rejected, State, applies, command, query


class Reserved(Event, name="plugin.reserved"):
    units: int


class PoolState(State):
    free: int = 10

    @applies(Reserved)
    def reserved(self, event: Reserved) -> None:
        self.free -= event.units


class Pool(PersistentActor[PoolState, Reserved], name="plugin.pool"):
    @command
    def reserve(self, units: int) -> str:
        if units > self.state.free:
            raise Rejected("sold out")
        self.emit(Reserved(units))
        return self.context.new_id()

    @query
    def free(self) -> int:
        return self.state.free
"""

Run = Callable[..., pytest.RunResult]


@pytest.fixture(params=["no asyncio plugin", "asyncio_mode=strict", "asyncio_mode=auto"])
def run(request: pytest.FixtureRequest, pytester: pytest.Pytester) -> Run:
    """Runs a module with the plugin, without pytest-asyncio or with it in each of its modes."""
    mode: str = request.param
    options = ("-p", "no:asyncio") if mode == "no asyncio plugin" else ("-o", mode)
    return _runner(pytester, "-o", "asyncio_default_fixture_loop_scope=function", *options)


@pytest.fixture
def run_once(pytester: pytest.Pytester) -> Run:
    return _runner(pytester, "-p", "no:asyncio")


def _runner(pytester: pytest.Pytester, *options: str) -> Run:
    def run(source: str, *more: str) -> pytest.RunResult:
        pytester.makepyfile(test_pools=POOL + source)
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:xdist", *options, *more)

    return run


def test_async_tests_run_on_virtual_time_whoever_else_runs_async_tests(run: Run) -> None:
    result = run(
        """
async def test_passivation(actor_system):
    system = await actor_system(Pool)
    await system.get(Pool, "p").reserve(3)
    assert system.region.entities == 1
    await asyncio.sleep(3600)
    assert system.region.entities == 0
    assert await system.get(Pool, "p").free() == 7
    await system.stop()
    again = await actor_system(Pool, journal=system.store)
    assert await again.get(Pool, "p").free() == 7


class TestInAClass:
    @pytest.mark.parametrize("units", [1, 2])
    async def test_methods_and_parameters(self, actor_system, units, tmp_path):
        pool = (await actor_system()).get(Pool, "p")
        await pool.reserve(units)
        assert await pool.free() == 10 - units


async def test_a_cluster(simulated_cluster):
    cluster = await simulated_cluster(Pool, nodes=2)
    pool = cluster.get(Pool, "p")
    first = await cluster.surely(lambda: pool.reserve.options(idempotency_key="k")(3))
    cluster.crash("node-1")
    cluster.crash("node-2")
    with pytest.raises(Exception, match="refuses the connection"):
        await pool.free()
    await cluster.heal()
    assert await cluster.surely(lambda: pool.reserve.options(idempotency_key="k")(3)) == first
    assert await cluster.surely(pool.free) == 7


def test_a_plain_function_runs_it_itself(actor_system):
    async def story():
        return await (await actor_system()).get(Pool, "p").free()

    assert actor_system.run(story()) == 10
"""
    )
    result.assert_outcomes(passed=5)


def test_other_async_tests_are_left_to_others(pytester: pytest.Pytester) -> None:
    run = _runner(pytester, "-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function")
    run(
        "async def test_real():\n    assert type(asyncio.get_running_loop()).__name__ != 'SimulatedLoop'"
    ).assert_outcomes(passed=1)


def test_a_failure_says_how_to_repeat_it(run: Run) -> None:
    source = """
@pytest.mark.parametrize("units", [3])
async def test_fails(actor_system, units):
    pool = (await actor_system()).get(Pool, "p")
    assert await pool.reserve(units) == "no such id"


def test_plain(sim_seed):
    assert sim_seed != sim_seed


async def test_cluster(simulated_cluster):
    cluster = await simulated_cluster(Pool)
    assert await cluster.get(Pool, "p").free() == 9
"""
    result = run(source, "--sim-seed=0")
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(
        [
            "*test_fails*",
            "*assert '*' == 'no such id'",
            "* simulation *",
            "virtual time at the end: *",
            'repeat with: pytest "test_pools.py::test_fails[[]3[]]" --sim-seed=0',
            'repeat with: pytest "test_pools.py::test_plain" --sim-seed=0',
            "*node-1: is up",
            'repeat with: pytest "test_pools.py::test_cluster" --sim-seed=0',
        ]
    )


def test_a_seed_gives_the_same_run_and_without_one_each_run_has_another(run_once: Run) -> None:
    source = """
async def test_prints(actor_system, sim_seed):
    print("seed", sim_seed, "id", await (await actor_system()).get(Pool, "p").reserve(1))
"""

    def printed(*options: str) -> str:
        [line] = [line for line in run_once(source, "-s", *options).outlines if "seed" in line and "id" in line]
        return line[line.index("seed") :]

    assert printed("--sim-seed=5") == printed("--sim-seed=5")
    assert printed("--sim-seed=5") != printed("--sim-seed=6")
    assert printed() != printed()


def test_many_seeds_and_the_command_for_the_one_that_fails(run: Run) -> None:
    source = """
@pytest.mark.parametrize("units", [3])
async def test_rare(actor_system, sim_seed, units):
    await actor_system()
    assert sim_seed != 11
"""
    result = run(source, "--sim-seed=10", "--sim-runs=3")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(['repeat with: pytest "test_pools.py::test_rare[[]3[]]" --sim-seed=11'])


def test_a_seed_that_is_pinned_stays_whatever_the_options_say(run_once: Run) -> None:
    source = """
@pytest.mark.parametrize("sim_seed", [7], indirect=True)
async def test_pinned(actor_system, sim_seed):
    await actor_system()
    assert sim_seed == actor_system.seed == 7
"""
    run_once(source, "--sim-seed=1", "--sim-runs=3").assert_outcomes(passed=1)


def test_many_seeds_under_xdist(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_pools=POOL + "def test_it(sim_seed): pass")
    pytester.runpytest_subprocess("-n2", "--sim-runs=6").assert_outcomes(passed=6)


def test_what_a_test_leaves_behind_fails_it(run_once: Run) -> None:
    result = run_once(
        """
async def test_leaves_a_task(actor_system):
    await actor_system()
    asyncio.get_running_loop().create_task(asyncio.sleep(1e9), name="forgotten")


async def test_leaves_an_exception(actor_system):
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(1)


async def test_waits_for_ever(actor_system):
    await asyncio.get_running_loop().create_future()


async def test_fails_by_itself(actor_system):
    asyncio.get_running_loop().create_task(asyncio.sleep(1e9), name="not told")
    raise LookupError("mine")


async def test_two_worlds(actor_system, simulated_cluster):
    pass
"""
    )
    result.assert_outcomes(failed=4, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*a test has one world: use either actor_system or simulated_cluster*",
            "E  *AssertionError: the test has left behind:",
            "*- a task: forgotten waits at *",
            "*- an exception that nobody handled: ZeroDivisionError('division by zero')",
            "E  *SimulationStuck: the simulation is stuck: nothing is scheduled any more, and the run has not ended",
            "E  *LookupError: mine",
        ]
    )
    result.stdout.no_fnmatch_line("*- a task: not told*")


def test_what_a_cluster_finds_fails_the_test(run_once: Run) -> None:
    result = run_once(
        """
import time


class Careless(PersistentActor[PoolState, Reserved], name="plugin.careless"):
    @command
    def clock(self) -> float:
        return time.time()

    @command
    def fail(self) -> None:
        raise ValueError("broken")


async def test_a_real_clock(simulated_cluster):
    with pytest.raises(Exception):
        await (await simulated_cluster(Careless)).get(Careless, "c").clock()


async def test_an_error_that_is_due_to_no_fault(simulated_cluster):
    with pytest.raises(Exception):
        await (await simulated_cluster(Careless)).get(Careless, "c").fail()


async def test_two_clusters(simulated_cluster):
    await simulated_cluster(Pool)
    await simulated_cluster(Pool)
"""
    )
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(
        [
            "E  *SimulationEscape: time.time (called in test_pools) leaves the simulation*",
            "E  *AssertionError: the run has found:",
            "*- an error was logged: *entity.handler_failed *broken*",
            "E  *RuntimeError: a test has one simulated cluster*",
        ]
    )


def test_a_handler_that_fails_on_purpose_may_be_allowed_to(run_once: Run) -> None:
    run_once(
        """
from actorkit.errors import HandlerFailed


class Careless(PersistentActor[PoolState, Reserved], name="plugin.careless"):
    @command
    def fail(self, why: str) -> None:
        raise ValueError(why)


@pytest.mark.parametrize("why", ["on purpose", "by mistake"])
async def test_fails(simulated_cluster, why):
    cluster = await simulated_cluster(Careless)
    cluster.allow_errors(r"entity.handler_failed .*on purpose")
    with pytest.raises(HandlerFailed, match=why):
        await cluster.get(Careless, "c").fail(why)
"""
    ).assert_outcomes(passed=1, failed=1)


def test_golden_files_are_written_by_the_flag_and_read_by_every_run(run_once: Run, pytester: pytest.Pytester) -> None:
    source = """
def test_golden(golden_events):
    golden_events(Pool, "golden/pool.json", [Reserved(3)])
"""
    missing = run_once(source)
    missing.assert_outcomes(failed=1)
    missing.stdout.fnmatch_lines(["E  *run pytest with --golden-update*"])
    run_once(source, "--golden-update").assert_outcomes(passed=1)
    assert (pytester.path / "golden" / "pool.json").exists()
    run_once(source).assert_outcomes(passed=1)


def test_a_failed_given_shows_the_users_line_and_no_more(run_once: Run) -> None:
    result = run_once(
        """
from actorkit.testing import given


def test_unit():
    given(Pool).when(lambda pool: pool.reserve(3)).emits(Reserved(4))
"""
    )
    result.stdout.fnmatch_lines(
        [
            ">   *.emits(Reserved(4))",
            "E  *AssertionError: plugin.pool/id (new), reserve(3):",
            "*1. Reserved(units=4)",
            "*1. Reserved(units=3)",
        ]
    )
    result.stdout.no_fnmatch_line("*outcomes.py*")


def test_pytest_starts_without_importing_the_package() -> None:
    code = "import pytest, sys; pytest.main(['--version']); sys.exit('actorkit' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

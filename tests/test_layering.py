"""The rules that keep the code base easy to see: who may import whom, what does I/O, how large things grow.

The rules are those of ``docs/architecture.md``. An exception to one stands in a table here, with its reason.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
PACKAGE = PROJECT / "actorkit"

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "ids", "clock", "tracing", "logs"}),
    frozenset({"actor", "wire", "journal"}),
    frozenset({"persistence", "remoting"}),
    frozenset({"cluster"}),
    frozenset({"sharding", "projection", "readmodel"}),
    frozenset({"saga", "verify", "geo"}),
    frozenset({"gateway"}),
    frozenset({"config"}),
    frozenset({"clustering"}),
    frozenset({"node"}),
    frozenset({"cli"}),
    frozenset({"testing"}),
)
"""From the bottom up: a line imports only lines before it. Packages of one line never import each other."""

FOUNDATION = LAYERS[0]
"""Single modules rather than packages: these may import each other."""

IMPURE = frozenset(
    {
        *("asyncio", "concurrent", "multiprocessing", "queue", "signal", "subprocess", "threading"),
        *("random", "secrets", "time", "uuid"),
        *("fcntl", "glob", "os", "pathlib", "platform", "shutil", "tempfile"),
        *("http", "select", "selectors", "socket", "socketserver", "ssl", "urllib.request"),
        *("aiohttp", "aiosqlite", "prometheus_client", "sqlite3", "uvloop"),
    }
)
"""What does I/O, reads a clock, draws a random number, makes threads or waits for any of these."""

HARMLESS = {"http": {"HTTPStatus"}, "uuid": {"UUID"}}
"""Names that are only types and constants, in modules that otherwise are not."""

IMPURE_CALLS = frozenset({"open", "input", "print", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"})
"""The same, in what needs no import or comes with something harmless."""

SHELLS: dict[str, str] = {
    "cli": "is a command, which asks a node over HTTP",
    "clock": "is the seam for time and randomness",
    "actor/cell": "runs turns on the loop",
    "actor/deadlines": "one sweep of the loop's timer for all deadlines",
    "actor/life": "starting, restarting and stopping: tasks and back-off timers",
    "actor/mailbox": "senders wait for room on the loop's futures",
    "actor/ref": "an ask is a future of the loop",
    "actor/runtime": "owns the loop's side of all actors",
    "actor/timers": "the loop's timers",
    "cluster/cluster": "drives membership with the loop's timer, and asks for leases in tasks",
    "cluster/downing_lease": "waits between its requests to the store",
    "cluster/event_stream": "readers wait for events on the loop",
    "cluster/seeds": "asks the resolver for the addresses of host names",
    "clustering": "lets a node that was downed say so before it ends",
    "gateway/connection": "aiohttp's protocol, and answers in tasks",
    "gateway/event_stream": "sends events to aiohttp's connection, and comments by the loop's timer",
    "gateway/handlers": "an asyncio handler of aiohttp's requests",
    "gateway/metrics": "prometheus-client's collectors and text form",
    "gateway/responses": "writes answers, with their date, to aiohttp's connection",
    "gateway/server": "aiohttp's server and its socket",
    "journal/sqlite": "the loop's side of SQLite, and reads through aiosqlite",
    "journal/sqlite_append": "SQL within the writer's transactions",
    "journal/sqlite_checkpoint": "checkpoints, and the size of the log file",
    "journal/sqlite_connection": "the connection that writes",
    "journal/sqlite_errors": "tells sqlite3's errors apart",
    "journal/sqlite_lock": "flock between processes: a thread waits for it, for so long",
    "journal/sqlite_process": "the append process and the pipes to it",
    "journal/sqlite_process_main": "what runs in that process",
    "journal/sqlite_schema": "opens the file and creates its tables",
    "journal/sqlite_tables": "SQL of leases, snapshots and cursors",
    "journal/sqlite_writer": "the writer's thread and its queue",
    "journal/writer": "group commit: the next batch gathers while one commits",
    "node": "wires everything together, runs the loop, ends the process after a failed sync",
    "persistence/admission": "calls wait for room on the loop's futures",
    "persistence/async_handler": "runs async handlers in tasks",
    "persistence/entity": "runs handlers and delivers answers on the loop",
    "persistence/plain_turns": "tells the entity's thread from others",
    "persistence/recovery": "reads the next page in a task while it folds one",
    "persistence/settling": "awaits the appends on their way",
    "persistence/snapshot_writer": "stores snapshots in a task of its own",
    "readmodel/adoption": "reads the journal in a task",
    "readmodel/background": "starts the tasks of the read model, and says when one has crashed",
    "readmodel/follower": "reads the journal in a task",
    "readmodel/rereading": "reads the journal in a task",
    "readmodel/replicator": "sends and receives, flushes and checks on timers",
    "readmodel/changes": "waits on the loop for the next change",
    "readmodel/view": "waits for a write on the loop, within a deadline",
    "sharding/cluster_sharding": "waits on the loop until shards are handed over",
    "sharding/incoming": "answers when a call's future ends",
    "sharding/ownership": "hands shards off in tasks",
    "sharding/router": "wakes routing by the loop's timers",
    "sharding/entities": "sweeps on the loop for entities that are idle",
    "remoting/aiohttp_transport": "aiohttp's WebSockets and their sockets",
    "remoting/connection": "the timer of heartbeats and of silence",
    "remoting/peering": "attempts to connect are tasks, waits are the loop's timers",
    "remoting/tls": "ssl's contexts, which read files",
    "remoting/websocket_link": "reads and writes a WebSocket in tasks",
    "sharding/leases": "renews leases in a task",
    "sharding/region": "brings entities in and out of memory on the loop",
    "sharding/singletons": "looks by the loop's timer whether they are active",
    "sharding/shard": "calls wait for their shard on the loop's futures",
    "testing/checkers/__main__": "a command: reads a file, prints a verdict",
    "testing/faulty_journal": "appends that hang do so on the loop",
    "testing/journal_crash_spec": "crashes in the middle of an append that runs in a task",
    "testing/simulation/command": "is a command, which shows real time passing and writes files",
    "testing/simulation/clients": "calls are futures of the simulated loop",
    "testing/simulation/guards": "replaces the clocks, random sources, files and sockets of the real world",
    "testing/simulation/loop": "is an asyncio loop",
    "testing/simulation/out_of_reach": "is the part of that loop that refuses",
    "testing/simulation/randomness": "makes generators from seeds",
    "testing/simulation/search": "spreads seeds over processes, and ends a run that takes too long of real time",
    "testing/simulation/world": "waits for its nodes, and keeps garbage collections out of runs",
    "testing/clusters": "tests await the simulated loop",
    "testing/golden": "reads and writes golden files",
    "testing/probe": "tests wait for messages on the loop",
}
"""Modules that may use ``IMPURE``, each with what for."""

PURE_EXAMPLES = ("answers", "bookings", "domain", "ids", "invariants", "model", "requests", "times", "tokens")
"""Modules of the capacity service that are pure: what it decides can be tested without a loop."""

LONG_MODULES: dict[str, str] = {}
"""Modules of more than 500 lines, each with the reason."""

LONG_FUNCTIONS: dict[str, str] = {}
"""Functions of more than 70 lines as ``module:qualified.name``, each with the reason."""


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its name below it, as in ``journal/writer``."""
    return {str(path.relative_to(PACKAGE).with_suffix("")): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text())


def layer(part: str) -> int:
    return next(number for number, parts in enumerate(LAYERS) if part in parts)


def imports(module: ast.Module, *, types_too: bool) -> Iterator[tuple[int, str, str]]:
    """Line, module and name (empty for a whole module) of each import, absolute."""
    for node in _nodes(module, types_too=types_too):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            yield from ((node.lineno, node.module or "", alias.name) for alias in node.names)


def _nodes(node: ast.AST, *, types_too: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not types_too and isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from _nodes(child, types_too=types_too)


def imported_parts(module: str) -> Iterator[tuple[int, str]]:
    """Line and top part below the package of each import of the package itself."""
    for line, imported, name in imports(tree(module), types_too=True):
        if imported == "actorkit":
            yield line, name
        elif imported.startswith("actorkit."):
            yield line, imported.split(".")[1]


def inner_modules() -> list[str]:
    """All but the package's own ``__init__``, which stands above everything."""
    return [module for module in modules() if module != "__init__"]


@pytest.mark.parametrize("module", inner_modules())
def test_a_module_imports_only_what_lies_below_it(module: str) -> None:
    own = module.split("/")[0]
    assert any(own in parts for parts in LAYERS), f"{own} stands in no layer: put it into one"
    wrong: list[str] = []
    for line, part in imported_parts(module):
        if part == own or (own in FOUNDATION and part in FOUNDATION):
            continue
        known = any(part in parts for parts in LAYERS)
        if not known or layer(part) >= layer(own):
            wrong.append(f"actorkit/{module}.py:{line} imports {part}")
    assert not wrong, "\n".join(wrong)


def test_nothing_but_testing_imports_testing() -> None:
    # The layers above say so too, but for the package's own __init__.
    assert not [line for line, part in imported_parts("__init__") if part == "testing"]


def impurities(module: str) -> list[str]:
    return [f"actorkit/{module}.py:{line} {what}" for line, what in impure_lines(tree(module))]


def impure_lines(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for line, imported, name in imports(tree, types_too=False):
        if any(f"{imported}.".startswith(f"{each}.") for each in IMPURE) and name not in HARMLESS.get(imported, ()):
            yield line, f"imports {imported}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in IMPURE_CALLS:
            yield node.lineno, f"calls {ast.unparse(node.func)}"


@pytest.mark.parametrize("module", [module for module in modules() if module not in SHELLS])
def test_what_is_no_shell_is_pure(module: str) -> None:
    assert not impurities(module), "\n".join(impurities(module))


@pytest.mark.parametrize("name", PURE_EXAMPLES)
def test_what_the_service_decides_is_pure(name: str) -> None:
    source = (PROJECT / "examples" / "capacity_service" / f"{name}.py").read_text()
    assert not list(impure_lines(ast.parse(source)))


def test_every_shell_exists_and_needs_to_be_one() -> None:
    assert not [module for module in SHELLS if module not in modules() or not impurities(module)]


def test_no_module_grows_past_500_lines() -> None:
    long = {module for module, path in modules().items() if len(path.read_text().splitlines()) > 500}
    assert long == set(LONG_MODULES)


def functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, int]]:
    """Qualified name and number of lines, docstring included, of each function."""
    for child in ast.iter_child_nodes(node):
        named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        name = f"{prefix}{child.name}" if named else prefix
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            assert child.end_lineno is not None
            yield name, child.end_lineno - child.lineno + 1
        yield from functions(child, f"{name}." if named else prefix)


def test_no_function_grows_past_70_lines() -> None:
    long = {name for module in modules() for name, lines in functions(tree(module), f"{module}:") if lines > 70}
    assert long == set(LONG_FUNCTIONS)


@pytest.mark.parametrize("module", [module for module in modules() if module.endswith("__init__")])
def test_an_init_file_exports_and_explains_and_defines_nothing(module: str) -> None:
    for node in tree(module).body:
        explains = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        exports = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in {"__all__", "__version__"}
        assert isinstance(node, ast.Import | ast.ImportFrom) or explains or exports, f"{module}:{node.lineno}"

"""Guards (a shell): while a simulation runs, real clocks, random numbers, files, sockets and threads are out of reach.

Python has no sandbox, so this replaces names: ``time.time`` and its like raise ``SimulationEscape`` with the seam to
use instead. What was imported by name before (``from time import time``) and ``datetime.now``, which lives in a type
that cannot be changed, are not seen. The machinery around a test (pytest, logging, tracebacks, the debugger) goes on as
it did, and so do other threads.
"""

from __future__ import annotations

import builtins
import os
import random
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from actorkit.errors import SimulationEscape

__all__ = ["guarded"]

_HARMLESS = frozenset(
    {
        *("_pytest", "pytest", "pluggy", "pytest_timeout", "xdist", "execnet", "hypothesis", "coverage", "unittest"),
        *("logging", "structlog", "warnings", "traceback", "linecache", "tokenize", "inspect"),
        *("importlib", "zipimport"),
        *("pdb", "bdb", "cmd", "code", "codeop", "doctest", "rich", "tracemalloc", "cProfile", "profile", "pstats"),
        *("_frozen_importlib", "_frozen_importlib_external", "pkgutil", "faulthandler", "_pyrepl", "readline"),
    }
)
"""Top-level modules of what stands around a test."""

_CLOCK = "read the clock that actorkit hands out (context.now_us, actorkit.clock.Clock), or loop.time()"
_WAITING = "await asyncio.sleep(...)"
_RANDOM = (
    "draw from the randomness that actorkit hands out (context.new_id, actorkit.clock.Randomness) or from the seed"
)
_FILES = "read files before the run begins; what is to be durable goes through the simulated store"
_SOCKETS = "send through the simulated network (World.network)"
_THREADS = "a simulation has one thread: do it in a task"
_PROCESSES = "start simulated processes with World"

_RANDOM_FUNCTIONS = (
    *("random", "randint", "randrange", "choice", "choices", "shuffle", "sample", "uniform", "gauss", "getrandbits"),
    *("randbytes", "expovariate", "normalvariate", "betavariate", "triangular", "seed"),
)

_GUARDED: tuple[tuple[Any, str, tuple[str, ...], str], ...] = (
    (time, "time", ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns"), _CLOCK),
    (time, "time", ("clock_gettime", "clock_gettime_ns", "process_time", "process_time_ns", "thread_time"), _CLOCK),
    (time, "time", ("sleep",), _WAITING),
    (random, "random", _RANDOM_FUNCTIONS, _RANDOM),
    (os, "os", ("urandom", "getrandom"), _RANDOM),
    (uuid, "uuid", ("uuid1", "uuid4"), _RANDOM),
    (builtins, "builtins", ("open",), _FILES),
    (os, "os", ("open", "fsync", "system", "fork"), _FILES),
    (socket.socket, "socket.socket", ("__init__",), _SOCKETS),
    (socket, "socket", ("getaddrinfo", "gethostbyname"), _SOCKETS),
    (threading.Thread, "threading.Thread", ("start",), _THREADS),
    (subprocess.Popen, "subprocess.Popen", ("__init__",), _PROCESSES),
)


def _guard(real: Any, what: str, seam: str, escaped: Callable[[SimulationEscape], SimulationEscape]) -> Any:
    thread = threading.get_ident()

    def guard(*args: Any, **kwargs: Any) -> Any:
        # The documented way to see one's caller.
        caller: str = sys._getframe(1).f_globals.get("__name__", "")  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        if caller.partition(".")[0] in _HARMLESS or threading.get_ident() != thread:
            return real(*args, **kwargs)
        raise escaped(SimulationEscape(f"{what} (called in {caller})", seam))

    return guard


@contextmanager
def guarded(escaped: Callable[[SimulationEscape], SimulationEscape]) -> Generator[None]:
    """Within, the guarded names raise what ``escaped`` makes of the escape; it gets each of them."""
    replaced: list[tuple[Any, str, Any]] = []
    try:
        for holder, module, names, seam in _GUARDED:
            for name in names:
                real = getattr(holder, name, None)
                if real is not None:
                    replaced.append((holder, name, real))
                    setattr(holder, name, _guard(real, f"{module}.{name}", seam, escaped))
        yield
    finally:
        for holder, name, real in reversed(replaced):
            setattr(holder, name, real)

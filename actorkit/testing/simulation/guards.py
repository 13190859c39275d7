"""Guards (a shell): while a simulation runs, real clocks, random numbers, files, sockets and threads are out of reach.

Python has no sandbox, so this replaces what is called: ``time.time`` and its like raise ``SimulationEscape`` with the
seam to use instead, wherever a module has imported them by name, too, and ``datetime.now``. What was kept elsewhere
before (as a default argument, in an object) is not seen, nor is what extension modules do by themselves.

What stands around a test (pytest, logging, tracebacks, the debugger) goes on as it did, and so do other threads and
modules that are being imported. Whose call it is, the innermost frame outside the standard library says.
"""

from __future__ import annotations

import _thread
import builtins
import ctypes
import datetime
import gc
import io
import os
import random
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

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
_CLOCK_FUNCTIONS = (
    *("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "clock_gettime"),
    *("clock_gettime_ns", "process_time", "process_time_ns", "thread_time", "thread_time_ns"),
)
_FILE_FUNCTIONS = (
    *("open", "fsync", "listdir", "scandir", "stat", "lstat", "mkdir", "rmdir", "remove", "unlink", "rename"),
    *("replace", "link", "symlink", "truncate", "utime", "chmod"),
)


class _Guarded(NamedTuple):
    """Some names of one module or class."""

    holder: Any
    named: str
    names: tuple[str, ...]
    seam: str
    harmless_from: int = sys.maxsize
    """With so many arguments they reach for nothing: ``time.gmtime(0)`` reads no clock."""


_GUARDED = (
    _Guarded(time, "time", _CLOCK_FUNCTIONS, _CLOCK),
    _Guarded(time, "time", ("gmtime", "localtime", "ctime", "asctime"), _CLOCK, 1),
    _Guarded(time, "time", ("strftime",), _CLOCK, 2),
    _Guarded(time, "time", ("sleep",), _WAITING),
    _Guarded(random, "random", _RANDOM_FUNCTIONS, _RANDOM),
    # What SystemRandom and secrets draw from.
    _Guarded(random, "os", ("_urandom",), _RANDOM),
    _Guarded(random.Random, "random.Random", ("__init__",), _RANDOM, 2),
    _Guarded(os, "os", ("urandom", "getrandom"), _RANDOM),
    _Guarded(uuid, "uuid", ("uuid1", "uuid4"), _RANDOM),
    _Guarded(builtins, "builtins", ("open",), _FILES),
    _Guarded(io, "io", ("open",), _FILES),
    _Guarded(os, "os", _FILE_FUNCTIONS, _FILES),
    _Guarded(sqlite3, "sqlite3", ("connect",), _FILES),
    _Guarded(os, "os", ("system", "fork", "posix_spawn", "execv", "execve"), _PROCESSES),
    _Guarded(subprocess.Popen, "subprocess.Popen", ("__init__",), _PROCESSES),
    _Guarded(socket.socket, "socket.socket", ("__init__",), _SOCKETS),
    _Guarded(socket, "socket", ("create_connection", "getaddrinfo", "gethostbyname"), _SOCKETS),
    _Guarded(threading.Thread, "threading.Thread", ("start",), _THREADS),
    _Guarded(_thread, "_thread", ("start_new_thread",), _THREADS),
)
_STANDARD = sys.stdlib_module_names - _HARMLESS

Escaped = Callable[[SimulationEscape], SimulationEscape]


def _responsible(frame: FrameType | None) -> str:
    """The module that the call is due to; empty where it is none of the simulation's business."""
    module = ""
    while frame is not None:
        if frame.f_code.co_name == "<module>":
            return ""
        module = str(frame.f_globals.get("__name__", ""))
        top = module.partition(".")[0]
        if top in _HARMLESS:
            return ""
        if top not in _STANDARD:
            return module
        frame = frame.f_back
    return module


def _guard(real: Any, what: str, guarded: _Guarded, escaped: Escaped) -> Any:
    thread = threading.get_ident()

    def guard(*args: Any, **kwargs: Any) -> Any:
        if len(args) + len(kwargs) >= guarded.harmless_from or threading.get_ident() != thread:
            return real(*args, **kwargs)
        # The documented way to see one's caller.
        caller = _responsible(sys._getframe(1))  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        if not caller:
            return real(*args, **kwargs)
        raise escaped(SimulationEscape(f"{what} (called in {caller})", guarded.seam))

    return guard


def _called(guarded: _Guarded, name: str) -> str:
    return guarded.named if name == "__init__" else f"{guarded.named}.{name.lstrip('_')}"


class _Namesakes:
    """Modules outside the standard library that have imported guarded functions by name (``from time import time``)."""

    def __init__(self) -> None:
        functions = (
            (getattr(each.holder, name, None), _called(each, name), each)
            for each in _GUARDED
            if not isinstance(each.holder, type)
            for name in each.names
        )
        self._guarded = {id(real): (real, what, each) for real, what, each in functions if real is not None}
        self._looked_at = 0
        self._found: list[tuple[Any, str, Any, str, _Guarded]] = []

    def find(self) -> list[tuple[Any, str, Any, str, _Guarded]]:
        """Module, name there, function, its own name and guard. Looks only where modules have come since."""
        if len(sys.modules) != self._looked_at:
            self._looked_at = len(sys.modules)
            self._found = []
            for module_name, module in list(sys.modules.items()):
                top = module_name.partition(".")[0]
                if top in _STANDARD or top in _HARMLESS:
                    continue
                for name, value in list(getattr(module, "__dict__", {}).items()):
                    known = self._guarded.get(id(value))
                    if known is not None:
                        self._found.append((module, name, *known))
        return self._found


_namesakes = _Namesakes()


_NOW = _Guarded(datetime.datetime, "datetime", ("now", "utcnow"), _CLOCK)


def _replace_in_datetime(methods: dict[str, Any]) -> None:
    """``datetime`` is a type that refuses to be changed, so its dictionary is changed behind its back."""
    gc.get_referents(datetime.datetime.__dict__)[0].update(methods)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(datetime.datetime))


@contextmanager
def _now_guarded(escaped: Escaped) -> Generator[None]:
    if sys.implementation.name != "cpython":
        yield
        return
    real = {name: datetime.datetime.__dict__[name] for name in _NOW.names}

    def guarded_now(name: str) -> Any:
        def now(cls: Any, *args: Any, **kwargs: Any) -> Any:
            return real[name].__get__(None, cls)(*args, **kwargs)

        return classmethod(_guard(now, f"datetime.{name}", _NOW, escaped))

    _replace_in_datetime({name: guarded_now(name) for name in real})
    try:
        yield
    finally:
        _replace_in_datetime(real)


@contextmanager
def guarded(escaped: Escaped) -> Generator[None]:
    """Within, what is guarded raises what ``escaped`` makes of the escape; it gets each of them."""
    replaced: list[tuple[Any, str, Any]] = []

    def replace(holder: Any, name: str, real: Any, what: str, each: _Guarded) -> None:
        replaced.append((holder, name, real))
        setattr(holder, name, _guard(real, what, each, escaped))

    try:
        for module, name, real, what, each in _namesakes.find():
            replace(module, name, real, what, each)
        for each in _GUARDED:
            for name in each.names:
                real = getattr(each.holder, name, None)
                if real is not None:
                    replace(each.holder, name, real, _called(each, name), each)
        with _now_guarded(escaped):
            yield
    finally:
        for holder, name, real in reversed(replaced):
            setattr(holder, name, real)

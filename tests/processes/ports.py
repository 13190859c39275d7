"""Ports for nodes of this machine."""

from __future__ import annotations

import os
import secrets
import socket

_FIRST_PORT, _LAST_PORT = 10_000, 32_000
"""Below the ports that the operating system gives to connections, which could take a free one away again."""
_WORKERS_MAX = 8
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS_MAX
"""Tests that run beside this one take others."""
_given: set[int] = set()


def free_port() -> int:
    """One that nobody listens on now, and that was not given before: who got it may not listen yet."""
    while True:
        port = _FIRST_PORT + _WORKER + _WORKERS_MAX * secrets.randbelow((_LAST_PORT - _FIRST_PORT) // _WORKERS_MAX)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.add(port)
            return port

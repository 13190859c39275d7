"""Ports for nodes of this machine."""

from __future__ import annotations

import secrets
import socket

_FIRST_PORT, _LAST_PORT = 10_000, 32_000
"""Below the ports that the operating system gives to connections, which could take a free one away again."""


def free_port() -> int:
    """One that nobody listens on now."""
    while True:
        port = _FIRST_PORT + secrets.randbelow(_LAST_PORT - _FIRST_PORT)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port

"""OutOfReach (a shell): what an asyncio loop can do that would leave the simulation; each says what to do instead."""

from __future__ import annotations

import asyncio
from typing import Any

from actorkit.errors import SimulationEscape

__all__ = ["OutOfReach"]

_THREADS = "a simulation has one thread; do it in a simulated process, or wrap it in a seam that tests replace"
_SOCKETS = "send through the simulated network (World.network), or put a transport of your own behind a protocol"
_PROCESSES = "start simulated processes with World instead"


def _refused(name: str, seam: str) -> Any:
    def refuse(self: OutOfReach, *args: Any, **kwargs: Any) -> Any:
        raise self.escaped(SimulationEscape(f"loop.{name}", seam))

    return refuse


class OutOfReach(asyncio.AbstractEventLoop):
    """The part of ``SimulatedLoop`` that refuses."""

    def __init__(self) -> None:
        self.escapes: list[SimulationEscape] = []
        """Everything that has reached for the real world; a run that has any fails."""

    def escaped(self, escape: SimulationEscape) -> SimulationEscape:
        """Notes it, since whoever made the call may swallow the exception."""
        if not self.is_closed():
            self.escapes.append(escape)
        return escape

    call_soon_threadsafe = _refused("call_soon_threadsafe", _THREADS)
    run_in_executor = _refused("run_in_executor", _THREADS)
    set_default_executor = _refused("set_default_executor", _THREADS)
    getaddrinfo = _refused("getaddrinfo", _SOCKETS)
    getnameinfo = _refused("getnameinfo", _SOCKETS)
    create_connection = _refused("create_connection", _SOCKETS)
    create_server = _refused("create_server", _SOCKETS)
    create_unix_connection = _refused("create_unix_connection", _SOCKETS)
    create_unix_server = _refused("create_unix_server", _SOCKETS)
    create_datagram_endpoint = _refused("create_datagram_endpoint", _SOCKETS)
    connect_accepted_socket = _refused("connect_accepted_socket", _SOCKETS)
    start_tls = _refused("start_tls", _SOCKETS)
    sendfile = _refused("sendfile", _SOCKETS)
    sock_recv = _refused("sock_recv", _SOCKETS)
    sock_recv_into = _refused("sock_recv_into", _SOCKETS)
    sock_recvfrom = _refused("sock_recvfrom", _SOCKETS)
    sock_recvfrom_into = _refused("sock_recvfrom_into", _SOCKETS)
    sock_sendall = _refused("sock_sendall", _SOCKETS)
    sock_sendto = _refused("sock_sendto", _SOCKETS)
    sock_connect = _refused("sock_connect", _SOCKETS)
    sock_accept = _refused("sock_accept", _SOCKETS)
    sock_sendfile = _refused("sock_sendfile", _SOCKETS)
    add_reader = _refused("add_reader", _SOCKETS)
    remove_reader = _refused("remove_reader", _SOCKETS)
    add_writer = _refused("add_writer", _SOCKETS)
    remove_writer = _refused("remove_writer", _SOCKETS)
    connect_read_pipe = _refused("connect_read_pipe", _PROCESSES)
    connect_write_pipe = _refused("connect_write_pipe", _PROCESSES)
    subprocess_shell = _refused("subprocess_shell", _PROCESSES)
    subprocess_exec = _refused("subprocess_exec", _PROCESSES)
    add_signal_handler = _refused("add_signal_handler", _PROCESSES)
    remove_signal_handler = _refused("remove_signal_handler", _PROCESSES)

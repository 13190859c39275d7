"""Seeds (a shell): what the names of seeds stand for.

A host name that stands for several addresses, as that of a headless service does, stands for so many seeds. One that
stands for a single one is kept as it is, since that is how the node behind it is likely to call itself.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address

from actorkit.errors import ConfigurationError

__all__ = ["Resolve", "resolve"]

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""From a seed as it was given to the addresses that it stands for. Raises ``OSError`` where that is not known."""


async def resolve(seed: str) -> Sequence[str]:
    """Asks the system's resolver, which may ask DNS. Raises ``ConfigurationError`` where it is not ``host:port``."""
    host, colon, port = seed.rpartition(":")
    if not colon or not host or not port.isdecimal():
        raise ConfigurationError(f"the seed {seed!r} is not an address: expected host:port")
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        pass
    else:
        return (seed,)
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, int(port), family=socket.AF_UNSPEC, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise ConfigurationError(f"the seed {seed!r} has no valid host name: {error}") from error
    # A host with addresses of both families is one node all the same.
    families = {family for family, *_ in found}
    family = socket.AF_INET if socket.AF_INET in families else socket.AF_INET6
    hosts = sorted({str(address[0]) for each, _, _, _, address in found if each == family})
    if len(hosts) < 2:
        return (seed,)
    return tuple(f"[{each}]:{port}" if family == socket.AF_INET6 else f"{each}:{port}" for each in hosts)

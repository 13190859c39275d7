"""A node in a process of its own, which echoes notes until it is killed. Prints its address once it listens."""

from __future__ import annotations

import asyncio
import sys

from tests.remoting.sockets import SocketNode


async def main(address: str) -> None:
    """``address`` is where to listen."""
    node = SocketNode("other", address=address, echo=True)
    await node.remoting.start()
    print(node.remoting.address, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

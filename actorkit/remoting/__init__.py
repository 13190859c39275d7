"""Messages between nodes: authenticated connections, batches, heartbeats, order, and what became of a peer.

``Remoting`` is where to begin. Its network is a ``Transport``: WebSockets, or a simulated one.
"""

from actorkit.remoting.aiohttp_transport import AiohttpTransport
from actorkit.remoting.counters import RemotingCounters
from actorkit.remoting.events import Connected, Disconnected, Peer, PeerEvent, Unreachable
from actorkit.remoting.handshake import PROTOCOL_VERSIONS
from actorkit.remoting.remoting import Remoting
from actorkit.remoting.settings import RemotingSettings
from actorkit.remoting.tls import TlsContexts, mutual_tls
from actorkit.remoting.transport import Acceptor, Link, LinkHandler, Transport

__all__ = [
    "PROTOCOL_VERSIONS",
    "Acceptor",
    "AiohttpTransport",
    "Connected",
    "Disconnected",
    "Link",
    "LinkHandler",
    "Peer",
    "PeerEvent",
    "Remoting",
    "RemotingCounters",
    "RemotingSettings",
    "TlsContexts",
    "Transport",
    "Unreachable",
    "mutual_tls",
]

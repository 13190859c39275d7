"""All settings of a system in one place; each package documents its own."""

from __future__ import annotations

import msgspec

from actorkit.actor.settings import ActorSettings
from actorkit.cluster.settings import ClusterSettings
from actorkit.journal.settings import WriterSettings
from actorkit.persistence.settings import PersistenceSettings
from actorkit.readmodel.settings import ReadModelSettings
from actorkit.remoting.settings import RemotingSettings
from actorkit.remoting.tls import TlsContexts
from actorkit.sharding.settings import ShardingSettings

__all__ = ["ClusterNode", "SystemSettings"]


class SystemSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How an ``ActorSystem`` runs. The defaults are meant to be right; every part can be replaced."""

    actors: ActorSettings = ActorSettings()
    persistence: PersistenceSettings = PersistenceSettings()
    sharding: ShardingSettings = ShardingSettings()
    writer: WriterSettings = WriterSettings()
    readmodel: ReadModelSettings = ReadModelSettings()
    remoting: RemotingSettings = RemotingSettings()
    cluster: ClusterSettings = ClusterSettings()


class ClusterNode(msgspec.Struct, frozen=True, kw_only=True):
    """How a system takes part in a cluster."""

    remoting: str = "127.0.0.1:9080"
    """Where it listens for the other nodes, ``host:port``. Port 0: a free one."""

    advertise: str | None = None
    """Where the others reach it, if that is another address than it listens on."""

    seeds: tuple[str, ...] = ()
    """Remoting addresses of nodes to join; none, or only its own: it forms a cluster. Nodes that start at the same time
    with the same seeds, their own addresses among them, end up in one cluster."""

    cluster: str = "actorkit"
    """The cluster's name: nodes of another one are refused."""

    secret: str | None = None
    """The same on all nodes; without it (or ``tls``) remoting listens on loopback only."""

    tls: TlsContexts | None = None
    """As ``actorkit.remoting.mutual_tls`` makes them."""

    roles: tuple[str, ...] = ()
    weight: float = 1.0
    """How many shards it is to have, next to others. 0: none, it only routes."""

    labels: dict[str, str] = {}
    """What others are to know of it, as its HTTP address."""

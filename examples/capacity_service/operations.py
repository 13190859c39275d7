"""What operates a node rather than uses it: members, shards, metrics, the description of the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from actorkit import ActorSystem
from actorkit.cluster.member import Member as ClusterMember
from actorkit.cluster.member import Status
from actorkit.gateway.cluster_metrics import cluster_readings
from actorkit.gateway.handlers import Answer, Endpoint, Gateway, Incoming
from actorkit.gateway.inputs import BearerTokens
from actorkit.gateway.metrics import Reading, readings_of
from actorkit.gateway.read_model_metrics import read_model_readings

__all__ = ["Access", "Drain", "Member", "Members", "Shard", "Shards", "add_readings", "operation_endpoints"]

Standing = Literal["joining", "up", "leaving", "unreachable"]

_STATUS: Final[dict[Status, Standing]] = {Status.JOINING: "joining", Status.UP: "up"}
_ENTITY_HELP: Final = {
    "commands": "Commands that entities have carried out.",
    "queries": "Queries that entities have answered.",
    "rejected": "Calls that entities have refused.",
    "deduplicated": "Commands that came again, and were answered as the first time.",
    "handler_failures": "Handlers that raised, or took too long: defects.",
    "settlements": "Entities that went back to what the journal says, since something had failed.",
    "recoveries": "Entities that were brought into memory, or back to what the journal says.",
    "recovery_failures": "Entities whose state could not be rebuilt, or whose journal could not be read.",
    "events_replayed": "Events that were read for recoveries.",
    "snapshots_ignored": "Snapshots that could not be used, so that more events were read instead.",
    "effects_failed": "Exceptions in what was to follow a commit, such as publishing: defects.",
}
"""What the counters of entities count, all of them since the process has begun."""


class Access(msgspec.Struct, frozen=True):
    """Who may do what. ``None``: clients need no token; nobody is an operator."""

    clients: BearerTokens | None = None
    operators: BearerTokens | None = None

    @property
    def anybody(self) -> BearerTokens | None:
        """Whose tokens are taken where clients need one: an operator may do what they may."""
        if self.clients is None or self.operators is None:
            return self.clients
        return self.clients | self.operators


class Member(msgspec.Struct, frozen=True):
    """A node of the cluster, as this one sees it."""

    name: str
    incarnation: str
    http: str
    remoting: str
    status: Standing


class Members(msgspec.Struct, frozen=True):
    """All nodes of the cluster."""

    members: list[Member]


class Shard(msgspec.Struct, frozen=True):
    """Who owns a shard (nobody: empty), under which epoch, and the position of its newest record."""

    shard: int
    owner: str
    epoch: int
    head: int


class Shards(msgspec.Struct, frozen=True):
    """All shards of the journal."""

    shards: list[Shard]


class Drain(msgspec.Struct, frozen=True):
    """The node has begun to leave; its process ends when it has."""

    status: Literal["leaving"] = "leaving"


def operation_endpoints(
    system: ActorSystem, gateway: Gateway, *, access: Access, leave: Callable[[], None], openapi: bytes
) -> tuple[Endpoint[Any], ...]:
    async def members(_: Incoming[Any]) -> Answer:
        return Answer(msgspec.json.encode(Members([_shown(member) for member in system.members])))

    async def shards(_: Incoming[Any]) -> Answer:
        statuses = await system.shards()
        return Answer(msgspec.json.encode(Shards([Shard(s.shard, s.owner, s.epoch, s.head) for s in statuses])))

    async def metrics(_: Incoming[Any]) -> Answer:
        text, content_type = gateway.metrics.text()
        return Answer(text, content_type=content_type)

    async def description(_: Incoming[Any]) -> Answer:
        return Answer(openapi)

    async def drain(incoming: Incoming[Any]) -> Answer:
        assert access.operators is not None
        access.operators.check(incoming.headers.getall("Authorization", []))
        leave()
        return Answer(msgspec.json.encode(Drain()))

    drains: tuple[Endpoint[Any], ...] = ()
    if access.operators is not None:
        drains = (Endpoint("POST", "/cluster/drain", drain, always=True),)
    return (
        *drains,
        Endpoint("GET", "/cluster/members", members, always=True),
        Endpoint("GET", "/cluster/shards", shards),
        Endpoint("GET", "/metrics", metrics, always=True),
        Endpoint("GET", "/openapi.json", description, always=True),
    )


def _shown(member: ClusterMember) -> Member:
    status: Standing = _STATUS.get(member.status, "leaving") if member.reachable else "unreachable"
    node = member.node
    return Member(node.name, node.incarnation, member.labels.get("http", ""), member.address, status)


def add_readings(gateway: Gateway, system: ActorSystem) -> None:
    """Shows the system's own counters among the metrics."""
    writer, counters = system.writer, system.counters
    readings = gateway.metrics.readings
    readings += [
        Reading("actorkit_entities", "Entities in memory.", "gauge", lambda: system.region.entities),
        Reading("actorkit_journal_batches", "Commits to the journal.", "counter", lambda: writer.batches),
        Reading("actorkit_journal_appends", "Commands whose events were committed.", "counter", lambda: writer.appends),
        Reading("actorkit_journal_bytes", "Content that was committed.", "counter", lambda: writer.bytes),
        Reading("actorkit_journal_queue", "Appends that wait for the next commit.", "gauge", lambda: writer.queued),
        Reading(
            "actorkit_journal_commit_seconds", "How long the last commit took.", "gauge", lambda: writer.commit_last_s
        ),
    ]
    clustering = system.clustering
    if clustering is not None:
        readings += cluster_readings(
            clustering.remoting, clustering.cluster, clustering.sharding, system.region, system.singletons
        )
        readings += read_model_readings(system.read_model)
    counter = readings_of(counters, "actorkit_entity", "counter")
    readings += [counter(name, _ENTITY_HELP[name], name) for name in counters.__struct_fields__]

"""All settings of a system in one place; each package documents its own."""

from __future__ import annotations

import msgspec

from actorkit.actor.settings import ActorSettings
from actorkit.journal.settings import WriterSettings
from actorkit.persistence.settings import PersistenceSettings
from actorkit.sharding.settings import ShardingSettings

__all__ = ["SystemSettings"]


class SystemSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How an ``ActorSystem`` runs. The defaults are meant to be right; every part can be replaced."""

    actors: ActorSettings = ActorSettings()
    persistence: PersistenceSettings = PersistenceSettings()
    sharding: ShardingSettings = ShardingSettings()
    writer: WriterSettings = WriterSettings()

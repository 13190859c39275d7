"""The entity of the read model's benchmarks: a pool that publishes what it has left."""

from __future__ import annotations

from msgspec import Struct

from actorkit import Event, PersistentActor, State, applies, command, published

__all__ = ["Shown", "Taken", "pools_of"]

CAPACITY = 10**12


class Taken(Event):
    """Units were taken."""

    units: int


class ShownState(State):
    """Nothing that grows."""

    left: int = CAPACITY
    version: int = 0

    @applies(Taken)
    def taken(self, event: Taken) -> None:
        self.left -= event.units
        self.version += 1


class Availability(Struct, frozen=True):
    """About as large as what a capacity service publishes of a pool."""

    pool: str
    capacity: int
    left: int
    version: int
    region: str
    labels: dict[str, str]


class Shown(PersistentActor[ShownState, Taken]):
    """Takes commands for ever."""

    @command
    def take(self, units: int) -> int:
        self.emit(Taken(units))
        return self.state.version

    @published
    def availability(self) -> Availability:
        """What the read model holds."""
        state = self.state
        return Availability(self.entity_id, CAPACITY, state.left, state.version, "eu-west", {"tier": "standard"})


def pools_of(count: int) -> list[str]:
    """The ids of so many pools."""
    return [f"pool-{number}" for number in range(count)]

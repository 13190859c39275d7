"""The actors that are measured."""

from __future__ import annotations

from actorkit import Event, PersistentActor, State, applies, command, field, query

__all__ = ["Counter", "Pool"]


class Reserved(Event):
    """Units were taken."""

    reservation: str
    units: int


class CounterState(State):
    """What is free, and nothing that grows: else the growing state would be what is measured."""

    free: int = 10**12

    @applies(Reserved)
    def reserved(self, event: Reserved) -> None:
        self.free -= event.units


class Counter(PersistentActor[CounterState, Reserved]):
    """Takes commands for ever."""

    @command
    def reserve(self, units: int) -> str:
        return self.reserve_now(units)

    @command
    async def reserve_async(self, units: int) -> str:
        return self.reserve_now(units)

    @query
    def free(self) -> int:
        return self.state.free

    def reserve_now(self, units: int) -> str:
        """What both do."""
        reservation = self.context.new_id()
        self.emit(Reserved(reservation, units))
        return reservation


class PoolState(State):
    """That of the README, with more to give."""

    free: int = 10**12
    held: dict[str, int] = field(default_factory=dict[str, int])

    @applies(Reserved)
    def reserved(self, event: Reserved) -> None:
        self.free -= event.units
        self.held[event.reservation] = event.units


class Pool(PersistentActor[PoolState, Reserved]):
    """That of the README, and a command that emits many events at once."""

    @command
    def reserve_each(self, count: int) -> int:
        for _ in range(count):
            self.emit(Reserved(self.context.new_id(), 1))
        return self.state.free

    @query
    def free(self) -> int:
        return self.state.free

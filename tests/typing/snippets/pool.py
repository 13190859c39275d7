"""The actor that the snippets use. No line here may be reported."""

# pyright: strict

from __future__ import annotations

from actorkit import Event, PersistentActor, Rejected, State, applies, command, field, published, query


class Reserved(Event):
    reservation: str
    units: int


class Released(Event, name="released"):
    reservation: str


class PoolState(State):
    free: int = 10
    held: dict[str, int] = field(default_factory=dict[str, int])

    @applies(Reserved)
    def reserved(self, event: Reserved) -> None:
        self.free -= event.units
        self.held[event.reservation] = event.units

    @applies(Released)
    def released(self, event: Released) -> None:
        self.free += self.held.pop(event.reservation)


class Pool(PersistentActor[PoolState, Reserved | Released]):
    @command
    async def reserve(self, units: int) -> str:
        if units > self.state.free:
            raise Rejected("sold out")
        reservation = self.context.new_id()
        self.emit(Reserved(reservation, units))
        return reservation

    @command
    def release(self, reservation: str, *, force: bool = False) -> int:
        self.emit(Released(reservation))
        self.context.once("remind", 1.0, Pool.release, reservation, force=force)
        return self.state.free

    @query
    def free(self) -> int:
        return self.state.free

    @query
    async def held(self) -> dict[str, int]:
        return self.state.held

    @query
    def look(self, number: int) -> str | None:
        return f"{number}"

    @published
    def availability(self) -> int | None:
        return self.state.free

    @published(version=2)
    def described(self) -> str:
        return f"{self.state.free} are free"

"""Mistakes that type checkers must report: on exactly the lines that are marked."""

# pyright: strict

from __future__ import annotations

from actorkit import ActorSystem, Event, PersistentActor, State, applies, command, published, query
from tests.typing.snippets.pool import Pool, PoolState, Released, Reserved


async def calls(system: ActorSystem) -> None:
    pool = system.get(Pool, "p")
    await pool.reserve("three")  # error
    await pool.reserve()  # error
    await pool.reserve(3, 4)  # error
    await pool.reserve(unit=3)  # error
    await pool.release("r", True)  # error
    await pool.release.options(idempotency_key="k")(5)  # error
    await pool.reserve.options(idempotency_key=5)(3)  # error
    await pool.reserve.begin("three")  # error
    pool.reserve.begin()  # error
    await pool.free(1)  # error
    await pool.unheard_of()  # error
    number: int = await pool.reserve(3)  # error
    print(number)
    text: str = await pool.free()  # error
    print(text)


async def a_missing_await(system: ActorSystem) -> None:
    pool = system.get(Pool, "p")
    pool.reserve(3)  # error
    pool.free()  # error
    pool.release.options(idempotency_key="k")("r")  # error
    free = pool.free()
    print(await free + 1)
    print(pool.free() + 1)  # error


def events(event: Reserved) -> None:
    event.units = 4  # error
    Reserved("r")  # error
    Reserved("r", "four")  # error
    Reserved(reservation="r", unit=4)  # error


class Undeclared(Event):
    text: str


class Emitting(PersistentActor[PoolState, Reserved | Released]):
    @command
    def wrong_event(self) -> None:
        self.emit(Undeclared("x"))  # error

    @command
    def no_event(self) -> None:
        self.emit("reserved")  # error

    @command
    def wrong_reply(self) -> int:
        return "text"  # error

    @command
    def unknown_member(self) -> int:
        return self.state.unheard_of  # error

    @query
    def looks(self) -> int:
        self.context.once("x", 1.0, Emitting.timed, "text")  # error
        return self.state.free

    @command
    def timed(self, number: int) -> None: ...


class Publishing(PersistentActor[PoolState, Reserved | Released]):
    @published
    def wrong_value(self) -> int:
        return "text"  # error

    @published(version="2")
    def wrong_version(self) -> int:  # error
        return 1

    @published
    def wrong_parameters(self, number: int) -> int:  # error
        return number

    @published(version=2)
    def wrong_parameters_too(self, number: int) -> int:  # error
        return number


def encoding() -> None:
    Pool.described.encode(3)  # error


class WrongApply(State):
    free: int = 0

    @applies(Reserved)
    def reserved(self, event: Released) -> None: ...  # error


class NoState(PersistentActor[int, Reserved]):  # error
    pass


class NoEvent(PersistentActor[PoolState, str]):  # error
    pass


async def the_past(system: ActorSystem) -> None:
    await system.state_at(Pool, "p", version="one")  # error
    past = await system.state_at(Pool, "p", version=1)
    print(past.state.unheard_of)  # error
    system.get(Pool, 5)  # error
    system.get(Reserved, "r")  # error

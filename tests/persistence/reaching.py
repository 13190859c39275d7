"""An actor that reaches out in every way there is, and one that records what it is told."""

from __future__ import annotations

from typing import Any

from actorkit import Actor, Event, PersistentActor, State, applies, command, field, published, query
from tests.persistence.actors import Account, Broke
from tests.persistence.kit import Nodes

__all__ = ["Caller", "Recorder", "Step", "Steps", "recording"]


class Recorder(Actor[Any]):
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def receive(self, message: Any) -> object:
        self.seen.append(message)
        return message


class Step(Event, name="tests.step"):
    name: str


class Steps(State):
    names: list[str] = field(default_factory=list[str])

    @applies(Step)
    def step(self, event: Step) -> None:
        self.names.append(event.name)


class Caller(PersistentActor[Steps, Step], name="caller"):
    """Reaches out in every way there is."""

    recorder: Any = None

    @command
    def emit_and_tell(self, name: str) -> str:
        self.recorder.tell(f"before {name}")
        self.emit(Step(name))
        self.recorder.tell(f"after {name}")
        return name

    @command
    async def emit_and_send(self, name: str) -> str:
        self.emit(Step(name))
        await self.recorder.send(name, deadline_s=1)
        return name

    @command
    def tell_only(self, name: str) -> str:
        self.recorder.tell(name)
        return name

    @command
    def tell_then_reject(self, name: str) -> str:
        self.recorder.tell(name)
        raise Broke("no")

    @command
    def tell_then_fail(self, name: str) -> str:
        self.recorder.tell(name)
        raise ZeroDivisionError

    @query
    def ask_to_tell(self, name: str) -> str:
        self.recorder.tell(name)
        return name

    @command
    async def ask_after_emit(self) -> str:
        self.emit(Step("x"))
        return str(await self.recorder.ask("question"))

    @command
    async def ask_then_emit(self, name: str) -> str:
        answer = await self.recorder.ask(name)
        self.emit(Step(answer))
        return str(answer)

    @command
    async def call_after_emit(self, other: str) -> int:
        self.emit(Step("x"))
        return await self.context.system.get(Account, other).put(1)

    @command
    async def call_then_emit(self, other: str) -> int:
        balance: int = await self.context.system.get(Account, other).put(1)
        self.emit(Step(f"{balance}"))
        return balance

    @command
    async def call_other(self, ids: list[str]) -> str:
        if not ids:
            return "end"
        return await self.context.system.get(Caller, ids[0]).call_other(ids[1:])

    @command
    def remind(self, name: str, after_s: float) -> None:
        self.context.once("reminder", after_s, Caller.emit_and_tell, f"timer {name}")
        self.emit(Step(name))

    @command
    def remind_every(self, name: str, every_s: float) -> None:
        self.context.every("reminder", every_s, Caller.tell_only, name)

    @command
    def forget(self) -> None:
        self.context.cancel("reminder")

    @query
    def names(self) -> list[str]:
        return self.state.names

    @published
    def count(self) -> int | None:
        return len(self.state.names)


async def recording(nodes: Nodes, recorder: Recorder, **changes: Any) -> tuple[Any, Any]:
    journal = nodes.journal()
    system = await nodes.start(journal, **changes)
    await system.own_all_shards()
    Caller.recorder = system.spawn(lambda: recorder)
    return journal, system

"""Small models, histories of them made at random, and a checker that tries every order."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import permutations
from random import Random
from typing import Any

import msgspec

from actorkit.testing.checkers import Model, Operation, Outcome, PersistentMap


class Register(Model[int]):
    """Holds a number."""

    reads = frozenset({"read"})

    def initial(self) -> int:
        return 0

    def step(self, state: int, operation: Operation) -> Collection[int]:
        match operation.name:
            case "write":
                return (operation.arguments[0],)
            case "swap":
                expected, wanted = operation.arguments
                if operation.outcome is Outcome.UNKNOWN:
                    return (wanted,) if state == expected else ()
                if operation.outcome is Outcome.REJECTED:
                    return (state,) if state != expected else ()
                return (wanted,) if state == expected else ()
            case _:
                return (state,) if operation.outcome is Outcome.UNKNOWN or operation.value == state else ()

    def expected(self, state: int, operation: Operation) -> str:
        return str(state) if operation.name == "read" else ""


class Counter(Model[int]):
    """Counts; each answer says how far."""

    def initial(self) -> int:
        return 0

    def step(self, state: int, operation: Operation) -> Collection[int]:
        after = state + operation.arguments[0]
        return (after,) if operation.outcome is Outcome.UNKNOWN or operation.value == after else ()


class Shelf(Model[PersistentMap[str, int]]):
    """Things by name, in a state that grows."""

    reads = frozenset({"get"})

    def initial(self) -> PersistentMap[str, int]:
        return PersistentMap()

    def step(self, state: PersistentMap[str, int], operation: Operation) -> Collection[PersistentMap[str, int]]:
        if operation.name == "put":
            name, value = operation.arguments
            return (state.set(name, value),)
        known = operation.outcome is not Outcome.UNKNOWN
        return () if known and operation.value != state.get(operation.arguments[0]) else (state,)


def random_call(random: Random, model: Model[Any], state: Any) -> tuple[str, tuple[Any, ...], Outcome, Any, Any]:
    """A call that is right in this state: its name, arguments, outcome, value, and the state after it."""
    if isinstance(model, Counter):
        by = random.randint(1, 3)
        return "add", (by,), Outcome.REPLIED, state + by, state + by
    if isinstance(model, Shelf):
        name = random.choice("abcdefgh")
        if random.random() < 0.5:
            value = random.randint(0, 9)
            return "put", (name, value), Outcome.REPLIED, None, state.set(name, value)
        return "get", (name,), Outcome.REPLIED, state.get(name), state
    kind = random.choice(("read", "write", "swap"))
    if kind == "read":
        return kind, (), Outcome.REPLIED, state, state
    wanted = random.randint(0, 4)
    if kind == "write":
        return kind, (wanted,), Outcome.REPLIED, None, wanted
    expected = random.randint(0, 4)
    if expected != state:
        return kind, (expected, wanted), Outcome.REJECTED, {"code": "other", "details": {}}, state
    return kind, (expected, wanted), Outcome.REPLIED, None, wanted


def right_history(
    random: Random,
    model: Model[Any],
    *,
    operations: int,
    clients: int,
    unknown: float = 0.0,
    not_executed: float = 0.0,
    entity: str = "thing/1",
) -> list[Operation]:
    """A run in which everything was right: effects one after the other, each within its client's interval."""
    state = model.initial()
    free_us = dict.fromkeys(range(clients), 0)
    made: list[Operation] = []
    now_us = 0
    for number in range(1, operations + 1):
        # The effect is at now_us; the interval reaches back to whenever its client was free, and on for a while.
        now_us += 10
        client = random.choice([client for client, free in free_us.items() if free < now_us] or [-1])
        if client == -1:
            now_us = max(now_us, min(free_us.values()) + 1)
            client = min(free_us, key=lambda each: free_us[each])
        invoked_us = random.randint(max(free_us[client] + 1, now_us - 10 * clients), now_us)
        completed_us: int | None = now_us + random.randint(0, 10 * clients)
        free_us[client] = completed_us or 0
        name, arguments, outcome, value, after = random_call(random, model, state)
        luck = random.random()
        if luck < unknown:
            # Whether it happened is the model's to find out.
            outcome, value, completed_us = Outcome.UNKNOWN, None, None
            if random.random() < 0.5:
                after = state
        elif luck < unknown + not_executed:
            outcome, value, after = Outcome.NOT_EXECUTED, None, state
        state = after
        made.append(
            Operation(
                number=number,
                client=f"client-{client}",
                entity=entity,
                name=name,
                arguments=arguments,
                invoked_us=invoked_us,
                completed_us=completed_us,
                outcome=outcome,
                value=value,
            )
        )
    return made


def mutated(random: Random, operations: Sequence[Operation]) -> list[Operation]:
    """The same with one answer changed, where there is one."""
    answered = [n for n, operation in enumerate(operations) if isinstance(operation.value, int)]
    made = list(operations)
    if answered:
        n = random.choice(answered)
        made[n] = msgspec.structs.replace(made[n], value=random.randint(0, 9))
    return made


def brute_force(operations: Sequence[Operation], model: Model[Any]) -> bool:
    """The definition, tried out: some order of the completed ones and of some of the unknown ones explains it all."""
    executed = [each for each in operations if each.outcome is not Outcome.NOT_EXECUTED]
    unknown = [each for each in executed if each.ended is None]
    certain = [each for each in executed if each.ended is not None]
    for chosen in range(1 << len(unknown)):
        some = certain + [each for bit, each in enumerate(unknown) if chosen >> bit & 1]
        if any(_explains(order, model) for order in permutations(some)):
            return True
    return False


def _explains(order: Sequence[Operation], model: Model[Any]) -> bool:
    states = {model.initial()}
    for n, operation in enumerate(order):
        if any(later.ended is not None and later.ended < operation.began for later in order[n + 1 :]):
            return False
        states = {after for state in states for after in model.step(state, operation)}
        if not states:
            return False
    return True


Remembered = tuple[int, frozenset[tuple[str, int]]]


class KeyedCounter(Model[Remembered]):
    """A counter that remembers what it has answered under each key, as the definition of keys says."""

    def initial(self) -> Remembered:
        return 0, frozenset()

    def step(self, state: Remembered, operation: Operation) -> Collection[Remembered]:
        total, memory = state
        known = dict(memory).get(operation.key or "")
        after = (total, memory) if known is not None else (total + operation.arguments[0], memory)
        answer = after[0] if known is None else known
        if operation.outcome is not Outcome.UNKNOWN and operation.value != answer:
            return ()
        if known is None and operation.key is not None:
            after = after[0], memory | {(operation.key, answer)}
        return (after,)

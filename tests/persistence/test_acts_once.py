"""Promise P3: every command acts once, by its idempotency key or by the id that the framework gave it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actorkit import (
    Event,
    HandlerFailed,
    IdempotencyKeyReused,
    Message,
    Overloaded,
    PersistentActor,
    State,
    applies,
    command,
    field,
    query,
)
from actorkit.errors import ConfigurationError
from actorkit.persistence.actor import entity_type_of
from actorkit.persistence.turn import id_of_call_within
from tests.persistence.actors import Account, Broke, Busy, Undecided
from tests.persistence.kit import Nodes, ScriptedJournal, eventually, lost_for_lack_of_space, turns


async def outcome(call: Any) -> Any:
    return (await asyncio.gather(call, return_exceptions=True))[0]


def start(call: Any) -> asyncio.Task[Any]:
    return asyncio.ensure_future(call)


def key(account: Any, name: str, how: str = "put") -> Any:
    return getattr(account, how).options(idempotency_key=name)


# ----------------------------------------------------------------------------------------------------------------- keys


async def test_the_same_key_and_arguments_act_once_and_answer_the_same(nodes: Nodes) -> None:
    system = await nodes.start()
    account = system.get(Account, "a")
    assert await key(account, "k")(5) == 5
    assert await account.put(1) == 6
    assert await key(account, "k")(5) == 5
    assert await key(account, "k")(amount=5, note="") == 5, "the same arguments, written differently"
    assert await account.balance() == 6
    assert Account.runs == ["put 5", "put 1"]


async def test_a_key_is_scoped_to_its_entity(nodes: Nodes) -> None:
    system = await nodes.start()
    assert await key(system.get(Account, "a"), "k")(5) == 5
    assert await key(system.get(Account, "b"), "k")(7) == 7


@pytest.mark.parametrize("how", ["other arguments", "another handler"])
async def test_a_key_with_another_call_is_refused(nodes: Nodes, how: str) -> None:
    system = await nodes.start()
    account = system.get(Account, "a")
    assert await key(account, "k")(5) == 5
    with pytest.raises(IdempotencyKeyReused):
        await (key(account, "k")(6) if how == "other arguments" else key(account, "k", "take")(5))
    assert await account.balance() == 5
    assert await key(account, "k")(5) == 5


async def test_a_refusal_is_remembered_like_a_reply(nodes: Nodes) -> None:
    system = await nodes.start()
    account = system.get(Account, "a")
    first = await outcome(key(account, "k", "take")(5))
    assert await account.put(10) == 10
    second = await outcome(key(account, "k", "take")(5))
    assert type(first) is type(second) is Broke
    assert (first.reason, first.details) == (second.reason, second.details) == ("not enough", {"left": 0})
    assert await account.balance() == 10


async def test_a_refusal_after_emit_is_remembered_too(nodes: Nodes) -> None:
    system = await nodes.start()
    account = system.get(Account, "a")
    first = await outcome(key(account, "k", "put_then_reject")(5))
    await account.put(1)
    second = await outcome(key(account, "k", "put_then_reject")(5))
    assert first.details == second.details == {"left": 5}
    assert Account.runs.count("put_then_reject 5") == 1
    assert await account.balance() == 1


async def test_a_repetition_right_behind_a_refusal_after_emit_is_answered_the_same(nodes: Nodes) -> None:
    """The refusal is on its way to the journal when its repetition arrives, and the memory was just rebuilt."""
    journal = nodes.journal()
    system = await nodes.start(journal)
    account = system.get(Account, "a")
    await account.balance()
    journal.hold()
    calls = [start(outcome(key(account, "k", "put_then_reject")(5))) for _ in range(3)]
    await eventually(lambda: journal.held)
    await turns()
    journal.let_go()
    assert [result.details for result in await asyncio.gather(*calls)] == [{"left": 5}] * 3
    assert Account.runs.count("put_then_reject 5") == 1


async def test_a_no_op_is_remembered_too(nodes: Nodes) -> None:
    system = await nodes.start()
    account = system.get(Account, "a")
    assert await key(account, "k", "nothing")() == 0
    assert await account.put(5) == 5
    assert await key(account, "k", "nothing")() == 0
    assert Account.runs.count("nothing") == 1


async def test_a_refusal_that_is_declared_as_not_remembered_is_decided_anew(nodes: Nodes) -> None:
    system = await nodes.start()
    account = system.get(Account, "a")
    for _ in range(2):
        with pytest.raises(Undecided):
            await key(account, "k", "hesitate")()
    assert Account.runs == ["hesitate"] * 2
    assert await key(account, "k")(5) == 5, "its key is free"


async def test_a_failed_handler_leaves_its_key_free(nodes: Nodes) -> None:
    system = await nodes.start()
    account = system.get(Account, "a")
    with pytest.raises(HandlerFailed):
        await key(account, "k", "boom")(1)
    assert await key(account, "k")(5) == 5


async def test_a_repetition_while_the_first_is_on_its_way_waits_and_answers_the_same(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal)
    account = system.get(Account, "a")
    await account.balance()
    journal.hold()
    calls = [start(key(account, "k")(5)) for _ in range(4)]
    await eventually(lambda: journal.held)
    await turns()
    assert not any(call.done() for call in calls)
    journal.let_go()
    assert await asyncio.gather(*calls) == [5] * 4
    assert Account.runs == ["put 5"]


async def test_a_repetition_while_the_first_ones_handler_runs_answers_the_same(nodes: Nodes) -> None:
    system = await nodes.start()
    account = system.get(Account, "a")
    calls = [start(key(account, "k", "put_slowly")(5, "gate")) for _ in range(3)]
    await eventually(lambda: Busy.entered)
    Busy.go("gate")
    assert await asyncio.gather(*calls) == [5] * 3
    assert Busy.entered == ["gate"]


async def test_a_repetition_of_a_command_whose_append_was_lost_acts_once(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal)
    account = system.get(Account, "a")
    await account.balance()
    journal.script.append(lost_for_lack_of_space)
    assert await asyncio.gather(*(key(account, "k")(5) for _ in range(3))) == [5] * 3
    assert await account.balance() == 5


@pytest.mark.parametrize("how", ["restart", "passivation"])
async def test_keys_survive_a_restart_and_passivation(nodes: Nodes, how: str) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal, passivate_after_s=1.0, snapshot_every_events=1)
    account = system.get(Account, "a")
    assert await key(account, "reply")(5) == 5
    refused = await outcome(key(account, "refusal", "take")(50))
    if how == "restart":
        await system.stop()
        system = await nodes.start(ScriptedJournal(journal.inner))
        account = system.get(Account, "a")
    else:
        await asyncio.sleep(5)
        assert system.region.entities == 0
    await account.put(100)
    assert await key(account, "reply")(5) == 5
    assert (await outcome(key(account, "refusal", "take")(50))).details == refused.details == {"left": 5}
    with pytest.raises(IdempotencyKeyReused):
        await key(account, "reply")(6)
    assert await account.balance() == 105


@pytest.mark.parametrize("in_memory", [1, 2, 5])
async def test_keys_that_memory_does_not_hold_are_looked_up(nodes: Nodes, in_memory: int) -> None:
    system = await nodes.start(keys_in_memory=in_memory)
    account = system.get(Account, "a")
    for number in range(10):
        assert await key(account, f"k{number}")(1) == number + 1
    for number in range(10):
        assert await key(account, f"k{number}")(1) == number + 1
    assert await account.balance() == 10


async def test_a_key_that_memory_has_dropped_while_its_append_is_on_its_way_is_still_known(nodes: Nodes) -> None:
    """Neither memory nor the store has it; it still may not act twice."""
    journal = nodes.journal()
    system = await nodes.start(journal, keys_in_memory=2)
    account = system.get(Account, "a")
    assert await key(account, "first")(1) == 1
    journal.hold()
    calls = [start(key(account, f"k{number}")(1)) for number in range(6)]
    await eventually(lambda: journal.held > 1)
    await turns()
    again = start(key(account, "k0")(1))
    await turns()
    journal.let_go()
    assert await asyncio.gather(*calls) == [2, 3, 4, 5, 6, 7]
    assert await again == 2
    assert await account.balance() == 7


async def test_too_many_keys_are_overload_and_never_forgotten_keys(nodes: Nodes) -> None:
    system = await nodes.start(keys_max=3)
    account = system.get(Account, "a")
    for number in range(3):
        await key(account, f"k{number}")(1)
    with pytest.raises(Overloaded) as full:
        await key(account, "k3")(1)
    assert full.value.limit == 3
    assert await key(account, "k0")(1) == 1
    assert await account.put(1) == 4, "without a key all goes on"
    nodes.clock.wall_offset_us += 27 * 3_600_000_000
    assert await key(account, "k3")(1) == 5, "the old ones have grown old"


@pytest.mark.parametrize("restart", [False, True])
async def test_a_key_is_remembered_for_its_window_and_may_be_forgotten_afterwards(nodes: Nodes, restart: bool) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal)
    account = system.get(Account, "a")
    assert await key(account, "k")(5) == 5
    nodes.clock.wall_offset_us += 24 * 3_600_000_000
    if restart:
        await system.stop()
        system = await nodes.start(ScriptedJournal(journal.inner))
        account = system.get(Account, "a")
    assert await key(account, "k")(5) == 5, "after 24 hours"
    nodes.clock.wall_offset_us += 3 * 3_600_000_000
    assert await key(account, "k")(5) == 10, "after more than 26 hours it is a new command"
    assert await key(account, "k")(5) == 10


def test_keys_have_a_size_and_queries_have_none() -> None:
    class Target:
        def call(self, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError

    from actorkit.ids import PersistenceId
    from actorkit.persistence.commands import Call

    entity_type = Account.entity_type
    assert entity_type is not None
    put = Call[Any, Any](Target(), PersistenceId("account", "a"), entity_type.handlers["put"])
    for bad in ("", "x" * 257):
        with pytest.raises(ValueError, match="1 to 256"):
            put.options(idempotency_key=bad)
    for deadline_s in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="deadline"):
            put.options(deadline_s=deadline_s)
    with pytest.raises(TypeError, match="query"):
        Call[Any, Any](Target(), PersistenceId("account", "a"), entity_type.handlers["balance"]).options(
            idempotency_key="k"
        )


# ---------------------------------------------------------------------------------------------------------- command ids


def message(system: Any, how: str, *args: Any, id: str = "a", **fields: Any) -> Any:
    entity_type = system.region.register(Account)
    signature = entity_type.handlers[how].signature
    return system.ask(Message("account", id, how, signature.encode(signature.bind(args, {})), **fields))


async def test_a_message_is_a_call(nodes: Nodes) -> None:
    system = await nodes.start()
    assert await message(system, "put", 5) == 5
    assert await message(system, "balance") == 5


async def test_a_message_that_was_sent_again_acts_once(nodes: Nodes) -> None:
    system = await nodes.start()
    assert await message(system, "put", 5, command_id="c1") == 5
    assert await message(system, "put", 1, command_id="c2") == 6
    assert await message(system, "put", 5, command_id="c1", attempt=2) == 5
    assert await message(system, "balance") == 6


async def test_a_message_that_was_sent_again_while_the_first_is_on_its_way_acts_once(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal)
    await message(system, "balance")
    journal.hold()
    calls = [start(message(system, "put", 5, command_id="c1", attempt=attempt)) for attempt in (1, 2, 3)]
    await eventually(lambda: journal.held)
    await turns()
    journal.let_go()
    assert await asyncio.gather(*calls) == [5] * 3


@pytest.mark.parametrize("behind", [0, 5, 30])
async def test_a_message_that_was_sent_again_after_a_restart_and_a_snapshot_acts_once(
    nodes: Nodes, behind: int
) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal, snapshot_every_events=1, recovery_page_events=4)
    assert await message(system, "put", 5, command_id="c1") == 5
    for _ in range(behind):
        await message(system, "put", 1)
    await eventually(lambda: system.snapshots.saved)
    await system.stop()
    system = await nodes.start(ScriptedJournal(journal.inner), recovery_page_events=4)
    assert await message(system, "put", 5, command_id="c1", attempt=2) == 5
    assert await message(system, "balance") == 5 + behind


async def test_a_message_that_was_sent_again_and_had_never_arrived_is_executed(nodes: Nodes) -> None:
    system = await nodes.start()
    assert await message(system, "put", 5, command_id="c1", attempt=2) == 5


async def test_a_message_that_does_not_fit_is_refused_with_the_reason(nodes: Nodes) -> None:
    system = await nodes.start()
    system.region.register(Account)
    for bad in (b"", b"\xff", b"\x91\xa1x", b"\x80", b"\x93\x01\xa0\x01"):
        with pytest.raises(TypeError, match="put"):
            await system.ask(Message("account", "a", "put", bad))
    with pytest.raises(ConfigurationError):
        await system.ask(Message("account", "a", "nonsense", b"\x90"))
    with pytest.raises(ConfigurationError):
        await system.ask(Message("nonsense", "a", "put", b"\x91\x01"))
    with pytest.raises(ConfigurationError):
        await system.ask(Message("account", "", "put", b"\x91\x01"))


async def test_a_messages_key_and_deadline_are_checked_like_a_calls(nodes: Nodes) -> None:
    system = await nodes.start()
    for key_ in ("", "x" * 257):
        with pytest.raises(ValueError, match="1 to 256"):
            await message(system, "put", 1, key=key_)
    with pytest.raises(TypeError, match="query"):
        await message(system, "balance", key="k")
    with pytest.raises(ValueError, match="deadline"):
        await message(system, "put", 1, deadline_s=-1.0)


# --------------------------------------------------------------------------------------------------------- nested calls


class Moved(Event, name="tests.moved"):
    amount: int


class Moves(State):
    amounts: list[int] = field(default_factory=list[int])

    @applies(Moved)
    def moved(self, event: Moved) -> None:
        self.amounts.append(event.amount)


class Mover(PersistentActor[Moves, Moved], name="mover"):
    runs = 0

    @command
    async def move(self, amount: int, to: list[str]) -> list[int]:
        Mover.runs += 1
        replies = [await self.context.system.get(Account, id).put(amount) for id in to]
        self.emit(Moved(amount))
        return replies

    @command
    async def move_and_refuse(self, amount: int, to: str) -> int:
        await self.context.system.get(Account, to).put(amount)
        raise Broke("after all not")

    @query
    def amounts(self) -> list[int]:
        return self.state.amounts


async def test_a_handler_that_runs_again_calls_others_with_the_same_ids_and_they_act_once(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal, deadline_default_s=20)
    mover = system.get(Mover, "m")
    await mover.amounts()
    Mover.runs = 0

    async def lost_if_a_mover(journal: ScriptedJournal, batch: Any) -> Any:
        if any(append.stream == "mover/m" for append in batch):
            return await lost_for_lack_of_space(journal, batch)
        return await journal.inner.append(batch)

    journal.script.extend([lost_if_a_mover] * 4)
    assert await mover.move(5, ["a", "b", "a"]) == [5, 5, 10]
    assert Mover.runs == 2
    assert await system.get(Account, "a").balance() == 10
    assert await system.get(Account, "b").balance() == 5
    assert await mover.amounts() == [5]


@pytest.mark.parametrize("how", ["move", "move_and_refuse"])
async def test_a_message_that_is_sent_again_sends_its_own_messages_again_with_the_same_ids(
    nodes: Nodes, how: str
) -> None:
    """The first attempt's mover had not recorded anything when its node went away."""
    system = await nodes.start()
    entity_type = system.region.register(Mover)
    signature = entity_type.handlers[how].signature
    system.region.register(Account)
    args = (5, ["a"]) if how == "move" else (5, "a")
    arguments = signature.encode(signature.bind(args, {}))
    put = entity_type_of(Account).handlers["put"]
    first = await message(system, "put", 5, command_id=id_of_call_within("c1", 1, "account/a", put, (5, "")))
    assert first == 5
    await outcome(system.ask(Message("mover", "m", how, arguments, command_id="c1", attempt=2)))
    assert await system.get(Account, "a").balance() == 5


async def test_events_say_who_caused_them(nodes: Nodes) -> None:
    from actorkit.persistence.records import decode_metadata

    journal = nodes.journal()
    system = await nodes.start(journal)
    system.region.register(Account)
    mover = system.region.register(Mover)
    signature = mover.handlers["move"].signature
    arguments = signature.encode(signature.bind((5, ["a"]), {}))
    await system.ask(Message("mover", "m", "move", arguments, command_id="c1", key="k"))
    [event] = await journal.inner.read_stream("mover/m", after=0, limit=5)
    metadata = decode_metadata(event.metadata)
    assert (event.key, metadata.command_id, metadata.handler) == ("k", "c1", "move")
    assert metadata.correlation == "c1"
    assert event.epoch == 1
    [nested] = await journal.inner.read_stream("account/a", after=0, limit=5)
    metadata = decode_metadata(nested.metadata)
    assert metadata.command_id.startswith("c1/1.")
    assert metadata.handler == "put"
    assert (metadata.correlation, metadata.causation) == ("c1", "c1")

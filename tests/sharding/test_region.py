"""The region: which entities are in memory, what becomes of activations that cannot go on, and stopping."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from structlog.testing import capture_logs

from actorkit import ActorSystem, PersistentActor, command, query
from actorkit.errors import CallError, JournalUnavailable, OutcomeUnknown, Overloaded, RecoveryFailed, Unavailable
from actorkit.ids import PersistenceId, shard_of
from tests.persistence.actors import Account, AccountState, Busy, Put
from tests.persistence.kit import Nodes, eventually, turns


class Fragile(PersistentActor[AccountState, Put], name="fragile"):
    """Its constructor, or its restart, fails as long as the test says so."""

    fails: ClassVar[bool] = False

    def __init__(self) -> None:
        if Fragile.fails:
            raise ValueError("the configuration is not loaded yet")

    @command
    def put(self, amount: int) -> int:
        self.emit(Put(amount))
        return self.state.balance


class Reminded(PersistentActor[AccountState, Put], name="reminded"):
    @command
    def remind(self, after_s: float) -> None:
        self.context.once("reminder", after_s, Reminded.put)

    @command
    def put(self) -> None:
        self.emit(Put(1))

    @query
    def balance(self) -> int:
        return self.state.balance


class Relay(PersistentActor[AccountState, Put], name="relay"):
    @command
    async def relay(self, gate: str) -> int:
        await Busy.wait(gate)
        try:
            return await self.context.system.get(Account, "target").put(1)
        except Unavailable:
            Busy.entered.append("refused")
            raise


async def outcome(call: Any) -> Any:
    try:
        return await call
    except CallError as error:
        return error


def later(call: Any) -> asyncio.Future[Any]:
    return asyncio.ensure_future(outcome(call))


# ---------------------------------------------------------------------------------------------------- broken and dead


async def test_a_broken_entity_recovers_under_load_once_the_journal_can_be_read(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal, deadline_default_s=1000)
    await system.get(Account, "other").put(1)
    account = system.get(Account, "a")
    journal.reads_fail = JournalUnavailable("cut off")
    refused = 0

    async def client() -> None:
        nonlocal refused
        while isinstance(await outcome(account.balance()), Unavailable):
            refused += 1
            journal.reads_fail = None
            assert refused < 1_000, "it stays broken"

    await asyncio.gather(*(client() for _ in range(100)))
    assert refused == 100, "those who waited when it broke, and nobody else"


async def test_those_who_wait_for_an_entity_that_cannot_be_rebuilt_cost_one_recovery(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal)
    account = system.get(Account, "a")
    await account.put(1)
    await system.stop()
    record = journal.inner._streams["account/a"].events
    journal.inner._streams["account/a"].events = [*record, record[0]]
    system = await nodes.start(journal)
    account = system.get(Account, "a")
    calls = [later(account.put(1)) for _ in range(1_000)]
    results = await asyncio.gather(*calls)
    assert {type(result) for result in results} == {RecoveryFailed}
    assert system.counters.recovery_failures == 1
    await turns()
    assert system.region.entities == 0
    assert len(system.runtime) == 0


async def test_a_constructor_that_fails_is_named_to_the_caller_and_tried_again_by_the_next(nodes: Nodes) -> None:
    system = await nodes.start()
    Fragile.fails = True
    try:
        before_s = asyncio.get_running_loop().time()
        calls = [later(system.get(Fragile, "a").put(1)) for _ in range(3)]
        results = await asyncio.gather(*calls)
        assert asyncio.get_running_loop().time() - before_s < 1
    finally:
        Fragile.fails = False
    for result in results:
        assert type(result) is Unavailable
        assert "its constructor failed with ValueError('the configuration is not loaded yet')" in str(result)
        assert isinstance(result.__cause__, ValueError)
    assert await system.get(Fragile, "a").put(1) == 1
    await turns()
    assert len(system.runtime) == system.region.entities == 1


async def test_an_activation_that_has_stopped_by_itself_is_replaced(nodes: Nodes) -> None:
    system = await nodes.start()
    account = system.get(Account, "a")
    assert await account.put(1) == 1
    [slot] = system.region._slots.values()
    waiting = later(account.balance())
    await asyncio.sleep(0)
    slot.cell.life._actor = None
    slot.cell.life.stop()
    await turns()
    assert waiting.done(), "it need not wait for its deadline"
    assert isinstance(await waiting, Unavailable)
    assert system.region.entities == 1
    assert await account.put(1) == 2


# ------------------------------------------------------------------------------------------------------------- limits


async def test_entities_in_memory_are_bounded_at_twice_the_limit_and_the_rest_is_overloaded(nodes: Nodes) -> None:
    system = await nodes.start(entities_max=200, deadline_default_s=60)
    await system.own_all_shards()
    calls = [later(system.get(Account, f"a{number}").balance_slowly("gate")) for number in range(500)]
    await eventually(lambda: sum(call.done() for call in calls) == 100)
    assert system.region.entities == 400
    Busy.go("gate")
    results = await asyncio.gather(*calls)
    assert [result for result in results if result == 0] == [0] * 400
    overloaded = [result for result in results if isinstance(result, Overloaded)]
    assert len(overloaded) == 100
    assert {error.limit for error in overloaded} == {400}
    assert await system.get(Account, "one more").balance() == 0
    await turns()
    assert system.region.entities <= 201, "one call was enough for all that were too many to leave"


async def test_entities_leave_by_themselves_when_there_were_too_many(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal, entities_max=100, passivate_after_s=1000, deadline_default_s=60)
    await system.own_all_shards()
    journal.reads_gate = asyncio.Event()
    calls = [later(system.get(Account, f"a{number}").balance()) for number in range(200)]
    await turns()
    journal.reads_gate.set()
    assert await asyncio.gather(*calls) == [0] * 200
    await asyncio.sleep(101)
    assert system.region.entities == 100


async def test_busy_entities_do_not_hide_the_idle_ones_behind_them(nodes: Nodes) -> None:
    system = await nodes.start(entities_max=300, deadline_default_s=1000)
    busy = [later(system.get(Account, f"busy{number}").balance_slowly("gate")) for number in range(200)]
    await eventually(lambda: len(Busy.entered) == 200)
    for number in range(250):
        await system.get(Account, f"a{number}").balance()
    assert system.region.entities <= 301
    Busy.go("gate")
    assert await asyncio.gather(*busy) == [0] * 200


async def test_an_idle_entity_with_a_timer_stays_for_it(nodes: Nodes) -> None:
    system = await nodes.start(entities_max=5, passivate_after_s=10.0)
    reminded = system.get(Reminded, "x")
    await reminded.remind(60)
    for number in range(50):
        await system.get(Account, f"a{number}").balance()
    await asyncio.sleep(61)
    assert await reminded.balance() == 1


# -------------------------------------------------------------------------------------------------------------- order


async def test_calls_given_back_go_before_a_call_that_is_sent_right_afterwards(nodes: Nodes) -> None:
    system = await nodes.start(shards=4)
    account = system.get(Account, "a")
    await account.note("0")
    region = system.region
    shard = region._by_number[shard_of("account/a", 4)]
    shard.lease.active = False
    calls = [later(account.note(note)) for note in ("1", "2", "3")]
    await turns()
    waiting = list(shard.waiting)
    assert len(waiting) == 3
    shard.waiting.clear()
    shard.lease.active = True
    region.give_back(waiting)
    sent = region.call(
        PersistenceId("account", "a"), Account.entity_type.handlers["note"], ("4",), key=None, deadline_s=None
    )
    await asyncio.gather(*calls, sent)
    assert await account.notes() == ["0", "1", "2", "3", "4"]


# ----------------------------------------------------------------------------------------------------------- stopping


async def stopping(system: ActorSystem) -> asyncio.Task[None]:
    task = asyncio.create_task(system.stop())
    await asyncio.sleep(0.1)
    return task


async def test_a_call_in_progress_may_call_others_while_its_node_stops(nodes: Nodes) -> None:
    system = await nodes.start(drain_timeout_s=10)
    call = later(system.get(Relay, "x").relay("gate"))
    await eventually(lambda: "gate" in Busy.entered)
    stop = await stopping(system)
    assert isinstance(await outcome(system.get(Account, "target").put(100)), Unavailable)
    Busy.go("gate")
    assert await call == 1
    await stop


async def test_a_call_in_progress_may_call_an_entity_of_a_shard_that_is_yet_to_be_acquired(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal, drain_timeout_s=10)
    call = later(system.get(Relay, "x").relay("gate"))
    await eventually(lambda: "gate" in Busy.entered)
    journal.leases_fail = JournalUnavailable("cut off")
    Busy.go("gate")
    await turns()
    stop = await stopping(system)
    journal.leases_fail = None
    assert await call == 1
    await stop


async def test_what_is_still_running_after_the_drain_may_not_call_others(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal, drain_timeout_s=1)
    await system.get(Account, "target").put(1)
    call = later(system.get(Relay, "x").relay("gate"))
    await eventually(lambda: "gate" in Busy.entered)
    stop = await stopping(system)
    await asyncio.sleep(1.2)
    assert isinstance(await call, OutcomeUnknown), "the drain has ended, and the handler is not cancelled yet"
    Busy.go("gate")
    await turns()
    assert "refused" in Busy.entered
    await stop
    assert len(await journal.inner.read_stream("account/target", after=0, limit=5)) == 1


async def test_a_handler_that_hangs_while_its_node_stops_is_named_in_the_log(nodes: Nodes) -> None:
    """Also one whose caller has long been told, and not more of them than anybody would read."""
    system = await nodes.start(drain_timeout_s=10)
    named = later(system.get(Relay, "named").relay.options(deadline_s=1)("gate"))
    others = [later(system.get(Relay, f"r{number}").relay("gate")) for number in range(30)]
    await eventually(lambda: len(Busy.entered) == 31)
    with capture_logs() as lines:
        await system.stop()
    await asyncio.gather(named, *others)
    cut_off = [line for line in lines if line["event"] == "region.handler_cut_off"]
    assert len(cut_off) == 20
    assert [(line["handler"], line["log_level"]) for line in cut_off] == [("relay", "warning")] * 20
    assert cut_off[0]["entity"] == "relay/named"
    [rest] = [line for line in lines if line["event"] == "region.handlers_cut_off"]
    assert rest["running"] == 31


async def test_timers_do_not_begin_anything_while_their_node_stops(nodes: Nodes) -> None:
    journal = nodes.journal()
    system = await nodes.start(journal, drain_timeout_s=10, deadline_default_s=60)
    await system.get(Reminded, "x").remind(5)
    call = later(system.get(Relay, "x").relay("gate"))
    await eventually(lambda: "gate" in Busy.entered)
    stop = await stopping(system)
    await asyncio.sleep(6)
    Busy.go("gate")
    assert await call == 1
    await stop
    assert await journal.inner.read_stream("reminded/x", after=0, limit=5) == []

"""Routing: how calls find the owner of their shard, in order, wherever it moves.

One ``Routing`` stands behind the region of each node. It knows the owner of each shard and its tenure (see
``messages``), or finds them out by asking (see ``locating``). Calls are held back meanwhile. They go out, stamped with
the tenure, when a node has said that it owns the shard; an owner that has none of it (any more) returns them.

**Order.** The calls of one entity go out in the order of their ``order`` numbers. While some are out at one owner,
later ones follow at once to the same owner under the same tenure; otherwise, and as soon as one has come back, they are
held back until every one that is out has been answered, has come back, or its connection is lost. Then all go on
together, in order. So whatever an owner runs, it runs in order, and it needs no memory of its callers. Calls of other
entities do not wait for that: what is held back is the *lane* of one entity. A lane exists only while it has calls, so
memory is bounded by the number of calls.

**Once.** A call whose connection was lost may have been run: it goes out again as a further attempt, which makes the
owner look it up by its command id. (Queries go out again as they are.) A call that came back was surely not run. Each
sending has a number of its own: an answer to an earlier sending is not taken for one to the present one, because what
that one did may not count any more, and the present one may yet be run.

How the shell uses it: nodes are remoting addresses, ``now`` is the loop's time. After every input it carries out what
``poll`` gives, in order, before it does anything else, and it calls ``tick`` when ``wake_s`` has come.

=============================  =======================================================================================
a caller's call comes in       ``submit``; not needed where the shard is owned here and ready, and ``has_lane`` is
                               false: such a call may be delivered at once
``RemoteReply`` from a node    ``answered``: gives the call that is to be ended, or ``None`` for an old answer
``RemoteReturn`` from a node   ``returned``
``ShardAnswer`` from a node    ``told``
connection lost, unreachable   ``disconnected``, before anything of a later connection is handled
remoting has no room           ``unsent``: gives the call that is to be ended as ``Overloaded``
the store names a holder       ``hinted``, for a shard that is wanted here
members or placement changed   ``placed``, with the addresses of those who should own each shard, and of all who live
``Handoffs`` says ``Serve``    ``acquired``
it says ``Stop``               ``released``, with the entities that have calls of local callers in progress; and then,
                               for each of these, ``settled`` once its calls have ended, or have been submitted again
                               with the ``order`` that they had
=============================  =======================================================================================

Calls that came in from other nodes never get here: they are answered, or returned to their senders. Remoting keeps
messages between two nodes in order, and nothing of an old connection arrives after something of a newer one.

Pure: time and randomness come in, effects go out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from operator import attrgetter
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

from actorkit.clock import Randomness
from actorkit.errors import CallError, Overloaded
from actorkit.sharding.locating import Location, Locator
from actorkit.sharding.messages import ShardAnswer, Standing
from actorkit.sharding.settings import ShardingSettings

__all__ = ["Ask", "Deliver", "Effect", "Fail", "Routing", "Send"]

C = TypeVar("C")

_PURGE_EVERY_S: Final = 0.1
"""Looking for calls that have ended takes as long as there are calls: not done for every call that finds no room."""
_NUMBER_BYTES: Final = 6
_by_order = attrgetter("order")


class Send(NamedTuple, Generic[C]):
    """Send the call to that node, with the time that remains. Until it is answered nobody knows whether it was run."""

    node: str
    call: C
    number: int
    shard: int
    tenure: int
    attempt: int


class Deliver(NamedTuple, Generic[C]):
    """Deliver the call to its entity, which is here. Routing has nothing more to do with it."""

    call: C
    attempt: int


class Fail(NamedTuple, Generic[C]):
    """End the call: it was not sent. (After an earlier attempt its outcome is unknown all the same.)"""

    call: C
    error: CallError
    attempt: int


class Ask(NamedTuple):
    """Send a ``ShardQuestion``."""

    node: str
    shards: tuple[int, ...]


Effect: TypeAlias = Send[C] | Deliver[C] | Fail[C] | Ask


class _Routed(Generic[C]):
    """A call on its way."""

    __slots__ = ("attempt", "call", "lane", "order", "query")

    def __init__(self, call: C, order: int, query: bool, attempt: int, lane: _Lane[C]) -> None:
        self.call = call
        self.order = order
        self.query = query
        self.attempt = attempt
        self.lane = lane


class _Lane(Generic[C]):
    """The calls of one entity that are on their way."""

    __slots__ = ("busy", "entity", "held", "node", "out", "shard", "tenure")

    def __init__(self, entity: Hashable, shard: int) -> None:
        self.entity = entity
        self.shard = shard
        self.node = ""
        self.tenure = 0
        self.out = 0
        """How many calls are out, at ``node`` under ``tenure``."""
        self.held: list[_Routed[C]] = []
        self.busy = False
        """Calls that were delivered here are not settled yet."""


class _Shelf(Generic[C]):
    """The calls of one shard that are held back."""

    __slots__ = ("held", "lanes")

    def __init__(self) -> None:
        self.lanes: dict[Hashable, _Lane[C]] = {}
        """By entity; only of those that have calls."""
        self.held = 0


class Routing(Generic[C]):
    """The sender's side of one region. ``C`` is the shell's call; ``ended`` says whether somebody else has ended it."""

    def __init__(
        self,
        node: str,
        shards: int,
        *,
        settings: ShardingSettings,
        randomness: Randomness,
        ended: Callable[[C], bool],
    ) -> None:
        self._node = node
        self._settings = settings
        self._ended = ended
        self._locator = Locator(node, shards, settings, randomness)
        self._locations = self._locator.locations
        self._shelves: list[_Shelf[C]] = [_Shelf() for _ in range(shards)]
        self.lanes: dict[Hashable, _Lane[C]] = {}
        """By entity; only of those that have calls."""
        self._out: dict[str, dict[int, _Routed[C]]] = {}
        """By node and number, in the order of sending."""
        # A node that was started again must not take answers to its predecessor for its own.
        self._numbers = int.from_bytes(randomness.token(_NUMBER_BYTES), "big")
        self._count = 0
        self._purge_at_s = float("-inf")
        self._effects: list[Effect[C]] = []

    # --------------------------------------------------------------------------------------------------------- facts

    @property
    def count(self) -> int:
        """How many calls are held back or out. At most ``calls_max``."""
        return self._count

    @property
    def wake_s(self) -> float | None:
        """When ``tick`` is due; ``None``: not before another input."""
        return self._locator.wake_s

    def owner(self, shard: int) -> tuple[str | None, int]:
        """Who owns the shard, as far as is known here, and the newest tenure that is known."""
        location = self._locations[shard]
        return location.owner, location.tenure

    def has_lane(self, entity: Hashable) -> bool:
        """Whether calls of this entity are on their way, which a new one must not overtake."""
        return entity in self.lanes

    def poll(self) -> list[Effect[C]]:
        """What is to be done now, in this order."""
        effects, self._effects = self._effects, []
        if self._locator.pending:
            effects += [Ask(node, shards) for node, shards in self._locator.questions()]
        return effects

    # --------------------------------------------------------------------------------------------------------- calls

    def submit(
        self, now: float, call: C, entity: Hashable, shard: int, *, order: int, query: bool = False, attempt: int = 1
    ) -> None:
        """A call is to go to its entity.

        ``order`` grows with each call of the region; a call that was delivered here and comes back undone keeps its.
        """
        location, settings = self._locations[shard], self._settings
        owner = location.owner
        if owner == self._node and entity not in self.lanes:
            self._effects.append(Deliver(call, attempt))
            return
        full = self._count >= settings.calls_max or self._shelves[shard].held >= settings.buffer_max_calls
        if full and not self._makes_room(now, call, shard, attempt):
            return
        lane = self.lanes.get(entity)
        if lane is None:
            lane = self.lanes[entity] = _Lane(entity, shard)
        self._count += 1
        routed = _Routed(call, order, query, attempt, lane)
        if owner is None or owner == self._node or not self._may_follow(lane, owner, location.tenure):
            self._hold(now, routed)
        else:
            self._send(routed, owner, location.tenure)

    def answered(self, node: str, number: int) -> C | None:
        """The node has answered that sending; the call that is ended by it, unless the answer is an old one."""
        routed = self._forget(node, number)
        if routed is None:
            return None
        lane = routed.lane
        location = self._locations[lane.shard]
        if location.owner == node:
            location.backoff_s = 0.0
        if not lane.out:
            self._go_on(location, lane)
        return routed.call

    def sent(self, node: str, number: int) -> C | None:
        """The call of that sending, as long as it is out."""
        routed = self._out.get(node, {}).get(number)
        return None if routed is None else routed.call

    def unsent(self, node: str, number: int) -> C | None:
        """That sending has surely not gone out; the call that is to be ended."""
        routed = self._forget(node, number)
        if routed is None:
            return None
        self._go_on(self._locations[routed.lane.shard], routed.lane)
        return routed.call

    def returned(
        self, now: float, node: str, numbers: Iterable[int], answer: ShardAnswer, acted: Collection[int] = ()
    ) -> None:
        """The node has sent calls back, and says where their shard is. As ``RemoteReturn`` has it."""
        out = self._out.get(node, {})
        location = self._locations[answer.shard]
        lanes: dict[_Lane[C], None] = {}
        for number in numbers:
            routed = out.pop(number, None)
            if routed is not None:
                lanes[routed.lane] = None
                self._take_back(now, routed, again=number in acted)
        # All have been taken back before they go on, to where they belong by what is said now.
        same = answer.standing is Standing.OWNED and any(lane.tenure == answer.tenure for lane in lanes)
        if same and location.owner == node:
            # It would return them again.
            self._locator.search(now, answer.shard, patient=True)
        else:
            self.told(now, node, answer)
        for lane in lanes:
            self._go_on(location, lane)

    def give_up(self) -> list[C]:
        """The region stops: the calls that are held back, and will not go out any more."""
        held = [routed for shelf in self._shelves for lane in shelf.lanes.values() for routed in lane.held]
        for shard, shelf in enumerate(self._shelves):
            for lane in shelf.lanes.values():
                lane.held = []
                self._forget_lane(lane)
            shelf.lanes, shelf.held = {}, 0
            self._locator.stop(shard)
        self._count -= len(held)
        return [routed.call for routed in sorted(held, key=_by_order)]

    # -------------------------------------------------------------------------------------------------------- owners

    def told(self, now: float, node: str, answer: ShardAnswer) -> None:
        """A node has said what it knows of a shard."""
        if self._locator.told(now, node, answer):
            self._all_go_on(answer.shard)

    def hinted(self, now: float, shard: int, node: str) -> None:
        """The store says that this node has the lease of a shard which is wanted here; empty: no member has it."""
        self._locator.hinted(now, shard, node)

    def acquired(self, shard: int, tenure: int) -> None:
        """The shard is owned here, and its entities take calls."""
        self._locator.found(shard, self._node, tenure)
        self._all_go_on(shard)

    def released(self, now: float, shard: int, to: str, busy: Iterable[Hashable]) -> None:
        """The shard is not, or not for long, owned here any more; ``to`` is whom to ask (perhaps ourselves, or empty).

        What was accepted before comes to its end here. ``busy`` are the entities for which there is such a call.
        """
        for entity in busy:
            lane = self.lanes.get(entity)
            if lane is None:
                lane = self.lanes[entity] = _Lane(entity, shard)
            lane.busy = True
        if self._locations[shard].owner == self._node:
            self._locator.search(now, shard, to)

    def settled(self, entity: Hashable) -> None:
        """No call of this entity that was delivered here is in progress any more."""
        lane = self.lanes.get(entity)
        if lane is not None and lane.busy:
            lane.busy = False
            self._go_on(self._locations[lane.shard], lane)

    def disconnected(self, now: float, node: str) -> None:
        """Nothing more will be heard of what was sent to that node: its calls go out again, as a further attempt.

        There is no connection to ourselves; that none can be made says nothing.
        """
        if node == self._node:
            return
        lanes: dict[_Lane[C], None] = {}
        for routed in self._out.pop(node, {}).values():
            lanes[routed.lane] = None
            self._take_back(now, routed, again=True)
        self._locator.disconnected(node)
        for shard, location in enumerate(self._locations):
            unknown = location.owner is None and self._shelves[shard].held > 0
            if unknown and (not location.searched or location.asked == node):
                self._locator.search(now, shard, patient=True)
        for lane in lanes:
            self._go_on(self._locations[lane.shard], lane)

    def placed(self, now: float, owners: Sequence[str | None], members: Collection[str]) -> None:
        """Who should own each shard, by address; and everybody who lives, those that are leaving included.

        What is out at somebody who is no member any more is as good as lost.
        """
        self._locator.placed(now, owners, members)
        known = {location.owner for location in self._locations} | self._out.keys()
        for node in sorted(node for node in known if node is not None and node != self._node and node not in members):
            self.disconnected(now, node)

    def tick(self, now: float) -> None:
        """Asks again where that is due."""
        for shard in self._locator.due(now):
            self._purge(shard)
            if self._shelves[shard].held:
                self._locator.ask_again(now, shard)
            else:
                self._locator.stop(shard)

    # -------------------------------------------------------------------------------------------------------- inside

    def _may_follow(self, lane: _Lane[C], owner: str, tenure: int) -> bool:
        """Whether a call may go to the owner at once, without overtaking those that are on their way already."""
        if lane.held or lane.busy:
            return False
        return not lane.out or (lane.node == owner and lane.tenure == tenure)

    def _send(self, routed: _Routed[C], node: str, tenure: int) -> None:
        lane = routed.lane
        number = self._numbers = self._numbers + 1
        out = self._out.get(node)
        if out is None:
            out = self._out[node] = {}
        out[number] = routed
        lane.out += 1
        lane.node = node
        lane.tenure = tenure
        self._effects.append(Send(node, routed.call, number, lane.shard, tenure, routed.attempt))

    def _forget(self, node: str, number: int) -> _Routed[C] | None:
        """That call is not out any more, and is not held back either."""
        out = self._out.get(node)
        routed = out.pop(number, None) if out else None
        if routed is not None:
            routed.lane.out -= 1
            self._count -= 1
        return routed

    def _hold(self, now: float, routed: _Routed[C]) -> None:
        lane = routed.lane
        shelf = self._shelves[lane.shard]
        lane.held.append(routed)
        shelf.lanes[lane.entity] = lane
        shelf.held += 1
        location = self._locations[lane.shard]
        if location.owner is None and not location.searched:
            self._locator.search(now, lane.shard)

    def _take_back(self, now: float, routed: _Routed[C], *, again: bool) -> None:
        """It was out, and is not any more."""
        routed.lane.out -= 1
        if again and not routed.query:
            routed.attempt += 1
        if self._ended(routed.call):
            self._count -= 1
        else:
            self._hold(now, routed)

    def _all_go_on(self, shard: int) -> None:
        for lane in list(self._shelves[shard].lanes.values()):
            self._go_on(self._locations[shard], lane)

    def _go_on(self, location: Location, lane: _Lane[C]) -> None:
        """What a lane holds back goes on, if it may; a lane without calls is forgotten."""
        if lane.out or lane.busy:
            return
        owner = location.owner
        if lane.held and owner is not None:
            held, lane.held = lane.held, []
            shelf = self._shelves[lane.shard]
            del shelf.lanes[lane.entity]
            shelf.held -= len(held)
            held.sort(key=_by_order)
            for routed in held:
                if self._ended(routed.call):
                    self._count -= 1
                elif owner == self._node:
                    self._count -= 1
                    self._effects.append(Deliver(routed.call, routed.attempt))
                else:
                    self._send(routed, owner, location.tenure)
        self._forget_lane(lane)

    def _forget_lane(self, lane: _Lane[C]) -> None:
        if not lane.held and not lane.out and not lane.busy:
            self.lanes.pop(lane.entity, None)

    def _makes_room(self, now: float, call: C, shard: int, attempt: int) -> bool:
        """Calls that have ended only take up room. Where even that does not help, this one is ended."""
        if now >= self._purge_at_s:
            self._purge_at_s = now + _PURGE_EVERY_S
            for number in range(len(self._shelves)):
                self._purge(number)
        limit = self._settings.buffer_max_calls
        full = f"the buffer of shard {shard}"
        if self._shelves[shard].held < limit:
            limit = self._settings.calls_max
            full = f"what {self._node} has waiting for other nodes"
            if self._count < limit:
                return True
        self._effects.append(Fail(call, Overloaded(full, limit=limit), attempt))
        return False

    def _purge(self, shard: int) -> None:
        """Forgets calls that have ended while they were held back."""
        shelf = self._shelves[shard]
        for lane in list(shelf.lanes.values()):
            living = [routed for routed in lane.held if not self._ended(routed.call)]
            gone = len(lane.held) - len(living)
            lane.held = living
            shelf.held -= gone
            self._count -= gone
            if not living:
                del shelf.lanes[lane.entity]
                self._forget_lane(lane)

"""Hand-off: which shards a node owns, wants and gives away, one state machine for each.

The placement says what should be owned here; the lease says what is. A node that should own a shard wants it, which
makes ``Leases`` ask the store until it has it. A node that owns a shard which should be elsewhere hands it off: it
takes no more calls, lets those that it has accepted come to their end, undoes what does not end in time, gives the
lease up, and tells the next owner, who acquires it at once and says so. Only so many shards move at a time, those with
the fewest busy entities first, so that a node that joins or leaves does not stop the others' work.

::

    ELSEWHERE ◀───▶ WANTED ───▶ OWNED ◀───▶ DRAINING ──▶ UNDOING ──▶ RELEASING ──▶ RELEASED ──▶ ELSEWHERE
                                               └───────────────────────▲

    to the right: placed here, acquired, its turn, time up (or drained: the lower way), drained or time up, given up,
    the next owner says that it has it. To the left: placed elsewhere, placed here. From wherever the lease is lost, and
    after a release, it goes on with WANTED or ELSEWHERE, as the placement has it.

How the shell uses it: ``now`` is the loop's time, nodes are remoting addresses. After every input it carries out what
``poll`` gives, in order, and it calls ``tick`` when ``wake_s`` has come.

===========================  =======================================================================================
placement has changed        ``placed``; only while this node sees a majority, since otherwise it is likely wrong
lease acquired               ``acquired``, with ``Lease.unbroken_since``, also when the own epoch was only raised
the store names a holder     ``held``, for a shard that is wanted
lease lost                   ``lost``, once what rests on it in memory has been told
nothing in progress          ``drained``: no call of a stopped shard is in progress, and no append is on its way
the lease is given up        ``released``, whether or not the store has answered
``RemoteCall`` from a node   ``accepts``; else a ``RemoteReturn`` with ``answer``. A local call for which it says
                             ``within`` is delivered, too
``ShardQuestion``            ``asked``
``ShardAnswer``              ``told`` (and ``Routing.told``)
``ShardReleased``            ``offered``
member gone                  ``forget``
===========================  =======================================================================================

Three more rules on which the order of calls rests. A call that was accepted is not returned as long as its tenure
lasts and it can be run here. A reply or a return is not dropped as long as the connection lives, or its sender waits in
vain. When a connection is lost, calls that came over it and have not begun are dropped, since they come again.

Pure: time comes in, effects go out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, ClassVar, NamedTuple, TypeAlias

from actorkit.sharding.activation import STINTS
from actorkit.sharding.messages import ShardAnswer, ShardReleased, Standing
from actorkit.sharding.settings import ShardingSettings

__all__ = [
    "AskNow",
    "CutOff",
    "Effect",
    "Handoffs",
    "Input",
    "Phase",
    "Release",
    "Say",
    "Serve",
    "Stop",
    "Unwant",
    "Want",
]


class Phase(Enum):
    """Where a shard stands, as this node sees it."""

    ELSEWHERE = "elsewhere"
    WANTED = "wanted"
    OWNED = "owned"
    DRAINING = "draining"
    """Still owned. No new calls are taken, those that were accepted come to their end."""
    UNDOING = "undoing"
    """Still owned. What has not come to its end is being undone."""
    RELEASING = "releasing"
    RELEASED = "released"
    """Given up; the next owner has not said yet that it has it."""


class Input(Enum):
    """What may happen to a shard."""

    PLACED_HERE = "placed here"
    PLACED_ELSEWHERE = "placed elsewhere"
    """Or on another node than before."""
    ACQUIRED = "acquired"
    LOST = "lost"
    ITS_TURN = "its turn"
    DRAINED = "drained"
    RELEASED = "released"
    CONFIRMED = "confirmed"
    """The next owner has it."""
    TIME_UP = "time up"


class Want(NamedTuple):
    """Acquire it as soon as possible (``Leases.want``)."""

    shard: int


class Unwant(NamedTuple):
    """Do not acquire it any more (``Leases.unwant``)."""

    shard: int


class AskNow(NamedTuple):
    """Something that is wanted may be free now (``Leases.ask_now``)."""

    shard: int


class Serve(NamedTuple):
    """Calls are taken (``Routing.acquired``); after a ``Stop`` for which nothing was cut off, its entities go on, and
    are settled as far as ``Routing`` is concerned."""

    shard: int
    tenure: int


class Stop(NamedTuple):
    """No more calls are taken (``Routing.released``)."""

    shard: int
    to: str


class CutOff(NamedTuple):
    """Undo what is still in progress: handlers are cancelled, and calls go back to where they came from. Appends on
    their way are awaited."""

    shard: int


class Release(NamedTuple):
    """Let its entities leave memory, and give the lease up (``Leases.release``). What still does not end is left behind
    after a while: appends under the epoch that is given up are fenced by the next owner's."""

    shard: int


class Say(NamedTuple):
    """Send a message."""

    node: str
    message: ShardAnswer | ShardReleased


Effect: TypeAlias = Want | Unwant | AskNow | Serve | Stop | CutOff | Release | Say


class _Shard:
    __slots__ = ("askers", "holder", "phase", "placed", "shard", "since", "tenure", "until_s")

    def __init__(self, shard: int) -> None:
        self.shard = shard
        self.phase = Phase.ELSEWHERE
        self.placed = ""
        """The address of the node that should own it; empty: none can."""
        self.since = 0
        """The epoch since which the lease is ours without a break."""
        self.tenure = 0
        """The present or the last one here."""
        self.holder = ""
        """While it is wanted: who has the lease, by the store's account."""
        self.until_s = 0.0
        self.askers: dict[str, None] = {}
        """Nodes that wait to hear that it is owned here. At most one entry for each member."""


_OWNING = (Phase.OWNED, Phase.DRAINING, Phase.UNDOING, Phase.RELEASING)


class Handoffs:
    """The owner's side of all shards of one node.

    ``load(shard)`` is how many entities of the shard are busy; ``believed(shard)`` who owns a shard as far as is known
    (``Routing.owner``).
    """

    def __init__(
        self,
        node: str,
        shards: int,
        *,
        settings: ShardingSettings,
        load: Callable[[int], int],
        believed: Callable[[int], tuple[str | None, int]],
    ) -> None:
        self._node = node
        self._settings = settings
        self._load = load
        self._believed = believed
        self._shards = [_Shard(number) for number in range(shards)]
        self._leaving: set[int] = set()
        """Owned shards that are to be handed off and whose turn has not come."""
        self._moving: dict[int, _Shard] = {}
        """Shards that are being handed off: at most ``handoffs_max``."""
        self._effects: list[Effect] = []

    # --------------------------------------------------------------------------------------------------------- facts

    @property
    def wake_s(self) -> float | None:
        """When ``tick`` is due; ``None``: not before another input."""
        timed = [shard.until_s for shard in self._moving.values() if shard.phase is not Phase.RELEASING]
        return min(timed, default=None)

    @property
    def owned(self) -> int:
        """How many shards are owned here, those that are being drained included. 0: this node may leave."""
        return sum(shard.phase in _OWNING for shard in self._shards)

    def phase(self, shard: int) -> Phase:
        return self._shards[shard].phase

    def phases(self) -> dict[int, Phase]:
        """Every shard with which this node has to do."""
        return {each.shard: each.phase for each in self._shards if each.phase is not Phase.ELSEWHERE}

    def accepts(self, shard: int, tenure: int, *, within: bool = False) -> bool:
        """Whether a call is taken that was sent to this tenure.

        ``within``: an entity of this very shard waits for it (one is in the call's chain). Such calls are taken while
        others come to their end, because that end waits for them.
        """
        each = self._shards[shard]
        if each.tenure != tenure:
            return False
        return each.phase is Phase.OWNED or (within and each.phase is Phase.DRAINING)

    def answer(self, shard: int) -> ShardAnswer:
        """Who owns the shard, as this node tells others."""
        each = self._shards[shard]
        if each.phase is Phase.OWNED:
            return ShardAnswer(shard, Standing.OWNED, each.tenure)
        if each.phase is Phase.WANTED:
            standing = Standing.ELSEWHERE if each.holder else Standing.AWAITED
            return ShardAnswer(shard, standing, each.tenure, each.holder)
        if each.phase is not Phase.ELSEWHERE:
            return ShardAnswer(shard, Standing.ELSEWHERE, each.tenure, each.placed)
        owner, tenure = self._believed(shard)
        ask = owner or each.placed
        return ShardAnswer(shard, Standing.ELSEWHERE, max(tenure, each.tenure), "" if ask == self._node else ask)

    def poll(self) -> list[Effect]:
        """What is to be done now, in this order."""
        effects, self._effects = self._effects, []
        return effects

    # -------------------------------------------------------------------------------------------------------- inputs

    def placed(self, now: float, owners: Sequence[str | None]) -> None:
        """Who should own each shard, by address. A shard that nobody can own stays where it is."""
        for each, owner in zip(self._shards, owners, strict=True):
            if owner is None or owner == each.placed:
                continue
            each.placed = owner
            here = owner == self._node
            self._handle(now, each, Input.PLACED_HERE if here else Input.PLACED_ELSEWHERE)
        self._start(now)

    def acquired(self, now: float, shard: int, unbroken_since: int) -> None:
        """The lease is ours, since that epoch; perhaps it was before, and still is."""
        each = self._shards[shard]
        each.since = unbroken_since
        self._handle(now, each, Input.ACQUIRED)
        self._start(now)

    def held(self, shard: int, node: str) -> None:
        """A shard that is wanted belongs to that node, by the store's account; empty: to nobody who is a member."""
        self._shards[shard].holder = node

    def lost(self, now: float, shard: int) -> None:
        """The lease is not ours any more, without our having given it up."""
        self._handle(now, self._shards[shard], Input.LOST)
        self._start(now)

    def drained(self, now: float, shard: int) -> None:
        """Nothing is in progress any more. Ignored where the shard is not stopped (any more)."""
        if self._shards[shard].phase in (Phase.DRAINING, Phase.UNDOING):
            self._handle(now, self._shards[shard], Input.DRAINED)

    def released(self, now: float, shard: int) -> None:
        """The lease is given up, after ``Release``."""
        self._handle(now, self._shards[shard], Input.RELEASED)
        self._start(now)

    def asked(self, node: str, shards: Iterable[int]) -> None:
        """A node wants to know who owns these."""
        for shard in shards:
            if self._shards[shard].phase is Phase.WANTED:
                self._shards[shard].askers[node] = None
            self._effects.append(Say(node, self.answer(shard)))

    def told(self, now: float, node: str, answer: ShardAnswer) -> None:
        """A node has said what it knows of a shard."""
        each = self._shards[answer.shard]
        if answer.standing is Standing.OWNED and answer.tenure > each.tenure and each.phase is Phase.RELEASED:
            self._handle(now, each, Input.CONFIRMED)
            self._start(now)

    def offered(self, node: str, shard: int) -> None:
        """The former owner has given the shard up for us, and waits to hear that we have it."""
        each = self._shards[shard]
        each.holder = ""
        if each.phase is Phase.OWNED:
            self._effects.append(Say(node, self.answer(shard)))
        else:
            # Where the placement has not told us yet, it soon will.
            each.askers[node] = None
            if each.phase is Phase.WANTED:
                self._effects.append(AskNow(shard))

    def forget(self, node: str) -> None:
        """The node is no member any more."""
        for each in self._shards:
            each.askers.pop(node, None)
            if each.holder == node:
                each.holder = ""

    def tick(self, now: float) -> None:
        for each in list(self._moving.values()):
            if each.phase is not Phase.RELEASING and each.until_s <= now:
                self._handle(now, each, Input.TIME_UP)
        self._start(now)

    # --------------------------------------------------------------------------------------------------- transitions

    def _handle(self, now: float, each: _Shard, input: Input) -> None:
        handler = self.transitions.get((each.phase, input))
        if handler is None:
            raise AssertionError(f"shard {each.shard} was {input.value} while {each.phase.value}")
        handler(self, now, each)

    def _start(self, now: float) -> None:
        """As many hand-offs as there is room for; a shard in which little happens is away soonest."""
        room = self._settings.handoffs_max - len(self._moving)
        if room <= 0 or not self._leaving:
            return
        for shard in sorted(self._leaving, key=lambda shard: (self._load(shard), shard))[:room]:
            self._handle(now, self._shards[shard], Input.ITS_TURN)

    def _nothing(self, now: float, each: _Shard) -> None:
        pass

    def _want(self, now: float, each: _Shard) -> None:
        each.phase = Phase.WANTED
        self._moving.pop(each.shard, None)
        self._leaving.discard(each.shard)
        self._effects.append(Want(each.shard))

    def _unwant(self, now: float, each: _Shard) -> None:
        self._effects.append(Unwant(each.shard))
        self._is_elsewhere(now, each)

    def _is_elsewhere(self, now: float, each: _Shard) -> None:
        each.phase = Phase.ELSEWHERE
        each.holder = ""
        self._moving.pop(each.shard, None)
        self._leaving.discard(each.shard)
        self._tell_askers(each)

    def _own(self, now: float, each: _Shard) -> None:
        # Calls have been returned since it was last owned, if it was: later ones of the same sender may be on their way
        # here, and must not be taken as if nothing had happened.
        again = each.phase is not Phase.OWNED
        each.tenure = max(each.since * STINTS, each.tenure + again)
        assert each.tenure // STINTS == each.since, f"shard {each.shard} begins anew too often"
        each.phase = Phase.OWNED
        each.holder = ""
        self._moving.pop(each.shard, None)
        self._effects.append(Serve(each.shard, each.tenure))
        self._tell_askers(each)
        if each.placed != self._node:
            self._leaving.add(each.shard)

    def _tell_askers(self, each: _Shard) -> None:
        answer = self.answer(each.shard)
        self._effects += [Say(node, answer) for node in each.askers]
        each.askers.clear()

    def _will_leave(self, now: float, each: _Shard) -> None:
        self._leaving.add(each.shard)

    def _stays(self, now: float, each: _Shard) -> None:
        self._leaving.discard(each.shard)

    def _drain(self, now: float, each: _Shard) -> None:
        each.phase = Phase.DRAINING
        each.until_s = now + self._settings.handoff_drain_s
        self._leaving.discard(each.shard)
        self._moving[each.shard] = each
        self._effects.append(Stop(each.shard, each.placed))

    def _release(self, now: float, each: _Shard) -> None:
        each.phase = Phase.RELEASING
        self._effects.append(Release(each.shard))

    def _undo(self, now: float, each: _Shard) -> None:
        each.phase = Phase.UNDOING
        each.until_s = now + self._settings.handoff_drain_s
        self._effects.append(CutOff(each.shard))

    def _lose(self, now: float, each: _Shard) -> None:
        if each.phase is Phase.OWNED:
            self._effects.append(Stop(each.shard, each.placed))
        if each.placed == self._node:
            self._want(now, each)
        else:
            self._is_elsewhere(now, each)

    def _gave_up(self, now: float, each: _Shard) -> None:
        if each.placed == self._node:
            self._want(now, each)
            return
        each.phase = Phase.RELEASED
        each.until_s = now + self._settings.handoff_confirm_s
        self._effects.append(Say(each.placed, ShardReleased(each.shard, each.tenure)))

    def _tell_the_next(self, now: float, each: _Shard) -> None:
        """The one that was told is not to own it any more; this one may not know that it is free."""
        self._effects.append(Say(each.placed, ShardReleased(each.shard, each.tenure)))

    transitions: ClassVar[Mapping[tuple[Phase, Input], Any]] = {
        (Phase.ELSEWHERE, Input.PLACED_HERE): _want,
        (Phase.ELSEWHERE, Input.PLACED_ELSEWHERE): _nothing,
        (Phase.WANTED, Input.PLACED_ELSEWHERE): _unwant,
        (Phase.WANTED, Input.ACQUIRED): _own,
        (Phase.OWNED, Input.PLACED_HERE): _stays,
        (Phase.OWNED, Input.PLACED_ELSEWHERE): _will_leave,
        (Phase.OWNED, Input.ACQUIRED): _own,
        (Phase.OWNED, Input.LOST): _lose,
        (Phase.OWNED, Input.ITS_TURN): _drain,
        (Phase.DRAINING, Input.PLACED_HERE): _own,
        (Phase.DRAINING, Input.PLACED_ELSEWHERE): _nothing,
        (Phase.DRAINING, Input.ACQUIRED): _nothing,
        (Phase.DRAINING, Input.LOST): _lose,
        (Phase.DRAINING, Input.DRAINED): _release,
        (Phase.DRAINING, Input.TIME_UP): _undo,
        (Phase.UNDOING, Input.PLACED_HERE): _nothing,
        (Phase.UNDOING, Input.PLACED_ELSEWHERE): _nothing,
        (Phase.UNDOING, Input.ACQUIRED): _nothing,
        (Phase.UNDOING, Input.LOST): _lose,
        (Phase.UNDOING, Input.DRAINED): _release,
        (Phase.UNDOING, Input.TIME_UP): _release,
        (Phase.RELEASING, Input.PLACED_HERE): _nothing,
        (Phase.RELEASING, Input.PLACED_ELSEWHERE): _nothing,
        (Phase.RELEASING, Input.LOST): _nothing,
        (Phase.RELEASING, Input.RELEASED): _gave_up,
        (Phase.RELEASED, Input.PLACED_HERE): _want,
        (Phase.RELEASED, Input.PLACED_ELSEWHERE): _tell_the_next,
        (Phase.RELEASED, Input.CONFIRMED): _is_elsewhere,
        (Phase.RELEASED, Input.TIME_UP): _is_elsewhere,
    }
    """What each input does in each phase. What is not here cannot happen: it is a defect, and raises."""

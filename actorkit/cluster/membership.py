"""Membership: who is in the cluster, as one node knows it. A core without I/O: inputs are messages, facts about
connections and the time; what it wants done is taken from it afterwards.

Intuition: members probe each other at random (``Prober``); whoever does not answer is suspect and may object
(``Suspicions``); all news travels on the back of probes (``Dissemination``), is merged into the records of members
(``View``), and is compared as a whole now and then. What cannot be reached for good is decided on by a rule that both
sides of a partition know (``PartitionWatch``). A node begins as ``Joining``. It is SWIM (see ``member``) with the
suspicion of Lifeguard (see ``suspicion``).

A gone incarnation is never a member again. Whoever hears from one tells it so, and it stops (``Downed``). That an
incarnation is gone is known for certain when another one answers at its address: at one address there is one process,
and the question was sent after the old one had been heard of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf

from actorkit.clock import Randomness
from actorkit.cluster import messages as m
from actorkit.cluster.downing import Decision, Facts, Verdict, downing_of
from actorkit.cluster.events import ClusterEvent, ClusterFormed, Downed, JoinRefused, MajorityGained, MajorityLost
from actorkit.cluster.joining import Joining
from actorkit.cluster.knowledge import Knowledge
from actorkit.cluster.member import Change, Member, Status, objection
from actorkit.cluster.partition import PartitionWatch
from actorkit.cluster.probing import Probe, Prober, choose
from actorkit.cluster.settings import ClusterSettings
from actorkit.ids import NodeId

__all__ = ["Membership"]

_GOODBYES = 8
"""How many members are told at once when this node stops; they tell the others."""


class Membership:
    """One incarnation of one node. Times are seconds on any clock that never goes back and counts suspend time."""

    def __init__(self, myself: Member, *, settings: ClusterSettings, rng: Randomness) -> None:
        """Raises ``ConfigurationError`` on settings that do not fit."""
        self._settings = settings
        self._rng = rng
        self._knowledge = Knowledge(myself, settings, rng)
        self._view = self._knowledge.view
        self._news = self._knowledge.news
        self._node = myself.node
        self._prober = Prober(self._view, settings.probes, rng)
        self._joining = Joining(self._view, settings.joining, rng)
        self._partition = PartitionWatch(downing_of(settings.downing), stable_after_s=settings.downing.stable_after_s)
        self._claims: dict[NodeId, Member] = {}
        """Members whose name or address another incarnation (the value) claims, until they have been probed."""
        self._strangers: dict[str, None] = {}
        """Addresses of nodes that are unknown here although they seem to be members."""
        self._gossip_s = 0.0
        self._sync_s = inf
        self._facts: Facts | None = None
        self.majority = False
        """Whether this node is a member and sees enough of the others."""
        self._refusal = ""
        self._running = False
        self._messages: list[tuple[str, m.Message]] = []
        self.sent = 0
        self.wakeup_s = inf
        """When ``tick`` is to be called, at the latest."""

    # ------------------------------------------------------------------------------------------------------- the view

    @property
    def myself(self) -> Member:
        return self._view.myself

    @property
    def members(self) -> tuple[Member, ...]:
        """All that are not gone, by name."""
        return tuple(sorted(self._view, key=lambda member: member.node))

    @property
    def up(self) -> tuple[Member, ...]:
        """Those that are up and not unreachable, by name."""
        return tuple(member for member in self.members if member.status is Status.UP and member.reachable)

    @property
    def joining_state(self) -> str:
        """For people: what joining waits for. Empty once this node is up."""
        return self._joining.state() if self.myself.status is Status.JOINING else ""

    # -------------------------------------------------------------------------------------------------------- effects

    def take_messages(self) -> list[tuple[str, m.Message]]:
        """What is to be sent, and to which addresses, in order."""
        taken, self._messages = self._messages, []
        return taken

    def take_events(self) -> list[ClusterEvent]:
        """What has happened, in order."""
        taken, self._knowledge.events = self._knowledge.events, []
        return taken

    @property
    def lease_wanted(self) -> int | None:
        """Not ``None``: the downing lease is to be acquired; ``lease_answered`` takes the answer under this number."""
        return self._partition.lease_wanted

    def _send(self, address: str, message: m.Message) -> None:
        self.sent += 1
        self._messages.append((address, message))

    # ------------------------------------------------------------------------------------------------------ its life

    def start(self, now_s: float, seeds: Iterable[str]) -> None:
        """Begins to look for a cluster. ``seeds`` are addresses; this node's own may be among them."""
        self._running = True
        self._joining.start(now_s, seeds)
        self.wakeup_s = now_s
        self.tick(now_s)

    def seeds_found(self, seeds: Iterable[str]) -> None:
        """The seeds have changed."""
        self._joining.seeds_found(seeds)

    def leave(self, now_s: float) -> None:
        """This node is leaving from now on; one that is not up yet will not be. Doing so again changes nothing."""
        if self._running and self.myself.status < Status.LEAVING:
            self._enter(now_s)
            self._joining.abandon()
            if self.myself.status is not Status.JOINING:
                self._step(now_s, Change.LEAVES)
            self._settle(now_s)

    def stop(self, now_s: float) -> None:
        """This node stops: it has left. Call ``tick`` for a while longer, so that others hear of it."""
        if not self._running:
            return
        self._enter(now_s)
        if not self.myself.gone:
            self._step(now_s, Change.STOPPED)
            self._say_goodbye(now_s)
        self._running = False
        self._settle(now_s)

    def _step(self, now_s: float, change: Change) -> None:
        self._knowledge.step(now_s, self._node, change)

    def _say_goodbye(self, now_s: float) -> None:
        record = self._view.record(now_s, self._node)
        if self._joining.found and record is not None:
            for member in choose(self._rng, self._view.reachable_others, _GOODBYES):
                self._send(member.address, m.Gossip((record,)))

    def _become_downed(self, now_s: float, why: str) -> None:
        if self._running:
            self._step(now_s, Change.DECLARED_DOWN)
            self._say_goodbye(now_s)
            self._running = False
            self._knowledge.events.append(Downed(why))

    # ---------------------------------------------------------------------------------------------------------- time

    def tick(self, now_s: float) -> None:
        """Does what is due. Calling it too early does nothing."""
        self._enter(now_s)
        if self._running:
            self._seek(now_s)
        if self._running and self._joining.found:
            self._probe(now_s)
            self._knowledge.judge(now_s)
            self._compare(now_s)
            if (decision := self._partition.decide(now_s)) is not None:
                self._carry_out(now_s, decision)
        if self._news and now_s >= self._gossip_s:
            self._gossip_s = now_s + self._settings.gossip.interval_s
            for member in choose(self._rng, self._view.reachable_others, self._settings.gossip.fanout):
                if updates := self._news.take(now_s, member.node):
                    self._send(member.address, m.Gossip(updates))
        self._settle(now_s)

    def _enter(self, now_s: float) -> None:
        """If this node has stood still, others are not to be blamed for what it has not heard."""
        late_s = now_s - self.wakeup_s
        if late_s <= self._settings.stall_s or not self._running:
            return
        if late_s > self._settings.gossip.tombstone_s / 2:
            self._become_downed(now_s, f"this node has not run for {late_s:.0f} s: the others may have forgotten it")
            return
        self._prober.postpone(late_s)
        self._knowledge.postpone(late_s)
        self._partition.postpone(late_s)
        self.wakeup_s = now_s

    def _settle(self, now_s: float) -> None:
        """After each input: what follows from what has changed, and when to go on."""
        view, joining = self._view, self._joining
        if self._knowledge.declared_down:
            self._become_downed(now_s, "it was declared down by other members")
        for node in self._knowledge.checks:
            self._prober.urge(node)
        self._knowledge.checks.clear()
        if self._running and self.myself.status is Status.JOINING and joining.admitted(now_s):
            self._step(now_s, Change.ADMITTED)
            joining.ended()
        if view.facts is not self._facts or not self._running:
            self._judge(now_s, view.facts)
        wakeup_s = self._gossip_s if self._news and view.reachable_others else inf
        if self._running:
            wakeup_s = min(wakeup_s, joining.next_s)
            if joining.found:
                dues = (self._prober.due_s, self._knowledge.due_s, self._partition.due_s)
                wakeup_s = min(wakeup_s, self._sync_s, *dues)
        self.wakeup_s = max(now_s, wakeup_s)

    def _judge(self, now_s: float, facts: Facts) -> None:
        self._facts = facts
        self._partition.observe(now_s, facts)
        ours = self._view.get(self._node)
        counts = self._running and ours is not None and ours.status is not Status.JOINING
        majority = counts and self._partition.downing.has_majority(facts)
        changed, self.majority = majority != self.majority, majority
        # That a node which has stopped has none is nothing to tell anybody.
        if changed and self._running:
            kind = MajorityGained if majority else MajorityLost
            self._knowledge.events.append(kind(len(facts.visible), len(facts.voters)))

    # -------------------------------------------------------------------------------------------------------- joining

    def _seek(self, now_s: float) -> None:
        joining = self._joining
        if joining.stranded(now_s):
            joining.search_again(now_s)
        if (formed := joining.forms(now_s)) is not None and self.myself.status is Status.JOINING:
            self._begin(now_s)
            self._step(now_s, Change.ADMITTED)
            joining.ended()
            self._knowledge.events.append(ClusterFormed(*formed))
            return
        for address, join in joining.asks(now_s):
            self._send(address, join)

    def _begin(self, now_s: float) -> None:
        """There is a cluster from now on."""
        self._prober.start(now_s)
        self._sync_s = now_s + self._rng.uniform() * self._settings.gossip.sync_interval_s
        self._news.add(self._node)

    def _on_join(self, now_s: float, node: NodeId, address: str, join: m.Join) -> None:
        member = join.member
        if member.node != node or member.address != address or member.gone:
            return
        me = self.myself
        if not self._joining.settled:
            # The cluster that has welcomed this node is no more.
            self._send(address, self._joining.answer(now_s, address, join))
            return
        if why := objection(me, member):
            self._send(address, m.Refused(join.seed, why))
            return
        rivals = self._view.rivals(member)
        for rival in rivals:
            if rival.node not in self._claims:
                self._claims[rival.node] = member
                self._ping(now_s, self._prober.begin(now_s, rival))
        if rivals:
            return
        self._knowledge.learn(now_s, member)
        self._send(address, m.Welcome(join.seed, self._view.present))
        if join.members:
            self._tell_everything(now_s, address, answer=False)

    def _on_welcome(self, now_s: float, node: NodeId, address: str, welcome: m.Welcome) -> None:
        if self.myself.status is Status.JOINING:
            if not self._joining.found:
                self._begin(now_s)
            self._joining.welcomed(now_s, node, address, welcome)

    def _on_refused(self, address: str, refused: m.Refused) -> None:
        if self.myself.status is Status.JOINING and self._refusal != refused.why:
            self._refusal = refused.why
            self._knowledge.events.append(JoinRefused(address, refused.why))

    # -------------------------------------------------------------------------------------------------------- probing

    def _ping(self, now_s: float, probe: Probe) -> None:
        member = probe.member
        self._send(member.address, m.Ping(probe.sequence, self._news.take(now_s, member.node)))

    def _probe(self, now_s: float) -> None:
        prober = self._prober
        for probe in prober.second_tries(now_s):
            self._ping(now_s, probe)
            member = probe.member
            for helper in prober.helpers(probe):
                updates = self._news.take(now_s, helper.node)
                self._send(helper.address, m.PingRequest(probe.sequence, member.node, member.address, updates))
        for probe in prober.failed(now_s):
            self._on_silence(now_s, probe.member.node)
        if (following := prober.next(now_s)) is not None:
            self._ping(now_s, following)

    def _on_silence(self, now_s: float, node: NodeId) -> None:
        member = self._view.get(node)
        if member is None:
            return
        if self._claims.pop(node, None) is not None:
            self._knowledge.step(now_s, node, Change.DECLARED_DOWN)
        elif member.reachable:
            self._knowledge.suspect(now_s, node)
            # The suspect is the first who should hear of it.
            self._send(member.address, m.Ping(self._prober.number(), self._news.take(now_s, node)))

    def _on_ping(self, now_s: float, node: NodeId, address: str, ping: m.Ping) -> None:
        version = self.myself.version
        self._learn_all(now_s, address, ping.updates)
        objects = self.myself.version != version
        updates = self._news.take(now_s, node, first=self._node if objects else None)
        self._send(address, m.Ack(ping.sequence, self._node, updates))

    def _on_ping_request(self, now_s: float, node: NodeId, address: str, request: m.PingRequest) -> None:
        self._learn_all(now_s, address, request.updates)
        number = self._prober.relay(now_s, address, request.sequence)
        if number is not None:
            self._send(request.address, m.Ping(number, self._news.take(now_s, request.target)))

    def _on_ack(self, now_s: float, node: NodeId, address: str, ack: m.Ack) -> None:
        self._learn_all(now_s, address, ack.updates)
        if (relayed := self._prober.relayed(ack.sequence)) is not None:
            self._send(relayed[0], m.Ack(relayed[1], ack.node))
            return
        probe = self._prober.answered(now_s, ack.sequence)
        if probe is None:
            return
        member = probe.member
        claim = self._claims.pop(member.node, None)
        if ack.node != member.node:
            # Another process answers at its address.
            self._knowledge.step(now_s, member.node, Change.DECLARED_DOWN)
            self._meet(member.address)
        elif claim is not None and claim.address != member.address:
            why = f"the name {member.node.name} is that of {member}, which is alive"
            self._send(claim.address, m.Refused(claim.address, why))

    # ------------------------------------------------------------------------------------------------- facts of others

    def connected(self, now_s: float, node: NodeId, address: str) -> None:
        """There is a connection to that incarnation at that address. If another is expected there, it is probed: the
        answer is proof, where this may only be old news."""
        self._enter(now_s)
        if self._running and self._joining.found:
            for member in self._view:
                if member.address == address and member.node not in (node, self._node):
                    self._ping(now_s, self._prober.begin(now_s, member))
        self._settle(now_s)

    def unreachable(self, now_s: float, address: str) -> None:
        """The connection to an address broke, or none can be made. It is a reason to probe whoever was there next, and
        no more: connections break for many reasons."""
        self._enter(now_s)
        if self._running and self._joining.found:
            self._prober.failing(address)
            for member in self._view:
                if member.address == address and member.reachable and member.node != self._node:
                    self._prober.urge(member.node)
        self._settle(now_s)

    def handle(self, now_s: float, node: NodeId, address: str, message: m.Message) -> None:
        """A message from that incarnation, which is reached at that address."""
        self._enter(now_s)
        if self._running:
            if node == self._node:
                if isinstance(message, m.Join):
                    self._joining.is_myself(message.seed)
            elif self._joining.found:
                self._handle_as_member(now_s, node, address, message)
            else:
                self._handle_while_seeking(now_s, node, address, message)
        self._settle(now_s)

    def _handle_while_seeking(self, now_s: float, node: NodeId, address: str, message: m.Message) -> None:
        joining = self._joining
        if isinstance(message, m.Join):
            self._send(address, joining.answer(now_s, address, message))
        elif isinstance(message, m.Waiting):
            joining.waiting(now_s, address, message)
        elif isinstance(message, m.Welcome):
            self._on_welcome(now_s, node, address, message)
        elif isinstance(message, m.Refused):
            self._on_refused(address, message)
        else:
            # It takes this node for a member: either for its predecessor, or one of a cluster that it was in itself.
            joining.invited(address)
            if isinstance(message, m.Ping):
                self._send(address, m.Ack(message.sequence, self._node))
            elif isinstance(message, m.Gossip):
                for report in message.updates:
                    if report.node == self._node and report.gone:
                        self._knowledge.learn(now_s, report)

    def _handle_as_member(self, now_s: float, node: NodeId, address: str, message: m.Message) -> None:
        if self._view.is_gone(node):
            record = self._view.record(now_s, node)
            assert record is not None
            self._send(address, m.Gossip((record,)))
            return
        if isinstance(message, m.Join):
            self._on_join(now_s, node, address, message)
            return
        if self._view.get(node) is None and not isinstance(message, m.Waiting | m.Refused):
            self._meet(address)
        if isinstance(message, m.Ping):
            self._on_ping(now_s, node, address, message)
        elif isinstance(message, m.PingRequest):
            self._on_ping_request(now_s, node, address, message)
        elif isinstance(message, m.Ack):
            self._on_ack(now_s, node, address, message)
        elif isinstance(message, m.Gossip):
            self._learn_all(now_s, address, message.updates)
        elif isinstance(message, m.Digest):
            if message.digest != self._view.digest:
                self._tell_everything(now_s, address, answer=True)
        elif isinstance(message, m.Sync):
            self._learn_all(now_s, address, message.members)
            if message.answer and message.digest != self._view.digest:
                self._tell_everything(now_s, address, answer=False)
        elif isinstance(message, m.Welcome):
            self._on_welcome(now_s, node, address, message)
        elif isinstance(message, m.Refused):
            self._on_refused(address, message)

    # ------------------------------------------------------------------------------------------- learning, comparing

    def _learn_all(self, now_s: float, address: str, reports: Sequence[Member]) -> None:
        unknown = sum(self._view.get(report.node) is None for report in reports)
        # Whole clusters that were unknown would keep real news waiting; comparisons tell the others of them.
        news = unknown <= self._settings.gossip.updates_max
        stale: list[Member] = []
        for report in reports:
            self._knowledge.learn(now_s, report, news=news)
            if (known := self._knowledge.stale(now_s, report)) is not None:
                stale.append(known)
        if stale:
            self._send(address, m.Gossip(tuple(stale)))

    def _compare(self, now_s: float) -> None:
        """All that is known, with one other; and a word to those that are lost, in case they are back."""
        if now_s < self._sync_s:
            return
        gossip, view = self._settings.gossip, self._view
        self._sync_s = max(self._sync_s + gossip.sync_interval_s, now_s)
        view.forget(now_s)
        self._prober.forget_late_relays(now_s)
        for member in choose(self._rng, view.reachable_others, 1):
            self._send(member.address, m.Digest(view.digest))
        if self._strangers:
            address = next(iter(self._strangers))
            del self._strangers[address]
            self._send(address, m.Digest(view.digest))
        # Each of them is talked to by a few, however many there are that could.
        chance = gossip.lost_contacts / max(1, len(view.reachable_others) + 1)
        for node in view.facts.unreachable:
            lost = view.get(node)
            if lost is not None and self._rng.uniform() < chance:
                self._ping(now_s, self._prober.begin(now_s, lost))
        for seed in self._joining.missing():
            if self._rng.uniform() < chance:
                self._send(seed, m.Digest(view.digest))

    def _meet(self, address: str) -> None:
        if len(self._strangers) < self._settings.gossip.strangers_max:
            self._strangers[address] = None

    def _tell_everything(self, now_s: float, address: str, *, answer: bool) -> None:
        records, most = list(self._view.all(now_s)), self._settings.gossip.sync_members_max
        for start in range(0, len(records), most):
            part = tuple(records[start : start + most])
            last = start + most >= len(records)
            self._send(address, m.Sync(part, self._view.digest, answer=answer and last))

    # -------------------------------------------------------------------------------------------------------- downing

    def lease_answered(self, now_s: float, number: int, *, granted: bool) -> None:
        """Whether this side has the downing lease; an answer to an old question changes nothing."""
        self._enter(now_s)
        decision = self._partition.lease_answered(number, granted=granted)
        if decision is not None and self._running:
            self._carry_out(now_s, decision)
        self._settle(now_s)

    def _carry_out(self, now_s: float, decision: Decision) -> None:
        facts = self._view.facts
        if decision.verdict is Verdict.DOWN_UNREACHABLE:
            for node in sorted(facts.unreachable):
                self._knowledge.step(now_s, node, Change.DECLARED_DOWN)
            return
        if decision.verdict is Verdict.DOWN_MY_SIDE:
            addresses = {member.node: member.address for member in self._view}
            for node in sorted(facts.visible - {self._node}):
                self._knowledge.step(now_s, node, Change.DECLARED_DOWN)
                if (record := self._view.record(now_s, node)) is not None:
                    self._send(addresses[node], m.Gossip((record,)))
        self._become_downed(now_s, decision.why)

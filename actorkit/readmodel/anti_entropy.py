"""Anti-entropy: how the documents of the nodes of a cluster come to be the same (pure).

Two ways, as in Demers et al., "Epidemic Algorithms for Replicated Database Maintenance" (1987): what is new is sent at
once, to all others while they are few, else to some, who send it on; and in rounds each node compares its digest with
those of some others, so that whatever was lost gets there all the same. What is sent is always the difference between
what the receiver is believed to have and what is here *now*: however many changes there are, what waits for a peer is
at most a set of shards. One message is on its way to a peer at a time; the next one leaves when that was heard.

Every method returns what is to be done, in order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final, TypeAlias

import msgspec

from actorkit.clock import Randomness
from actorkit.errors import UpdateRefused
from actorkit.readmodel.catalog import NOTHING, Catalog, Refusal, Version
from actorkit.readmodel.counters import ReadModelCounters
from actorkit.readmodel.documents import Update
from actorkit.readmodel.messages import Digest, Heard, Updates
from actorkit.readmodel.settings import ReadModelSettings

__all__ = ["AntiEntropy", "AskStore", "Changed", "Effect", "Refused", "Send"]

_RANGE_SHARDS: Final = 8_192
"""How many shards a digest has at most: it must fit into a message."""
_OVERHEAD_BYTES: Final = 64
"""Of an update, besides its data."""


class Send(msgspec.Struct, frozen=True):
    """To be sent. Where that cannot be done, ``lost_contact`` is to be called."""

    address: str
    message: Digest | Updates | Heard


class Changed(msgspec.Struct, frozen=True):
    """Entries of a shard that are new here."""

    shard: int
    entries: dict[str, bytes]


class AskStore(msgspec.Struct, frozen=True):
    """These shards' epochs are to be read, and given to ``verified``."""

    shards: frozenset[int]


class Refused(msgspec.Struct, frozen=True):
    """A peer has sent what was thrown away."""

    address: str
    why: str


Effect: TypeAlias = Send | Changed | AskStore | Refused


class _Peer:
    """What is known of another node, and of what is on its way there."""

    __slots__ = ("asked", "awaited", "believed", "lacked", "pending", "sent", "sent_s")

    def __init__(self) -> None:
        self.believed: dict[int, Version] | None = None
        """What it has; ``None``: it has not said yet."""
        self.pending: dict[int, None] = {}
        """Shards that are to be looked at for it."""
        self.awaited = 0
        """The number of the message that it has not heard yet, if any."""
        self.sent: dict[int, tuple[Version, Version]] = {}
        """What it has once it has heard that message, if before it had what that builds on: (then, before)."""
        self.sent_s = 0.0
        self.lacked: dict[int, tuple[float, dict[int, Version]]] = {}
        """By range, when it said last that it had less than is here of what others write, and what was here then."""
        self.asked: dict[int, float] = {}
        """The numbers of the last questions, one for each range, that it has not answered, and when they were sent."""


class AntiEntropy:
    """One node's part."""

    def __init__(
        self,
        catalog: Catalog,
        *,
        generation: int,
        settings: ReadModelSettings,
        rng: Randomness,
        counters: ReadModelCounters,
    ) -> None:
        self._catalog = catalog
        self._generation = generation
        self._settings = settings
        self._rng = rng
        self._counters = counters
        self._peers: dict[str, _Peer] = {}
        self._numbers = 0
        self._news: dict[int, None] = {}
        """Shards that have changed here, or that others have told news of, since the last flush."""
        self._unverified: dict[str, dict[int, int]] = {}
        """Shards of which a peer has shown a later activation than the store is known to have had, and its epoch."""

    @property
    def peers(self) -> Collection[str]:
        return self._peers.keys()

    def expects(self, shard: int) -> bool:
        """Whether a peer has more of the shard than is here, or has not said yet what it has."""
        here = self._catalog.version(shard)
        return any(peer.believed is None or peer.believed.get(shard, NOTHING) > here for peer in self._peers.values())

    # ---------------------------------------------------------------------------------------------------------- peers

    def peers_are(self, addresses: Iterable[str], now_s: float) -> list[Effect]:
        """The other nodes. Who is new is asked for all that it has."""
        wanted = set(addresses)
        for address in [address for address in self._peers if address not in wanted]:
            del self._peers[address]
            self._unverified.pop(address, None)
        effects: list[Effect] = []
        for address in sorted(wanted - self._peers.keys()):
            self._peers[address] = _Peer()
            effects += self._questions(address, now_s)
        return effects

    def lost_contact(self, address: str) -> None:
        """What was on its way there may not have arrived."""
        if address in self._peers:
            self._peers[address] = _Peer()
            self._unverified.pop(address, None)

    def connected(self, address: str, now_s: float) -> list[Effect]:
        """There is a new connection to it."""
        if address not in self._peers:
            return []
        self.lost_contact(address)
        return self._questions(address, now_s)

    # --------------------------------------------------------------------------------------------------------- sending

    def changed(self, shard: int) -> None:
        """The document of the shard has changed here."""
        self._news[shard] = None

    def flush(self, now_s: float) -> list[Effect]:
        """Sends news to those who are to have it at once."""
        if self._news:
            targets = list(self._peers)
            if len(targets) > self._settings.push_all_max:
                targets = self._some(targets, self._settings.push_peers)
            for address in targets:
                self._peers[address].pending.update(self._news)
            self._news.clear()
        effects: list[Effect] = []
        for address, peer in self._peers.items():
            effects += self._send_to(address, peer, now_s)
        return effects

    def round(self, now_s: float) -> list[Effect]:
        """Compares with some others."""
        effects: list[Effect] = []
        # Who has not answered yet is behind: more questions would only be more to be read.
        since_s = now_s - self._settings.answer_timeout_s
        ready = [address for address, peer in self._peers.items() if all(s <= since_s for s in peer.asked.values())]
        for address in self._some(ready, self._settings.round_peers):
            effects += self._questions(address, now_s)
        for address, peer in list(self._peers.items()):
            if peer.awaited and now_s - peer.sent_s > self._settings.answer_timeout_s:
                self.lost_contact(address)
                effects += self._questions(address, now_s)
        return effects

    def _some(self, addresses: list[str], count: int) -> list[str]:
        """So many of them, by chance."""
        chosen: list[str] = []
        while addresses and len(chosen) < count:
            chosen.append(addresses.pop(int(self._rng.uniform() * len(addresses))))
        return chosen

    def _questions(self, address: str, now_s: float) -> list[Effect]:
        """It is to say what it has."""
        peer = self._peers[address]
        peer.asked.clear()
        self._counters.rounds += 1
        effects: list[Effect] = []
        for first in range(0, self._catalog.shards, _RANGE_SHARDS):
            self._numbers += 1
            peer.asked[self._numbers] = now_s
            end = min(first + _RANGE_SHARDS, self._catalog.shards)
            effects.append(Send(address, self._digest(first, end, now_s, number=self._numbers)))
        return effects

    def _digest(self, first: int, end: int, now_s: float, *, number: int = 0, answers: int = 0) -> Digest:
        states = self._catalog.states(now_s, first, end)
        return Digest(self._generation, first, end, states, number=number, answers=answers)

    def _send_to(self, address: str, peer: _Peer, now_s: float) -> list[Effect]:
        if peer.awaited or peer.believed is None:
            return []
        updates: list[Update] = []
        size = 0
        peer.sent.clear()
        while peer.pending:
            shard = next(iter(peer.pending))
            update = self._missing(peer.believed, shard)
            if update is None:
                del peer.pending[shard]
                continue
            update_bytes = len(update.data) + _OVERHEAD_BYTES
            if updates and size + update_bytes > self._settings.batch_bytes:
                break
            # Believed from now on: what is lost with a connection is found out with the next one.
            peer.believed[shard] = update.epoch, update.rotation, update.last
            builds_on = NOTHING if update.first == 0 else (update.epoch, update.rotation, update.first)
            peer.sent[shard] = peer.believed[shard], builds_on
            self._counters.updates_sent += 1
            self._counters.update_bytes_sent += update_bytes
            updates.append(update)
            size += update_bytes
        if not updates:
            return []
        self._numbers += 1
        peer.awaited, peer.sent_s = self._numbers, now_s
        return [Send(address, Updates(self._generation, peer.awaited, tuple(updates)))]

    def _missing(self, believed: Mapping[int, Version], shard: int) -> Update | None:
        document = self._catalog.document(shard)
        theirs = believed.get(shard, NOTHING)
        if document is None or self._catalog.version(shard) <= theirs:
            return None
        if theirs[0] != document.epoch:
            return document.missing(-1, 0)
        return document.missing(theirs[1], theirs[2])

    # ------------------------------------------------------------------------------------------------------- receiving

    def take_digest(self, address: str, digest: Digest, now_s: float) -> list[Effect]:
        """What a peer has. It gets what it lacks, and is asked where it has more."""
        peer = self._peers.get(address)
        if peer is None or digest.generation != self._generation:
            return [] if peer is None else [self._refused(address, "it is of another store")]
        first, end = max(0, digest.first), min(digest.end, self._catalog.shards)
        if first >= end:
            return [self._refused(address, "it is of no shards")]
        said = {state.shard: state.version for state in digest.states if first <= state.shard < end}
        if peer.believed is None:
            peer.believed = {}
        for shard in range(first, end):
            peer.believed[shard] = said.get(shard, NOTHING)
        if peer.awaited:
            # It has said this before it got what is on its way; that is in vain where something before it is missing.
            for shard, (version, builds_on) in peer.sent.items():
                if peer.believed.get(shard, NOTHING) >= builds_on:
                    peer.believed[shard] = max(version, peer.believed.get(shard, NOTHING))
        asked_s = peer.asked.pop(digest.answers, None)
        if asked_s is not None:
            # All that was committed before the question was on its way to the answer.
            for state in digest.states:
                self._catalog.claimed(state, asked_s)
        for shard in self._lacking(peer, first, end, now_s):
            peer.pending[shard] = None
        effects: list[Effect] = []
        if digest.number:
            effects.append(Send(address, self._digest(first, end, now_s, answers=digest.number)))
        return effects + self._send_to(address, peer, now_s)

    def _lacking(self, peer: _Peer, first: int, end: int, now_s: float) -> Collection[int]:
        """Which shards of a range a peer is to be sent that has said what it has of them.

        Where everybody is told by who writes, what others write is most likely on its way there: it is sent from here
        only if it has not arrived a while later.
        """
        believed = peer.believed or {}
        newer = self._catalog.newer_than(believed, first, end)
        if len(self._peers) > self._settings.push_all_max:
            return newer
        others = [shard for shard in newer if self._catalog.written_here(shard) is None]
        here = {shard: self._catalog.version(shard) for shard in others}
        since_s, before = peer.lacked.get(first // _RANGE_SHARDS, (now_s, here))
        late: list[int] = []
        if now_s - since_s >= self._settings.relay_after_s:
            late = [shard for shard in others if believed.get(shard, NOTHING) < before.get(shard, NOTHING)]
            since_s, before = now_s, here
        peer.lacked[first // _RANGE_SHARDS] = since_s, before
        return [*(shard for shard in newer if shard not in here), *late]

    def take_heard(self, address: str, heard: Heard, now_s: float) -> list[Effect]:
        """A peer is ready for more."""
        peer = self._peers.get(address)
        if peer is None or peer.awaited != heard.number:
            return []
        peer.awaited = 0
        return self._send_to(address, peer, now_s)

    def take_updates(self, address: str, message: Updates, now_s: float) -> list[Effect]:
        """What a peer has that was lacking here."""
        peer = self._peers.get(address)
        if peer is None or message.generation != self._generation:
            return [] if peer is None else [self._refused(address, "it is of another store")]
        effects: list[Effect] = []
        gap = False
        for update in message.updates:
            gap = self._take(address, peer, update, effects) or gap
        effects.append(Send(address, Heard(message.number)))
        if gap:
            effects += self._questions(address, now_s)
        return effects

    def _take(self, address: str, peer: _Peer, update: Update, effects: list[Effect]) -> bool:
        """Takes one update; returns whether something before it is missing."""
        self._counters.updates_received += 1
        self._counters.update_bytes_received += len(update.data)
        before = self._catalog.version(update.shard)
        try:
            taken = self._catalog.take(update)
        except UpdateRefused as error:
            effects.append(self._refused(address, str(error)))
            return False
        if taken is Refusal.GAP:
            self._counters.gaps += 1
            return True
        if taken is Refusal.UNVERIFIED:
            self._unverified.setdefault(address, {})[update.shard] = update.epoch
            effects.append(AskStore(frozenset([update.shard])))
            return False
        if peer.believed is not None:
            theirs = update.epoch, update.rotation, update.last
            peer.believed[update.shard] = max(theirs, peer.believed.get(update.shard, NOTHING))
        if self._catalog.version(update.shard) > before:
            if len(self._peers) > self._settings.push_all_max:
                self._news[update.shard] = None
            if taken:
                effects.append(Changed(update.shard, taken))
        return False

    def verified(self, epochs: Mapping[int, int], now_s: float, *, shown_since: Collection[int] = ()) -> list[Effect]:
        """The store's epochs of some shards. Whoever has shown an activation that there is is asked for it again.

        ``shown_since``: of these shards somebody has shown an activation after the store was asked, which it may have
        come to know of only then.
        """
        self._catalog.verified(epochs)
        effects: list[Effect] = []
        for address, claims in list(self._unverified.items()):
            read = claims.keys() & epochs.keys()
            true = {shard for shard in read if claims[shard] <= epochs[shard]}
            false = read - true - set(shown_since)
            for shard in true | false:
                del claims[shard]
            if not claims:
                del self._unverified[address]
            if false:
                effects.append(
                    self._refused(address, "it shows an activation of a shard that the store knows nothing of")
                )
            if true:
                effects += self._questions(address, now_s)
        return effects

    def _refused(self, address: str, why: str) -> Refused:
        self._counters.updates_refused += 1
        return Refused(address, why)

"""Anti-entropy over whole villages: what is committed is shown everywhere, soon, and at a bounded cost."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from actorkit.readmodel import documents, update_format
from actorkit.readmodel.anti_entropy import Send
from actorkit.readmodel.documents import Document, Update
from actorkit.readmodel.messages import Digest, Heard, State, Updates
from actorkit.readmodel.settings import ReadModelSettings
from actorkit.readmodel.stamp import encode_value, stamp_of
from tests.readmodel.village import GENERATION, Node, Village


def started(village: Village) -> Village:
    """Each node owns its part of the shards, and all have heard of each other."""
    for shard in range(village.shards):
        village.take_over(shard, village.nodes[shard % len(village.nodes)])
    village.run(3.0)
    return village


def test_a_change_is_shown_by_every_other_of_three_nodes_within_a_flush_and_a_message() -> None:
    village = started(Village(1, nodes=3, shards=16))
    village.publish_s = (0.0, 0.0)
    random = Random(1)
    for number in range(200):
        village.run(random.random() * 0.05)
        village.commit(number % 16, f"pool/availability/p{number % 48}")
        assert village.run(0.05, until=lambda: not village.differences()) < 0.02


@pytest.mark.parametrize("seed", range(1))
def test_a_change_is_shown_by_all_of_fifty_nodes_within_two_seconds(seed: int) -> None:
    village = started(Village(seed, nodes=50, shards=64))
    for number in range(8):
        village.commit(number, f"pool/availability/p{number}")
        assert village.run(2.0, until=lambda: not village.differences()) < 2.0


def test_what_a_node_sends_does_not_grow_with_the_number_of_changes() -> None:
    village = started(Village(2, nodes=3, shards=16))
    village.sent.clear()
    for number in range(20_000):
        village.commit(number % 16, f"pool/availability/p{number % 48}")
        village.run(0.0001)
    village.run(1.0)
    assert not village.differences()
    # Two seconds of changes, flushed every 10 ms by three nodes to two others each.
    assert village.sent[Updates] < 2 * 100 * 3 * 2 * 2


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_lost_repeated_cut_or_fails_over_all_come_to_show_what_is_committed_and_none_ever_goes_back(
    seed: int,
) -> None:
    _trouble(seed)


@pytest.mark.parametrize("seed", range(1_000, 1_020))
def test_documents_that_are_rewritten_all_the_time_and_travel_in_tiny_parts_never_look_newer_than_they_are(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "_REPLACED_MIN", 2)
    monkeypatch.setattr(update_format, "UPDATE_MAX_BYTES", 150)
    _trouble(seed)


def _trouble(seed: int) -> None:
    """Nodes come, go and fail, shards change hands, and messages are lost. What is shown is looked at all the time."""
    village = Village(seed, nodes=4, shards=6, settings=ReadModelSettings(answer_timeout_s=1.0))
    random = Random(seed)
    for shard in range(village.shards):
        village.take_over(shard, village.nodes[shard % 4])
    village.loss, village.repeats, village.breaks = random.random() * 0.1, random.random() * 0.2, random.random() * 0.05
    before: dict[str, dict[str, int]] = {}
    for _ in range(400):
        village.run(random.random() * 0.05)
        _one_trouble(village, random)
        for node in village.living:
            seen = before.setdefault(node.address, {})
            assert all(node.shown[key] >= stamp for key, stamp in seen.items())
            seen.update(node.shown)
            assert not village.lies(node, random.randrange(6))
    village.heal()
    village.run(10.0)
    assert not village.differences()
    assert not any(node.refused for node in village.nodes)


def _one_trouble(village: Village, random: Random) -> None:
    kind = random.random()
    if kind < 0.75:
        shard = random.randrange(6)
        village.commit(shard, f"pool/availability/p{shard}-{random.randrange(2)}")
    elif kind < 0.85:
        village.take_over(random.randrange(6), random.choice(village.living))
    elif kind < 0.9:
        village.blocked ^= {frozenset(node.address for node in random.sample(village.living, 2))}
    elif kind < 0.92 and len(village.living) > 2:
        gone = random.choice(village.living)
        village.crash(gone)
        for shard, owner in list(village.owners.items()):
            if owner is gone:
                village.take_over(shard, random.choice(village.living))
    elif kind < 0.94 and len(village.living) < 6:
        village.join()


def test_an_age_is_small_while_nodes_hear_of_each_other_and_grows_while_they_do_not() -> None:
    village = started(Village(3, nodes=3, shards=6))
    reader = village.nodes[0]
    assert reader.catalog.oldest_s(village.now_s) < 1.5
    for other in village.nodes[1:]:
        village.blocked.add(frozenset((reader.address, other.address)))
    village.run(10.0)
    assert reader.catalog.oldest_s(village.now_s) >= 9.0
    village.heal()
    village.run(2.0)
    assert reader.catalog.oldest_s(village.now_s) < 1.5


def test_a_node_that_joins_gets_everything_though_nothing_changes_any_more() -> None:
    village = started(Village(4, nodes=3, shards=6))
    for number in range(300):
        village.commit(number % 6, f"pool/availability/p{number}")
    village.run(1.0)
    newcomer = village.join()
    village.run(1.0)
    assert not village.differences()
    assert newcomer.catalog.uncovered == 0
    assert newcomer.catalog.oldest_s(village.now_s) < 1.5


@pytest.mark.parametrize("delay_s", [0.001, 0.008, 0.02, 0.05])
def test_a_busy_shard_that_changes_hands_is_seen_however_long_messages_take(delay_s: float) -> None:
    """Its first update comes before the activation is known, and the next ones, which build on it, while it is asked
    for again."""
    village = started(Village(12, nodes=3, shards=2))
    village.delay_s, village.publish_s, village.adopt_s = (delay_s, 1.1 * delay_s), (0.0, 0.0), (0.01, 0.02)
    keys = [f"pool/availability/p{number}" for number in range(500)]
    for key in keys:
        village.commit(0, key)
    village.run(2.0)
    taking = next(node for node in village.nodes if village.owners[0] is not node)
    village.take_over(0, taking)
    for number in range(400):
        village.commit(0, keys[number])
        village.run(0.002)
    early = dict(village.committed[0].items())
    for number in range(100):
        village.commit(0, keys[400 + number])
        village.run(0.002)
    assert all(node.shown[key] >= early[key] for node in village.nodes for key in keys[:400])
    assert sum(node.counters.gaps for node in village.nodes) <= 4


def test_large_documents_travel_in_parts() -> None:
    village = Village(5, nodes=2, shards=1, settings=ReadModelSettings(batch_bytes=4096))
    village.take_over(0, village.nodes[0])
    village.run(1.0)
    for number in range(2000):
        village.commit(0, f"pool/availability/p{number}")
    village.run(3.0)
    assert not village.differences()
    village.join()
    village.run(3.0)
    assert not village.differences()


def test_more_shards_than_fit_into_a_digest_are_compared_in_parts() -> None:
    village = Village(11, nodes=2, shards=8_200)
    village.adopt_s = (0.0, 0.0)
    for shard in range(village.shards):
        village.take_over(shard, village.nodes[shard % 2])
    village.run(1.5)
    for shard in (0, 8191, 8192, 8199):
        village.commit(shard, f"pool/availability/p{shard}")
    village.run(1.0)
    assert not village.differences()
    for node in village.nodes:
        assert node.catalog.uncovered == 0
        assert node.catalog.oldest_s(village.now_s) < 1.0


# ------------------------------------------------------------------------------------------------------------- flow


def one_and_its_peer() -> tuple[Node, int]:
    """A node that owns the only shard, and the number of what it has sent to a peer that is not really there."""
    village = Village(6, nodes=1, shards=1)
    node = village.nodes[0]
    village.take_over(0, node)
    village.run(1.0)
    node.core.peers_are(["peer"], 0.0)
    (effect,) = node.core.take_digest("peer", Digest(GENERATION, 0, 1, ()), 0.0)
    assert isinstance(effect, Send)
    assert isinstance(effect.message, Updates)
    return node, effect.message.number


def test_one_message_is_on_its_way_to_a_peer_at_a_time_and_what_waits_for_it_is_no_more_than_the_shards() -> None:
    node, number = one_and_its_peer()
    document = node.catalog.written_here(0)
    assert document is not None
    for sequence in range(1, 1000):
        document.put({"a/b/c": encode_value(stamp_of(sequence, 1), b"")})
        node.core.changed(0)
        assert node.core.flush(1.0) == []
    effects = node.core.take_heard("peer", Heard(number), 1.0)
    assert len(effects) == 1
    assert node.core.take_heard("peer", Heard(12345), 1.0) == []


def test_a_peer_that_does_not_answer_is_asked_what_it_has_after_a_time() -> None:
    node, _ = one_and_its_peer()
    document = node.catalog.written_here(0)
    assert document is not None
    document.put({"a/b/c": encode_value(stamp_of(1, 1), b"")})
    node.core.changed(0)
    assert node.core.flush(1.0) == []
    node.core.round(100.0)
    effects = node.core.take_digest("peer", Digest(GENERATION, 0, 1, ()), 100.0)
    assert any(isinstance(effect, Send) and isinstance(effect.message, Updates) for effect in effects)


# ---------------------------------------------------------------------------------------------------------- hostility


def hostile(update: Update) -> Updates:
    return Updates(GENERATION, 1, (update,))


def update_of(shard: int, epoch: int, sequence: int = 1) -> Update:
    document = Document(shard, epoch, {"a/b/c": encode_value(stamp_of(sequence, 1), b"")}, position=0)
    update = document.missing(0, 0)
    assert update is not None
    return update


def test_an_activation_that_the_store_knows_nothing_of_is_refused() -> None:
    village = started(Village(7, nodes=2, shards=2))
    node, peer = village.nodes
    for _ in range(3):
        node.do(node.core.take_updates(peer.address, hostile(update_of(0, 99)), village.now_s))
        village.run(0.5)
    assert "a/b/c" not in node.shown
    assert node.refused == ["it shows an activation of a shard that the store knows nothing of"] * 3
    village.commit(1, "pool/availability/p")
    village.run(1.0)
    assert not village.differences()


def test_nobody_is_accused_by_what_the_store_had_said_before() -> None:
    """The store is being asked when the first update of a new activation arrives."""
    village = started(Village(7, nodes=2, shards=2))
    node, peer = village.nodes
    epoch = village.epochs[0] + 1
    node.core.take_updates(peer.address, hostile(update_of(0, epoch)), village.now_s)
    assert node.core.verified(village.epochs, village.now_s, shown_since={0}) == []
    effects = node.core.verified({0: epoch}, village.now_s)
    assert [type(effect.message) for effect in effects if isinstance(effect, Send)] == [Digest]
    assert node.counters.updates_refused == 0


def test_what_is_damaged_or_of_another_store_or_shard_is_refused_and_counted() -> None:
    village = started(Village(8, nodes=2, shards=2))
    node, peer = village.nodes
    good = update_of(1, 1, sequence=7)
    for bad in (
        msgspec.structs.replace(good, data=good.data[:-1]),
        msgspec.structs.replace(good, data=b"\xff" * 50),
        msgspec.structs.replace(good, rotation=good.rotation + 1),
        msgspec.structs.replace(good, shard=2),
        msgspec.structs.replace(good, shard=-1),
        msgspec.structs.replace(good, last=good.last + 1),
    ):
        refused = node.counters.updates_refused
        node.do(node.core.take_updates(peer.address, hostile(bad), village.now_s))
        assert node.counters.updates_refused > refused or node.counters.gaps
        assert "a/b/c" not in node.shown
    refused = node.counters.updates_refused
    other_store = Updates(GENERATION + 1, 1, (good,))
    node.do(node.core.take_updates(peer.address, other_store, village.now_s))
    node.do(node.core.take_digest(peer.address, Digest(GENERATION + 1, 0, 2, ()), village.now_s))
    assert node.counters.updates_refused == refused + 2


def test_whatever_ranges_a_peer_names_nothing_grows() -> None:
    village = started(Village(11, nodes=2, shards=8))
    node, peer = village.nodes

    def remembered() -> int:
        return sum(len(known.lacked) for known in node.core._peers.values())

    before = remembered()
    for first in (*range(-2, 9), 2**31, 2**53, 2**63 - 1):
        for end in (-1, 1, 8, 9, 2**63 - 1):
            node.do(node.core.take_digest(peer.address, Digest(GENERATION, first, end, (), number=1), village.now_s))
    assert remembered() == before == 1
    village.commit(0, "pool/availability/p")
    village.run(1.0)
    assert not village.differences()


def test_nobody_else_writes_the_documents_of_this_node() -> None:
    village = started(Village(9, nodes=2, shards=2))
    node, peer = village.nodes
    document = node.catalog.written_here(0)
    assert document is not None
    forged = Document(0, document.epoch, {"a/b/c": encode_value(stamp_of(5, 1), b"")}, position=99)
    for sequence in range(6, 200):
        forged.put({"a/b/c": encode_value(stamp_of(sequence, 1), b"")})
    update = forged.missing(0, 0)
    assert update is not None
    node.do(node.core.take_updates(peer.address, hostile(update), village.now_s))
    assert node.catalog.written_here(0) is document
    assert "a/b/c" not in node.shown


def test_strangers_are_not_listened_to() -> None:
    village = started(Village(10, nodes=2, shards=2))
    node = village.nodes[0]
    states = (State(0, 9, 9, 9, 0),)
    assert node.core.take_digest("stranger", Digest(GENERATION, 0, 2, states, number=1), village.now_s) == []
    assert node.core.take_updates("stranger", hostile(update_of(1, 1)), village.now_s) == []

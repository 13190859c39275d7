"""Ids, times, tokens, requests and questions to the read model: pure functions of their input."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorkit.gateway.bodies import BodyDecoder
from actorkit.gateway.problems import Problem
from actorkit.readmodel import View
from actorkit.readmodel.lww_map import LwwMap
from examples.capacity_service.answers import PoolView
from examples.capacity_service.entity import Pool
from examples.capacity_service.ids import ID_WORDS, RESERVATION_WORDS, full_id, is_id, made_part, split_full_id
from examples.capacity_service.requests import AvailabilityRequest, PoolRequest, ReleaseRequest, ReserveRequest
from examples.capacity_service.times import TIME_WORDS, from_us, parse_time, to_us
from examples.capacity_service.tokens import Token, TokenError, decode_token, encode_token
from examples.capacity_service.views import Filter

ALPHABET = "ABCXYZabcxyz0189._:-"
pool_ids = st.text(ALPHABET, min_size=1, max_size=128).filter(lambda text: text not in (".", ".."))
parts = st.text(ALPHABET + "~", min_size=1, max_size=129)

# --------------------------------------------------------------------------------------------------------------- ids


@given(st.text(ALPHABET + "~/ é\n", max_size=4) | pool_ids)
def test_an_id_is_what_the_contract_says(text: str) -> None:
    by_the_contract = 1 <= len(text) <= 128 and set(text) <= set(ALPHABET) and text not in (".", "..")
    assert is_id(text) == by_the_contract


@pytest.mark.parametrize("length", [1, 2, 3, 127, 128, 129])
@pytest.mark.parametrize("dots", [0, 1, 2, 3, 4])
def test_lengths_of_ids_whatever_they_begin_with(length: int, dots: int) -> None:
    text = ("." * dots + "a" * 200)[:length]
    assert is_id(text) == (length <= 128 and text not in (".", ".."))
    assert (split_full_id(text + "~x") is not None) == is_id(text)


@given(pool_ids, parts)
def test_a_full_id_leads_back_to_its_pool(pool_id: str, part: str) -> None:
    assert split_full_id(full_id(pool_id, part)) == (pool_id, part)
    assert split_full_id(full_id(pool_id, made_part("0af3"))) == (pool_id, "~0af3")


@pytest.mark.parametrize("text", ["", "~", "p", "p~", "~a", ".~a", "..~a", "p~a/b", "p~a\n", "p~" + "a" * 130, "p q~a"])
def test_what_is_no_full_id(text: str) -> None:
    assert split_full_id(text) is None


# ------------------------------------------------------------------------------------------------------------- times


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T12:00:00.5Z", datetime(2026, 1, 31, 12, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-01-31T12:00:00.000001Z", datetime(2026, 1, 31, 12, 0, 0, 1, tzinfo=UTC)),
        ("2024-02-29T23:59:59Z", datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_times(text: str, expected: datetime) -> None:
    assert parse_time(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31",
        "2026-01-31T12:00:00",
        "2026-01-31T12:00Z",
        "2026-01-31T12:00:00+00:00",
        "2026-01-31T12:00:00z",
        "2026-01-31t12:00:00Z",
        "2026-01-31 12:00:00Z",
        "2026-01-31T12:00:00.1234567Z",
        "2026-01-31T12:00:00.Z",
        "2026-01-31T12:00:00,5Z",
        "2026-01-31T24:00:00Z",
        "2026-01-31T23:59:60Z",
        "2026-02-30T12:00:00Z",
        "2023-02-29T12:00:00Z",
        "0000-01-01T00:00:00Z",
        "20260131T120000Z",
        "2026-01-31T12:00:00Z\n",
        " 2026-01-31T12:00:00Z",
        "٢٠٢٦-01-31T12:00:00Z",
    ],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_time(text)


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_time_survives_its_text_and_its_microseconds(moment: datetime) -> None:
    assert parse_time(moment.isoformat().replace("+00:00", "Z")) == moment
    assert from_us(to_us(moment)) == moment
    encoded = msgspec.json.decode(msgspec.json.encode(moment))
    assert parse_time(encoded) == moment


# ------------------------------------------------------------------------------------------------------------ tokens


@given(pool_ids, st.integers(0, 2**63 - 1))
def test_a_token_says_which_write_it_stands_for(pool_id: str, version: int) -> None:
    token = encode_token(pool_id, version)
    assert len(token) <= 1024
    assert decode_token(token) == Token(pool_id, version)


@given(pool_ids, st.integers(0, 2**63 - 1), st.data())
def test_a_damaged_token_is_noticed(pool_id: str, version: int, data: st.DataObject) -> None:
    token = encode_token(pool_id, version)
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from("ABCxyz019-_").filter(lambda c: c != token[at]))
    for damaged in (token[:at] + other + token[at + 1 :], token[:at], token + "A", token + "="):
        with pytest.raises(TokenError):
            decode_token(damaged)


@given(st.text(max_size=50) | st.text(ALPHABET, max_size=1100))
def test_what_is_no_token(text: str) -> None:
    with pytest.raises(TokenError):
        decode_token(text)


# ---------------------------------------------------------------------------------------------------------- requests


def check(type: type[msgspec.Struct], text: str) -> Any:
    return BodyDecoder(type).decode(text.encode())


DAY_WORDS = "the time of a day that exists"
LABELS_32 = ",".join(f'"l{n}":"x"' for n in range(32))


@pytest.mark.parametrize(
    ("type", "text"),
    [
        (PoolRequest, '{"pool_id":"p"}'),
        (PoolRequest, '{"pool_id":"p","capacity":0}'),
        (PoolRequest, '{"pool_id":"p","capacity":1000000000}'),
        (PoolRequest, '{"pool_id":"p","region":null,"starts_at":null,"ends_at":null,"labels":null}'),
        (PoolRequest, '{"pool_id":"p","region":"' + "é" * 256 + '"}'),
        (PoolRequest, '{"pool_id":"p","labels":{' + LABELS_32 + "}}"),
        (PoolRequest, '{"pool_id":"p","labels":{}}'),
        (PoolRequest, '{"pool_id":"p","starts_at":"2026-01-01T00:00:00Z","ends_at":"2026-01-01T00:00:00.000001Z"}'),
        (ReserveRequest, '{"pool_id":"p"}'),
        (ReserveRequest, '{"pool_id":"p","quantity":1000000,"reservation_id":"order:1"}'),
        (ReleaseRequest, '{"reservation_id":"p~~0a"}'),
        (ReleaseRequest, '{"reservation_id":"p~order:1","quantity":1}'),
        (AvailabilityRequest, "{}"),
        (AvailabilityRequest, '{"pool_ids":[],"labels":{},"limit":1}'),
        (AvailabilityRequest, '{"pool_ids":["a","a"],"region":"r","limit":10000,"min_remaining":0}'),
    ],
)
def test_what_a_body_may_be(type: type[msgspec.Struct], text: str) -> None:
    check(type, text)


@pytest.mark.parametrize(
    ("type", "text"),
    [
        (PoolRequest, ""),
        (PoolRequest, "{"),
        (PoolRequest, "[]"),
        (PoolRequest, "null"),
        (PoolRequest, '{"capacity":1}'),
        (PoolRequest, '{"pool_id":"p"} {}'),
        (PoolRequest, '{"pool_id":null,"capacity":1}'),
        (PoolRequest, '{"pool_id":1,"capacity":1}'),
        (PoolRequest, '{"pool_id":"","capacity":1}'),
        (PoolRequest, '{"pool_id":".","capacity":1}'),
        (PoolRequest, '{"pool_id":"..","capacity":1}'),
        (PoolRequest, '{"pool_id":"a~b","capacity":1}'),
        (PoolRequest, '{"pool_id":"a\\n","capacity":1}'),
        (PoolRequest, '{"pool_id":"' + "a" * 129 + '","capacity":1}'),
        (PoolRequest, '{"pool_id":"p","capacity":-1}'),
        (PoolRequest, '{"pool_id":"p","capacity":1000000001}'),
        (PoolRequest, '{"pool_id":"p","capacity":1.0}'),
        (PoolRequest, '{"pool_id":"p","capacity":1e3}'),
        (PoolRequest, '{"pool_id":"p","capacity":"1"}'),
        (PoolRequest, '{"pool_id":"p","capacity":true}'),
        (PoolRequest, '{"pool_id":"p","capacity":null}'),
        (PoolRequest, '{"pool_id":"p","capacity":1' + "0" * 5000 + "}"),
        (PoolRequest, '{"pool_id":"p","Capacity":1}'),
        (PoolRequest, '{"pool_id":"p","capacity":1,"capacity":2}'),
        (PoolRequest, '{"pool_id":"p","capacity":1,"color":"red"}'),
        (PoolRequest, '{"pool_id":"p","region":""}'),
        (PoolRequest, '{"pool_id":"p","region":"' + "x" * 257 + '"}'),
        (PoolRequest, '{"pool_id":"p","region":"\\ud800"}'),
        (PoolRequest, '{"pool_id":"p","starts_at":"2026-01-01"}'),
        (PoolRequest, '{"pool_id":"p","starts_at":"2026-02-30T00:00:00Z"}'),
        (PoolRequest, '{"pool_id":"p","ends_at":"2026-01-01T00:00:00+00:00"}'),
        (PoolRequest, '{"pool_id":"p","ends_at":1767225600}'),
        (PoolRequest, '{"pool_id":"p","starts_at":"2026-01-01T00:00:00Z","ends_at":"2026-01-01T00:00:00Z"}'),
        (PoolRequest, '{"pool_id":"p","labels":{"a":1}}'),
        (PoolRequest, '{"pool_id":"p","labels":{"a":null}}'),
        (PoolRequest, '{"pool_id":"p","labels":{"a":""}}'),
        (PoolRequest, '{"pool_id":"p","labels":{"a b":"c"}}'),
        (PoolRequest, '{"pool_id":"p","labels":{"":"c"}}'),
        (PoolRequest, '{"pool_id":"p","labels":[]}'),
        (PoolRequest, '{"pool_id":"p","labels":{' + LABELS_32 + ',"l32":"x"}}'),
        (ReserveRequest, '{"pool_id":"p","quantity":0}'),
        (ReserveRequest, '{"pool_id":"p","quantity":1000001}'),
        (ReserveRequest, '{"pool_id":"p","quantity":null}'),
        (ReserveRequest, '{"pool_id":"p","quantity":NaN}'),
        (ReserveRequest, '{"pool_id":"p","reservation_id":null}'),
        (ReserveRequest, '{"pool_id":"p","reservation_id":"p~a"}'),
        (ReserveRequest, '{"pool_id":"p","reservation_id":".."}'),
        (ReleaseRequest, "{}"),
        (ReleaseRequest, '{"reservation_id":"p"}'),
        (ReleaseRequest, '{"reservation_id":"p~"}'),
        (ReleaseRequest, '{"reservation_id":"..~a"}'),
        (ReleaseRequest, '{"reservation_id":"p~a","quantity":null}'),
        (ReleaseRequest, '{"reservation_id":"p~a","quantity":0}'),
        (AvailabilityRequest, '{"limit":0}'),
        (AvailabilityRequest, '{"limit":10001}'),
        (AvailabilityRequest, '{"limit":null}'),
        (AvailabilityRequest, '{"min_remaining":-1}'),
        (AvailabilityRequest, '{"pool_ids":"p"}'),
        (AvailabilityRequest, '{"pool_ids":["a~b"]}'),
        (AvailabilityRequest, '{"region":null}'),
        (AvailabilityRequest, '{"starts_before":"2026-13-01T00:00:00Z"}'),
        (AvailabilityRequest, '{"ends_after":"2026-02-30T00:00:00Z"}'),
        (AvailabilityRequest, '{"labels":null}'),
        (AvailabilityRequest, '{"x":' + "[" * 30_000 + "}"),
    ],
)
def test_what_a_body_may_not_be(type: type[msgspec.Struct], text: str) -> None:
    with pytest.raises(Problem) as raised:
        check(type, text)
    assert raised.value.type.name == "invalid-request"
    assert raised.value.body()


@pytest.mark.parametrize(
    ("type", "text", "words"),
    [
        (PoolRequest, '{"pool_id":"a b"}', f"expected {ID_WORDS} - at `$.pool_id`"),
        (PoolRequest, '{"pool_id":"p","labels":{"a b":"c"}}', f"expected {ID_WORDS} - at `key` in `$.labels`"),
        (PoolRequest, '{"pool_id":"p","starts_at":"tomorrow"}', f"expected {TIME_WORDS} - at `$.starts_at`"),
        (ReserveRequest, '{"pool_id":"p","reservation_id":"a~b"}', f"expected {ID_WORDS} - at `$.reservation_id`"),
        (ReleaseRequest, '{"reservation_id":"pool"}', f"expected {RESERVATION_WORDS} - at `$.reservation_id`"),
        (AvailabilityRequest, '{"pool_ids":["a","b c"]}', f"expected {ID_WORDS} - at `$.pool_ids[1]`"),
        (AvailabilityRequest, '{"starts_before":"now"}', f"expected {TIME_WORDS} - at `$.starts_before`"),
        (AvailabilityRequest, '{"ends_after":"2026-02-30T00:00:00Z"}', f"ends_after: expected {DAY_WORDS}"),
        (PoolRequest, '{"pool_id":"p","starts_at":"2026-02-30T00:00:00Z"}', f"starts_at: expected {DAY_WORDS}"),
    ],
)
def test_what_is_expected_of_ids_and_times_is_said_in_words(type: type[msgspec.Struct], text: str, words: str) -> None:
    with pytest.raises(Problem) as raised:
        check(type, text)
    assert raised.value.detail == f"the body is not as it must be: {words}"


def test_bytes_that_are_no_utf8_are_invalid() -> None:
    for body in (b'{"pool_id":"\xff"}', b"\xef\xbb\xbf{}", b"\x00"):
        with pytest.raises(Problem):
            BodyDecoder(PoolRequest).decode(body)


def test_equal_bodies_are_equal_changes_in_whatever_way_they_are_written() -> None:
    one = check(PoolRequest, '{"pool_id":"p","labels":{"a":"1","b":"2"},"starts_at":"2026-01-01T00:00:00Z"}')
    other = check(PoolRequest, '{"starts_at":"2026-01-01T00:00:00.000Z","labels":{"b":"2","a":"1"},"pool_id":"p"}')
    assert msgspec.msgpack.encode(one.change()) == msgspec.msgpack.encode(other.change())
    absent, null = check(PoolRequest, '{"pool_id":"p"}'), check(PoolRequest, '{"pool_id":"p","region":null}')
    assert absent.change() != null.change()


# ------------------------------------------------------------------------------------------------------ availability


T = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def view(pool_id: str, remaining: int = 1, **attributes: Any) -> PoolView:
    defaults: dict[str, Any] = {"region": None, "starts_at": None, "ends_at": None, "labels": {}}
    return PoolView(pool_id, capacity=remaining, remaining=remaining, version=1, **{**defaults, **attributes})


def found(wanted: Filter, *pools: PoolView, limit: int | None = None) -> tuple[list[str], bool]:
    values: LwwMap[PoolView] = LwwMap(indexed=Pool.availability.indexed)
    for pool in pools:
        values.publish(pool.pool_id, 1, pool)
    entries, truncated = View(values).find(ids=wanted.pool_ids, limit=limit, **wanted.question())
    return list(entries), truncated


@pytest.mark.parametrize(
    ("wanted", "pool", "matches"),
    [
        (Filter(), view("p", 0), True),
        (Filter(min_remaining=1), view("p", 0), False),
        (Filter(min_remaining=1), view("p", 1), True),
        (Filter(region="a"), view("p"), False),
        (Filter(region="a"), view("p", region="b"), False),
        (Filter(region="a"), view("p", region="a"), True),
        (Filter(starts_before=T), view("p"), False),
        (Filter(starts_before=T), view("p", starts_at=T), False),
        (Filter(starts_before=T), view("p", starts_at=T - HOUR), True),
        (Filter(ends_after=T), view("p"), False),
        (Filter(ends_after=T), view("p", ends_at=T), False),
        (Filter(ends_after=T), view("p", ends_at=T + HOUR), True),
        (Filter(labels=(("a", "1"),)), view("p"), False),
        (Filter(labels=(("a", "1"),)), view("p", labels={"a": "1", "b": "2"}), True),
        (Filter(labels=(("a", "1"), ("b", "3"))), view("p", labels={"a": "1", "b": "2"}), False),
        (Filter(region="a", min_remaining=2), view("p", 1, region="a"), False),
    ],
)
def test_filters_are_anded_and_strict(wanted: Filter, pool: PoolView, matches: bool) -> None:
    assert found(wanted, pool) == ([pool.pool_id] if matches else [], False)


def test_pools_come_in_the_order_of_their_ids_up_to_the_limit() -> None:
    pools, wanted = (view("b"), view("a"), view("c", 0), view("d")), Filter(min_remaining=1)
    assert found(wanted, *pools, limit=2) == (["a", "b"], True)
    assert found(wanted, *pools, limit=3) == (["a", "b", "d"], False)
    assert found(wanted, *pools, limit=4) == (["a", "b", "d"], False)


def test_unknown_ids_are_omitted() -> None:
    assert found(Filter(pool_ids=frozenset({"a", "b"})), view("a"), limit=1) == (["a"], False)


def test_a_question_about_300_pools_takes_well_below_a_millisecond() -> None:
    values: LwwMap[PoolView] = LwwMap(indexed=Pool.availability.indexed)
    for number in range(300):
        values.publish(
            f"p{number:03}", 1, view(f"p{number:03}", number % 7, region=f"r{number % 3}", labels={"kind": "x"})
        )
    shown = View(values)
    wanted = Filter(region="r1", min_remaining=1, labels=(("kind", "x"),))

    def once() -> float:
        started = time.perf_counter()
        shown.find(limit=1000, **wanted.question())
        return time.perf_counter() - started

    # The best of many: what the machine does besides is not the question.
    assert min(once() for _ in range(50)) < 0.0005

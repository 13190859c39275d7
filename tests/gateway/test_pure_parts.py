"""Problems, routes, inputs, metrics: what needs no socket."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorkit.errors import (
    CallCycle,
    HandlerFailed,
    IdempotencyKeyReused,
    JournalUnavailable,
    OutcomeUnknown,
    Overloaded,
    RecoveryFailed,
    Rejected,
    Unavailable,
)
from actorkit.gateway.inputs import BearerTokens, check_json_content_type, parse_idempotency_key, single
from actorkit.gateway.metrics import BOUNDS_S, Metrics, Reading
from actorkit.gateway.problems import INVALID_REQUEST, OVERLOADED, STANDARD, Problem, ProblemType, problem_of
from actorkit.gateway.routes import Router, parse_query

# ---------------------------------------------------------------------------------------------------------- problems

SOLD_OUT = ProblemType("sold-out", 409, "Nothing is left", members=("remaining",))


class SoldOut(Rejected, code="gateway-test-sold-out"):
    """A refusal of these tests."""


class Busy(Rejected, code="gateway-test-busy", remembered=False):
    """A refusal that is no business of the caller's."""


REFUSALS = {"gateway-test-sold-out": SOLD_OUT, "gateway-test-busy": OVERLOADED}


@pytest.mark.parametrize(
    ("error", "status", "name", "retryable"),
    [
        (SoldOut("no"), 409, "sold-out", False),
        (Rejected("no"), 409, "rejected", False),
        (Busy("full"), 429, "overloaded", True),
        (IdempotencyKeyReused("no"), 422, "idempotency-key-reused", False),
        (Overloaded("the mailbox", limit=3, retry_after_s=0.2), 429, "overloaded", True),
        (Unavailable("pool/a", "nobody"), 503, "unavailable", True),
        (JournalUnavailable("locked"), 503, "unavailable", True),
        (HandlerFailed("pool/a", "ValueError"), 500, "internal-error", False),
        (RecoveryFailed("pool/a", "corrupt"), 500, "internal-error", False),
        (CallCycle("pool/a", "a cycle"), 500, "internal-error", False),
        (OutcomeUnknown("pool/a", "late"), 504, "outcome-unknown", False),
        (ValueError("secret"), 500, "internal-error", False),
        (Problem(INVALID_REQUEST, "no"), 400, "invalid-request", False),
    ],
)
def test_every_error_is_a_problem(error: Exception, status: int, name: str, retryable: bool) -> None:
    problem = problem_of(error, refusals=REFUSALS, keyed=False)
    body = msgspec.json.decode(problem.body())
    assert body["type"].rsplit("/", 1)[-1] == name
    assert (body["status"], body["retryable"]) == (status, retryable)
    assert body["title"]
    assert body["detail"]
    assert "secret" not in str(body)


def test_an_unknown_outcome_may_be_retried_only_with_a_key() -> None:
    error = OutcomeUnknown("pool/a", "late")
    assert problem_of(error, refusals={}, keyed=True).retryable
    assert not problem_of(error, refusals={}, keyed=False).retryable


def test_a_refusal_shows_the_details_that_its_type_names() -> None:
    problem = problem_of(SoldOut("no", remaining=2, secret=3), refusals=REFUSALS, keyed=False, headers={"X-A": "b"})
    body = msgspec.json.decode(problem.body())
    assert body["remaining"] == 2
    assert "secret" not in body
    assert problem.headers == {"X-A": "b"}


@pytest.mark.parametrize("error", [Overloaded("it", limit=1, retry_after_s=2.5), Overloaded("it", limit=1), Busy("x")])
def test_overload_says_when_to_come_back(error: Exception) -> None:
    headers = problem_of(error, refusals=REFUSALS, keyed=False).headers
    assert int(headers["Retry-After"]) >= getattr(error, "retry_after_s", 1.0)


def test_names_of_problems_are_unique() -> None:
    assert len({type.name for type in STANDARD}) == len(STANDARD)


# ------------------------------------------------------------------------------------------------------------ routes


def router() -> Router[str]:
    routes: Router[str] = Router()
    routes.add("POST", "/rpc/pools", "create")
    routes.add("GET", "/rpc/pools/{pool_id}", "get")
    routes.add("GET", "/health/live", "live")
    return routes


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("POST", "/rpc/pools", ("create", "")),
        ("GET", "/rpc/pools/a", ("get", "a")),
        ("GET", "/rpc/pools/a%7Eb%C3%A9", ("get", "a~bé")),
        ("GET", "/rpc/pools/a%2Fb", ("get", "a/b")),
        ("GET", "/rpc/pools/a+b", ("get", "a+b")),
        ("GET", "/rpc/pools/a%zz", ("get", "a%zz")),
    ],
)
def test_found(method: str, path: str, found: tuple[str, str]) -> None:
    assert router().find(method, path) == found


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/", "not-found"),
        ("GET", "", "not-found"),
        ("GET", "*", "not-found"),
        ("GET", "/rpc/pools/", "not-found"),
        ("POST", "/rpc/pools/", "not-found"),
        ("GET", "/rpc/pools/a/b", "not-found"),
        ("GET", "//rpc/pools/a", "not-found"),
        ("GET", "/RPC/pools/a", "not-found"),
        ("GET", "/rpc/pools", "method-not-allowed"),
        ("HEAD", "/rpc/pools/a", "method-not-allowed"),
        ("OPTIONS", "/health/live", "method-not-allowed"),
        ("get", "/health/live", "method-not-allowed"),
        ("GET", "/rpc/pools/%ff", "invalid-request"),
        ("GET", "/rpc/pools/\udcff%20", "invalid-request"),
    ],
)
def test_not_found(method: str, path: str, name: str) -> None:
    with pytest.raises(Problem) as raised:
        router().find(method, path)
    assert raised.value.type.name == name
    if name == "method-not-allowed":
        assert raised.value.headers["Allow"] in ("POST", "GET")


def test_one_handler_for_a_method_of_a_path() -> None:
    with pytest.raises(ValueError, match="already"):
        router().add("GET", "/health/live", "again")


NAMES = frozenset({"at_version", "at_time"})


def test_queries() -> None:
    assert parse_query("", NAMES) == {}
    assert parse_query("at_version=1&at_time=2026%3A+x", NAMES) == {"at_version": "1", "at_time": "2026: x"}
    assert parse_query("at_version", NAMES) == {"at_version": ""}


@pytest.mark.parametrize(
    "raw", ["x=1", "at_version=1&at_version=1", "&", "at_version=1&", "=", "AT_VERSION=1", "%ff=1"]
)
def test_queries_that_are_not_as_they_must_be(raw: str) -> None:
    with pytest.raises(Problem) as raised:
        parse_query(raw, NAMES)
    assert raised.value.type is INVALID_REQUEST


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_target_is_too_odd_to_be_answered(path: str, query: str) -> None:
    for attempt in (lambda: router().find("GET", path), lambda: parse_query(query, NAMES)):
        with suppress(Problem):
            attempt()


# ------------------------------------------------------------------------------------------------------------ inputs


@pytest.mark.parametrize(
    "value",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "application/json ;",
    ],
)
def test_json_content_types(value: str) -> None:
    check_json_content_type([value])


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        ["text/plain"],
        ["text/json"],
        ["application/jsonx"],
        ["application/x-www-form-urlencoded"],
        ["application/json; charset=latin-1"],
        ["application/json, application/json"],
    ],
)
def test_other_content_types(values: list[str]) -> None:
    with pytest.raises(Problem) as raised:
        check_json_content_type(values)
    assert raised.value.type.name == "unsupported-media-type"


@pytest.mark.parametrize("key", ["k", "a b", "~" * 128, "!", "a/b?c"])
def test_idempotency_keys(key: str) -> None:
    assert parse_idempotency_key([key]) == key


def test_no_idempotency_key() -> None:
    assert parse_idempotency_key([]) is None


@pytest.mark.parametrize("values", [[""], ["x" * 129], ["é"], ["a\tb"], ["a\x7f"], ["a", "a"], ["\udcff"]])
def test_idempotency_keys_that_are_none(values: list[str]) -> None:
    with pytest.raises(Problem) as raised:
        parse_idempotency_key(values)
    assert raised.value.type is INVALID_REQUEST


def test_a_header_that_is_there_twice() -> None:
    assert single("X", ["a"]) == "a"
    with pytest.raises(Problem):
        single("X", ["a", "b"])


def test_tokens_of_a_file() -> None:
    tokens = BearerTokens.parse("# ours\n\n  abc.DEF-1~+/==  \r\nother\n")
    tokens.check(["Bearer abc.DEF-1~+/=="])
    tokens.check(["bearer  other"])
    wrong = [[], [""], ["Bearer"], ["Bearer "], ["Basic other"], ["Bearer othe"], ["Bearer other", "Bearer other"]]
    for values in [*wrong, ["Bearer é"], ["Bearer \udcff"], ["Bearer # ours"]]:
        with pytest.raises(Problem) as raised:
            tokens.check(values)
        assert raised.value.type.name == "unauthenticated"
        assert raised.value.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("text", ["", "# nothing\n", "two words\n", "é\n"])
def test_token_files_that_are_of_no_use(text: str) -> None:
    with pytest.raises(ValueError, match="token"):
        BearerTokens.parse(text)


# ----------------------------------------------------------------------------------------------------------- metrics


def test_requests_are_counted_by_how_they_ended_and_how_long_they_took() -> None:
    metrics = Metrics(in_progress=lambda: 3)
    count = metrics.route("POST", "/rpc/reserve").count
    count(200, "", 0.0005)
    count(200, "", 0.003)
    count(409, "sold-out", 100.0)
    metrics.readings.append(Reading("commits", "Commits.", "counter", lambda: 7.0))
    text = metrics.text()[0].decode()
    same = 'method="POST",route="/rpc/reserve"'
    assert f'http_requests_total{{{same},status="200",problem=""}} 2.0' in text.replace(
        'method="POST",problem="",route="/rpc/reserve",status="200"', f'{same},status="200",problem=""'
    )
    assert f'http_request_duration_seconds_bucket{{le="0.001",{same}}} 1.0' in text
    assert f'http_request_duration_seconds_bucket{{le="5.0",{same}}} 2.0' in text
    assert f'http_request_duration_seconds_bucket{{le="+Inf",{same}}} 3.0' in text
    assert "http_requests_in_progress 3.0" in text
    assert "commits_total 7.0" in text


def test_bounds_are_ascending() -> None:
    assert list(BOUNDS_S) == sorted(set(BOUNDS_S))

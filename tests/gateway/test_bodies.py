"""Bodies: what is wrong with one is said in words, and no member is given twice."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorkit.gateway.bodies import BodyDecoder
from actorkit.gateway.problems import Problem


class Part(msgspec.Struct, forbid_unknown_fields=True):
    """Something within a body."""

    code: Annotated[str, msgspec.Meta(pattern="^[a-z]+$", description="lower-case letters")] = "a"
    parts: list[Part] = []


class Body(msgspec.Struct, forbid_unknown_fields=True):
    """A body with every kind of member."""

    name: str = ""
    plain: Annotated[str, msgspec.Meta(pattern="^[0-9]+$")] = "0"
    part: Part | None = None
    labels: dict[str, str] = {}
    anything: Any = None


decode = BodyDecoder(Body).decode


def detail(body: bytes) -> str:
    with pytest.raises(Problem) as raised:
        decode(body)
    assert raised.value.type.name == "invalid-request"
    return raised.value.detail.removeprefix("the body is not as it must be: ")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "it is empty, not JSON"),
        (b"  ", "it is empty, not JSON"),
        (b'{"name":"a', "its JSON ends too early"),
        (b'{"name":"\\ud83d"}', "\\ud83d is half of a surrogate pair, which is no character without its other half"),
        (b'{"name":"\\ud83d and more"}', "\\ud83d is half of a surrogate pair, which is no character"),
        (b'{"labels":{"\\uDBFF":"x"}}', "\\udbff is half of a surrogate pair, which is no character"),
        (b'{"name":"\\ude00"}', "\\ude00 is half of a surrogate pair"),
        (b'{"name":"\xff"}', "it is not UTF-8"),
        (b'{"name":1}', "Expected `str`, got `int` - at `$.name`"),
        (b'{"part":{"code":"A"}}', "expected lower-case letters - at `$.part.code`"),
        (b'{"part":{"parts":[{"code":"1"}]}}', "expected lower-case letters - at `$.part.parts[0].code`"),
        (b'{"plain":"x"}', "Expected `str` matching regex"),
    ],
)
def test_what_is_wrong_is_said(body: bytes, words: str) -> None:
    assert detail(body).startswith(words)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"name":"a","name":"b"}', "name"),
        (b'{"name":"a", "name" : "a"}', "name"),
        (b'{"name":"a","n\\u0061me":"b"}', "name"),
        (b'{"labels":{"x":"1","y":"2","x":"1"}}', "x"),
        (b'{"labels":{":x":"1",":x":"2"}}', ":x"),
        (b'{"part":{"code":"a","code":"b"}}', "code"),
        (b'{"anything":[{"deep":{"a":1,"a":1}}]}', "a"),
    ],
)
def test_a_member_that_is_given_twice_is_named(body: bytes, name: str) -> None:
    assert detail(body) == f"the member {name!r} is given twice in one object"


@pytest.mark.parametrize(
    "body",
    [
        b'{"name":"name"}',
        b'{"name":"{\\"name\\":1,\\"name\\":2}"}',
        b'{"name":"labels","labels":{"name":"labels","labels":"name"}}',
        b'{"part":{"parts":[{"code":"a"},{"code":"a"}]}}',
        b'{"name":"\\ud83d\\ude00"}',
    ],
)
def test_what_only_looks_like_a_repetition_is_none(body: bytes) -> None:
    assert msgspec.to_builtins(decode(body)).items() >= json.loads(body).items() or b"parts" in body


def test_however_deep_a_body_is_nested_it_is_a_body_or_a_problem() -> None:
    for depth in (10, *range(500, 1_100, 7), 20_000):
        with suppress(Problem):
            decode(b'{"anything":' + b"[" * depth + b"{}" + b"]" * depth + b"}")


members = st.lists(st.tuples(st.sampled_from(["name", "plain", "anything"]), st.sampled_from(["1", "2"])), max_size=4)


@given(members, st.sampled_from(["", " ", "\n"]))
def test_a_body_is_taken_exactly_when_each_member_is_there_once(pairs: list[tuple[str, str]], space: str) -> None:
    body = "{" + ",".join(f'{space}"{name}"{space}:{space}"{value}"' for name, value in pairs) + "}"
    if len(dict(pairs)) == len(pairs):
        decode(body.encode())
    else:
        assert "is given twice" in detail(body.encode())


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_a_body_or_a_problem(body: bytes) -> None:
    with suppress(Problem):
        decode(body)


class Open(msgspec.Struct):
    """A body that may have members that nobody looks at."""

    name: str = ""


@pytest.mark.parametrize(
    ("ignored", "why"),
    [(b'"\\n\xff"', "it is not UTF-8"), (b'{"a": 1, "a": 2}', "the member 'a' is given twice in one object")],
)
def test_what_is_wrong_in_a_member_that_is_ignored_is_a_problem_too(ignored: bytes, why: str) -> None:
    with pytest.raises(Problem, match=why):
        BodyDecoder(Open).decode(b'{"name": "x", "more": %s}' % ignored)


@pytest.mark.parametrize("body", [b'{"more": 1, "more": 2}', b'{"name": "x", "more": 1, "more": 2}'])
def test_a_member_that_is_ignored_is_not_given_twice_either(body: bytes) -> None:
    with pytest.raises(Problem, match="the member 'more' is given twice in one object"):
        BodyDecoder(Open).decode(body)


def test_members_that_no_type_names_are_not_given_twice_either_and_what_is_wrong_is_said_as_is_asked_for() -> None:
    texts = BodyDecoder(dict[str, str], wrong="labels are not as they must be")
    assert texts.decode(b'{"a":"b","c":"a"}') == {"a": "b", "c": "a"}
    with pytest.raises(Problem) as raised:
        texts.decode(b'{"a":"b","a":"c"}')
    assert raised.value.detail == "labels are not as they must be: the member 'a' is given twice in one object"


@pytest.mark.parametrize("number", [b"1" * 5000, b"1." + b"1" * 5000, b"1e999999"])
def test_a_number_in_a_member_that_is_ignored_may_be_of_any_size(number: bytes) -> None:
    assert BodyDecoder(Open).decode(b'{"name": "x", "more": {"a": %s}}' % number) == Open("x")

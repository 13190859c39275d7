"""Bodies of requests: decoded as a declared type, or refused with words that its sender can act on.

The decoder checks nearly everything by itself, in one pass. Two things are added. What it finds wrong is said in words:
a regular expression, for one, by the ``description`` that the type gives beside it. And an object that gives one member
twice, of which the decoder would take the last, is refused: two readers of one body must not see two requests.

Pure.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, Generic, NoReturn, TypeVar

import msgspec

from actorkit.gateway.problems import INVALID_REQUEST, Problem

__all__ = ["BodyDecoder"]

T = TypeVar("T")

_DETAIL_MAX: Final = 500
_NAME_MAX: Final = 64
_surrogate: Final = re.compile("[\ud800-\udfff]").search


class _GivenTwice(Exception):
    pass


class BodyDecoder(Generic[T]):
    """Decodes one kind of body. Every ``pattern`` of its type should have a ``description`` in the same ``Meta``."""

    def __init__(self, type: type[T], *, wrong: str = "the body is not as it must be") -> None:
        """``wrong`` is said of what is refused, before the reason."""
        self._wrong = wrong
        self._decode = msgspec.json.Decoder(type).decode
        self._words = [(f"Expected `str` matching regex {pattern!r}", words) for pattern, words in _patterns(type)]
        fields = getattr(type, "__struct_encode_fields__", ())
        self._quoted = tuple(f'"{name}"'.encode() for name in fields)
        config = getattr(type, "__struct_config__", None)
        self._fields_only = config is not None and config.forbid_unknown_fields

    def decode(self, body: bytes) -> T:
        """Raises ``Problem`` that says what is wrong, and where."""
        try:
            decoded = self._decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise self._invalid(self._readable(error, body)) from None
        # One object without escapes gives a field twice only where the field's name is there twice.
        if not self._fields_only or body.count(b"{") != 1 or b"\\" in body:
            self._refuse_repetition(body)
        else:
            for quoted in self._quoted:
                if body.count(quoted) > 1:
                    self._refuse_repetition(body)
        return decoded

    def _invalid(self, why: str) -> Problem:
        return Problem(INVALID_REQUEST, f"{self._wrong}: {why}")

    def _refuse_repetition(self, body: bytes) -> None:
        """``body`` has been decoded already, so it is JSON, except within members that the decoder did not look at."""
        try:
            _check_members(body.decode())
        except UnicodeDecodeError:
            raise self._invalid("it is not UTF-8") from None
        except _GivenTwice as twice:
            raise self._invalid(f"the member {str(twice)[:_NAME_MAX]!r} is given twice in one object") from None
        except RecursionError:
            raise self._invalid("it is nested too deeply") from None

    def _readable(self, error: Exception, body: bytes) -> str:
        if isinstance(error, UnicodeDecodeError):
            return "it is not UTF-8"
        text = str(error)
        if text == "Input data was truncated" or "surrogate" in text:
            return _half_a_pair(body) or ("its JSON ends too early" if body.strip() else "it is empty, not JSON")
        for regex, words in self._words:
            text = text.replace(regex, f"expected {words}")
        return text if len(text) <= _DETAIL_MAX else f"{text[:_DETAIL_MAX]}…"


def _half_a_pair(body: bytes) -> str | None:
    """The decoder takes the first half of a surrogate pair, where the other half is missing, for an early end, too."""
    try:
        members = json.loads(body)
    except (ValueError, RecursionError):
        return None
    found = _surrogate(json.dumps(members, ensure_ascii=False))
    if found is None:
        return None
    return f"\\u{ord(found[0]):04x} is half of a surrogate pair, which is no character without its other half"


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        _name_repetition(pairs)
    return members


def _name_repetition(pairs: list[tuple[str, Any]]) -> NoReturn:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise _GivenTwice(name)
        seen.add(name)
    raise AssertionError("every name is there once")


# Numbers are left as they are: some have more digits than Python would convert.
_check_members: Final = json.JSONDecoder(object_pairs_hook=_distinct, parse_int=len, parse_float=len).decode


def _patterns(type: Any) -> list[tuple[str, str]]:
    """The regular expressions within a type that are described beside it, and how."""
    found: dict[str, str] = {}
    seen: set[int] = set()
    left: list[Any] = [msgspec.inspect.type_info(type)]
    while left:
        info = left.pop()
        if isinstance(info, tuple):
            left += info
        elif isinstance(info, msgspec.inspect.Metadata):
            words = _description(info)
            if isinstance(info.type, msgspec.inspect.StrType) and info.type.pattern and words:
                found[info.type.pattern] = words
            left.append(info.type)
        elif isinstance(info, msgspec.inspect.Field):
            left.append(info.type)
        elif isinstance(info, msgspec.inspect.Type):
            cls = getattr(info, "cls", None)
            if cls is None or id(cls) not in seen:
                seen.add(id(cls))
                left += [getattr(info, name) for name in info.__struct_fields__ if name != "cls"]
    return list(found.items())


def _description(info: Any) -> str:
    schema: dict[str, str] = info.extra_json_schema or {}
    return schema.get("description", "")

"""Which handler a request goes to: fixed paths, and paths that end in one parameter.

Deliberately no more than that. A fixed path is found by one dict lookup, and what is at no path, or takes no such
method, is told apart so that each gets its own problem.
"""

from __future__ import annotations

import re
from typing import Final, Generic, TypeVar

from actorkit.gateway.problems import INVALID_REQUEST, METHOD_NOT_ALLOWED, NOT_FOUND, Problem

__all__ = ["Router", "parse_query"]

H = TypeVar("H")

_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")


class Router(Generic[H]):
    """Maps method and path to a handler and the value of the path's parameter, which is empty where it has none."""

    def __init__(self) -> None:
        self.fixed: dict[str, dict[str, H]] = {}
        self._prefixed: dict[str, dict[str, H]] = {}

    def add(self, method: str, path: str, handler: H) -> None:
        """``path`` may end in a parameter, as in ``/rpc/pools/{pool_id}``."""
        prefix, brace, _ = path.partition("{")
        methods = (self._prefixed if brace else self.fixed).setdefault(prefix, {})
        if method in methods:
            raise ValueError(f"{method} {path} has a handler already")
        methods[method] = handler

    def find(self, method: str, raw_path: str) -> tuple[H, str]:
        """The path is as it came, with its percent-encoding. Raises ``Problem``."""
        methods, value = self.fixed.get(raw_path), ""
        if methods is None:
            cut = raw_path.rfind("/") + 1
            methods, value = self._prefixed.get(raw_path[:cut]), raw_path[cut:]
            if methods is None or not value:
                raise Problem(NOT_FOUND, "there is nothing at this path")
        handler = methods.get(method)
        if handler is None:
            allowed = ", ".join(sorted(methods))
            raise Problem(METHOD_NOT_ALLOWED, f"this path takes {allowed}", headers={"Allow": allowed})
        return handler, _decoded(value) if "%" in value else value


def parse_query(raw: str, names: frozenset[str]) -> dict[str, str]:
    """The parameters of a query, each known and given once. Raises ``Problem``."""
    parameters: dict[str, str] = {}
    for pair in raw.split("&") if raw else ():
        raw_name, _, raw_value = pair.partition("=")
        name = _decoded(raw_name.replace("+", " "))
        if name not in names:
            known = f"only {', '.join(sorted(names))}" if names else "none"
            raise Problem(INVALID_REQUEST, f"unknown query parameter {name[:64]!r}: this path takes {known}")
        if name in parameters:
            raise Problem(INVALID_REQUEST, f"the query parameter {name} is given twice")
        parameters[name] = _decoded(raw_value.replace("+", " "))
    return parameters


def _decoded(text: str) -> str:
    try:
        return _ESCAPE.sub(lambda escape: bytes.fromhex(escape[1].decode()), text.encode("utf-8")).decode("utf-8")
    except UnicodeError:
        raise Problem(INVALID_REQUEST, "the request target is not UTF-8") from None

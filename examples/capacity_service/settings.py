"""The options of a node: where each may come from, and what it may be."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import click
import msgspec

__all__ = ["Address", "NodeSettings", "Seconds", "option", "parse_address", "parse_seeds", "read_config"]

F = TypeVar("F", bound=Callable[..., Any])


class Address(msgspec.Struct, frozen=True):
    """A host and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Raises ``ValueError``. An IPv6 address stands in brackets."""
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if bracketed:
            host = host[1:-1]
        if not colon or not host or (":" in host and not bracketed) or not port.isdecimal() or int(port) > 65535:
            raise ValueError(f"{text!r} is not an address such as 127.0.0.1:8080")
        return cls(host, int(port))

    @property
    def is_wildcard(self) -> bool:
        """It stands for all addresses of the machine: one can listen there, and nobody can connect."""
        return self.host in ("0.0.0.0", "::", "*")  # noqa: S104 - told apart, not listened on

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A node as it was asked for."""

    name: str
    http: Address
    remoting: Address
    seeds: tuple[Address, ...]
    journal: str
    shards: int
    http_tokens: Path | None
    request_deadline_s: float
    released_memory_s: float
    keys_max: int
    advertise: Address | None = None
    """Where the other nodes reach this one, if that is another address than ``remoting``."""
    secret_file: Path | None = None
    operator_tokens: Path | None = None
    """Who may tell the node to leave over HTTP; without it nobody may."""
    leave_delay_s: float = 0.0
    """How long a node that leaves is not ready, and serves as before, until it begins to hand over."""


class Seconds(click.FloatRange):
    """A duration. A range of click's has room for what is no number, since no comparison with that is true."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"expected a number of seconds, not {value}", param, ctx)
        return seconds


def parse_address(context: click.Context, param: click.Parameter, value: object) -> Address | None:
    """The callback of an option that is a ``host:port``."""
    if value is None:
        return None
    try:
        return Address.parse(str(value).strip())
    except ValueError as error:
        raise click.BadParameter(str(error), context, param) from None


def parse_seeds(context: click.Context, param: click.Parameter, value: object) -> tuple[Address, ...]:
    """The callback of an option that is ``host:port,host:port``, and in a file may also be a list."""
    parts = cast("list[object]", value) if isinstance(value, list) else str(value).split(",")
    try:
        return tuple(Address.parse(text) for part in parts if (text := str(part).strip()))
    except ValueError as error:
        raise click.BadParameter(str(error), context, param) from None


def option(name: str, *, show_default: bool | str = True, **attributes: Any) -> Callable[[F], F]:
    """An option that is an environment variable and a key of the TOML file as well."""
    variable = "ACTORKIT_" + name.lstrip("-").upper().replace("-", "_")
    return click.option(name, envvar=variable, show_envvar=True, show_default=show_default, **attributes)


def read_config(context: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """Makes the file's keys the defaults of the options, so that command line and environment win over them."""
    if value is None:
        return None
    try:
        keys = tomllib.loads(value.read_text(encoding="utf-8"))
    except OSError as error:
        raise click.BadParameter(f"{value} cannot be read: {error.strerror}", context, param) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{value} is not TOML: {error}", context, param) from None
    context.default_map = {**(context.default_map or {}), **_defaults(context, param, value, keys)}
    return value


def _defaults(context: click.Context, param: click.Parameter, file: Path, keys: Mapping[str, Any]) -> dict[str, Any]:
    options = {option.name: option for option in context.command.params if option.name not in (None, param.name)}
    defaults: dict[str, Any] = {}
    for key, value in keys.items():
        name = key.replace("-", "_")
        if name not in options:
            known = ", ".join(sorted(str(name).replace("_", "-") for name in options))
            raise click.BadParameter(f"{file} has the key {key!r}, but the keys are {known}", context, param)
        if isinstance(value, bool | dict) or (isinstance(value, list) and options[name].type is not click.UNPROCESSED):
            raise click.BadParameter(f"{file} has a value for {key!r} that it cannot have", context, param)
        # As text, the way it comes from elsewhere: click would make a whole number of 1.5.
        defaults[name] = value if isinstance(value, list) else str(value)
    return defaults

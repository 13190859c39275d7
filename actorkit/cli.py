"""The command line (a shell): what a node says of its cluster, and telling it to leave; over its HTTP address.

::

    actorkit members 127.0.0.1:8080
    actorkit shards 127.0.0.1:8080
    actorkit drain 127.0.0.1:8080 --token-file operators.txt

It talks to any service that answers ``GET /cluster/members``, ``GET /cluster/shards`` and, for operators,
``POST /cluster/drain``, as the capacity service does. It ends with 0, or says in one line why not and ends with 1;
with 2 where it was called wrongly.
"""

from __future__ import annotations

import ssl
import time
import urllib.error
import urllib.request
from collections import Counter
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import click
import msgspec
from rich.console import Console
from rich.table import Table

from actorkit.remoting.aiohttp_transport import NOT_FOR_STRANGERS

__all__ = ["main"]

_REQUEST_TIMEOUT_S = 10.0
_ANSWER_MAX_BYTES = 32 << 20
_POLL_S = 0.2
_DRAIN = "/cluster/drain"
_ASK_HTTP = ": is it the HTTP address of a node?"

_NOT_AS_EXPECTED = (msgspec.MsgspecError, UnicodeDecodeError)

A = TypeVar("A")


class _Member(msgspec.Struct):
    name: str
    incarnation: str
    http: str
    remoting: str
    status: str


class _Members(msgspec.Struct):
    members: list[_Member]


class _Shard(msgspec.Struct):
    shard: int
    owner: str
    epoch: int
    head: int


class _Shards(msgspec.Struct):
    shards: list[_Shard]


class _Drain(msgspec.Struct):
    status: str


class _Problem(msgspec.Struct):
    type: str
    detail: str


def _url(context: click.Context, param: click.Parameter, value: str) -> str:
    url = value if "://" in value else f"http://{value}"
    if not _is_address(url):
        raise click.BadParameter(f"{value!r}: expected the HTTP address of a node, such as 127.0.0.1:8080")
    return url.rstrip("/")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return False
    # A number alone is a port whose host was forgotten, and would be taken for an IPv4 address.
    return parts.scheme in {"http", "https"} and host != "" and not host.isdecimal() and port != 0


def _token(context: click.Context, param: click.Parameter, value: Path | None) -> str | None:
    if value is None:
        return None
    try:
        lines = (line.strip() for line in value.read_text(encoding="utf-8").splitlines())
        return next(line for line in lines if line and not line.startswith("#"))
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{value} cannot be read: {error}") from error
    except StopIteration:
        raise click.BadParameter(f"{value} has no token") from None


_node = click.argument("node", callback=_url)
_token_file = click.option(
    "--token-file",
    "token",
    envvar="ACTORKIT_TOKEN_FILE",
    show_envvar=True,
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_token,
    help="A file whose first line is the bearer token to show, where the node wants one.",
)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print what the node answered, as it is.")


@click.group()
def main() -> None:
    """Looks at a running cluster, and operates it.

    NODE is the HTTP address of a node, such as 127.0.0.1:8080, not that of its remoting.
    """


@main.command()
@_node
@_token_file
@_as_json
def members(node: str, token: str | None, as_json: bool) -> None:
    """Shows who is in the cluster, as NODE sees it."""
    answer, body = _ask("GET", node, "/cluster/members", token, _Members)
    if as_json:
        click.echo(body)
        return
    table = Table("name", "incarnation", "HTTP", "remoting", "status")
    for member in answer.members:
        table.add_row(member.name, member.incarnation, member.http, member.remoting, member.status)
    Console().print(table)


@main.command()
@_node
@_token_file
@_as_json
@click.option(
    "--all", "every", is_flag=True, help="Show each shard, with epoch and head, rather than how many each node has."
)
def shards(node: str, token: str | None, as_json: bool, every: bool) -> None:
    """Shows who owns the shards."""
    answer, body = _ask("GET", node, "/cluster/shards", token, _Shards)
    if as_json:
        click.echo(body)
        return
    if every:
        table = Table("shard", "owner", "epoch", "head")
        for shard in answer.shards:
            table.add_row(str(shard.shard), shard.owner, str(shard.epoch), str(shard.head))
    else:
        table = Table("owner", "shards")
        for owner, count in sorted(Counter(shard.owner for shard in answer.shards).items()):
            table.add_row(owner or "(nobody)", str(count))
    Console().print(table)


@main.command()
@_node
@_token_file
@click.option("--wait/--no-wait", default=True, show_default=True, help="Return only when the node has stopped.")
@click.option("--within-s", type=click.IntRange(1, 86_400), default=60, show_default=True, help="How long to wait.")
def drain(node: str, token: str | None, wait: bool, within_s: int) -> None:
    """Hands NODE's shards over and stops it.

    The other nodes take them, as after SIGTERM. It needs an operator's token: one of the node's --operator-tokens.
    """
    _ask("POST", node, _DRAIN, token, _Drain)
    click.echo(f"{node} is leaving")
    until_s = time.monotonic() + within_s
    while wait:
        if not _answers(node):
            click.echo(f"{node} has stopped")
            return
        if time.monotonic() > until_s:
            raise click.ClickException(f"{node} has not stopped within {within_s} s, and goes on leaving")
        time.sleep(_POLL_S)


# Whoever operates nodes reaches them directly.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _ask(method: str, node: str, path: str, token: str | None, expected: type[A]) -> tuple[A, bytes]:
    """The answer, and as it came."""
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    request = urllib.request.Request(f"{node}{path}", method=method, headers=headers)  # noqa: S310 - http and https
    try:
        with _opener.open(request, timeout=_REQUEST_TIMEOUT_S) as response:
            body = response.read(_ANSWER_MAX_BYTES)
            return msgspec.json.decode(body, type=expected), body
    except urllib.error.HTTPError as error:
        raise click.ClickException(_refusal(node, path, error)) from error
    except (OSError, HTTPException) as error:
        raise click.ClickException(_unreachable(node, error)) from error
    except _NOT_AS_EXPECTED as error:
        raise click.ClickException(f"{node} answers {path} not as a node of actorkit does{_ASK_HTTP}") from error


def _refusal(node: str, path: str, error: urllib.error.HTTPError) -> str:
    """Who it was that answered, and what."""
    try:
        body = error.read(_ANSWER_MAX_BYTES)
    except (OSError, HTTPException):
        body = b""
    if body == NOT_FOR_STRANGERS.encode():
        return (
            f"{node} is the remoting port of a node, at which only other nodes are answered: give the node's HTTP "
            "address, which it prints when it starts and which is in the column HTTP of `actorkit members`"
        )
    try:
        problem = msgspec.json.decode(body, type=_Problem)
    except _NOT_AS_EXPECTED:
        server = f" ({name})" if (name := error.headers.get("Server")) else ""
        return f"{node} answers {error.code} {error.reason}{server}, and not as a node of actorkit does{_ASK_HTTP}"
    if error.code != HTTPStatus.NOT_FOUND:
        detail = " ".join(problem.detail.split())
        return f"{node}{path} answers {error.code}: {detail}"
    if path == _DRAIN:
        return f"{node} takes no call to drain it: the node has to be started with --operator-tokens"
    return f"{node} has nothing at {path}: this is a service whose nodes do not answer that"


def _unreachable(node: str, error: OSError | HTTPException) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    match reason:
        case ConnectionRefusedError():
            return (
                f"{node} cannot be reached: nothing listens there; the node does not run, or has another HTTP address"
            )
        case TimeoutError():
            return f"{node} has not answered within {_REQUEST_TIMEOUT_S:g} s"
        case ssl.SSLCertVerificationError():
            return f"{node} shows a certificate that cannot be trusted: {reason.verify_message}"
        case ssl.SSLError():
            return f"{node} does not talk TLS as expected; what a node itself listens on has http://, without TLS"
        case ConnectionError() | HTTPException():
            return f"{node} does not talk HTTP (it may want TLS){_ASK_HTTP}"
        case OSError(strerror=str(what)):
            return f"{node} cannot be reached: {what}"
        case _:
            return f"{node} cannot be reached: {reason}"


def _answers(node: str) -> bool:
    request = urllib.request.Request(f"{node}/health/live")  # noqa: S310 - http and https only
    try:
        with _opener.open(request, timeout=_REQUEST_TIMEOUT_S):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, HTTPException):
        return False

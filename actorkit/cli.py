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

import json
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast

import click
from rich.console import Console
from rich.table import Table

__all__ = ["main"]

_REQUEST_TIMEOUT_S = 10.0
_ANSWER_MAX_BYTES = 32 << 20
_POLL_S = 0.2


def _url(context: click.Context, param: click.Parameter, value: str) -> str:
    url = value if "://" in value else f"http://{value}"
    if not url.startswith(("http://", "https://")):
        raise click.BadParameter("expected the HTTP address of a node, such as 127.0.0.1:8080")
    return url.rstrip("/")


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
    help="A file whose first line is the bearer token to show.",
)
_as_json = click.option("--json", "as_json", is_flag=True, help="What the node answered, as it is.")


@click.group()
def main() -> None:
    """Looks at a running cluster, and operates it. NODE is the HTTP address of a node, such as 127.0.0.1:8080."""


@main.command()
@_node
@_token_file
@_as_json
def members(node: str, token: str | None, as_json: bool) -> None:
    """Shows who is in the cluster, as NODE sees it."""
    answer = _ask("GET", f"{node}/cluster/members", token)
    if as_json:
        click.echo(json.dumps(answer))
        return
    table = Table("name", "incarnation", "HTTP", "remoting", "status")
    for member in answer["members"]:
        table.add_row(*(member[column] for column in ("name", "incarnation", "http", "remoting", "status")))
    Console().print(table)


@main.command()
@_node
@_token_file
@_as_json
@click.option("--all", "every", is_flag=True, help="Each shard, rather than how many each node has.")
def shards(node: str, token: str | None, as_json: bool, every: bool) -> None:
    """Shows who owns the shards."""
    answer = _ask("GET", f"{node}/cluster/shards", token)
    if as_json:
        click.echo(json.dumps(answer))
        return
    found: list[dict[str, Any]] = answer["shards"]
    if every:
        table = Table("shard", "owner", "epoch", "head")
        for shard in found:
            table.add_row(str(shard["shard"]), shard["owner"], str(shard["epoch"]), str(shard["head"]))
    else:
        table = Table("owner", "shards")
        for owner, count in sorted(Counter(shard["owner"] for shard in found).items()):
            table.add_row(owner or "(nobody)", str(count))
    Console().print(table)


@main.command()
@_node
@_token_file
@click.option("--wait/--no-wait", default=True, show_default=True, help="Return only when the node has stopped.")
@click.option("--within-s", type=click.FloatRange(1), default=60.0, show_default=True, help="How long to wait.")
def drain(node: str, token: str | None, wait: bool, within_s: float) -> None:
    """Tells NODE to hand its shards over to the others and to stop, as SIGTERM does. Needs an operator's token."""
    _ask("POST", f"{node}/cluster/drain", token)
    click.echo(f"{node} is leaving")
    until_s = time.monotonic() + within_s
    while wait:
        if not _answers(node):
            click.echo(f"{node} has stopped")
            return
        if time.monotonic() > until_s:
            raise click.ClickException(f"{node} has not stopped within {within_s:g} s, and goes on leaving")
        time.sleep(_POLL_S)


# Whoever operates nodes reaches them directly.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _ask(method: str, url: str, token: str | None) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    request = urllib.request.Request(url, method=method, headers=headers)  # noqa: S310 - http and https only
    try:
        with _opener.open(request, timeout=_REQUEST_TIMEOUT_S) as response:
            answer = json.loads(response.read(_ANSWER_MAX_BYTES))
    except urllib.error.HTTPError as error:
        raise click.ClickException(f"{url} answers {error.code}: {_detail(error)}") from error
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{url} cannot be asked: {getattr(error, 'reason', error)}") from error
    if not isinstance(answer, Mapping):
        raise click.ClickException(f"{url} is no node: its answer is not as expected")
    return cast("dict[str, Any]", answer)


def _detail(error: urllib.error.HTTPError) -> str:
    if error.code == HTTPStatus.NOT_FOUND:
        return "it has no such call (draining needs --operator-tokens at the node)"
    try:
        detail = json.loads(error.read(_ANSWER_MAX_BYTES))["detail"]
    except (OSError, ValueError, KeyError, TypeError):
        detail = error.reason
    return " ".join(str(detail).split())


def _answers(node: str) -> bool:
    request = urllib.request.Request(f"{node}/health/live")  # noqa: S310 - http and https only
    try:
        with _opener.open(request, timeout=_REQUEST_TIMEOUT_S):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False

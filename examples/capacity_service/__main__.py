"""The command line: ``python -m examples.capacity_service node`` and its siblings."""

from __future__ import annotations

import asyncio
import io
import re
import secrets
import socket
import sys
from pathlib import Path
from typing import Any

import click

from actorkit import logs
from actorkit import run as run_loop
from examples.capacity_service.local_cluster import run_local_cluster
from examples.capacity_service.node import CannotStart, Node, run_until_signal
from examples.capacity_service.replay import replay
from examples.capacity_service.settings import NodeSettings, Seconds, option, parse_address, parse_seeds, read_config

_JOURNAL_HELP = "sqlite:///FILE, or sqlite:////FILE from the root; the same for all nodes of a cluster."
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@click.group()
def cli() -> None:
    """The capacity service: sells a limited capacity without ever overselling it."""


def _default_name() -> str:
    host = re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())[:50]
    return f"{host or 'node'}-{secrets.token_hex(3)}"


def _check_name(context: click.Context, param: click.Parameter, value: str) -> str:
    if _NAME.fullmatch(value) is None:
        raise click.BadParameter("a name has 1 to 64 characters out of A-Z a-z 0-9 _ . -", context, param)
    return value


@cli.command()
@option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=read_config,
    help="A TOML file with these options as keys; the command line and the environment win over it.",
)
@option(
    "--name",
    default=_default_name,
    callback=_check_name,
    show_default="the host's name and something random",
    help="The node's name, which no other node of its cluster has.",
)
@option(
    "--http",
    metavar="HOST:PORT",
    callback=parse_address,
    default="127.0.0.1:8080",
    help="Where the clients' HTTP requests are taken.",
)
@option(
    "--remoting",
    metavar="HOST:PORT",
    callback=parse_address,
    default="127.0.0.1:9080",
    help="Where the other nodes connect; clients do not.",
)
@option(
    "--advertise",
    metavar="HOST:PORT",
    callback=parse_address,
    help="Where the peers reach this node, if that is not where it listens for them.",
)
@option(
    "--seeds",
    type=click.UNPROCESSED,
    callback=parse_seeds,
    metavar="HOST:PORT,...",
    default="",
    help="Remoting addresses of nodes to join; none or only this node's own: forms a cluster.",
)
@option(
    "--secret-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file with the cluster's secret, the same for all nodes. Without one peers connect on loopback only.",
)
@option("--journal", metavar="URL", default="sqlite:///capacity.db", help=_JOURNAL_HELP)
@option(
    "--shards",
    type=click.IntRange(1, 65536),
    default=256,
    help="Of how many parts the journal is: fixed when it is created, the same for all nodes.",
)
@option(
    "--http-tokens",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file with one bearer token a line, of which clients have to show one. Without it everybody is answered.",
)
@option(
    "--operator-tokens",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file with one bearer token a line, for those who may call POST /cluster/drain. Without it nobody may.",
)
@option(
    "--leave-delay-s",
    type=Seconds(0, 3600),
    default=0.0,
    help="How long the node is not ready, and serves as before, until it begins to leave: what balancers need.",
)
@option(
    "--request-deadline-s",
    type=Seconds(0, 3600, min_open=True),
    default=5.0,
    help="How long a request may take until it is answered that it was not done, or that nobody knows.",
)
@option(
    "--released-memory-s",
    type=Seconds(0, min_open=True, max=10 * 365 * 86_400),
    default=86_400.0,
    help="How long released reservations are remembered, at least.",
)
@option("--keys-max", type=click.IntRange(1), default=100_000, help="Idempotency keys that a pool remembers, at most.")
def node(**options: Any) -> None:
    """Runs one node until SIGTERM or SIGINT.

    It hands over what it has and ends with 0; a second signal ends it at once. Each option is also an environment
    variable.
    """
    settings = NodeSettings(**options)
    # A node that cannot start says one line and no more, so what it logs while it starts is held back until it has.
    early = io.StringIO()
    logs.configure(json=not sys.stderr.isatty(), stream=early)

    def announce(started: Node) -> None:
        sys.stderr.write(early.getvalue())
        logs.configure(json=not sys.stderr.isatty())
        click.echo(f"{settings.name} serves http://{started.http_address}")

    try:
        run_loop(run_until_signal(settings, announce))
    except CannotStart as error:
        raise click.ClickException(str(error)) from error


@cli.command()
@option("--nodes", type=click.IntRange(1, 100), default=3, help="How many nodes.")
@option(
    "--base-http",
    type=click.IntRange(1, 65535),
    default=8080,
    help="The first node's HTTP port; then the next. Their remoting ports are 1000 higher.",
)
@option("--journal", metavar="URL", default="sqlite:///capacity.db", help=_JOURNAL_HELP)
def cluster(nodes: int, base_http: int, journal: str) -> None:
    """Starts several nodes as processes on this machine.

    Ctrl-C or SIGTERM stops them all; a second one ends them at once.
    """
    try:
        status = asyncio.run(run_local_cluster(nodes, base_http, journal, lambda line: click.echo(line, err=True)))
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    raise SystemExit(status)


cli.add_command(replay)


def main() -> int:
    """Errors are one line on stderr, and a status other than 0."""
    try:
        return int(cli.main(prog_name="python -m examples.capacity_service", standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        click.echo(f"capacity_service: {' '.join(error.format_message().split())}", err=True)
        return error.exit_code
    except click.Abort:
        return 130


if __name__ == "__main__":
    sys.exit(main())

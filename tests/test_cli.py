"""The command line against a running node."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from actorkit.cli import main
from examples.capacity_service.__main__ import cli
from tests.capacity_service.service import serving, settings


async def command(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, main, arguments)


async def test_members_and_shards_are_shown(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as service:
        node = service.node.http_address
        shown = await command("members", node)
        assert shown.exit_code == 0
        assert "n1" in shown.output
        assert "up" in shown.output
        (member,) = json.loads((await command("members", f"http://{node}/", "--json")).output)["members"]
        assert member["http"] == node
        assert re.search(r"n1#\w+\W+8\b", (await command("shards", node)).output)
        assert len(json.loads((await command("shards", node, "--json")).output)["shards"]) == 8
        assert (await command("shards", node, "--all")).output.count("n1#") == 8


async def test_drain_tells_a_node_to_leave_and_waits_until_it_has(tmp_path: Path) -> None:
    operators, clients = tmp_path / "operators", tmp_path / "clients"
    operators.write_text("# who may\noperator\n")
    clients.write_text("client\n")
    node_settings = settings(tmp_path, operator_tokens=operators, http_tokens=clients)
    async with serving(node_settings, token="client") as service:
        node = service.node.http_address
        for arguments in ([], ["--token-file", str(clients)]):
            refused = await command("drain", node, *arguments)
            assert refused.exit_code == 1
            assert "401" in refused.output
        draining = asyncio.create_task(command("drain", node, "--token-file", str(operators)))
        await service.node.leave_requested.wait()
        await service.node.stop()
        done = await draining
        assert done.exit_code == 0, done.output
        assert f"http://{node} has stopped" in done.output


async def test_what_cannot_be_done_is_said_in_one_line(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as service:
        refused = await command("drain", service.node.http_address)
    assert refused.exit_code == 1
    assert "--operator-tokens" in refused.output
    for name in ("members", "shards", "drain"):
        gone = await command(name, service.node.http_address)
        assert gone.exit_code == 1
        assert gone.output.startswith("Error: http://")
        assert len(gone.output.splitlines()) == 1


async def test_a_remoting_port_is_told_from_an_http_port(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as service:
        shown = await command("members", service.node.http_address, "--json")
        (member,) = json.loads(shown.output)["members"]
        for name in ("members", "shards", "drain"):
            said = await command(name, member["remoting"])
            assert said.exit_code == 1
            assert said.output.startswith(f"Error: http://{member['remoting']} is the remoting port of a node")
            assert "give the node's HTTP address" in said.output
            assert len(said.output.splitlines()) == 1
        unknown = await command("shards", f"{service.node.http_address}/elsewhere")
        assert "has nothing at /cluster/shards" in unknown.output


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.0 404 File not found\r\nServer: SimpleHTTP/0.6\r\n\r\n<h1>", "404 File not found (SimpleHTTP/0.6)"),
        (b"HTTP/1.0 502 Bad Gateway\r\n\r\n", "502 Bad Gateway, and not as a node"),
        (b"HTTP/1.0 200 OK\r\n\r\n<h1>Welcome</h1>", "not as a node"),
        (b'HTTP/1.0 200 OK\r\n\r\n{"shards": [{}]}', "not as a node"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\n{", "not as a node"),
        (b'HTTP/1.0 200 OK\r\n\r\n{"shards": "\xff"}', "not as a node"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not talk HTTP"),
        (b"", "does not talk HTTP"),
    ],
)
async def test_what_is_no_node_is_called_so(answer: bytes, said: str) -> None:
    async def stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(stranger, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        for name in ("members", "shards", "drain"):
            ended = await command(name, f"{host}:{port}")
            assert ended.exit_code == 1
            assert said in ended.output
            assert ended.output.startswith(f"Error: http://{host}:{port} ")
            assert ended.output.rstrip().endswith("is it the HTTP address of a node?")
            assert len(ended.output.splitlines()) == 1


async def test_a_closed_port_is_told_from_a_host_that_does_not_exist() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    closed = await command("shards", f"127.0.0.1:{port}")
    assert closed.output.startswith(f"Error: http://127.0.0.1:{port} cannot be reached: nothing listens there")
    assert "cannot be reached: " in (await command("shards", "no-such-host.invalid:80")).output


async def test_a_node_asked_by_https_is_said_to_have_no_tls(tmp_path: Path) -> None:
    async with serving(settings(tmp_path)) as service:
        said = await command("shards", f"https://{service.node.http_address}")
        assert said.exit_code == 1
        assert "does not talk TLS" in said.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["members"],
        ["members", "x", "--token-file", "no"],
        *(["members", node] for node in ("ftp://x", "8080", ":8080", "http://", "x:http", "x:0", "x:65536", "[::1")),
    ],
)
async def test_what_is_called_wrongly_ends_with_2(arguments: list[str]) -> None:
    assert (await command(*arguments)).exit_code == 2


@pytest.mark.parametrize("group", [main, cli])
async def test_the_help_says_of_each_command_and_option_what_it_is(group: click.Group) -> None:
    overview = CliRunner().invoke(group, ["--help"]).output
    assert "..." not in overview.partition("Commands:")[2]
    for name, command in group.commands.items():
        assert name in overview
        assert command.help
        for param in command.params:
            if isinstance(param, click.Option):
                assert param.help, f"{name} {param.opts}"
                assert param.help.endswith("."), f"{name} {param.opts}"

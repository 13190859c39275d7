"""The command line against a running node."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from actorkit.cli import main
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


@pytest.mark.parametrize("arguments", [["members"], ["members", "ftp://x"], ["members", "x", "--token-file", "no"]])
async def test_what_is_called_wrongly_ends_with_2(arguments: list[str]) -> None:
    assert (await command(*arguments)).exit_code == 2

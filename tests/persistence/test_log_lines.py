"""Lines that a handler writes, and lines about its end, name its actor, its entity, its command and its trace."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from actorkit import Message, PersistentActor, command, logs, published
from actorkit.errors import HandlerFailed
from actorkit.tracing import Trace
from tests.persistence.actors import AccountState, Put
from tests.persistence.kit import Nodes, turns


class Talkative(PersistentActor[AccountState, Put], name="logs.talkative"):
    @command
    def put(self, amount: int) -> int:
        self.context.log.info("plain", own=True)
        structlog.get_logger().info("plain")
        self.emit(Put(amount))
        asyncio.get_running_loop().call_soon(structlog.get_logger().info, "left behind")
        return amount

    @command
    async def put_later(self, amount: int) -> int:
        structlog.get_logger().info("async before")
        await asyncio.sleep(0)
        structlog.get_logger().info("async after")
        self.emit(Put(amount))
        return amount

    @command
    def fail(self) -> int:
        raise ValueError("plain")

    @command
    async def fail_later(self) -> int:
        raise ValueError("async")

    @published
    def total(self) -> int | None:
        structlog.get_logger().info("published")
        return self.state.balance


@pytest.fixture
def lines() -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    stream = io.StringIO()
    logs.configure(json=True, stream=stream)
    yield lambda event: [
        line for line in map(json.loads, stream.getvalue().splitlines()) if line["event"].startswith(event)
    ]
    structlog.reset_defaults()


async def test_lines_of_a_handler_name_its_command(nodes: Nodes, lines: Callable[[str], list[dict[str, Any]]]) -> None:
    system = await nodes.start(nodes.journal())
    talkative = system.get(Talkative, "t")
    for number, handler in enumerate(("put", "put_later")):
        trace = Trace(trace_parent=f"00-{number:032x}-{1:016x}-01")
        await system.ask(
            Message("logs.talkative", "t", handler, b"\x91\x01", command_id=f"command-{number}", trace=trace)
        )
    await turns()
    found = [(line["event"], line["entity"], line["command"], line["trace"][3:35]) for line in lines("plain")]
    assert found == [("plain", "logs.talkative/t", "command-0", f"{0:032x}")] * 2
    found = [(line["event"], line["entity"], line["command"], line["trace"][3:35]) for line in lines("async")]
    assert found == [(f"async {when}", "logs.talkative/t", "command-1", f"{1:032x}") for when in ("before", "after")]
    assert [(line["entity"], line["command"]) for line in lines("published")] == [
        ("logs.talkative/t", "command-0"),
        ("logs.talkative/t", "command-1"),
    ]
    assert len({line["actor"] for line in (*lines("plain"), *lines("async"), *lines("published"))}) == 1
    (left,) = lines("left behind")
    assert (left["entity"], "command" in left) == ("logs.talkative/t", False)
    assert await talkative.put(1) == 1


@pytest.mark.parametrize("handler", ["fail", "fail_later"])
async def test_the_line_about_a_handler_that_failed_names_its_command(
    nodes: Nodes, lines: Callable[[str], list[dict[str, Any]]], handler: str
) -> None:
    system = await nodes.start(nodes.journal())
    system.get(Talkative, "t")
    with pytest.raises(HandlerFailed):
        await system.ask(Message("logs.talkative", "t", handler, b"\x90", command_id="the-command"))
    (line,) = lines("entity.handler_failed")
    assert (line["entity"], line["command"], line["handler"]) == ("logs.talkative/t", "the-command", handler)

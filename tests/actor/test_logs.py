"""Every line of a turn says whose turn it was."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from actorkit import logs
from actorkit.actor import Actor, ActorRuntime
from actorkit.errors import HandlerFailed

from .conftest import Recorder


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    logs.configure(json=True, level="info", stream=stream)
    yield stream
    structlog.reset_defaults()


def parsed(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


async def test_a_line_from_within_a_turn_carries_the_actor(runtime: ActorRuntime, lines: io.StringIO) -> None:
    class Async(Actor[str]):
        async def receive(self, message: str) -> None:
            structlog.get_logger().info(message)

    ref = runtime.spawn(Recorder, "plain")
    await ref.ask(lambda actor: structlog.get_logger().info("any logger", n=1))
    await ref.ask(lambda actor: actor.context.log.info("own logger"))
    await runtime.spawn(Async, "async").ask("async handler")
    structlog.get_logger().info("outside")
    assert [(line["event"], line.get("actor")) for line in parsed(lines)] == [
        ("any logger", "/plain"),
        ("own logger", "/plain"),
        ("async handler", "/async"),
        ("outside", None),
    ]
    assert parsed(lines)[0]["n"] == 1


async def test_a_command_adds_entity_command_and_trace(runtime: ActorRuntime, lines: io.StringIO) -> None:
    def handle(_: Recorder) -> None:
        token = logs.current.set({"actor": "/pool", "entity": "Pool/p1", "command": "c1", "trace": "t1"})
        structlog.get_logger().info("in a command")
        logs.current.reset(token)
        structlog.get_logger().info("after it")

    await runtime.spawn(Recorder, "pool").ask(handle)
    first, second = parsed(lines)
    assert (first["entity"], first["command"], first["trace"]) == ("Pool/p1", "c1", "t1")
    assert (second["actor"], "entity" in second) == ("/pool", False)


async def test_a_failure_is_logged_with_its_traceback_and_without_local_variables(
    runtime: ActorRuntime, lines: io.StringIO
) -> None:
    def fail(_: Recorder) -> None:
        secret = "s3cret"
        raise ValueError(len(secret))

    ask = runtime.spawn(Recorder, "failing").ask(fail)
    with pytest.raises(HandlerFailed):
        await ask
    (line,) = parsed(lines)
    assert (line["actor"], line["level"], line["directive"]) == ("/failing", "error", "restart")
    assert "ValueError" in json.dumps(line["exception"])
    assert "s3cret" not in lines.getvalue()


def test_a_mapping_will_do_and_what_the_line_says_itself_wins() -> None:
    token = logs.current.set({"actor": "/a", "entity": "E/1"})
    try:
        assert logs.turn_fields(None, "info", {"actor": "mine"}) == {"actor": "mine", "entity": "E/1"}
    finally:
        logs.current.reset(token)


def test_lines_below_the_level_are_dropped_and_people_get_columns() -> None:
    stream = io.StringIO()
    logs.configure(level=logging.WARNING, stream=stream)
    try:
        log = logs.logger(actor="/a")
        log.info("quiet")
        log.warning("loud")
    finally:
        structlog.reset_defaults()
    assert "quiet" not in stream.getvalue()
    assert "loud" in stream.getvalue()


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="LOUD"):
        logs.configure(level="LOUD")

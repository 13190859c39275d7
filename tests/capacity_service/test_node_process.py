"""The node as a process: its options, how it starts and fails to, how it stops and is killed."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest

PROJECT = Path(__file__).parent.parent.parent
START_MAX_S = 60


class Ended(NamedTuple):
    """A process that has ended."""

    status: int
    out: str
    err: str


async def spawn(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> asyncio.subprocess.Process:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ACTORKIT_")}
    if arguments[:1] == ("node",) and "--remoting" not in arguments and "ACTORKIT_REMOTING" not in (env or {}):
        # Not the default port, which only one of several tests at the same time could have.
        arguments = ("node", "--remoting", "127.0.0.1:0", *arguments[1:])
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "examples.capacity_service",
        *arguments,
        cwd=cwd,
        env={**inherited, "PYTHONPATH": str(PROJECT), **(env or {})},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def run(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> Ended:
    process = await spawn(*arguments, cwd=cwd, env=env)
    try:
        async with asyncio.timeout(START_MAX_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def databases(directory: Path) -> list[Path]:
    return list(directory.glob("*.db"))


class Running:
    """A node that serves."""

    def __init__(
        self, process: asyncio.subprocess.Process, name: str, url: str, session: aiohttp.ClientSession
    ) -> None:
        self.process = process
        self.name = name
        self.url = url
        self.session = session

    async def post(self, call: str, body: object, **headers: str) -> tuple[int, Any]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.post(f"{self.url}/rpc/{call}", json=body, headers=named) as response:
            return response.status, json.loads(await response.read())

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.session.get(self.url + path) as response:
            return response.status, json.loads(await response.read())

    async def stop(self, number: int = signal.SIGTERM) -> Ended:
        self.process.send_signal(number)
        async with asyncio.timeout(START_MAX_S):
            out, err = await self.process.communicate()
        assert self.process.returncode is not None
        return Ended(self.process.returncode, out.decode(), err.decode())


@asynccontextmanager
async def node(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> AsyncIterator[Running]:
    process = await spawn("node", *arguments, cwd=cwd, env=env)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_MAX_S):
            line = (await process.stdout.readline()).decode().split()
        if len(line) != 3:
            pytest.fail(f"it did not start: {(await process.communicate())[1].decode()}")
        async with aiohttp.ClientSession() as session:
            yield Running(process, line[0], line[2], session)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


# ----------------------------------------------------------------------------------------------------------- options


async def test_the_command_line_wins_then_the_environment_then_the_file(tmp_path: Path) -> None:
    remoting = f"127.0.0.1:{free_port()}"
    (tmp_path / "node.toml").write_text(
        'name = "from-file"\nhttp = "127.0.0.1:0"\nremoting = "127.0.0.1:9001"\nshards = 4\n'
        f'journal = "memory://"\nseeds = ["{remoting}"]\nrequest-deadline-s = 3\n'
    )
    env = {"ACTORKIT_CONFIG": "node.toml", "ACTORKIT_NAME": "from-env", "ACTORKIT_REMOTING": "127.0.0.1:9002"}
    async with node("--remoting", remoting, cwd=tmp_path, env=env) as running:
        assert running.name == "from-env"
        (member,) = (await running.get("/cluster/members"))[1]["members"]
        assert (member["name"], member["remoting"]) == ("from-env", remoting)
        assert member["http"] == running.url.removeprefix("http://")
        assert len((await running.get("/cluster/shards"))[1]["shards"]) == 4
        assert (await running.stop()).status == 0
    assert not databases(tmp_path)


async def test_a_relative_journal_lies_in_the_working_directory(tmp_path: Path) -> None:
    async with node("--http", "127.0.0.1:0", cwd=tmp_path) as running:
        assert (await running.post("pools", {"pool_id": "p", "capacity": 1}))[0] == 200
        await running.stop()
    assert (tmp_path / "capacity.db").exists()


async def test_names_differ_by_default(tmp_path: Path) -> None:
    names: set[str] = set()
    for _ in range(2):
        async with node("--http", "127.0.0.1:0", "--journal", "memory://", cwd=tmp_path) as running:
            names.add(running.name)
    assert len(names) == 2


# ------------------------------------------------------------------------------------------------- failing to start


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--http", "nonsense"], "nonsense"),
        (["--http", "127.0.0.1:99999"], "99999"),
        (["--http", "192.0.2.1:8080"], "192.0.2.1:8080"),
        (["--remoting", "x"], "x"),
        (["--remoting", "192.0.2.1:9080"], "without authentication"),
        (["--remoting", "192.0.2.1:9080", "--secret-file", "secret"], "192.0.2.1:9080"),
        (["--remoting", "0.0.0.0:9080", "--secret-file", "secret"], "--advertise"),
        (["--remoting", "0.0.0.0:9080", "--advertise", "192.0.2.1:9080"], "without authentication"),
        (["--advertise", "nonsense"], "nonsense"),
        (["--secret-file", "missing.txt"], "missing.txt"),
        (["--secret-file", "empty"], "empty"),
        (["--secret-file", "short"], "secret"),
        (["--operator-tokens", "missing.txt"], "missing.txt"),
        (["--seeds", "nonsense"], "nonsense"),
        (["--shards", "0"], "shards"),
        (["--shards", "many"], "many"),
        (["--journal", "nonsense"], "nonsense"),
        (["--journal", "sqlite:////nowhere/at/all.db"], "/nowhere/at/all.db"),
        (["--name", "two words"], "name"),
        (["--http-tokens", "missing.txt"], "missing.txt"),
        (["--http-tokens", "empty.txt"], "empty.txt"),
        (["--config", "missing.toml"], "missing.toml"),
        (["--config", "broken.toml"], "broken.toml"),
        (["--config", "unknown.toml"], "colour"),
        (["--config", "table.toml"], "http"),
        (["--config", "list.toml"], "http-tokens"),
        (["--config", "number.toml"], "tokens file 5"),
        (["--config", "half.toml"], "2.5"),
        (["--config", "nan.toml"], "nan"),
        (["--request-deadline-s", "nan"], "nan"),
        (["--released-memory-s", "nan"], "nan"),
        (["--leave-delay-s", "NaN"], "NaN"),
        (["--nonsense"], "--nonsense"),
        (["argument"], "argument"),
    ],
)
async def test_a_node_that_cannot_start_says_why_in_one_line(tmp_path: Path, arguments: list[str], says: str) -> None:
    (tmp_path / "empty.txt").write_text("# no token\n")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "short").write_text("hunter2\n")
    (tmp_path / "secret").write_text("a-secret-that-is-long-enough-to-be-one\n")
    (tmp_path / "broken.toml").write_text("name =\n")
    (tmp_path / "unknown.toml").write_text('colour = "red"\n')
    (tmp_path / "table.toml").write_text("[http]\nport = 1\n")
    (tmp_path / "list.toml").write_text('http-tokens = ["missing.txt"]\n')
    (tmp_path / "number.toml").write_text("http-tokens = 5\n")
    (tmp_path / "half.toml").write_text("shards = 2.5\n")
    (tmp_path / "nan.toml").write_text("leave-delay-s = nan\n")
    base = [] if "--http" in arguments else ["--http", "127.0.0.1:0"]
    ended = await run("node", *base, *arguments, cwd=tmp_path)
    assert ended.status != 0
    assert ended.out == ""
    (line,) = ended.err.splitlines()
    assert line.startswith("capacity_service: ")
    assert says in line
    assert not databases(tmp_path) or "--journal" not in arguments


async def test_a_taken_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = await run("node", "--http", address, cwd=tmp_path)
    assert ended.status != 0
    (line,) = ended.err.splitlines()
    assert address in line
    assert "in use" in line
    assert not databases(tmp_path)


async def test_a_taken_port_for_other_nodes(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = await run("node", "--http", "127.0.0.1:0", "--remoting", address, cwd=tmp_path)
    assert ended.status != 0
    (line,) = ended.err.splitlines()
    assert f"{address} cannot be listened on for other nodes" in line
    assert "in use" in line


async def test_another_number_of_shards_than_the_journal_was_created_with(tmp_path: Path) -> None:
    common = ["--http", "127.0.0.1:0", "--journal", "sqlite:///c.db"]
    async with node(*common, "--shards", "4", cwd=tmp_path) as running:
        await running.stop()
    ended = await run("node", *common, "--shards", "8", cwd=tmp_path)
    assert ended.status != 0
    (line,) = ended.err.splitlines()
    assert "4" in line
    assert "8" in line


async def test_a_file_that_is_no_journal(tmp_path: Path) -> None:
    (tmp_path / "c.db").write_text("this is not a database, " * 100)
    ended = await run("node", "--http", "127.0.0.1:0", "--journal", "sqlite:///c.db", cwd=tmp_path)
    assert ended.status != 0
    (line,) = ended.err.splitlines()
    assert "c.db" in line


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["cluster", "--nodes", "0"], ["cluster", "--nodes", "3", "--base-http", "65000"]]
)
async def test_what_there_is_not(tmp_path: Path, arguments: list[str]) -> None:
    ended = await run(*arguments, cwd=tmp_path)
    assert ended.status != 0
    assert len(ended.err.splitlines()) == 1


async def test_help(tmp_path: Path) -> None:
    ended = await run("node", "--help", cwd=tmp_path)
    assert ended.status == 0
    for option in ("name", "http", "remoting", "seeds", "journal", "shards", "http-tokens", "config"):
        assert f"--{option}" in ended.out
        assert f"ACTORKIT_{option.upper().replace('-', '_')}" in ended.out.replace("\n", "").replace(" ", "")


# ----------------------------------------------------------------------------------------------- stopping and dying


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_it_gracefully_under_load(tmp_path: Path, number: signal.Signals) -> None:
    acknowledged = 0
    async with node("--http", "127.0.0.1:0", cwd=tmp_path) as running:
        await running.post("pools", {"pool_id": "p", "capacity": 100_000})
        failures: list[object] = []
        enough = asyncio.Event()

        async def load() -> None:
            nonlocal acknowledged
            while True:
                try:
                    status, body = await running.post("reserve", {"pool_id": "p"})
                except aiohttp.ClientConnectorError:
                    return  # it takes no new connections any more
                except aiohttp.ClientError as error:
                    failures.append(error)
                    return
                if status != 200:
                    failures.append(body)
                    return
                acknowledged += 1
                if acknowledged > 50:
                    enough.set()

        tasks = [asyncio.create_task(load()) for _ in range(8)]
        await enough.wait()
        ended = await running.stop(number)
        await asyncio.gather(*tasks)
        assert ended.status == 0, ended.err
        assert not failures
        assert "Traceback" not in ended.err
    async with node("--http", "127.0.0.1:0", cwd=tmp_path) as running:
        assert (await running.get("/rpc/pools/p"))[1]["reserved"] == acknowledged


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    async with node("--http", "127.0.0.1:0", "--request-deadline-s", "600", cwd=tmp_path) as running:
        host, port = running.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        # A request that is never finished keeps it from stopping.
        writer.write(b"POST /rpc/reserve HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()
        async with asyncio.timeout(START_MAX_S):
            while b"http_requests_in_progress 2.0" not in await metrics(running):
                await asyncio.sleep(0)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.stderr is not None
        async with asyncio.timeout(START_MAX_S):
            while b"node.stopping" not in await running.process.stderr.readline():
                pass
        ended = await running.stop(signal.SIGTERM)
        assert ended.status not in (0, None)
        writer.close()


async def metrics(running: Running) -> bytes:
    async with running.session.get(f"{running.url}/metrics") as response:
        return await response.read()


async def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    common = ["--http", "127.0.0.1:0", "--name", "n1"]
    granted: dict[str, Any] = {}
    numbers = iter(range(1_000_000))
    for life in range(3):
        async with node(*common, cwd=tmp_path) as running:
            if life == 0:
                await running.post("pools", {"pool_id": "p", "capacity": 1_000_000})
            enough = asyncio.Event()
            goal = len(granted) + 40

            async def load(running: Running, enough: asyncio.Event, goal: int) -> None:
                while True:
                    key = f"k{next(numbers)}"
                    try:
                        status, body = await running.post("reserve", {"pool_id": "p"}, Idempotency_Key=key)
                    except aiohttp.ClientError:
                        return
                    assert status == 200, body
                    granted[key] = body
                    if len(granted) >= goal:
                        enough.set()

            tasks = [asyncio.create_task(load(running, enough, goal)) for _ in range(4)]
            await enough.wait()
            running.process.kill()
            await asyncio.gather(*tasks)
            await running.process.wait()
    async with node(*common, cwd=tmp_path) as running:
        for key, body in granted.items():
            assert (await running.post("reserve", {"pool_id": "p"}, Idempotency_Key=key)) == (200, body)
            status, reservation = await running.get(f"/rpc/reservations/{body['reservation_id']}")
            assert (status, reservation["held"]) == (200, 1)
        reserved = (await running.get("/rpc/pools/p"))[1]["reserved"]
        # What was not acknowledged happened once or not at all: in each life, one request of each of the four.
        assert len(granted) <= reserved <= len(granted) + 3 * 4


async def answers_until_it_ends(running: Running, pool_id: str) -> set[int]:
    statuses = set[int]()
    while True:
        status, body = await running.post("reserve", {"pool_id": pool_id})
        statuses.add(status)
        if status == 503 and ("no member" in body["detail"] or "is stopping" in body["detail"]):
            return statuses


async def test_a_node_that_sees_no_majority_is_not_ready_until_it_ends(tmp_path: Path) -> None:
    """Of two halves the one with the lowest name goes on: here that one is lost."""
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    common = ["--http", "127.0.0.1:0", "--seeds", ",".join(addresses), "--journal", "sqlite:///c.db"]
    async with AsyncExitStack() as stack:
        starting = [
            stack.enter_async_context(node("--name", f"n{n}", "--remoting", address, *common, cwd=tmp_path))
            for n, address in enumerate(addresses)
        ]
        first, second = await asyncio.gather(*starting)
        async with asyncio.timeout(START_MAX_S):
            while {(await running.get("/health/ready"))[0] for running in (first, second)} != {200}:
                await asyncio.sleep(0.02)
        for number in range(20):
            assert (await second.post("pools", {"pool_id": f"p{number}", "capacity": 1}))[0] == 200
        first.process.kill()
        asked = [asyncio.create_task(answers_until_it_ends(second, f"p{number}")) for number in range(20)]
        async with asyncio.timeout(START_MAX_S):
            status, body = await second.get("/health/ready")
            while status == 200:
                await asyncio.sleep(0.02)
                status, body = await second.get("/health/ready")
            assert (status, body["detail"][:20]) == (503, "it sees no majority ")
            assert (await second.get("/health/live"))[0] == 200
            assert (await second.post("availability", {}))[0] == 200
            await second.process.communicate()
        assert second.process.returncode == 71
        # Also those for the pools of the lost node, some of which wait until the very end.
        assert {200, 503} <= set().union(*await asyncio.gather(*asked)) <= {200, 409, 503, 504}


async def test_a_cluster_of_one(tmp_path: Path) -> None:
    port = free_port()
    if port > 64_000:
        port -= 10_000
    process = await spawn("cluster", "--nodes", "1", "--base-http", str(port), "--journal", "memory://", cwd=tmp_path)
    assert process.stdout is not None
    async with asyncio.timeout(START_MAX_S):
        line = (await process.stdout.readline()).decode().split()
    assert line == ["n1", "serves", f"http://127.0.0.1:{port}"]
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(START_MAX_S):
        await process.communicate()
    assert process.returncode == 0


async def test_a_cluster_of_three_forms_on_one_machine_and_stops_on_ctrl_c(tmp_path: Path) -> None:
    first = three_free_ports()
    process = await spawn("cluster", "--base-http", str(first), "--journal", "sqlite:///c.db", cwd=tmp_path)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_MAX_S):
            lines = [(await process.stdout.readline()).decode().split() for _ in range(3)]
        assert sorted(lines) == [[f"n{n + 1}", "serves", f"http://127.0.0.1:{first + n}"] for n in range(3)]
        async with aiohttp.ClientSession() as session, asyncio.timeout(START_MAX_S):
            for number in range(3):
                url, up = f"http://127.0.0.1:{first + number}/cluster/members", 0
                while up < 3:
                    async with session.get(url) as answer:
                        up = sum(member["status"] == "up" for member in (await answer.json())["members"])
                    await asyncio.sleep(0.02)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(START_MAX_S):
            _, err = await process.communicate()
        assert process.returncode == 0, err.decode()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.communicate()


def three_free_ports() -> int:
    """The first of three for HTTP, of which the three a thousand further on are free, too."""
    while True:
        first = 10_000 + secrets.randbelow(20_000)
        try:
            for port in (*range(first, first + 3), *range(first + 1000, first + 1003)):
                with socket.create_server(("127.0.0.1", port)):
                    pass
        except OSError:
            continue
        return first

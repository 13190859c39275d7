"""What the README shows works as it stands there, and the pages in docs/ say what is true."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from actorkit.testing import given
from examples.capacity_service.domain import PoolCreated, Reserved
from examples.capacity_service.entity import Pool
from examples.capacity_service.tokens import decode_token
from tests.capacity_service.service import serving, settings

PROJECT = Path(__file__).parent.parent
README = (PROJECT / "README.md").read_text()
SHELL_BLOCKS = re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PYTHON_BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
TUTORIAL = (PROJECT / "docs" / "tutorial.md").read_text()
TESTING = (PROJECT / "docs" / "testing.md").read_text()
TESTING_BLOCKS = re.findall(r"^```python\n(.*?)^```$", TESTING, re.MULTILINE | re.DOTALL)
TUTORIAL_BLOCKS = re.findall(r"^```python\n(.*?)^```$", TUTORIAL, re.MULTILINE | re.DOTALL)


def output_of(block: str, directory: Path) -> dict[str, str]:
    """What a script printed, as ``name: value`` lines."""
    script = directory / "readme.py"
    script.write_text(block)
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)


def test_the_hello_world_runs_as_written_and_remembers(tmp_path: Path) -> None:
    [block] = PYTHON_BLOCKS
    first, second, third = (output_of(block, tmp_path) for _ in range(3))
    assert (first["free"], second["free"], third["free"]) == ("4", "1", "1")
    assert first["reserved"] != second["reserved"]
    assert third["refused"] == "sold out"
    assert first["keyed"] == second["keyed"] == third["keyed"]


def test_the_tutorial_runs_as_written_and_goes_on_where_it_was(tmp_path: Path) -> None:
    [block] = TUTORIAL_BLOCKS
    runs = [output_of(block, tmp_path) for _ in range(3)]
    assert [run["totals"] for run in runs] == [
        "{'ann': 150, 'bob': 7}",
        "{'ann': 300, 'bob': 14}",
        "{'ann': 450, 'bob': 21}",
    ]
    assert f"`totals: {runs[1]['totals']}`" in TUTORIAL
    for printed in runs:
        assert printed["then"] == "100"
        assert printed["refused"] == "the account is closed 0"


def test_the_testing_guide_is_a_test_module_that_passes(tmp_path: Path) -> None:
    module = tmp_path / "test_guide.py"
    module.write_text("\n\n".join(TESTING_BLOCKS))
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "-W", "error"]
    for options in (["--golden-update"], ["--sim-runs=20"]):
        run = [*command, *options, str(module)]
        done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_message_in_the_testing_guide_is_the_one_that_is_given() -> None:
    [shown] = re.findall(r"^```text\n(.*?)^```$", TESTING, re.MULTILINE | re.DOTALL)
    with pytest.raises(AssertionError) as broken:
        given(Pool, PoolCreated(10)).when(lambda pool: pool.reserve(3, "order-7")).emits(Reserved("order-7", 4))
    assert str(broken.value).startswith(shown)


@pytest.mark.skipif(shutil.which("curl") is None, reason="the README's requests are made with curl")
async def test_the_requests_in_the_readme_work_as_written(tmp_path: Path) -> None:
    lines = [
        line for block in SHELL_BLOCKS for line in block.splitlines() if "curl" in line or line.startswith("token=")
    ]
    endless = [line for line in lines if line.startswith("curl -N")]
    assert len(endless) == 1
    lines = [f"{line}; echo" for line in lines if line not in endless]
    async with serving(settings(tmp_path)) as client:
        script = re.sub(r"http://127\.0\.0\.1:808\d", client.base, "\n".join(lines)) + '\necho "$token"'
        shell = await asyncio.create_subprocess_exec("sh", "-euc", script, stdout=asyncio.subprocess.PIPE)
        async with asyncio.timeout(60):
            printed, _ = await shell.communicate()
    assert shell.returncode == 0
    *answers, token = printed.decode().split()
    made, reserved, described, shown = (json.loads(answer) for answer in answers)
    assert (made["remaining"], reserved["remaining"], described["remaining"]) == (8, 5, 5)
    assert shown["pools"][0]["remaining"] == 4
    assert decode_token(token) == ("gpu-a100", shown["pools"][0]["version"])


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in (PROJECT / "docs").glob("*.md"))])
def test_every_link_to_a_file_leads_somewhere(page: str) -> None:
    text = (PROJECT / page).read_text()
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)", text) if not target.startswith("http")]
    assert [target for target in targets if not (PROJECT / page).parent.joinpath(target).exists()] == []


def test_every_test_that_the_guarantees_name_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (PROJECT / "docs" / "guarantees.md").read_text()))
    sources = [*(PROJECT / "tests").rglob("test_*.py"), *(PROJECT / "actorkit" / "testing").glob("*.py")]
    existing = {name for path in sources for name in re.findall(r"def (test_\w+)\(", path.read_text())}
    assert named
    assert named <= existing

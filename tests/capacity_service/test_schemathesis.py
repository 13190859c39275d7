"""The description is exact: schemathesis, with all its default checks, finds nothing."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.capacity_service.service import Client, serving, settings

# A schema cannot say that starts_at is before ends_at, that a token must be one of ours, that 1.0 is no integer or that
# a key was used before. So 400 and 422 are allowed for what fits the schema; everything else is as by default.
CONFIGURATION = """
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409", "422", "429", "503", "504"]
"""


async def run(service: Client, directory: Path, *arguments: str) -> None:
    (directory / "schemathesis.toml").write_text(CONFIGURATION)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from schemathesis.cli import schemathesis; schemathesis()",
        "run",
        f"{service.base}/openapi.json",
        "--seed=1",
        *arguments,
        cwd=directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode != 0:
        pytest.fail(output.decode())
    assert " passed" in output.decode()


async def test_schemathesis_finds_nothing(service: Client, tmp_path: Path) -> None:
    await service.pool("p", 100)
    await run(service, tmp_path, "--max-examples=40")


async def test_schemathesis_finds_nothing_where_tokens_are_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("s3cret\n")
    async with serving(settings(tmp_path, http_tokens=file), token="s3cret") as service:
        await run(
            service, tmp_path, "--max-examples=5", "--phases=coverage,fuzzing", "--header=Authorization: Bearer s3cret"
        )

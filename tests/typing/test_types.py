"""mypy and pyright, both strict, agree with us about what is right and what is wrong in ``snippets``."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SNIPPETS = Path(__file__).parent / "snippets"
FILES = sorted(SNIPPETS.glob("*.py"))


def expected() -> set[tuple[str, int]]:
    """A mistake may be reported on its line; a class's or a method's also on its decorator's."""
    return {
        (file.name, number)
        for file in FILES
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if line.endswith("# error")
    }


def near(found: set[tuple[str, int]]) -> set[tuple[str, int]]:
    """A wrong decorated method is reported at its decorator by one checker and at its name by the other."""
    lines = {file.name: file.read_text().splitlines() for file in FILES}
    return {
        (name, number + 1) if lines.get(name, [""] * number)[number - 1].strip().startswith("@") else (name, number)
        for name, number in found
    }


def by_mypy(tmp_path: Path) -> set[tuple[str, int]]:
    command = [
        *(sys.executable, "-m", "mypy", "--strict", "--follow-imports", "silent"),
        *("--config-file", "", "--cache-dir", str(tmp_path / "mypy"), "--no-error-summary", "--no-pretty"),
        *map(str, FILES),
    ]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode in (0, 1), run.stdout + run.stderr
    print(run.stdout)
    found = re.findall(r"^(\S+?):(\d+)(?::\d+)?: error", run.stdout, re.MULTILINE)
    return {(Path(file).name, int(line)) for file, line in found}


def by_pyright(tmp_path: Path) -> set[tuple[str, int]]:
    """The files say ``pyright: strict`` themselves."""
    command = [*(sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson"), *map(str, FILES)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode in (0, 1), run.stdout + run.stderr
    found = json.loads(run.stdout)["generalDiagnostics"]
    for one in found:
        print(Path(one["file"]).name, one["range"]["start"]["line"] + 1, one["message"])
    return {(Path(one["file"]).name, one["range"]["start"]["line"] + 1) for one in found if one["severity"] == "error"}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("checker", [by_mypy, by_pyright], ids=["mypy", "pyright"])
def test_a_strict_checker_reports_the_marked_lines_and_no_others(tmp_path: Path, checker: object) -> None:
    assert callable(checker)
    found = near(checker(tmp_path))
    assert found - expected() == set(), "reported, though it is right"
    assert expected() - found == set(), "wrong, and not reported"
    assert len(expected()) > 30

"""The command that searches: what it shows, what it writes, and how it ends."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from actorkit.testing.simulation.command import main
from actorkit.testing.simulation.trial import Case
from tests.simulation.toy import TOY, Asked

Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def a_wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "COLUMNS", "160")


def test_where_nothing_is_found_it_says_what_was_tried(capsys: Output) -> None:
    assert main(["tests.simulation.toy:TOY", "--seeds", "9", "--first", "1", "--processes", "1"]) == 0
    said = capsys.readouterr().out
    assert "Seeds 1 to 9 of tests.simulation.toy:TOY" in said
    assert re.search(r"crash +│ 13, 23 +│ 9 +│ 9 +│", said)
    assert re.search(r"pause +│ 9, 10 +│ 0 +│ 0 +│", said)
    assert "Operations: 180 replied" in said
    assert re.search(r"9 seeds in .* a second; 9\.0 simulated hours, .* an hour", said)
    assert said.endswith("Nothing was found.\n")


def test_failing_seeds_come_with_what_repeats_them_and_the_first_of_each_kind_as_a_case(
    capsys: Output, tmp_path: Path
) -> None:
    directory = tmp_path / "new" / "cases"
    options = ["--seeds", "600", "--first", "1", "--processes", "1", "--cases", str(directory)]
    assert main(["tests.simulation.toy:TOY", *options]) == 1
    said = capsys.readouterr().out
    assert "60 seeds have failed:\n  run the toy with seed 10\n    [G] the toy of seed 10 is broken\n" in said
    assert "    [F] and an event is missing" in said
    assert "  run the toy with seed 500\n" in said
    assert "seed 510\n" not in said
    assert "  and 10 more" in said
    assert sorted(path.name for path in directory.iterdir()) == ["f-10.json", "g-10.json"]
    case = Case.decode((directory / "g-10.json").read_bytes(), Asked)
    assert len(case.trial.plan.faults) == 2
    assert TOY.run(case.trial).findings == case.findings


def test_interrupted_it_ends_with_what_was_found_until_then(capsys: Output, tmp_path: Path) -> None:
    options = ["--seeds", "100000", "--first", "1", "--processes", "1", "--cases", str(tmp_path)]
    assert main(["tests.simulation.toy:SLOW", *options]) == 1
    said = capsys.readouterr().out
    assert re.search(r"Interrupted after \d+ of 100,000 seeds\.", said)
    assert "seeds have failed:\n  run the toy with seed 10\n" in said
    assert list(tmp_path.iterdir()) == []


def test_interrupted_without_a_finding_it_says_that_it_was(capsys: Output) -> None:
    options = ["--seeds", "100000", "--first", "11", "--processes", "1"]
    assert main(["tests.simulation.toy:QUIET", *options]) == 130
    assert "Nothing was found." in capsys.readouterr().out


def test_digests_alone_for_comparing_processes(capsys: Output) -> None:
    assert main(["tests.simulation.toy:TOY", "--seeds", "2", "--first", "9", "--digests"]) == 0
    assert capsys.readouterr().out == "9 00000009\n10 0000000a\n"

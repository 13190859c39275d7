"""The command: what it prints, and how it exits."""

from __future__ import annotations

from pathlib import Path
from random import Random

import msgspec
import pytest

from actorkit.testing.checkers import History
from actorkit.testing.checkers.__main__ import main
from tests.checkers.models import Counter, right_history

MODEL = "tests.checkers.models:Counter"


def written(path: Path, history: History) -> str:
    path.write_text("".join(history.lines()))
    return str(path)


@pytest.fixture
def history() -> History:
    return History(tuple(right_history(Random(1), Counter(), operations=20, clients=3)), 5, "make simulate SEED=5")


def test_what_is_right_exits_with_0(history: History, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([written(tmp_path / "history.jsonl", history), "--model", MODEL]) == 0
    said = capsys.readouterr().out
    assert "seed 5; make simulate SEED=5" in said
    assert "1 linearizable" in said


def test_what_is_wrong_exits_with_1(history: History, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = (*history.operations[:-1], msgspec.structs.replace(history.operations[-1], value=1))
    path = written(tmp_path / "history.jsonl", History(wrong))
    assert main([path, "--model", MODEL]) == 1
    assert "contradict each other" in capsys.readouterr().out
    assert main([path, "--model", MODEL, "--type", "other"]) == 0
    assert main([path, "--model", MODEL, "--steps", "3"]) == 1


@pytest.mark.parametrize(
    ("lines", "model", "why"),
    [
        ("nonsense", MODEL, "line 1 of the history"),
        ('{"format":1}', "tests.checkers.nowhere:Counter", "nowhere"),
        ('{"format":1}', "tests.checkers.models:Nothing", "Nothing"),
    ],
)
def test_what_cannot_be_read_exits_with_2(
    lines: str, model: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(lines)
    assert main([str(path), "--model", model]) == 2
    assert why in capsys.readouterr().err
    assert main([str(tmp_path / "none"), "--model", MODEL]) == 2

"""The command (a shell): ``python -m actorkit.testing.checkers history.jsonl --model package.module:Model``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actorkit.testing.checkers.history import History, HistoryError
from actorkit.testing.checkers.linearizability import check_linearizable
from actorkit.testing.checkers.model import Model
from actorkit.testing.checkers.report import render

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the verdict. 0: all of it can be explained; 1: it cannot, or the search gave up; 2: it cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m actorkit.testing.checkers", description="Is a recorded history linearizable?"
    )
    parser.add_argument("history", type=Path, help="JSON lines, as History.lines writes them")
    parser.add_argument("--model", required=True, help="a class without arguments, as package.module:Model")
    parser.add_argument("--type", help="only entities of this type, as in pool")
    parser.add_argument("--steps", type=int, default=500_000, help="how often the model is asked, for each entity")
    options = parser.parse_args(arguments)
    try:
        model = _model(options.model)
        with options.history.open("rb") as lines:
            history = History.from_lines(lines)
    except (HistoryError, OSError, ImportError, AttributeError, TypeError) as error:
        sys.stderr.write(f"{options.history}: {error}\n")
        return 2
    models = model if options.type is None else {options.type: model}
    verdicts = check_linearizable(history, models, steps_max=options.steps)
    seed = "" if history.seed is None else f"seed {history.seed}; "
    if seed or history.ran:
        sys.stdout.write(f"{seed}{history.ran}\n")
    sys.stdout.write(render(verdicts) + "\n")
    return 0 if all(verdict.ok for verdict in verdicts) else 1


def _model(name: str) -> Model[Any]:
    module, _, attribute = name.partition(":")
    model: Model[Any] = getattr(importlib.import_module(module), attribute)()
    return model


if __name__ == "__main__":
    sys.exit(main())

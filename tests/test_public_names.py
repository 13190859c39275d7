"""Every public name exists, says what it is, and stands where it is looked for."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest

import actorkit

FOUND = list(pkgutil.walk_packages(actorkit.__path__, "actorkit."))
MODULES = ["actorkit", *(found.name for found in FOUND)]
PACKAGES = ["actorkit", *(found.name for found in FOUND if found.ispkg)]


def exported(name: str) -> list[str]:
    return list(vars(importlib.import_module(name)).get("__all__", []))


def source(module: ModuleType) -> ast.Module:
    assert module.__file__ is not None
    return ast.parse(Path(module.__file__).read_text())


def documented(module: ModuleType, name: str) -> bool:
    """A class or function by its own docstring, anything else by the string after its assignment, wherever that is."""
    value = getattr(module, name)
    if inspect.isclass(value) or inspect.isroutine(value):
        return bool(value.__doc__)
    tree = source(module)
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and name in {alias.name for alias in node.names}:
            return documented(importlib.import_module(node.module), name)
    for node, following in zip(tree.body, tree.body[1:], strict=False):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
    return False


@pytest.mark.parametrize("name", MODULES)
def test_every_exported_name_exists_and_the_list_is_sorted(name: str) -> None:
    names = exported(name)
    assert [each for each in names if not hasattr(importlib.import_module(name), each)] == []
    assert len(set(names)) == len(names)
    # As ruff sorts them (RUF022): constants, then classes, then the rest.
    assert names == sorted(names, key=lambda each: (not each.isupper(), not each[0].isupper(), each))


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_of_a_package_is_documented(name: str) -> None:
    assert [each for each in exported(name) if not documented(importlib.import_module(name), each)] == []


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is_for(name: str) -> None:
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip() or not source(module).body


def test_the_package_exports_what_a_user_begins_with() -> None:
    assert {"ActorSystem", "PersistentActor", "Rejected", "command", "query"} <= set(exported("actorkit"))

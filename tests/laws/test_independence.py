"""The laws share no code with what they check."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import laws

MODULES = sorted(Path(laws.__file__).parent.glob("*.py"))
ALLOWED = ("laws", "retail", "backbone.v1", "google.protobuf", "google.type", "confluent_kafka", "httpx")
PURE = ("check", "entries", "facts", "fold", "rest", "verdict")
"""Modules that reach nothing outside."""


def imported(path: Path) -> Iterator[str]:
    """Every module a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield f"{node.module}.{node.names[0].name}" if node.module == "backbone.v1" else node.module or ""


def below(module: str, packages: tuple[str, ...]) -> bool:
    """Whether a module is one of these packages or lies in one."""
    return any(module == package or module.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_law_knows_contracts_and_the_way_to_the_log_and_nothing_else(path: Path) -> None:
    """Neither the runtime nor a service: a defect of theirs must not excuse itself."""
    foreign = [name for name in imported(path) if name.partition(".")[0] not in sys.stdlib_module_names and not below(name, ALLOWED)]
    assert foreign == []


@pytest.mark.parametrize("path", [path for path in MODULES if path.stem in PURE], ids=lambda path: path.stem)
def test_judging_is_pure(path: Path) -> None:
    """No client library, no clock, no file: the same entries give the same verdict."""
    impure = ("confluent_kafka", "httpx", "laws.log", "laws.books", "time", "datetime", "os", "pathlib", "random")
    assert [name for name in imported(path) if below(name, impure)] == []

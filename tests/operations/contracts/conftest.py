"""Contracts to plant breaches in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from backbone.operations.contracts import buf
from backbone.operations.contracts.gate import Law
from shop import shop

ROOT = Path(__file__).parents[3]
RECORDED = "tests/contexts/golden"


@pytest.fixture(scope="session")
def today() -> bytes:
    """The image of the contracts as they are."""
    return buf.build(ROOT, sources=False)


@pytest.fixture
def copy(tmp_path: Path) -> Law:
    """A copy of the contracts and of what their folds gave, without releases."""
    (tmp_path / "protos").mkdir()
    for name in ("protos/backbone", "protos/retail", "third_party", RECORDED):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.py"))
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    return Law(tmp_path, shop, recorded=RECORDED)

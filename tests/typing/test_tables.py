"""Tables that are wrong do not type-check. Each folder of `tables` holds a good one and bad ones, which differ from it in one word and
say `# error` where both checkers must find it, and nowhere else."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLES = Path(__file__).parent / "tables"
GOOD = sorted(TABLES.glob("*/good.py"))
BAD = sorted(path for path in TABLES.glob("*/*.py") if path.name not in ("good.py", "__init__.py"))
CHECKED = sorted(path for path in TABLES.rglob("*.py"))

Errors = set[tuple[str, int]]
"""Files, relative to `tables`, and lines."""


def marks(path: Path) -> Errors:
    """Where a table says that it is wrong."""
    lines = path.read_text().splitlines()
    return {(str(path.relative_to(TABLES)), number) for number, line in enumerate(lines, start=1) if line.endswith("# error")}


def words(path: Path) -> list[str]:
    """The tokens of a table, comments left out."""
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    return [token.string for token in tokens if token.type != tokenize.COMMENT]


def names(paths: list[Path]) -> list[str]:
    """Names of tables, for the report."""
    return [str(path.relative_to(TABLES).with_suffix("")) for path in paths]


@pytest.fixture(scope="module")
def mypy() -> Errors:
    """Where mypy finds errors, in one run over all tables."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-pretty", "--hide-error-context", *map(str, CHECKED)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    found = re.findall(r"^(.+?):(\d+): error:", run.stdout, re.MULTILINE)
    assert found, run.stdout + run.stderr
    return {(str((ROOT / file).relative_to(TABLES)), int(line)) for file, line in found}


@pytest.fixture(scope="module")
def basedpyright(tmp_path_factory: pytest.TempPathFactory) -> Errors:
    """Where basedpyright finds errors, in one run over all tables."""
    config = tmp_path_factory.mktemp("basedpyright") / "pyrightconfig.json"
    config.write_text(json.dumps({"extends": str(ROOT / "pyproject.toml"), "include": [str(TABLES)], "exclude": []}))
    command = [sys.executable, "-m", "basedpyright", "-p", str(config), "--outputjson"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    report = json.loads(run.stdout)
    assert report["summary"]["filesAnalyzed"] == len(CHECKED), run.stdout
    errors = [one for one in report["generalDiagnostics"] if one["severity"] == "error"]
    return {(str(Path(one["file"]).relative_to(TABLES)), one["range"]["start"]["line"] + 1) for one in errors}


@pytest.mark.parametrize("path", BAD, ids=names(BAD))
def test_a_bad_table_differs_from_the_good_one_in_one_word(path: Path) -> None:
    good, bad = words(path.with_name("good.py")), words(path)
    assert len(good) == len(bad)
    assert sum(one != other for one, other in zip(good, bad, strict=True)) == 1


@pytest.mark.timeout(240)
@pytest.mark.parametrize("path", BAD, ids=names(BAD))
def test_a_bad_table_fails_where_one_would_look(path: Path, mypy: Errors, basedpyright: Errors) -> None:
    expected = marks(path)
    assert len(expected) == 1
    file = str(path.relative_to(TABLES))
    assert {error for error in mypy if error[0] == file} == expected
    assert {error for error in basedpyright if error[0] == file} == expected


@pytest.mark.timeout(240)
def test_whatever_is_not_marked_passes(mypy: Errors, basedpyright: Errors) -> None:
    marked: Errors = set().union(*map(marks, BAD))
    assert not (mypy | basedpyright) - marked
    assert all(not marks(path) for path in GOOD)


def test_every_kind_of_table_has_a_good_one_and_bad_ones() -> None:
    assert {path.parent for path in GOOD} == {path.parent for path in BAD} != set()

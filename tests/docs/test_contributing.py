"""Who does as CONTRIBUTING says gets what it promises: every block is applied to a copy of the tree, every command is run there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import Block, blocks

# A dozen starts of Python with all its packages: a quarter of a minute alone, minutes where the machine is busy.
pytestmark = pytest.mark.timeout(400)

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SECTIONS = ["Add an event", "Add a decision", "Add a view", "Add a service", "Make anew what is derived"]
RECIPES = [block for block in blocks(TEXT) if block.section in SECTIONS]
BIN = Path(sys.executable).parent


def run(command: list[str], tree: Path) -> str:
    """Run a command in the copy; what it printed.

    Raises:
        AssertionError: it failed.
    """
    environment = {**os.environ, "PYTHONPATH": f"{tree}:{tree / 'generated'}", "GIT_CEILING_DIRECTORIES": str(tree.parent)}
    done = subprocess.run(
        command, check=False, cwd=tree, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=100
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}"
    return done.stdout


def changed() -> list[str]:
    """The Python files that the recipes change or add."""
    named = [
        re.findall(r"^\+\+\+ b/(.+)$", block.text, re.MULTILINE) if block.language == "diff" else [block.new_file] for block in RECIPES
    ]
    return sorted({path for paths in named for path in paths if path.endswith(".py")})


def do(command: str, tree: Path) -> str:
    """Run a command of the document: make as far as it concerns what was changed, since the copy has no environment of its own."""
    words = shlex.split(command)
    if words == ["make", "protos"]:
        return run([sys.executable, "build_protos.py"], tree)
    if words == ["make", "catalogue"]:
        return run([sys.executable, "-m", "backbone", "contracts", "catalogue"], tree)
    if words[0] == ".venv/bin/python":
        return run([sys.executable, *words[1:]], tree)
    if words[:2] == ["make", "test"]:
        run([sys.executable, "build_protos.py"], tree)
        arguments = shlex.split(words[2].removeprefix("ARGS="))
        return run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments], tree)
    if words == ["make", "check"]:
        files = changed()
        run([str(BIN / "ruff"), "check", "--no-cache", *files], tree)
        run([str(BIN / "ruff"), "format", "--no-cache", "--check", *files], tree)
        run([str(BIN / "buf"), "lint"], tree)
        run([str(BIN / "buf"), "format", "-d", "--exit-code", "protos"], tree)
        return run([str(BIN / "mypy"), *files], tree)
    if words[0] == ".venv/bin/backbone":
        return run([sys.executable, "-m", "backbone", *words[1:]], tree)
    assert words[0] in ("mkdir", "touch"), f"who knows what this does to a machine: {command}"
    return run(words, tree)


def follow(block: Block, tree: Path) -> str:
    """Do as a block says; what was printed."""
    if block.new_file:
        assert not (tree / block.new_file).exists(), f"line {block.line}: {block.new_file} is not new"
        (tree / block.new_file).parent.mkdir(parents=True, exist_ok=True)
        (tree / block.new_file).write_text(block.text, encoding="utf-8")
        return ""
    if block.language == "diff":
        patch = tree.parent / f"line-{block.line}.diff"
        patch.write_text(block.text, encoding="utf-8")
        return run(["git", "apply", str(patch)], tree)
    assert block.language == "sh", f"line {block.line}: what is to be done with this block?"
    return "".join(do(command, tree) for command in block.commands)


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What each block printed when it was followed, one after the other, in a copy of all that git does not ignore here."""
    tree = tmp_path_factory.mktemp("contributing") / "tree"
    list_all = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(list_all, cwd=ROOT, check=True, stdout=subprocess.PIPE, timeout=30).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    for generated in ("generated", "backbone/v1"):
        shutil.copytree(ROOT / generated, tree / generated, ignore=shutil.ignore_patterns("__pycache__"))
    return [follow(block, tree) for block in RECIPES]


def test_there_is_a_recipe_for_an_event_a_decision_a_view_and_a_service() -> None:
    """And nothing else is done, and nothing is left out."""
    assert list(dict.fromkeys(block.section for block in RECIPES)) == SECTIONS
    assert [block for block in blocks(TEXT) if block not in RECIPES] == []


def test_every_recipe_ends_with_tests_that_pass(printed: list[str]) -> None:
    """Each block was applied, each command succeeded; here is what the tests said."""
    passed = [(block.section, said) for block, said in zip(RECIPES, printed, strict=True) if re.search(r"\d+ passed", said)]
    assert [section for section, _ in passed] == SECTIONS
    assert not [said for _, said in passed if re.search(r"skipped|failed|error", said)]


def test_what_was_added_is_part_of_the_topology(printed: list[str]) -> None:
    """The last command of the last recipe shows all of it."""
    for name in ("ItemDiscontinued", "PriceWithdrawn", "PointsEarned", "retail.ordering.loyalty.v1"):
        assert name in printed[-1]


def test_the_commands_that_are_named_exist() -> None:
    """Targets of make, and files."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make ([a-z-]+)", TEXT):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"

"""The commands of the README exist, explain themselves, and need no more than they say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
# The programs of coreutils that the Makefile could call; python3, git and make beside them.
NEEDED = ("python3", "git", "make", "sh", "env", "cat", "cp", "echo", "ls", "mkdir", "mv", "printf", "rm", "test", "true")


@pytest.fixture
def bare_machine(tmp_path: Path) -> dict[str, str]:
    """An environment whose PATH holds python3, git, make and coreutils, nothing else."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in NEEDED:
        if found := shutil.which(name):
            (programs / name).symlink_to(found)
    python = ROOT / ".venv" / "bin" / "python"
    (programs / "python3").unlink()
    (programs / "python3").symlink_to(python.resolve())
    return {"PATH": str(programs), "HOME": str(tmp_path)}


def make(*arguments: str, env: dict[str, str] | None = None, prefix: tuple[str, ...] = ()) -> str:
    """Runs make in the checkout; returns what it printed."""
    # A make that runs these tests must not hand its own flags down.
    inherited = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    done = subprocess.run(
        [*prefix, "make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env=inherited if env is None else env,
        check=False,  # asserted below, with the output
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_make_alone_explains_every_target() -> None:
    """Nobody has to read the Makefile."""
    found = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert found
    printed = make()
    assert [target for target in found.group(1).split() if target != "help" and f"make {target}" not in printed] == []


def test_ci_runs_exactly_make_test() -> None:
    """What is green there is green here."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    commands = [line for line in script.splitlines() if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == ["exec make test"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_a_missing_python_is_told_with_the_remedy() -> None:
    """Not by the shell's `not found`."""
    done = subprocess.run(
        ["make", "PYTHON=no-such-python", "setup"],
        cwd=ROOT,
        check=False,  # it must fail
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "no 'no-such-python' on the PATH: install Python 3.11" in done.stderr


def test_an_order_without_an_article_asks_for_it() -> None:
    """Before anything is started."""
    done = subprocess.run(["make", "order"], cwd=ROOT, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "make order SKU=" in done.stderr


def test_a_finished_set_up_needs_only_python_git_and_make(bare_machine: dict[str, str]) -> None:
    """No Java, no protoc, no Node, no docker on the PATH."""
    assert make("protos", env=bare_machine) == ""


def test_a_finished_set_up_needs_no_network(bare_machine: dict[str, str]) -> None:
    """In a network namespace without any interface."""
    unshare = shutil.which("unshare")
    alone = (unshare or "unshare", "--net", "--map-root-user")
    if unshare is None or subprocess.run([*alone, "true"], check=False, capture_output=True, timeout=60).returncode:
        pytest.skip("no network namespace to be had: `unshare` is missing or not allowed")
    assert make("protos", env=bare_machine, prefix=alone) == ""


def test_wheel_holds_the_runtime_with_its_generated_contracts_and_no_shop(tmp_path: Path) -> None:
    """Built from a copy without generated code, as from a source archive."""
    for name in ("pyproject.toml", "build_protos.py", "hatch_build.py", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "README.md").write_text("# backbone\n", encoding="utf-8")
    shutil.copytree(ROOT / "backbone", tmp_path / "backbone", ignore=shutil.ignore_patterns("v1", "__pycache__"))
    for name in ("protos", "third_party"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "contexts").mkdir()
    (tmp_path / "contexts" / "__init__.py").touch()
    hatchling = ROOT / ".venv" / "bin" / "hatchling"
    subprocess.run([hatchling, "build", "-t", "wheel"], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"backbone/__init__.py", "backbone/py.typed", "backbone/v1/__init__.py"} <= set(names)
    assert {"backbone/v1/meta_pb2.py", "backbone/v1/meta_pb2.pyi"} <= set(names)
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"backbone"}

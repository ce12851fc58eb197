"""A context starts from its own folder: the others may be absent, code and private contracts alike."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTEXTS = sorted(path.parent.name for path in (ROOT / "contexts").glob("*/context.py"))

START = """
import sys
sys.path[:] = [path for path in sys.path if path not in {checkout!r}]
sys.path[:0] = {tree!r}
import importlib
context = importlib.import_module("contexts.{name}.context")
from backbone.contract import resolve_context
print(context.__file__, *sorted(service.name for service in resolve_context(context.{name})))
"""


def copy_of_the_tree(folder: Path, name: str) -> None:
    """What an image of one context holds: the runtime, the context, everybody's events, and nothing private of others."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "backbone", folder / "backbone", ignore=ignore)
    shutil.copytree(ROOT / "contexts", folder / "contexts", ignore=ignore)
    shutil.copytree(ROOT / "generated", folder / "generated", ignore=ignore)
    for other in CONTEXTS:
        if other != name:
            shutil.rmtree(folder / "contexts" / other)
    for private in [path for kind in ("views", "effects") for path in (folder / "generated" / "retail").glob(f"*/{kind}")]:
        if private.parent.name != name:
            shutil.rmtree(private)


def start(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Import a context and hold its tables against its contracts, with nothing of the checkout on the path."""
    tree, checkout = [str(folder), str(folder / "generated")], [str(ROOT), str(ROOT / "generated"), ""]
    program = START.format(tree=tree, checkout=checkout, name=name)
    return subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_there_are_three_contexts() -> None:
    assert CONTEXTS == ["fulfilment", "ordering", "payments"]


@pytest.mark.parametrize("name", CONTEXTS)
def test_a_context_starts_without_the_others(name: str, tmp_path: Path) -> None:
    copy_of_the_tree(tmp_path, name)
    started = start(name, tmp_path)
    assert started.returncode == 0, started.stderr
    file, *services = started.stdout.split()
    assert Path(file).is_relative_to(tmp_path)
    assert services
    assert all(service.startswith(f"{name}.") for service in services)


def test_a_context_that_reaches_for_another_does_not_start(tmp_path: Path) -> None:
    copy_of_the_tree(tmp_path, "ordering")
    with (tmp_path / "contexts" / "ordering" / "context.py").open("a") as file:
        file.write("\nimport contexts.payments.context\n")
    assert "No module named 'contexts.payments'" in start("ordering", tmp_path).stderr

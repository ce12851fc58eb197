"""The lock and the declared dependencies agree with each other and with what the runtime imports."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from bootstrap import locked_names, normal
from tests.test_imports import imports_of

ROOT = Path(__file__).resolve().parents[2]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def direct_dependencies(group: str = "") -> set[str]:
    """Names in requirements.in, all or of the group whose comment begins with a word."""
    names = set()
    heading = ""
    for line in (ROOT / "requirements.in").read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            heading = line[2:]
        elif line and heading.startswith(group):
            names.add(bare(line))
    return names


def bare(requirement: str) -> str:
    """The normalised name of a requirement without extras, versions and markers."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, requirement
    return normal(found.group())


def test_lock_names_no_address() -> None:
    """An index or mirror is the business of the machine that installs."""
    assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host|\s@\s", LOCK)


def test_every_locked_package_has_one_version_and_a_hash() -> None:
    """`--require-hashes` would refuse it only at the time of installing."""
    entries = re.split(r"\n(?=[A-Za-z0-9])", LOCK)
    bad = [entry for entry in entries if not re.match(r"[\w.-]+==\S+[^\n]*\\\n +--hash=sha256:[0-9a-f]{64}", entry)]
    assert len(entries) == len(locked_names(LOCK)) > 50
    assert bad == []


def test_every_direct_dependency_is_locked() -> None:
    """A line added to requirements.in needs `make lock`."""
    assert direct_dependencies() <= {normal(name) for name in locked_names(LOCK)}


def test_wheel_depends_on_exactly_the_runtime_group() -> None:
    """The two lists of the same names cannot drift apart."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {bare(requirement) for requirement in project["dependencies"]} == direct_dependencies("Runtime")


def test_runtime_imports_only_what_its_wheel_depends_on() -> None:
    """A wheel installed alone must not miss a package that a checkout happens to have."""
    owners = packages_distributions()
    allowed = direct_dependencies("Runtime")
    missing = set()
    for path in (ROOT / "backbone").rglob("*.py"):
        package = ".".join(path.relative_to(ROOT).parent.parts)
        for module, line in imports_of(path.read_text(encoding="utf-8"), package):
            top = module.split(".")[0]
            if top in sys.stdlib_module_names or top in ("backbone", "google"):
                continue
            suites = {"hypothesis", "pytest"} if path.is_relative_to(ROOT / "backbone" / "testing") else set()
            if not (allowed | suites) & {normal(owner) for owner in owners.get(top, [])}:
                missing.add(f"{path.relative_to(ROOT)}:{line}: {top}")
    assert missing == set()

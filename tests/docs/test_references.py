"""What the documents point at exists: files, headings, tests, and every decision in its index."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.docs.blocks import FENCE

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py|backbone/testing/[\w/]+\.py)(?:::(test_\w+))?`")
NAMED_FILE = re.compile(r"`((?:backbone|contexts|gateway|demo|laws|outside|protos|tests|data|docs|benchmarks)/[\w/.-]+\.\w+)`")
NEW_FILE = re.compile(r"[Nn]ew file\s+`[^`]+`")
ADR = re.compile(r"\d{4}-[a-z0-9-]+\.md")
PARTS = ["Context", "Decision", "What was measured", "Consequences"]


def prose(document: Path) -> str:
    """A document without its code blocks and the names of files that its reader makes."""
    return NEW_FILE.sub("", FENCE.sub("", document.read_text(encoding="utf-8")))


def name(document: Path) -> str:
    """How a document is called in the names of tests."""
    return str(document.relative_to(ROOT))


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@cache
def functions_of(file: str) -> set[str]:
    """Names of the functions of a file, methods included."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def dead_links(document: Path) -> Iterator[str]:
    """Relative links of a document that lead nowhere."""
    for link in LINK.findall(prose(document)):
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if "://" in link:
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield link


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_somewhere(document: Path) -> None:
    assert list(dead_links(document)) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_files_and_tests_that_are_named_exist(document: Path) -> None:
    text = prose(document)
    assert [file for file in NAMED_FILE.findall(text) if not (ROOT / file).exists()] == []
    named = [(file, test) for file, test in NAMED_TEST.findall(text) if test]
    assert [f"{file}::{test}" for file, test in named if test not in functions_of(file)] == []


def test_every_decision_is_in_the_index_under_its_title_and_has_its_parts() -> None:
    folder = ROOT / "docs" / "adr"
    decisions = sorted(path for path in folder.glob("*.md") if ADR.fullmatch(path.name))
    index = (folder / "README.md").read_text(encoding="utf-8")
    assert [path.name[:4] for path in decisions] == [f"{number:04}" for number in range(1, len(decisions) + 1)]
    for path in decisions:
        title, *_ = path.read_text(encoding="utf-8").splitlines()
        assert f"[{title.removeprefix('# ')}]({path.name})" in index, path.name
        assert re.findall(r"^## (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE) == PARTS, path.name


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    document = tmp_path / "a.md"
    document.write_text("# A b\n[x](b.md) [y](#a-b) [z](#c) [e](https://example.org)\n```\n[w](no.md)\n```\n", encoding="utf-8")
    assert list(dead_links(document)) == ["b.md", "#c"]

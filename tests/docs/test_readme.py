"""The README says what is: its picture, its table, its contract, its commands and its laws are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from backbone.cli import main
from laws.check import LAWS
from shop import shop
from tests.docs.blocks import Block, blocks
from tests.docs.picture import mermaid

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = list(blocks(TEXT))


def the_block(language: str, words: str) -> Block:
    """The one block in this language that holds these words."""
    found = [block for block in BLOCKS if block.language == language and words in block.text]
    assert len(found) == 1, f"{len(found)} blocks in {language} hold {words!r}"
    return found[0]


def test_the_picture_is_that_of_the_topology() -> None:
    """`python -m tests.docs.picture` prints the new one."""
    assert the_block("mermaid", "flowchart").text == mermaid(shop, "retail")


def test_the_table_and_the_contract_are_those_of_stock() -> None:
    assert the_block("python", "Decider(").text in (ROOT / "contexts/fulfilment/stock/service.py").read_text(encoding="utf-8")
    assert the_block("proto", "StockEvent").text in (ROOT / "protos/retail/fulfilment/v1/stock.proto").read_text(encoding="utf-8")


def test_the_laws_that_are_shown_are_laws() -> None:
    shown = re.findall(r"^holds {3}(.{13}) (.*?)(?: \(.*)?$", the_block("text", "the laws of the shop").text, re.MULTILINE)
    assert len(shown) > 3
    assert [(name.strip(), text) for name, text in shown if LAWS[name.strip()] != text] == []


def test_the_commands_that_are_named_exist() -> None:
    """Targets of make, and commands of `backbone`, groups included."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"\bmake ([a-z-]+)[^.`]*`", TEXT)
    assert len(targets) > 3
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []
    for words in re.findall(r"`backbone ([a-z ]+)", TEXT):
        command: click.Command = main
        for word in words.split():
            assert isinstance(command, click.Group), words
            assert word in command.commands, words
            command = command.commands[word]


def test_the_client_has_ten_lines() -> None:
    client = the_block("python", "OrderServiceStub")
    compile(client.text, "README.md", "exec")
    assert len(client.text.splitlines()) == 10


def test_the_article_is_named() -> None:
    assert re.search(r"Ben Stopford's article\s+\[Build Services on a Backbone of Events\]\(https://www\.confluent\.io/blog/", TEXT)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("# A\n\n```sh\nls \\\n -l\n# why\npwd\n```\n", [("sh", "A", "", ["ls   -l", "pwd"])]),
        ("## B\n1. New file `x/y.py`:\n\n   ```python\n   if a:\n       b\n\n   c\n   ```\n", [("python", "B", "x/y.py", None)]),
        ("```\n# no heading\n```\n\ntext\n", [("", "", "", None)]),
    ],
)
def test_blocks_are_read_as_they_are_written(document: str, expected: list[tuple[str, str, str, list[str] | None]]) -> None:
    """The reader of documents that the other tests trust."""
    found = list(blocks(document))
    assert [(block.language, block.section, block.new_file) for block in found] == [one[:3] for one in expected]
    assert all(commands is None or block.commands == commands for block, (_, _, _, commands) in zip(found, expected, strict=True))
    assert all("\n   c" not in block.text for block in found)

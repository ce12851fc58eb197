"""The code blocks of a document, and what it takes to do as they say. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w-]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
NEW_FILE = re.compile(r"[Nn]ew file\s+`([^`]+)`:\s*\Z")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block.

    Attributes:
        language: the word behind the fence; empty if there is none.
        text: what is between the fences, without the indentation of the fence.
        line: number of the line of the opening fence, from 1.
        section: the heading it stands under.
        new_file: path of the file it is the whole content of, if the text before it says so.
    """

    language: str
    text: str
    line: int
    section: str
    new_file: str

    @property
    def commands(self) -> list[str]:
        """The commands of a block for a shell: one a line, continued lines joined."""
        return [line for line in self.text.replace("\\\n", " ").splitlines() if line.strip() and not line.lstrip().startswith("#")]


def blocks(document: str) -> Iterator[Block]:
    """Every fenced block of a Markdown document, in order."""
    for found in FENCE.finditer(document):
        before = document[: found.start()]
        headings = re.findall(r"^#+ (.+)$", FENCE.sub("", before), re.MULTILINE)
        new_file = NEW_FILE.search(before)
        yield Block(
            language=found["language"],
            text=re.sub(rf"^{found['indent']}", "", found["text"], flags=re.MULTILINE),
            line=before.count("\n") + 1,
            section=headings[-1] if headings else "",
            new_file=new_file[1] if new_file else "",
        )

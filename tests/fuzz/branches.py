"""Which branches of a module a run took: each `if` and `while` both ways, each `case` at all."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any


@dataclass
class Branches:
    """The branches of one module.

    Attributes:
        every: line of the test and whether it is taken, for each branch; a case is only looked at for being taken.
        taken: those that were.
    """

    file: str
    every: frozenset[tuple[int, bool]]
    tests: dict[int, tuple[int, int]]
    taken: set[tuple[int, bool]] = field(default_factory=set)
    last: dict[FrameType, int] = field(default_factory=dict)

    @classmethod
    def of(cls, module: ModuleType) -> Branches:
        """The branches of a module's source."""
        assert module.__file__
        every: set[tuple[int, bool]] = set()
        tests: dict[int, tuple[int, int]] = {}
        for node in ast.walk(ast.parse(Path(module.__file__).read_text(encoding="utf-8"))):
            if isinstance(node, ast.If | ast.While):
                every |= {(node.test.lineno, True), (node.test.lineno, False)}
                for line in range(node.test.lineno, (node.test.end_lineno or node.test.lineno) + 1):
                    tests[line] = (node.test.lineno, node.body[0].lineno)
            elif isinstance(node, ast.match_case):
                every.add((node.pattern.lineno, True))
                for line in range(node.pattern.lineno, (node.pattern.end_lineno or node.pattern.lineno) + 1):
                    tests[line] = (node.pattern.lineno, node.body[0].lineno)
        return cls(module.__file__, frozenset(every), tests)

    @property
    def missed(self) -> list[tuple[int, bool]]:
        """Branches that were not taken."""
        return sorted(self.every - self.taken)

    @property
    def share(self) -> float:
        """How many of all were taken."""
        return 1 - len(self.missed) / len(self.every) if self.every else 1.0

    def step(self, frame: FrameType, line: int | None) -> None:
        """A frame went on to a line, or ended."""
        before = self.last.get(frame)
        if before in self.tests:
            test, body = self.tests[before]
            if line is None or self.tests.get(line, (0, 0))[0] != test or line == body:
                self.taken.add((test, line == body))
        if line is None:
            self.last.pop(frame, None)
        else:
            self.last[frame] = line


@contextmanager
def watching(branches: Branches) -> Iterator[None]:
    """Notes the branches that are taken while something runs; that costs every call of it a little."""

    def local(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            branches.step(frame, frame.f_lineno)
        elif event == "return":
            branches.step(frame, None)
        return local

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        code: CodeType = frame.f_code
        return local if event == "call" and code.co_filename == branches.file else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)

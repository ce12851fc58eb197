"""A Dockerfile read without building it: its stages, and which files of the checkout a stage ends up with."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path


@dataclass(frozen=True)
class Step:
    """One instruction: its word, its options, the rest of it."""

    word: str
    rest: str
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """What stands between two FROMs."""

    name: str
    base: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Copy:
    """Files from the checkout (`stage` is empty) or from another stage."""

    stage: str
    sources: tuple[str, ...]
    target: str


class Dockerfile:
    """The stages of a file, in its order."""

    def __init__(self, text: str) -> None:
        self.stages: dict[str, Stage] = {}
        joined = re.sub(r"\\\n", " ", "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#")))
        self.outside: list[Step] = []
        current: list[Step] | None = None
        for line in filter(None, (one.strip() for one in joined.splitlines())):
            step = _step(line)
            if step.word == "FROM":
                base, _, name = step.rest.partition(" AS ")
                current = []
                self.stages[name] = Stage(name, base, ())
                continue
            if current is None:
                self.outside.append(step)
                continue
            current.append(step)
            last = next(reversed(self.stages))
            self.stages[last] = Stage(last, self.stages[last].base, tuple(current))

    def lineage(self, target: str) -> Iterator[Stage]:
        """The stage and those it stands on, the lowest first."""
        stage = self.stages[target]
        if stage.base in self.stages:
            yield from self.lineage(stage.base)
        yield stage

    def steps(self, target: str) -> list[Step]:
        """All instructions that make an image, in order."""
        return [step for stage in self.lineage(target) for step in stage.steps]

    def last(self, target: str, word: str) -> str:
        """What the last instruction of a kind says; empty if there is none."""
        return next((step.rest for step in reversed(self.steps(target)) if step.word == word), "")

    def copies(self, target: str, arguments: Mapping[str, str]) -> list[Copy]:
        """Everything that is copied into an image, with the arguments of its build filled in."""
        found = []
        for step in self.steps(target):
            if step.word == "COPY":
                *sources, place = filled(step.rest, arguments).split()
                found.append(Copy(step.options.get("from", ""), tuple(sources), place))
        return found

    def needed(self, target: str) -> set[str]:
        """The stages a build of an image runs."""
        found = {stage.name for stage in self.lineage(target)}
        for name in list(found):
            for step in self.stages[name].steps:
                if step.word == "COPY" and "from" in step.options:
                    found |= self.needed(step.options["from"])
        return found

    def sent(self, target: str, arguments: Mapping[str, str]) -> set[str]:
        """Paths of the checkout that the build of an image reads."""
        return {
            source
            for name in self.needed(target)
            for step in self.stages[name].steps
            if step.word == "COPY" and "from" not in step.options
            for source in filled(step.rest, arguments).split()[:-1]
        }


def _step(line: str) -> Step:
    word, _, rest = line.partition(" ")
    options = dict(re.findall(r"--(\w+)=(\S+)\s", rest)) if word == "COPY" else {}
    bare = re.sub(r"--\w+=\S+\s+", "", rest) if word == "COPY" else re.sub(r"\s+", " ", rest)
    return Step(word, bare.strip(), options)


def filled(text: str, arguments: Mapping[str, str]) -> str:
    """A text with ${NAME} filled in."""
    return re.sub(r"\$\{(\w+)\}", lambda found: arguments[found[1]], text)


class Ignored:
    """A .dockerignore: the last line that fits decides."""

    def __init__(self, text: str) -> None:
        self._lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]

    def __contains__(self, path: object) -> bool:
        parents = [str(path), *(str(parent) for parent in Path(str(path)).parents)][:-1]
        out = False
        for line in self._lines:
            if any(_fits(line.removeprefix("!"), one) for one in parents):
                out = not line.startswith("!")
        return out

    def may_hold(self, folder: str) -> bool:
        """Whether anything below a folder can be sent."""
        return folder not in self or any(line.startswith(f"!{folder}/") for line in self._lines)


def _fits(pattern: str, path: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatchcase(path.rpartition("/")[2], pattern.removeprefix("**/"))
    return pattern.count("/") == path.count("/") and fnmatchcase(path, pattern)


def sent(root: Path) -> set[str]:
    """Every file of a checkout that its .dockerignore lets through."""
    ignored = Ignored((root / ".dockerignore").read_text())
    found = set()
    for folder, below, files in os.walk(root):
        here = "" if Path(folder) == root else f"{Path(folder).relative_to(root)}/"
        below[:] = [name for name in below if ignored.may_hold(f"{here}{name}")]
        found |= {f"{here}{name}" for name in files if f"{here}{name}" not in ignored}
    return found


def lay_out(copies: list[Copy], root: Path, made: Mapping[str, Path], image: Path) -> None:
    """Put into a folder what copies put into an image.

    Args:
        root: the checkout; only what it sends can be copied.
        made: what other stages have made, by "stage:/path"; what is not named there is left out.
        image: stands for the working directory of the image.
    """
    files = sent(root)
    for copy in copies:
        for source in copy.sources:
            if copy.stage:
                if (there := made.get(f"{copy.stage}:{source}")) is not None:
                    shutil.copytree(there, image / copy.target, dirs_exist_ok=True)
                continue
            chosen = [name for name in files if name == source or name.startswith(f"{source}/")]
            assert chosen, f"{source} is not sent to the build: see .dockerignore"
            for name in chosen:
                inside = name.removeprefix(source).lstrip("/")
                place = image / copy.target / (inside or Path(source).name if copy.target.endswith("/") or inside else "")
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(root / name, place)

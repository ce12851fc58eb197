"""Released contracts: images that never change, and beside each what else was promised with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from backbone.errors import DeclarationError
from backbone.operations.contracts.folds import Fold, Folds
from backbone.operations.contracts.image import Image


@dataclass(frozen=True)
class Release:
    """One release.

    Attributes:
        number: 1, 2, 3, ...
        folds: of every decider and view.
        consumers: who heard each event.
        corpus: SHA-256 of each file of stored bytes, by its path in the corpus.
        accepted: reason for each breach that was released all the same, by its name.
        digest: SHA-256 of the image, as noted.
        before: SHA-256 of the notes of the release before; empty for the first.
    """

    number: int
    raw: bytes = field(repr=False)
    folds: Folds = field(default_factory=dict)
    consumers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    corpus: Mapping[str, str] = field(default_factory=dict)
    accepted: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""
    before: str = ""

    @property
    def name(self) -> str:
        """How findings name it."""
        return f"release {self.number}"

    @property
    def unchanged(self) -> bool:
        """Whether the image is the one its notes tell of."""
        return self.digest in ("", sha256(self.raw))

    @cached_property
    def image(self) -> Image:
        """What was released."""
        return Image.of(self.raw, self.name)

    def notes(self) -> str:
        """What is written beside the image."""
        found: dict[str, Any] = {
            "release": self.number,
            "image": sha256(self.raw),
            "before": self.before,
            "accepted": dict(sorted(self.accepted.items())),
            "folds": {name: fold.to_dict() for name, fold in sorted(self.folds.items())},
            "consumers": {name: list(of) for name, of in sorted(self.consumers.items())},
            "corpus": dict(sorted(self.corpus.items())),
        }
        return json.dumps(found, indent=1) + "\n"

    def write(self, folder: Path) -> Path:
        """Keep it for ever.

        Raises:
            FileExistsError: there is a release of that number.
        """
        folder.mkdir(parents=True, exist_ok=True)
        image = folder / f"{self.number}.binpb"
        with image.open("xb") as file:
            file.write(self.raw)
        with notes_of(image).open("x", encoding="utf-8") as notes:
            notes.write(self.notes())
        return image


def notes_of(image: Path) -> Path:
    """The file beside an image."""
    return image.with_suffix(".json")


def sha256(raw: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(raw).hexdigest()


def read(image: Path, number: int = 0) -> Release:
    """A release, or any image file: without notes it promises what the image says and nothing else.

    Raises:
        DeclarationError: the notes cannot be read.
    """
    raw, notes = image.read_bytes(), notes_of(image)
    if not notes.is_file():
        return Release(number, raw)
    try:
        found = json.loads(notes.read_text(encoding="utf-8"))
        folds = {name: Fold(**fold) for name, fold in found["folds"].items()}
        return Release(
            found["release"], raw, folds, found["consumers"], found["corpus"], found["accepted"], found["image"], found["before"]
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DeclarationError(f"{notes} cannot be read: {error!r}. Bring it back from the history") from error


def read_all(folder: Path) -> list[Release]:
    """Every release, oldest first."""
    numbered = sorted((int(file.stem), file) for file in folder.glob("*.binpb") if file.stem.isdigit())
    return [read(file, number) for number, file in numbered]


def broken_notes(folder: Path, releases: Sequence[Release]) -> list[tuple[str, str]]:
    """Releases that are no longer what they were: (name, what)."""
    broken = []
    for number, one in enumerate(releases, start=1):
        if one.number != number:
            broken.append((f"{one.number}.binpb", f"release {number} is missing: the first one found after it is {one.number}"))
        if not one.digest:
            broken.append((f"{one.number}.json", f"{one.name} has no notes beside its image"))
        elif not one.unchanged:
            broken.append((f"{one.number}.binpb", f"the image of {one.name} is not the one that was released"))
        if one.before and number > 1:
            notes = folder / f"{one.number - 1}.json"
            if not notes.is_file() or sha256(notes.read_bytes()) != one.before:
                broken.append((notes.name, f"the notes of release {one.number - 1} are not those that {one.name} followed"))
    return broken

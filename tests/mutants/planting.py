"""What a planted mistake is: something that takes the place of what is right, for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias
from unittest.mock import patch

Patches: TypeAlias = Sequence[tuple[Any, str, Any]]
"""Owner, name and what comes there instead."""


@dataclass(frozen=True)
class Mutant:
    """A mistake that shows in the simulation.

    Attributes:
        about: what is done wrong, in a sentence.
        plant: makes what comes in the place of what is right.
        reasons: rules of the checker of which one must be broken by it: its own reason, not some consequence.
        first: the seed from which it is looked for: one near by shows it.
    """

    about: str
    plant: Callable[[], Patches]
    reasons: tuple[str, ...]
    first: int = 1


@contextmanager
def planted(plant: Callable[[], Patches]) -> Iterator[None]:
    """Plant a mistake for a while."""
    with ExitStack() as stack:
        for owner, name, instead in plant():
            stack.enter_context(patch.object(owner, name, instead))
        yield

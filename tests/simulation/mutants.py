"""Mistakes that can be planted in the runtime, the ports or the shop; each must turn some run red."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

MUTANTS: dict[str, Callable[[], AbstractContextManager[None]]] = {}


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Plant a mistake, or none."""
    if name is None:
        yield
        return
    with MUTANTS[name]():
        yield

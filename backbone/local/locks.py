"""Locks between processes: files that the kernel unlocks when their holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backbone.local.errors import StackError


class HeldLock:
    """A locked file that holds the pid of its holder."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def release(self) -> None:
        """Unlocks it; the file stays, since deleting it would let two holders lock two files of one name."""
        os.close(self._descriptor)


def try_lock(path: Path) -> HeldLock | None:
    """Locks the file and writes the own pid into it, or returns None while another process holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return HeldLock(path, descriptor)


def holder(path: Path) -> int | None:
    """The pid written by whoever locked the file last."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


@contextmanager
def file_lock(path: Path, within: float) -> Iterator[None]:
    """Holds the lock of a file, waiting for it at most `within` seconds.

    Raises:
        StackError: another process held it all the time.
    """
    deadline = time.monotonic() + within
    while (lock := try_lock(path)) is None:
        if time.monotonic() >= deadline:
            raise StackError(
                f"process {holder(path)} has held {path} for {within:.0f} s", "look what it does, or end it"
            )
        time.sleep(0.1)
    try:
        yield
    finally:
        lock.release()

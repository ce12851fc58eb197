"""Locks between processes: files that the kernel unlocks when their holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backbone.local.errors import StackError
from backbone.local.processes import Identity


class HeldLock:
    """A locked file that says which process holds it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Unlocks it; the file stays, since deleting it would let two holders lock two files of one name."""
        os.close(self._descriptor)


def try_lock(path: Path) -> HeldLock | None:
    """Locks the file and writes into it who did, or returns None while another process holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    os.ftruncate(descriptor, 0)
    own = Identity.of(os.getpid())
    os.write(descriptor, f"{os.getpid()} {own.started if own else 0.0}\n".encode())
    return HeldLock(descriptor)


def holder(path: Path) -> int | None:
    """The pid of whoever locked the file last, if that very process still runs; leaves the lock alone."""
    try:
        pid, started = path.read_text().split()
        last = Identity(int(pid), float(started))
    except (OSError, ValueError):
        return None
    return last.pid if last.is_running() else None


@contextmanager
def file_lock(path: Path, within: float) -> Iterator[None]:
    """Holds the lock of a file, waiting for it at most `within` seconds.

    Raises:
        StackError: another process held it all the time.
    """
    deadline = time.monotonic() + within
    while (lock := try_lock(path)) is None:
        if time.monotonic() >= deadline:
            raise StackError(f"process {holder(path)} has held {path} for {within:.0f} s", "look what it does, or end it")
        time.sleep(0.1)
    try:
        yield
    finally:
        lock.release()

"""The payment provider as a process of a test, which it does not outlive."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backbone.local.ports import free_port
from backbone.local.processes import Process, ProcessSpec

ROOT = Path(__file__).parents[2]


def provider_process(folder: Path, *options: str) -> tuple[Process, str]:
    """A provider that is not started yet and its address; a second start finds the same ledger in `folder`."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = (sys.executable, "-m", "outside.provider", "--port", str(port), "--ledger", str(folder / "ledger.db"))
    spec = ProcessSpec(
        "provider",
        (*command, *options),
        environment={"PYTHONPATH": str(ROOT)},
        ready=f"{address}/livez",
        ready_within=20.0,
    )
    return Process(spec, folder), address


@contextmanager
def running(folder: Path, *options: str) -> Iterator[tuple[Process, str]]:
    """A provider that serves, and its address."""
    process, address = provider_process(folder, *options)
    process.start()
    try:
        process.await_ready()
        yield process, address
    finally:
        process.kill()
        process.wait(5.0)

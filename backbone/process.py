"""What runs in one process of a context: its loops, each on a thread, its edges, and what they are at."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from backbone.contract import ResolvedService
from backbone.declare import Context
from backbone.errors import BackboneError
from backbone.settings import Settings

log = structlog.get_logger()


class Loop(Protocol):
    """What a thread of the process runs."""

    def step(self, timeout_s: float) -> bool: ...
    def status(self) -> dict[str, Any]: ...
    @property
    def ready(self) -> bool: ...
    def close(self) -> None: ...


class Running:
    """A loop on its thread.

    Args:
        name: <service>.<purpose>, for thread, metrics and logs.
        make: builds the loop, on the thread.
        failed: called, on the thread, when the loop cannot go on.
    """

    def __init__(self, name: str, make: Callable[[], Loop], failed: Callable[[str, BaseException], None]) -> None:
        self.name = name
        self._make = make
        self._failed = failed
        self._stop = threading.Event()
        self._loop: Loop | None = None
        self._stepped = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Build the loop and step it until told to stop."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Stop after the batch under way."""
        self._stop.set()

    def join(self, timeout_s: float) -> bool:
        """Whether it has stopped within the time."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def ready(self) -> bool:
        """Whether it does its work."""
        return self._loop is not None and self._loop.ready

    def stuck_s(self) -> float:
        """How long the step under way takes, in seconds."""
        return time.monotonic() - self._stepped if self._thread.is_alive() else 0.0

    def status(self) -> dict[str, Any]:
        """What the loop holds and waits for."""
        return self._loop.status() if self._loop is not None else {"starting": True}

    def _run(self) -> None:
        try:
            self._loop = self._make()
            while not self._stop.is_set():
                self._loop.step(0.1)
                self._stepped = time.monotonic()
            self._loop.close()
        except BaseException as error:  # noqa: BLE001 - whatever ends a loop ends the process
            self._failed(self.name, error)


@dataclass
class Process:
    """Everything that runs in this process."""

    context: Context
    settings: Settings
    services: Sequence[ResolvedService]
    loops: list[Running] = field(default_factory=list)
    edges: dict[str, Any] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    ready: bool = False
    why_not: str = "starting"
    end: asyncio.Event = field(default_factory=asyncio.Event)
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    failure: str = ""

    def failed(self, name: str, error: BaseException) -> None:
        """A part cannot go on: end the process. May be called from any thread."""
        if not self.failure:
            self.failure = f"{name}: {type(error).__name__}: {error}"
        log.error("worker ended", worker=name, error=str(error), exc_info=not isinstance(error, BackboneError))
        self.loop.call_soon_threadsafe(self.end.set)

    def status(self) -> dict[str, Any]:
        """What every part holds and waits for."""
        return {
            "context": self.context.name,
            "services": [service.name for service in self.services],
            "build": self.settings.build,
            "slot": self.settings.slot,
            "ready": self.is_ready(),
            "why_not": self.waits_for(),
            "addresses": self.addresses,
            "loops": {running.name: running.status() for running in self.loops},
            "edges": {name: edge.status() for name, edge in self.edges.items()},
        }

    def is_ready(self) -> bool:
        """Whether every loop does its work and every server is open."""
        return self.ready and all(running.ready for running in self.loops)

    def waits_for(self) -> str:
        """What is missing until it is ready."""
        waiting = [running.name for running in self.loops if not running.ready]
        return self.why_not or (f"waiting for {', '.join(waiting)}" if waiting else "")

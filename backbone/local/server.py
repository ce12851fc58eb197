"""A server that belongs to whoever started it."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from backbone.local.processes import STOP_S, Announce, Process, kill_all


class Server:
    """A process that others speak to: started it answers, and it ends with its block.

    Attributes:
        process: the process, not started yet.
    """

    process: Process

    def start(self) -> Self:
        """Starts the server and waits until it answers.

        Raises:
            StartError: it ended or did not answer in time; with the last lines of its log.
            LocalError: something that it needs is missing.
        """
        self.process.start()
        try:
            self.process.await_ready()
        except BaseException:
            kill_all([self.process])
            raise
        return self

    def stop(self, within: float = STOP_S, announce: Announce = print) -> None:
        """SIGTERM, then SIGKILL after `within` seconds, announced."""
        self.process.stop(within, announce)

    def kill(self) -> None:
        """SIGKILL, as a crash would; returns when it is gone."""
        kill_all([self.process])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
